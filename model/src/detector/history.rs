//! The store side of a fast detector: what it keeps behind a lock, and asks only when a vCPU executes code that
//! changed.
//!
//! [`crate::machine::model::Model`] follows every execution. A detector that is to be fast knows only, for each run of
//! instructions and each vCPU, *whether and since when* the vCPU executed the run in its current epoch. That is enough:
//! with unbounded buffers a chunk is held since the first execution of any run that touches it. A [`History`] takes
//! that list, the vCPU's footprints ([`Footprint`]), where the model has its buffers, and judges with the model's own
//! code ([`crate::verdict::execution`]).
//!
//! Where it cannot be as good as the model:
//! 1. It serves unbounded buffers without look-ahead only ([`History::serves`]). Recordings of the others can be
//!    replayed in the model.
//! 2. A page's past mappings are those of the runs that the vCPU executed in its epoch, no longer than that. What a
//!    page was in between is missed, and so is an older instruction that was longer and reached into a page that is not
//!    known ([`Place::second`]).
//! 3. With speculation it takes every page to have been mapped for the whole epoch.
//! 4. Where an instruction cache does not see stores, changes that nobody maintains are kept for
//!    `TOO_MANY_UNHELD` versions of a cell; an execution of it after that is not judged in full.
//! 5. A taken branch after an own store is inferred by the caller of [`History::branch`].

use crate::addr::{Epoch, Linear, Phys, Seq, Vcpu};
use crate::arch::decode::Decode;
use crate::arch::maintenance::{Accesses, Domain, Maintenance};
use crate::arch::profile::{Buffers, Profile};
use crate::detector::light::CodeRun;
use crate::event::Store;
use crate::fetch::held::Held;
use crate::fetch::instruction_cache::{InstructionCache, NEVER, Raised};
use crate::fetch::own_stores::{OwnStores, chunks};
use crate::memory::mapping::Mapping;
use crate::memory::{CELL, Memory, PAGE, TOO_MANY_VERSIONS};
use crate::verdict::candidates::Candidates;
use crate::verdict::execution::Execution;
use crate::verdict::hazard::Verdict;
use crate::verdict::last_sync::LastSync;
use std::collections::BTreeMap;
use std::sync::Arc;

/// At so many changes of one cell that no vCPU's buffers hold, and that nobody's maintenance settles, half of them are
/// forgotten, although an instruction cache may return them.
const TOO_MANY_UNHELD: usize = 64;

/// Who can hold what some bytes were.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Holding {
    /// A vCPU, from that moment on.
    Since(Seq),
    /// No vCPU: each that executed anything there has serialized since.
    Nobody,
    /// Nobody: nothing was ever executed there.
    NeverRan,
}

/// How many changes are walked back to find out when a run's bytes stood in memory.
const MAX_WALK: usize = 64;

/// Where a run lies: the physical pages of its first and of its second linear page.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Place {
    /// The linear page of the run's first byte.
    pub page: Linear,
    /// Where that is in memory.
    pub first: Phys,
    /// Where the page after it is, if that is known.
    pub second: Option<Phys>,
}

impl Place {
    /// The physical address of a byte.
    #[must_use]
    pub fn phys(&self, at: Linear) -> Option<Phys> {
        match at.0.wrapping_sub(self.page.0) {
            offset if offset < PAGE => Some(self.first.offset(offset)),
            offset if offset < 2 * PAGE => self.second.map(|second| second.offset(offset - PAGE)),
            _ => None,
        }
    }

    /// Where `len` bytes from `start` on are in memory: an address and a number of bytes for each page, as far as that
    /// is known.
    pub fn ranges(&self, start: Linear, len: u64) -> impl Iterator<Item = (Phys, u64)> + use<> {
        let from = start.0.wrapping_sub(self.page.0);
        let pages = [(0, Some(self.first)), (PAGE, self.second)];
        pages.into_iter().filter_map(move |(page, phys)| {
            let (phys, first, end) = (phys?, from.max(page), from.saturating_add(len).min(page + PAGE));
            (first < end).then(|| (phys.offset(first - page), end - first))
        })
    }

