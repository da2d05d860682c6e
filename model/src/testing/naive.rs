//! The model by brute force, as an oracle for the model and for everything faster. Only with the feature `proptest`.
//!
//! It shares types with the model and nothing else. It keeps a snapshot of the whole guest after every event. A
//! buffer's entry is the *set of moments* that its bytes may stem from, one more with every event; there are no version
//! lists, no ranges of time, no short cuts. Whatever is asked is answered by looking at all snapshots. It costs as much
//! as it sounds.
//!
//! Where instruction caches do not see stores, each moment of fetching stands for all moments before it: what the cache
//! held then may be what memory held at any of them, but each byte is no older than the maintenance that had taken
//! effect by the first fetch allows ([`Naive::floor`]).

use crate::addr::{Linear, Phys, Seq, Vcpu};
use crate::arch::decode::Decode;
use crate::arch::exemption::Exemption;
use crate::arch::maintenance::{Accesses, CacheType, Caches, Domain, Maintenance, Needs};
use crate::arch::profile::Profile;
use crate::event::{Event, Store};
use crate::machine::model::Model;
use crate::memory::PAGE;
use crate::verdict::candidates::Candidate;
use crate::verdict::kind::Kind;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

type Times = BTreeSet<usize>;

/// What one invalidation found to be clean: the moment up to which, for each byte of a line, or of all memory.
#[derive(Clone, Debug)]
struct Capture {
    by: Vcpu,
    /// Only of the CPU's own cache?
    own: bool,
    /// First byte and length; `None`: everything.
    line: Option<(Phys, u64)>,
    at: usize,
    dirty: BTreeMap<Phys, usize>,
}

/// The guest at one moment.
#[derive(Clone, Debug, Default)]
struct Snapshot {
    memory: BTreeMap<Phys, u8>,
    pages: BTreeMap<(Vcpu, Linear), Phys>,
}

/// A run of the trace buffer.
#[derive(Clone, Debug)]
struct Run {
    start: Linear,
    chunks: BTreeMap<Linear, Times>,
}

/// A vCPU's buffers, as sets of moments.
#[derive(Clone, Debug, Default)]
struct Buffered {
    /// In the order of filling.
    prefetch: Vec<(Linear, Times)>,
    /// In the order of their beginnings.
    runs: Vec<Run>,
    /// Which run is executed, and where it goes on.
    current: Option<(Linear, Linear)>,
    epoch_start: usize,
    /// Own stores since the last taken branch, and all that a branch made visible: chunk and moment.
    unseen: Vec<(Linear, usize)>,
    seen: Vec<(Linear, usize)>,
}

/// What the oracle says of an execution.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// What may be executed other than what is in memory, by bytes.
    pub others: BTreeMap<Vec<u8>, Candidate>,
    /// The kind of hazard, if it is one.
    pub kind: Option<Kind>,
}

/// The oracle.
#[derive(Clone, Debug)]
pub struct Naive {
    profile: Profile,
    decoder: Arc<dyn Decode>,
    /// Index n: after event n. The first is empty.
    snapshots: Vec<Snapshot>,
    /// Index n: event n; index 0 is none.
    events: Vec<Option<Event>>,
    committed: BTreeSet<usize>,
    captures: Vec<Capture>,
    /// Which captures took effect, when, and for whom; `None`: for all.
    effective: Vec<(usize, Option<Vcpu>, Capture)>,
    /// The vCPUs whose caches are off, and the stores that were made so.
    off: BTreeSet<Vcpu>,
    uncached: BTreeSet<usize>,
    vcpus: BTreeMap<Vcpu, Buffered>,
}

impl Naive {
    /// An oracle for a guest that has not begun to run.
    #[must_use]
    pub fn new(profile: Profile, decoder: impl Decode + 'static) -> Self {
        Self {
            profile,
            decoder: Arc::new(decoder),
            snapshots: vec![Snapshot::default()],
            events: vec![None],
            committed: BTreeSet::new(),
            captures: Vec::new(),
            effective: Vec::new(),
            off: BTreeSet::new(),
            uncached: BTreeSet::new(),
            vcpus: BTreeMap::new(),
        }
    }

