//! The model by brute force, as an oracle for the model and for everything faster. Only with the feature `proptest`.
//!
//! It shares types with the model and nothing else. It keeps a snapshot of the whole guest after every event. A
//! buffer's entry is the *set of moments* that its bytes may stem from, one more with every event; there are no version
//! lists, no ranges of time, no short cuts. Whatever is asked is answered by looking at all snapshots. It costs as much
//! as it sounds.

use crate::addr::{Linear, Phys, Seq, Vcpu};
use crate::arch::decode::Decode;
use crate::arch::exemption::Exemption;
use crate::arch::profile::Profile;
use crate::event::{Event, Store};
use crate::machine::model::Model;
use crate::memory::PAGE;
use crate::verdict::candidates::Candidate;
use crate::verdict::kind::Kind;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

type Times = BTreeSet<usize>;

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
        }
        None
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

    fn others(&self, times: &dyn Fn(Linear) -> Times, speculative: bool) -> BTreeMap<Vec<u8>, Candidate> {
        let window = self.naive.decoder.max_len();
        // Every byte string that the window may read: chunk for chunk, at every moment of it.
        let mut strings = BTreeSet::from([Vec::new()]);
        for chunk in self.in_order(window) {
            let mut longer = BTreeSet::new();
            for time in times(chunk) {
                let piece: Vec<_> = (0..window)
                    .filter(|i| self.naive.chunk(self.at(*i)) == chunk)
                    .map(|i| self.byte(i, time))
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

    fn stood(&self, bytes: &[u8], positions: &[usize], time: usize) -> bool {
        positions.iter().all(|i| self.byte(*i, time) == Some(bytes[*i]))
    }

    fn candidate(&self, bytes: &[u8], memory: &[u8], times: &dyn Fn(Linear) -> Times, speculative: bool) -> Candidate {
        let all: Vec<usize> = (0..bytes.len()).collect();
        let chunks = self.in_order(bytes.len());
        let first = chunks.iter().flat_map(|chunk| times(*chunk)).min().unwrap_or(self.now);
        let whole = (first..=self.now).any(|time| self.stood(bytes, &all, time));

        let mut versions = Vec::new();
        let mut separated_by = BTreeSet::new();
        let mut worst = Kind::Unserialized;
        let mut one_each = true;
        for i in 0..bytes.len() {
            let chunk = self.naive.chunk(self.at(i));
            let mates: Vec<_> = all.iter().copied().filter(|j| self.naive.chunk(self.at(*j)) == chunk).collect();
            let last = times(chunk).into_iter().filter(|time| self.stood(bytes, &mates, *time)).max().unwrap_or(0);
            let then = self.naive.phys(self.vcpu, self.at(i), last);
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
                separated_by.insert(seq);
            }
        }
        let lacks_commit = separated_by.iter().any(|seq| self.naive.committed.contains(seq));
        let exempt = !lacks_commit
            && whole
            && self.naive.profile.exemptions.iter().any(|exemption| match *exemption {
                Exemption::Breakpoint(breakpoint) => memory.starts_with(breakpoint) != bytes.starts_with(breakpoint),
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

    fn store(&self, seq: usize) -> Option<&Store> {
        match self.naive.events.get(seq) {
            Some(Some(Event::Store(store))) => Some(store),
            _ => None,
        }
    }

    fn kind_of(&self, seq: usize, phys: Phys, linear: Linear) -> Kind {
        match self.store(seq) {
            Some(store) if store.vcpu == Some(self.vcpu) => {
                let through = store.linear.map(|through| through.offset(phys.0 - store.phys.0));
                if through == Some(linear) { Kind::Smc } else { Kind::Alias }
            }
            _ => Kind::Unserialized,
        }
    }

    fn in_one_block(&self, seq: usize, block: u64) -> bool {
        self.store(seq).is_some_and(|store| {
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