    /// Linear and physical page, once or twice.
    fn pages(&self) -> impl Iterator<Item = (Linear, Phys)> {
        [Some((self.page, self.first)), self.second.map(|second| (self.page.offset(PAGE), second))]
            .into_iter()
            .flatten()
    }
}

/// A run that a vCPU executed in its current epoch.
#[derive(Clone, Copy, Debug)]
pub struct Footprint<'a> {
    /// The run.
    pub run: &'a CodeRun,
    /// Where it lay.
    pub place: Place,
    /// The first time in this epoch.
    pub since: Seq,
}

/// A vCPU is about to execute a run.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Who.
    pub vcpu: Vcpu,
    /// The run.
    pub run: &'a CodeRun,
    /// Where it lies.
    pub place: Place,
    /// What the vCPU executed in this epoch in the run's chunks and in those right behind it, in any order.
    pub footprints: &'a [Footprint<'a>],
    /// What began the epoch.
    pub last_sync: Option<LastSync>,
    /// The epoch.
    pub epoch: Epoch,
    /// This moment. Later than every `since` if a page moved in the meantime.
    pub now: Seq,
}

/// The verdict on one instruction of a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Judged {
    /// The instruction's address.
    pub linear: Linear,
    /// The verdict.
    pub verdict: Verdict,
}

/// Versioned code memory and what own stores did, for all vCPUs.
#[derive(Clone, Debug)]
pub struct History {
    profile: Profile,
    decoder: Arc<dyn Decode>,
    memory: Memory,
    cache: InstructionCache,
    own: Vec<(Epoch, OwnStores)>,
}

impl History {
    /// A history without events.
    #[must_use]
    pub fn new(profile: Profile, decoder: impl Decode + 'static, vcpus: usize) -> Self {
        let own = vec![(Epoch::default(), OwnStores::default()); vcpus];
        let cache = InstructionCache::new(profile.incoherent_caches(), vcpus);
        Self { profile, decoder: Arc::new(decoder), memory: Memory::default(), cache, own }
    }

    /// Can a history judge for these buffers?
    #[must_use]
    pub fn serves(buffers: &Buffers) -> bool {
        buffers.lookahead == 0 && buffers.prefetch.is_none() && buffers.trace.is_none()
    }

    /// Memory and its past.
    #[must_use]
    pub const fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Memory and its past, to note contents, attributions and commits, or to forget.
    pub const fn memory_mut(&mut self) -> &mut Memory {
        &mut self.memory
    }

    /// How many bytes from an instruction's first on matter to what it may be.
    #[must_use]
    pub fn window(&self) -> u64 {
        self.decoder.max_len() as u64
    }

    fn chunk(&self) -> u64 {
        u64::from(self.profile.buffers.chunk)
    }

    /// What the past of these bytes matters to: who executed nothing in there in his epoch can hold nothing of them
    /// from before this moment, and nothing that he executes later asks what they were. That is the chunks of every
    /// instruction that may have one of them in its window. `None` if it reaches beyond the page: in linear memory
    /// another one may lie there.
    #[must_use]
    pub fn neighbourhood(&self, phys: Phys, len: u64) -> Option<(Phys, u64)> {
        let (window, chunk) = (self.window(), self.chunk().min(PAGE));
        let page = phys.align_down(PAGE);
        let first = Phys(phys.0.saturating_sub(window - 1)).align_down(chunk);
        let end = phys.offset(len + window - 1).0.next_multiple_of(chunk);
        (first >= page && end <= page.0 + PAGE).then_some((first, end - first.0))
    }