    /// The profile.
    #[must_use]
    pub const fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Applies an event, which must be possible. Answers for an execution.
    pub fn apply(&mut self, event: &Event) -> Option<Answer> {
        let now = self.snapshots.len();
        let mut snapshot = self.snapshots[now - 1].clone();
        match event {
            Event::Contents { phys, bytes } => {
                for (i, byte) in (0..).zip(bytes) {
                    let at = phys.offset(i);
                    // Memory never becomes unknown again, so the present tells.
                    if !snapshot.memory.contains_key(&at) {
                        self.snapshots.iter_mut().chain([&mut snapshot]).for_each(|snapshot| {
                            snapshot.memory.insert(at, *byte);
                        });
                    }
                }
            }
            Event::Store(store) => {
                snapshot
                    .memory
                    .extend(store.bytes.iter().enumerate().map(|(i, byte)| (store.phys.offset(i as u64), *byte)));
            }
            Event::Remap { vcpu, linear, phys } => {
                snapshot.pages.remove(&(*vcpu, *linear));
                snapshot.pages.extend(phys.map(|phys| ((*vcpu, *linear), phys)));
            }
            _ => {}
        }
        self.snapshots.push(snapshot);
        self.events.push(Some(event.clone()));
        // Whatever is held may be brought in anew at any moment.
        for buffered in self.vcpus.values_mut() {
            let runs = buffered.runs.iter_mut().flat_map(|run| run.chunks.values_mut());
            for times in runs.chain(buffered.prefetch.iter_mut().map(|(_, times)| times)) {
                times.insert(now);
            }
        }
        match event {
            Event::Contents { .. } => {}
            Event::Store(store) => self.stored(store, now),
            Event::Attribute { store, vcpu, pc, linear } => self.attributed(store.0 as usize, *vcpu, *pc, *linear),
            Event::Remap { vcpu, linear, .. } => self.remapped(*vcpu, *linear, now),
            Event::Fetch { vcpu, linear, len } => {
                let answer = self.answer(*vcpu, *linear, *len, now);
                self.fetched(*vcpu, *linear, *len, now);
                return Some(answer);
            }
            Event::Branch { vcpu } => self.branched(*vcpu),
            Event::Sync { vcpu, event, .. } if self.profile.serializes(*event) => self.emptied(*vcpu, now),
            Event::Sync { .. } => {}
            Event::Commit { stores } => self.committed.extend(stores.iter().map(|seq| seq.0 as usize)),
            Event::Reset { vcpu } => self.emptied(*vcpu, now),
            Event::Maintain { vcpu, operation } => self.maintained(*vcpu, *operation, now),
            Event::Barrier { vcpu, domain, accesses: Accesses::All } => {
                let of_vcpu = self.captures.iter().filter(|capture| capture.by == *vcpu);
                let whom = |capture: &Capture| Some(*vcpu).filter(|_| capture.own || *domain == Domain::Own);
                self.effective.extend(of_vcpu.map(|capture| (now, whom(capture), capture.clone())));
            }
            Event::Barrier { .. } => {}
            Event::Caches { vcpu, on: true } => drop(self.off.remove(vcpu)),
            Event::Caches { vcpu, on: false } => drop(self.off.insert(*vcpu)),
        }
        None
    }

    fn caches(&self) -> Option<CacheType> {
        self.profile.incoherent_caches()
    }

    fn maintained(&mut self, vcpu: Vcpu, operation: Maintenance, now: usize) {
        let Some(caches) = self.caches() else { return };
        let capture = |line: Option<(Phys, u64)>, own| {
            let of_line = |phys: &Phys| line.is_none_or(|(first, len)| (first.0..first.0 + len).contains(&phys.0));
            let bytes = self.snapshots[now].memory.keys().copied().filter(of_line);
            let clean = |phys| (0..=now).rev().find(|at| self.is_clean(phys, self.version(phys, *at), now));
            let dirty = bytes.map(|phys| (phys, clean(phys).unwrap_or(0))).filter(|(_, clean)| *clean < now).collect();
            Capture { by: vcpu, own, line, at: now, dirty }
        };
        let size = caches.instruction_line;
        match operation {
            Maintenance::Clean(_) => {}
            Maintenance::Invalidate(phys) => {
                self.captures.push(capture(Some((Phys(phys.0 / size * size), size)), false));
            }
            Maintenance::InvalidateAll => self.captures.push(capture(None, false)),
            Maintenance::InvalidateOwn => self.captures.push(capture(None, true)),
            Maintenance::FetchFence => {
                let capture = Capture { by: vcpu, own: true, line: None, at: now, dirty: BTreeMap::new() };
                self.effective.push((now, Some(vcpu), capture));
            }
        }
    }