    /// Forgets what the cell that holds this byte was, as far as nobody can hold it: `held` answers since when anybody
    /// has executed anything at such an address in an epoch that has not ended, and whether anything was ever executed
    /// there; `horizon` is when the oldest epoch began. The latest few changes stay: a store may be told of while
    /// a vCPU that executes what was there before is just about to say so.
    pub fn forget_unheld(&mut self, phys: Phys, horizon: Seq, latest: usize, held: impl FnOnce(Phys, u64) -> Holding) {
        let cell = Phys(phys.0 - phys.0 % CELL as u64);
        let speculation = self.profile.buffers.speculation;
        let holding =
            self.neighbourhood(cell, CELL as u64).filter(|_| !speculation).map(|(first, len)| held(first, len));
        if self.cache.is_incoherent() {
            self.forget_unfetched(cell, horizon, holding);
        } else {
            self.forget_if_unheld(cell, horizon, latest, holding);
        }
        if self.memory.cell_versions(cell) >= TOO_MANY_VERSIONS {
            // An execution that asks for them finds that they are forgotten, and is not judged in full.
            self.memory.keep_latest(cell, latest);
        }
    }

    /// Where an instruction cache may return what nobody's buffers hold: all is needed from the floor on.
    fn forget_unfetched(&mut self, cell: Phys, horizon: Seq, holding: Option<Holding>) {
        let from = match holding {
            None => horizon,
            Some(Holding::Since(since)) => since.max(horizon),
            Some(Holding::Nobody | Holding::NeverRan) => NEVER,
        };
        self.memory.forget_cell_before(cell, from.min(self.cache.oldest(cell, CELL as u64, from)));
        if from == NEVER && self.memory.cell_versions(cell) >= TOO_MANY_UNHELD {
            // As below.
            self.memory.keep_latest(cell, TOO_MANY_UNHELD / 2);
        }
    }

    fn forget_if_unheld(&mut self, cell: Phys, horizon: Seq, latest: usize, holding: Option<Holding>) {
        match holding {
            None => self.memory.forget_cell_before(cell, horizon),
            Some(Holding::Since(since)) => self.memory.forget_cell_before(cell, since.max(horizon)),
            Some(Holding::Nobody) => self.memory.keep_latest(cell, latest),
            Some(Holding::NeverRan) => self.memory.keep_latest(cell, 0),
        }
    }

    /// Forgets what was before event `horizon`, when the oldest epoch began.
    pub fn forget_before(&mut self, horizon: Seq) {
        let Self { memory, cache, .. } = self;
        if cache.is_incoherent() {
            memory.forget_before_each(horizon, |cell| cache.oldest(cell, CELL as u64, horizon));
            cache.forget_before(horizon, memory);
        } else {
            memory.forget_before(horizon);
        }
    }

    /// The line that an invalidation is good for, in bytes.
    #[must_use]
    pub fn line(&self) -> u64 {
        self.profile.incoherent_caches().map_or(0, |caches| caches.instruction_line)
    }

    /// The instruction caches that code is fetched through.
    #[must_use]
    pub const fn cache(&self) -> &InstructionCache {
        &self.cache
    }

    /// A maintenance instruction, at its place in the order. Answers whose lines may be fetched from otherwise than
    /// before.
    pub fn maintain(&mut self, seq: Seq, vcpu: Vcpu, operation: Maintenance) -> Raised {
        self.cache.maintain(seq, vcpu, operation, &self.memory)
    }

    /// A barrier, likewise. To be told where [`InstructionCache::awaits_barrier`] says yes.
    pub fn barrier(&mut self, seq: Seq, vcpu: Vcpu, domain: Domain, accesses: Accesses) -> Raised {
        self.cache.barrier(seq, vcpu, domain, accesses)
    }

    /// From now on the vCPU stores through its caches, or past them.
    pub fn caches(&mut self, vcpu: Vcpu, on: bool) {
        self.cache.caches(vcpu, on);
    }

    fn own(&mut self, vcpu: Vcpu, epoch: Epoch) -> Option<&mut OwnStores> {
        let (known, own) = self.own.get_mut(usize::from(vcpu.0))?;
        if *known != epoch {
            *known = epoch;
            own.clear();
        }
        Some(own)
    }