    /// The store that made the byte's version at that moment; 0 if none did.
    fn version(&self, phys: Phys, at: usize) -> usize {
        let value = |at: usize| self.snapshots[at].memory.get(&phys);
        (1..=at).rev().find(|seq| value(*seq) != value(*seq - 1)).unwrap_or(0)
    }

    fn store_at(&self, seq: usize) -> Option<&Store> {
        match self.events.get(seq) {
            Some(Some(Event::Store(store))) => Some(store),
            _ => None,
        }
    }

    /// Is there a barrier of that vCPU, or of any, between two moments that reaches all vCPUs, and waits for stores, or
    /// for everything?
    fn barrier_between(&self, who: Option<Vcpu>, after: usize, until: usize, everything: bool) -> bool {
        (after + 1..=until).any(|seq| match self.events[seq] {
            Some(Event::Barrier { vcpu, domain, accesses }) => {
                let waits = accesses == Accesses::All || accesses == Accesses::Stores && !everything;
                waits && domain != Domain::Own && who.is_none_or(|who| who == vcpu)
            }
            _ => false,
        })
    }

    fn needs_clean(&self, store: usize) -> bool {
        self.caches().is_some_and(|caches| caches.needs != Needs::Invalidate) && !self.uncached.contains(&store)
    }

    /// The cleans of a byte's line after a store, in order: who and when.
    fn cleans(&self, phys: Phys, store: usize) -> Vec<(Vcpu, usize)> {
        let size = self.caches().map_or(1, |caches| caches.data_line);
        let clean = |seq: usize| match self.events[seq] {
            Some(Event::Maintain { vcpu, operation: Maintenance::Clean(line) }) if line.0 / size == phys.0 / size => {
                Some((vcpu, seq))
            }
            _ => None,
        };
        (store + 1..self.events.len()).filter_map(clean).collect()
    }

    /// Was the version that this store made of the byte clean at that moment? 0: before all history.
    fn is_clean(&self, phys: Phys, store: usize, at: usize) -> bool {
        let cleaned =
            || self.cleans(phys, store).iter().any(|(by, seq)| self.barrier_between(Some(*by), *seq, at, true));
        let writer = self.store_at(store).and_then(|store| store.vcpu);
        let complete = || !self.needs_clean(store) && self.barrier_between(writer, store, at, false);
        store == 0 || cleaned() || complete()
    }

    /// The oldest moment whose value of the byte the vCPU's instruction cache may have returned at that moment.
    fn floor(&self, vcpu: Vcpu, phys: Phys, at: usize) -> usize {
        if self.caches().is_none() {
            return at;
        }
        let taken = self.effective.iter().filter(|(from, whom, _)| *from <= at && whom.is_none_or(|whom| whom == vcpu));
        let of_byte = taken
            .filter(|(.., capture)| capture.line.is_none_or(|(first, len)| (first.0..first.0 + len).contains(&phys.0)));
        of_byte.map(|(.., capture)| capture.dirty.get(&phys).copied().unwrap_or(capture.at)).max().unwrap_or(0)
    }

    /// What the storing vCPU left out; if nothing, it is the executor's fault.
    fn missing(&self, vcpu: Vcpu, phys: Phys, store: usize, now: usize) -> Kind {
        if self.caches().is_none() || self.floor(vcpu, phys, now) >= store {
            return Kind::Unsynchronized;
        }
        let cleans = self.cleans(phys, store);
        if !self.is_clean(phys, store, now) {
            return if self.needs_clean(store) && cleans.is_empty() { Kind::Unclean } else { Kind::Incomplete };
        }
        let size = self.caches().map_or(1, |caches| caches.instruction_line);
        let clean = if self.needs_clean(store) { cleans.last().map_or(0, |(_, seq)| *seq) } else { store };
        let invalidated = (clean + 1..self.events.len()).any(|seq| match self.events[seq] {
            Some(Event::Maintain { vcpu: by, operation }) => match operation {
                Maintenance::Clean(_) => false,
                Maintenance::Invalidate(line) => line.0 / size == phys.0 / size,
                Maintenance::InvalidateAll => true,
                Maintenance::InvalidateOwn | Maintenance::FetchFence => by == vcpu,
            },
            _ => false,
        });
        if invalidated { Kind::Incomplete } else { Kind::Uninvalidated }
    }

    fn chunk(&self, linear: Linear) -> Linear {
        linear.align_down(u64::from(self.profile.buffers.chunk))
    }

    /// The chunks of `len` bytes, byte for byte.
    fn chunks(&self, linear: Linear, len: u64) -> BTreeSet<Linear> {
        (0..len).map(|i| self.chunk(linear.offset(i))).collect()
    }

    fn phys(&self, vcpu: Vcpu, linear: Linear, at: usize) -> Option<Phys> {
        let page = linear.align_down(PAGE);
        self.snapshots[at].pages.get(&(vcpu, page)).map(|phys| phys.offset(linear.0 - page.0))
    }

    fn byte(&self, vcpu: Vcpu, linear: Linear, at: usize) -> Option<u8> {
        self.snapshots[at].memory.get(&self.phys(vcpu, linear, at)?).copied()
    }

    fn stored(&mut self, store: &Store, now: usize) {
        if self.caches().is_some() && store.vcpu.is_some_and(|vcpu| self.off.contains(&vcpu)) {
            self.uncached.insert(now);
        }
        let (chunk, branch, snoop) =
            (u64::from(self.profile.buffers.chunk), self.profile.buffers.own_store_at_branch, self.profile.snoop);
        if let (Some(vcpu), Some(linear), true) = (store.vcpu, store.linear, branch) {
            let chunks = self.chunks(linear, store.bytes.len() as u64);
            self.vcpus.entry(vcpu).or_default().unseen.extend(chunks.into_iter().map(|chunk| (chunk, now)));
        }
        let written: BTreeSet<Phys> = (0..store.bytes.len() as u64).map(|i| store.phys.offset(i)).collect();
        let snapshot = &self.snapshots[now];
        for (vcpu, buffered) in self.vcpus.iter_mut().filter(|_| snoop) {
            buffered.discard(|held| {
                let page = held.align_down(PAGE);
                let phys = snapshot.pages.get(&(*vcpu, page)).map(|phys| phys.offset(held.0 - page.0));
                phys.is_some_and(|phys| (0..chunk).any(|i| written.contains(&phys.offset(i))))
            });
        }
    }

    fn attributed(&mut self, at: usize, vcpu: Vcpu, pc: Option<Linear>, through: Option<Linear>) {
        let Some(Some(Event::Store(store))) = self.events.get_mut(at) else { return };
        if store.vcpu.is_some() {
            return;
        }
        *store = Store { vcpu: Some(vcpu), pc, linear: through, ..store.clone() };
        let len = store.bytes.len() as u64;
        if let (Some(linear), true) = (through, self.profile.buffers.own_store_at_branch) {
            let chunks = self.chunks(linear, len);
            self.vcpus.entry(vcpu).or_default().unseen.extend(chunks.into_iter().map(|chunk| (chunk, at)));
        }
    }

    fn remapped(&mut self, vcpu: Vcpu, page: Linear, now: usize) {
        let moved = self.phys(vcpu, page, now) != self.phys(vcpu, page, now - 1);
        if self.profile.snoop && moved {
            self.vcpus.entry(vcpu).or_default().discard(|held| held.align_down(PAGE) == page);
        }
    }

    fn branched(&mut self, vcpu: Vcpu) {
        let buffered = self.vcpus.entry(vcpu).or_default();
        buffered.prefetch.clear();
        buffered.current = None;
        for (chunk, store) in std::mem::take(&mut buffered.unseen) {
            for run in &mut buffered.runs {
                if let Some(times) = run.chunks.get_mut(&chunk) {
                    times.retain(|time| *time >= store);
                }
            }
            buffered.seen.push((chunk, store));
        }
    }