    /// A store, at its place in the order; `epoch` is that of the vCPU that made it.
    pub fn store(&mut self, seq: Seq, store: Store, epoch: Epoch) {
        self.own_store(seq, &store, epoch);
        self.cache.store(seq, &store);
        self.memory.store(seq, store);
    }

    /// The writer of an earlier store turned out; `epoch` is its epoch.
    pub fn attribute(&mut self, seq: Seq, vcpu: Vcpu, pc: Option<Linear>, linear: Option<Linear>, epoch: Epoch) {
        if self.memory.attribute(seq, vcpu, pc, linear)
            && let Some(record) = self.memory.record(seq)
        {
            let store = record.store.clone();
            self.own_store(seq, &store, epoch);
        }
    }

    fn own_store(&mut self, seq: Seq, store: &Store, epoch: Epoch) {
        let chunk = self.chunk();
        if let Some((linear, vcpu)) = store.linear.zip(store.vcpu).filter(|_| self.profile.buffers.own_store_at_branch)
            && let Some(own) = self.own(vcpu, epoch)
        {
            chunks(linear, store.bytes.len() as u64, chunk).for_each(|chunk| own.store(chunk, seq));
        }
    }

    /// Would a taken branch of this vCPU make a store of its own visible?
    pub fn awaits_branch(&mut self, vcpu: Vcpu, epoch: Epoch) -> bool {
        self.own(vcpu, epoch).is_some_and(|own| own.awaits_branch())
    }

    /// The vCPU took a branch. To be told where [`History::awaits_branch`] says yes.
    pub fn branch(&mut self, vcpu: Vcpu, epoch: Epoch) {
        if let Some(own) = self.own(vcpu, epoch) {
            own.branch();
        }
    }

    /// Judges every instruction of a run. What is not in the answer is silent, with no exemption needed and everything
    /// looked at.
    pub fn judge(&mut self, question: &Question<'_>) -> Vec<Judged> {
        let mut judged = Vec::new();
        self.each(question, |execution| {
            // An error means that a byte of it is not known: it lies in a page that could not be placed. That is not
            // judged, and the caller knows which pages those are.
            let Ok(verdict) = execution.verdict() else { return };
            if verdict.hazard.is_some() || verdict.exempt > 0 || !verdict.complete {
                judged.push(Judged { linear: execution.linear, verdict });
            }
        });
        judged
    }

    /// Everything that the vCPU may execute in place of the run's first instruction. `None`: a byte of it is not known.
    pub fn candidates(&mut self, question: &Question<'_>) -> Option<Candidates> {
        let mut candidates = None;
        self.each(question, |execution| {
            if execution.linear == question.run.linear() {
                candidates = execution.candidates().ok();
            }
        });
        candidates
    }