    fn emptied(&mut self, vcpu: Vcpu, now: usize) {
        self.vcpus.insert(vcpu, Buffered { epoch_start: now, ..Buffered::default() });
    }

    fn held(&self, vcpu: Vcpu, chunk: Linear) -> Times {
        self.vcpus.get(&vcpu).map_or_else(Times::new, |buffered| buffered.times(chunk))
    }

    fn fetched(&mut self, vcpu: Vcpu, linear: Linear, len: u8, now: usize) {
        let buffers = self.profile.buffers;
        let touched: Vec<_> =
            self.chunks(linear, u64::from(len)).into_iter().map(|chunk| (chunk, self.held(vcpu, chunk))).collect();
        let ahead: Vec<_> = self
            .chunks(linear, u64::from(len) + u64::from(buffers.lookahead))
            .into_iter()
            .filter(|chunk| self.phys(vcpu, *chunk, now).is_some())
            .collect();
        let buffered = self.vcpus.entry(vcpu).or_default();
        let start = buffered.current.filter(|(_, next)| *next == linear).map_or(linear, |(start, _)| start);
        buffered.current = Some((start, linear.offset(u64::from(len))));
        if buffered.runs.iter().all(|run| run.start != start) {
            buffered.runs.push(Run { start, chunks: BTreeMap::new() });
        }
        for run in buffered.runs.iter_mut().filter(|run| run.start == start) {
            for (chunk, times) in &touched {
                run.chunks.entry(*chunk).or_default().extend(times.iter().copied().chain([now]));
            }
        }
        let surplus = buffers.trace.map_or(0, |trace| buffered.runs.len().saturating_sub(trace as usize));
        buffered.runs.drain(..surplus);
        for chunk in ahead {
            if buffered.prefetch.iter().all(|(held, _)| *held != chunk) {
                buffered.prefetch.push((chunk, Times::from([now])));
            }
            let room = buffers.prefetch.map_or(usize::MAX, |bytes| (bytes / buffers.chunk) as usize);
            let surplus = buffered.prefetch.len().saturating_sub(room);
            buffered.prefetch.drain(..surplus);
        }
    }

    fn answer(&self, vcpu: Vcpu, linear: Linear, len: u8, now: usize) -> Answer {
        let question = Question { naive: self, vcpu, linear, len: usize::from(len), now };
        let present = Times::from([now]);
        let held = |chunk| {
            let times = self.held(vcpu, chunk);
            if times.is_empty() { present.clone() } else { times }
        };
        let mut others = question.others(&held, false);
        if self.profile.buffers.speculation && !self.profile.snoop {
            let buffered = self.vcpus.get(&vcpu).cloned().unwrap_or_default();
            let speculated = |chunk: Linear| {
                let mut times: Times = (buffered.epoch_start..=now).collect();
                for (_, store) in buffered.seen.iter().filter(|(seen, _)| *seen == chunk) {
                    times.retain(|time| time >= store);
                }
                times
            };
            for (bytes, candidate) in question.others(&speculated, true) {
                others.entry(bytes).or_insert(candidate);
            }
        }
        let kind = others.values().filter(|candidate| !candidate.exempt).filter_map(|candidate| candidate.kind).min();
        Answer { others, kind }
    }
}

impl Buffered {
    /// All moments that a chunk's bytes may stem from.
    fn times(&self, chunk: Linear) -> Times {
        let prefetched = self.prefetch.iter().filter(|(held, _)| *held == chunk).flat_map(|(_, times)| times);
        let traced = self.runs.iter().filter_map(|run| run.chunks.get(&chunk)).flatten();
        prefetched.chain(traced).copied().collect()
    }

    fn discard(&mut self, hit: impl Fn(Linear) -> bool) {
        self.prefetch.retain(|(chunk, _)| !hit(*chunk));
        for run in &mut self.runs {
            run.chunks.retain(|chunk, _| !hit(*chunk));
        }
    }
}

/// One execution that the oracle is asked about.
struct Question<'a> {
    naive: &'a Naive,
    vcpu: Vcpu,
    linear: Linear,
    len: usize,
    now: usize,
}

impl Question<'_> {
    fn at(&self, i: usize) -> Linear {
        self.linear.offset(i as u64)
    }

    fn byte(&self, i: usize, at: usize) -> Option<u8> {
        self.naive.byte(self.vcpu, self.at(i), at)
    }

    /// The byte of a chunk that was first fetched, where its page is, at `first`, with what memory held at `moment`.
    fn fetched(&self, i: usize, first: usize, moment: usize) -> Option<u8> {
        let phys = self.naive.phys(self.vcpu, self.at(i), first)?;
        self.naive.snapshots[self.stems(i, first, moment)].memory.get(&phys).copied()
    }

    /// The moment that it stems from.
    fn stems(&self, i: usize, first: usize, moment: usize) -> usize {
        let phys = self.naive.phys(self.vcpu, self.at(i), first);
        phys.map_or(first, |phys| moment.max(self.naive.floor(self.vcpu, phys, first)))
    }

    /// Since when, but not before `earliest`, the page of a byte was where it was at that moment.
    fn placed(&self, i: usize, earliest: usize, at: usize) -> usize {
        let place = |at| self.naive.phys(self.vcpu, self.at(i), at);
        (earliest..=at).rev().take_while(|earlier| place(*earlier) == place(at)).last().unwrap_or(at)
    }

    /// When a chunk may have been fetched first where its page was, and what memory held then: at each moment of
    /// fetching, of now or of any time before.
    fn moments(&self, chunk: Linear, times: &Times) -> BTreeSet<(usize, usize)> {
        let i = (0..self.naive.decoder.max_len()).find(|i| self.naive.chunk(self.at(*i)) == chunk).unwrap_or(0);
        let moments = times.iter().flat_map(|time| {
            let first = self.placed(i, times.first().copied().unwrap_or(*time), *time);
            let oldest = if self.naive.caches().is_some() { 0 } else { *time };
            let first = if self.naive.caches().is_some() { first } else { *time };
            (oldest..=*time).map(move |moment| (first, moment))
        });
        moments.collect()
    }

    /// The first moment that makes a difference to these bytes, down to `oldest`, if they were first fetched at
    /// `first`.
    fn earliest(&self, positions: &[usize], first: usize, oldest: usize) -> usize {
        let string = |moment| positions.iter().map(|i| self.fetched(*i, first, moment)).collect::<Vec<_>>();
        if (oldest..=first).all(|moment| string(moment) == string(first)) { first } else { oldest.min(first) }
    }

    /// Did all these bytes stand in memory together at one time, and may they have been fetched together after it?
    fn is_whole(&self, bytes: &[u8], times: &dyn Fn(Linear) -> Times) -> bool {
        let window = self.naive.decoder.max_len();
        let in_chunk = |chunk: Linear, len: usize| -> Vec<usize> {
            (0..len).filter(|i| self.naive.chunk(self.at(*i)) == chunk).collect()
        };
        let chunks = self.in_order(bytes.len());
        let first = chunks.iter().flat_map(|chunk| times(*chunk)).min().unwrap_or(self.now);
        if self.naive.caches().is_none() {
            let all: Vec<usize> = (0..bytes.len()).collect();
            return (first..=self.now).any(|time| self.stood(bytes, &all, time, time));
        }
        let oldest = chunks.iter().flat_map(|chunk| {
            let positions = in_chunk(*chunk, window);
            let firsts: BTreeSet<_> =
                self.moments(*chunk, &times(*chunk)).into_iter().map(|(first, _)| first).collect();
            firsts.into_iter().map(move |first| {
                let floors = positions.iter().map(|i| self.stems(*i, first, 0)).min().unwrap_or(first);
                self.earliest(&positions, first, floors)
            })
        });
        let oldest = oldest.min().unwrap_or(first);
        (first..=self.now).any(|time| {
            (oldest..=time).any(|moment| {
                chunks.iter().all(|chunk| {
                    let positions = in_chunk(*chunk, bytes.len());
                    let placed = self.placed(positions[0], first, time);
                    self.stood(bytes, &positions, placed, moment)
                })
            })
        })
    }

    fn others(&self, times: &dyn Fn(Linear) -> Times, speculative: bool) -> BTreeMap<Vec<u8>, Candidate> {
        let window = self.naive.decoder.max_len();
        // Every byte string that the window may read: chunk for chunk, at every moment of it.
        let mut strings = BTreeSet::from([Vec::new()]);
        for chunk in self.in_order(window) {
            let mut longer = BTreeSet::new();
            for (first, moment) in self.moments(chunk, &times(chunk)) {
                let piece: Vec<_> = (0..window)
                    .filter(|i| self.naive.chunk(self.at(*i)) == chunk)
                    .map(|i| self.fetched(i, first, moment))
                    .collect();
                longer.extend(strings.iter().map(|string: &Vec<Option<u8>>| [&string[..], &piece].concat()));
            }
            strings = longer;
        }
        let memory: Vec<u8> = (0..self.len).filter_map(|i| self.byte(i, self.now)).collect();
        let mut others = BTreeMap::new();
        for string in strings {
            let known: Vec<u8> = string.iter().map_while(|byte| *byte).collect();
            let len = self.naive.decoder.len(&known).unwrap_or(self.len);
            let Some(bytes) = known.get(..len) else { continue };
            let common = len.min(memory.len());
            if bytes[..common] != memory[..common] && !others.contains_key(bytes) {
                others.insert(bytes.to_vec(), self.candidate(bytes, &memory, times, speculative));
            }
        }
        others
    }

    /// The chunks of the first bytes of the window, in the order in which they come.
    fn in_order(&self, len: usize) -> Vec<Linear> {
        let mut chunks: Vec<_> = (0..len).map(|i| self.naive.chunk(self.at(i))).collect();
        chunks.dedup();
        chunks
    }

    fn stood(&self, bytes: &[u8], positions: &[usize], first: usize, moment: usize) -> bool {
        positions.iter().all(|i| self.fetched(*i, first, moment) == Some(bytes[*i]))
    }

    fn candidate(&self, bytes: &[u8], memory: &[u8], times: &dyn Fn(Linear) -> Times, speculative: bool) -> Candidate {
        let all: Vec<usize> = (0..bytes.len()).collect();
        let whole = self.is_whole(bytes, times);

        let mut versions = Vec::new();
        let mut separated_by = BTreeSet::new();
        let mut worst = Kind::Unserialized;
        let mut blamed: BTreeMap<usize, Kind> = BTreeMap::new();
        let mut one_each = true;
        for i in 0..bytes.len() {
            let chunk = self.naive.chunk(self.at(i));
            let mates: Vec<_> = all.iter().copied().filter(|j| self.naive.chunk(self.at(*j)) == chunk).collect();
            let moments = self.moments(chunk, &times(chunk));
            let last = moments.into_iter().filter(|(first, moment)| self.stood(bytes, &mates, *first, *moment)).max();
            let (first, last) = last.map_or((0, 0), |(first, last)| (first, self.stems(i, first, last)));
            let then = self.naive.phys(self.vcpu, self.at(i), first);
            versions
                .push(Seq(
                    (1..=last).rev().find(|seq| then.is_some_and(|phys| self.changed(phys, *seq))).unwrap_or(0) as u64
                ));
            if self.byte(i, self.now) == Some(bytes[i]) {
                continue;
            }
            let here = self.naive.phys(self.vcpu, self.at(i), self.now);
            let culprits: Vec<_> =
                (last + 1..=self.now).filter(|seq| here.is_some_and(|phys| self.changed(phys, *seq))).collect();
            one_each &= culprits.len() == 1;
            for (seq, phys) in culprits.into_iter().zip(here.into_iter().cycle()) {
                worst = worst.min(self.kind_of(seq, phys, self.at(i)));
                let missing = self.naive.missing(self.vcpu, phys, seq, self.now);
                blamed.entry(seq).and_modify(|kind| *kind = missing.min(*kind)).or_insert(missing);
                separated_by.insert(seq);
            }
        }
        let lacks_commit = separated_by.iter().any(|seq| self.naive.committed.contains(seq));
        let exempt = !lacks_commit
            && whole
            && self.naive.profile.exemptions.iter().any(|exemption| match *exemption {
                Exemption::Breakpoint(breakpoint) => memory.starts_with(breakpoint) != bytes.starts_with(breakpoint),
                Exemption::Listed(list) => [memory, bytes].into_iter().all(|side| {
                    side.len() >= 4
                        && list.iter().any(|row| {
                            (0..4).all(|i| row.value.to_le_bytes()[i] == side[i] & row.mask.to_le_bytes()[i])
                        })
                }),
                Exemption::AlignedStore(block) => {
                    one_each
                        && separated_by.len() == 1
                        && separated_by.iter().all(|seq| self.in_one_block(*seq, u64::from(block)))
                }
            });
        let kind = match (speculative, whole, lacks_commit) {
            (true, _, _) => Kind::Speculative,
            (_, false, _) => Kind::Torn,
            (_, _, true) => Kind::Stale,
            _ if self.naive.profile.caches != Caches::Coherent => {
                blamed.into_values().next().unwrap_or(Kind::Unsynchronized)
            }
            _ => worst,
        };
        let separated_by = separated_by.into_iter().map(|seq| Seq(seq as u64)).collect();
        Candidate {
            bytes: bytes.to_vec(),
            versions,
            whole,
            speculative,
            lacks_commit,
            kind: Some(kind),
            exempt,
            separated_by,
        }
    }

    fn changed(&self, phys: Phys, seq: usize) -> bool {
        self.naive.snapshots[seq].memory.get(&phys) != self.naive.snapshots[seq - 1].memory.get(&phys)
    }

    fn kind_of(&self, seq: usize, phys: Phys, linear: Linear) -> Kind {
        match self.naive.store_at(seq) {
            Some(store) if store.vcpu == Some(self.vcpu) => {
                let through = store.linear.map(|through| through.offset(phys.0 - store.phys.0));
                if through == Some(linear) { Kind::Smc } else { Kind::Alias }
            }
            _ => Kind::Unserialized,
        }
    }

    fn in_one_block(&self, seq: usize, block: u64) -> bool {
        self.naive.store_at(seq).is_some_and(|store| {
            let blocks: BTreeSet<_> = (0..store.bytes.len() as u64).map(|i| (store.phys.0 + i) / block).collect();
            store.vcpu.is_some() && blocks.len() == 1
        })
    }
}