    /// Looks at the execution of each instruction of a run.
    fn each(&mut self, question: &Question<'_>, mut look: impl FnMut(&Execution<'_>)) {
        let Question { vcpu, run, epoch, now, .. } = *question;
        let nothing = OwnStores::default();
        self.own(vcpu, epoch);
        let own = self.own.get(usize::from(vcpu.0)).map_or(&nothing, |(_, own)| own);
        let held = FootprintChunks {
            since: self.held(question),
            own,
            epoch_start: question.last_sync.map_or(Seq(0), |sync| sync.seq),
        };
        let mapping = mapping(question);
        for (linear, bytes) in run.instructions() {
            look(&Execution {
                profile: &self.profile,
                decoder: &*self.decoder,
                memory: &self.memory,
                cache: &self.cache,
                mapping: &mapping,
                held: &held,
                last_sync: question.last_sync,
                epoch,
                vcpu,
                linear,
                len: bytes.len() as u8,
                now,
            });
        }
    }

    /// Since when each chunk is held.
    fn held(&self, question: &Question<'_>) -> BTreeMap<Linear, Seq> {
        let mut held: BTreeMap<Linear, Seq> = BTreeMap::new();
        for footprint in question.footprints {
            let since = self.last_match(footprint).unwrap_or(footprint.since);
            for chunk in chunks(footprint.run.linear(), footprint.run.bytes().len() as u64, self.chunk()) {
                held.entry(chunk).and_modify(|known| *known = (*known).min(since)).or_insert(since);
            }
        }
        held
    }

    /// A moment at which memory held the run: its `since`, if it did then. A vCPU takes its moment, and then finds in
    /// memory what it runs. If memory held something else at that moment, a store has put it there since, which was
    /// told of later: the first such one. (Bytes A become B, and A again. The vCPU comes while B has its place in the
    /// order, but is not noted yet, and the second A has none. It has found A, so it came after both, and holds nothing
    /// of B.) If there is none, the moment was taken after memory was looked at, as it is where a page moved: then it
    /// is the last one before.
    fn last_match(&self, footprint: &Footprint<'_>) -> Option<Seq> {
        let bytes = || {
            (0..)
                .zip(footprint.run.bytes())
                .filter_map(|(i, byte)| Some((footprint.place.phys(footprint.run.linear().offset(i))?, *byte)))
        };
        let differs =
            |at: Seq| bytes().any(|(phys, byte)| self.memory.byte(phys, at).is_some_and(|known| known != byte));
        let mut at = footprint.since;
        if !differs(at) {
            return Some(at);
        }
        let mut later: Vec<Seq> =
            bytes().flat_map(|(phys, _)| self.memory.changes(phys, at).collect::<Vec<_>>()).collect();
        later.sort_unstable();
        if let Some(later) = later.into_iter().find(|later| !differs(*later)) {
            return Some(later);
        }
        for _ in 0..MAX_WALK {
            if !differs(at) {
                return Some(at);
            }
            let change =
                bytes().filter_map(|(phys, _)| self.memory.changes(phys, Seq(0)).find(|seq| *seq <= at)).max()?;
            at = Seq(change.0.checked_sub(1)?);
        }
        None
    }
}

/// The vCPU's translations, as far as the question tells: where a page was when something was executed in it, and
/// nowhere in between.
fn mapping(question: &Question<'_>) -> Mapping {
    let mut mapping = Mapping::sketchy();
    let now: BTreeMap<Linear, Phys> = question.place.pages().collect();
    let mut footprints: Vec<_> = question.footprints.iter().collect();
    footprints.sort_by_key(|footprint| footprint.since);
    let visits = || {
        footprints.iter().flat_map(|footprint| {
            let since = footprint.since;
            footprint.place.pages().map(move |(page, phys)| (page, phys, since))
        })
    };
    // The last visit of a page at another place than now, or of a page that is not executed now.
    let elsewhere: BTreeMap<Linear, (Phys, Seq)> = visits()
        .filter(|(page, phys, _)| now.get(page).is_none_or(|now| now != phys))
        .map(|(page, phys, since)| (page, (phys, since)))
        .collect();
    for (page, (phys, since)) in elsewhere {
        mapping.remap(Seq(0), page, Some(phys));
        if now.contains_key(&page) {
            mapping.remap(since.next(), page, None);
        }
    }
    for (page, phys) in now {
        // It moved after that, and before the first visit at its present place.
        let from = mapping.moved_after(page, Seq(0)).map_or(Seq(0), |left| {
            visits()
                .find(|(visited, there, since)| (*visited, *there) == (page, phys) && *since >= left)
                .map_or(question.now, |(.., since)| since)
        });
        mapping.remap(from, page, Some(phys));
    }
    mapping
}

/// What a vCPU holds, told by the runs that it executed.
struct FootprintChunks<'a> {
    since: BTreeMap<Linear, Seq>,
    own: &'a OwnStores,
    epoch_start: Seq,
}

impl Held for FootprintChunks<'_> {
    fn held_since(&self, chunk: Linear) -> Option<Seq> {
        self.since.get(&chunk).map(|since| self.own.clip(chunk, *since))
    }

    fn speculated_since(&self, chunk: Linear) -> Seq {
        self.own.clip(chunk, self.epoch_start)
    }
}