/// Has the model follow an event that is possible, and compares what it says with the oracle's answer to the same one.
///
/// # Panics
/// They differ, in the candidates, the kind or the stores that are blamed; or the model refuses the event.
pub fn compare(model: &mut Model, event: &Event, answer: Option<&Answer>) {
    let asked = match event {
        Event::Fetch { vcpu, linear, len } => Some(model.candidates(*vcpu, *linear, *len).expect("possible")),
        _ => None,
    };
    let verdict = model.apply(event).expect("possible");
    let (Some(candidates), Some(answer)) = (asked, answer) else {
        assert_eq!(verdict.hazard, None);
        return;
    };
    assert_eq!(verdict.complete, candidates.complete);
    if !verdict.complete {
        return;
    }
    let mut found: Vec<_> = candidates.others().to_vec();
    found.sort_by(|a, b| a.bytes.cmp(&b.bytes));
    assert_eq!(found, answer.others.values().cloned().collect::<Vec<_>>());
    assert_eq!(verdict.hazard.as_ref().map(|hazard| hazard.kind), answer.kind);
    assert_eq!(verdict.exempt, answer.others.values().filter(|candidate| candidate.exempt).count());
    if let Some(hazard) = &verdict.hazard {
        let blamed: BTreeSet<_> = answer
            .others
            .values()
            .filter(|candidate| !candidate.exempt)
            .flat_map(|candidate| candidate.separated_by.clone())
            .collect();
        assert_eq!(
            hazard.writes.iter().map(|write| write.seq).collect::<Vec<_>>(),
            blamed.into_iter().collect::<Vec<_>>()
        );
        assert!(!hazard.writes.is_empty() || hazard.remapped.is_some(), "something explains every hazard");
    }
}
