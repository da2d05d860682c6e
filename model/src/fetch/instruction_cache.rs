//! Instruction caches that do not see stores: what they may still return after maintenance, for each CPU.
//!
//! Such a cache may hold any number of old values of a line, fill itself at any time, and return another value each
//! time. So of each byte only one thing is known: the **floor**, the oldest moment whose bytes a CPU's cache may still
//! return. A fetch at moment *m* brings in what memory held at some moment between floor and *m*, each byte no older
//! than its own floor. Floors only rise:
//!
//! - A *clean* of a line at moment *d* is good for all stores to the line before *d*, by any CPU: the order of
//!   events is the order of memory. It is complete at the next full barrier of the same CPU that reaches all CPUs.
//! - Where a store needs no clean (the hardware says so, or its CPU's caches were off), it counts as clean when it is
//!   complete: at the next barrier for stores of the CPU that made it. One that nobody was seen to make is complete at
//!   the next such barrier of any CPU.
//! - An *invalidate* at moment *i* captures, for each byte of its line, the last moment up to which all is clean: *i*
//!   itself, if the byte's last store is, and else the moment before the first store that is not. It takes effect at
//!   the next full barrier of the same CPU: for all CPUs, if that reaches them, for the CPU itself, if not. Without
//!   such a barrier it has no effect. That of a CPU's own cache takes effect for that CPU alone.
//! - A *fetch fence* raises all floors of its CPU to the present, at once.
//!
//! No fetch is undone: what a CPU's buffers hold when an invalidation takes effect stays until it synchronizes.
//! (Hardware drops what it has not decoded. Over-reports.)
//!
//! The past of a floor is kept as far back as anybody's fetch may lie, so what was brought in at an earlier moment is
//! known to have come from above the floor of that moment. There is a limit to how many lines are kept
//! ([`InstructionCache::knows`]).

use crate::addr::{Phys, Seq, Vcpu};
use crate::arch::maintenance::{Accesses, CacheType, Domain, Maintenance, Needs};
use crate::event::Store;
use crate::memory::Memory;
use crate::verdict::kind::Kind;
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, BTreeSet};

/// How many lines are kept of each kind. Linux maintains some ten thousands while it boots.
const MAX_LINES: usize = 1 << 19;

/// What made a CPU's cache return a store: what its hardware asked for and was done.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Maintained {
    /// Was its line cleaned? Else the hardware asks for no clean of that store.
    pub cleaned: bool,
    /// What raised the CPU's floor above it first.
    pub invalidated: Invalidated,
}

/// An invalidation that took effect.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Invalidated {
    /// Of the line.
    Line,
    /// Of all lines, for all CPUs.
    All,
    /// Of all lines, for the CPU itself; or its fetch fence.
    Own,
}

/// The moment that has not come.
pub const NEVER: Seq = Seq(u64::MAX);

/// A line's number: its address in lines.
type LineNumber = u64;

/// Floors of a range: one moment, but for bytes that were not clean when it was captured.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Floor {
    at: Seq,
    dirty: BTreeMap<Phys, Seq>,
}

impl Floor {
    fn of(&self, phys: Phys) -> Seq {
        if self.dirty.is_empty() { self.at } else { self.dirty.get(&phys).copied().unwrap_or(self.at) }
    }

    /// Byte for byte the later of the two.
    fn join(&self, other: &Self) -> Self {
        let at = self.at.max(other.at);
        let both = self.dirty.keys().chain(other.dirty.keys());
        let joined = both.map(|phys| (*phys, self.of(*phys).max(other.of(*phys))));
        Self { at, dirty: joined.filter(|(_, floor)| *floor < at).collect() }
    }

    fn join_into(self, into: &mut Option<Self>) {
        *into = Some(into.as_ref().map_or_else(|| self.clone(), |known| known.join(&self)));
    }
}

/// Floors with the moments from which they held, oldest first.
#[derive(Clone, Default, Debug)]
struct Floors(Vec<(Seq, Floor)>);

impl Floors {
    /// Raises them. Answers whether that changed anything.
    fn raise(&mut self, from: Seq, floor: &Floor) -> bool {
        let raised = match self.0.last() {
            Some((_, last)) => Some(last.join(floor)).filter(|raised| raised != last),
            None => Some(floor.clone()),
        };
        let changed = raised.is_some();
        self.0.extend(raised.map(|raised| (from, raised)));
        changed
    }

    fn at(&self, phys: Phys, moment: Seq) -> Seq {
        let held = self.0.partition_point(|(from, _)| *from <= moment);
        held.checked_sub(1).map_or(Seq(0), |last| self.0[last].1.of(phys))
    }

    /// The first moment at which the byte's floor was at least that.
    fn reached(&self, phys: Phys, floor: Seq) -> Option<Seq> {
        // A byte's floor is never lowered.
        let below = self.0.partition_point(|(_, known)| known.of(phys) < floor);
        self.0.get(below).map(|(from, _)| *from)
    }

    fn forget_before(&mut self, horizon: Seq) {
        let held = self.0.partition_point(|(from, _)| *from <= horizon);
        self.0.drain(..held.saturating_sub(1));
    }
}

/// Cleans of one line.
#[derive(Clone, Copy, Default, Debug)]
struct Cleaned {
    /// The last one.
    issued: Seq,
    /// The last one that is complete.
    complete: Seq,
}

/// Invalidations of one line, for all CPUs.
#[derive(Clone, Default, Debug)]
struct Line {
    /// The last one.
    issued: Seq,
    floors: Floors,
}

/// One CPU: what it has begun, and what concerns its own cache alone.
#[derive(Clone, Debug)]
struct Own {
    /// Its last store, and its last barrier that waits for stores of all CPUs' sight.
    stored: Seq,
    complete: Seq,
    /// Does it store through its caches?
    cached: bool,
    /// What awaits a barrier.
    cleans: BTreeMap<LineNumber, Seq>,
    invalidations: BTreeMap<LineNumber, Floor>,
    all: Option<Floor>,
    own: Option<Floor>,
    /// The last invalidation of its own cache.
    issued: Seq,
    /// Floors that hold for it alone: by line, and of all lines.
    lines: FxHashMap<LineNumber, Floors>,
    floors: Floors,
}

impl Own {
    fn new() -> Self {
        Self {
            stored: Seq(0),
            complete: Seq(0),
            cached: true,
            cleans: BTreeMap::new(),
            invalidations: BTreeMap::new(),
            all: None,
            own: None,
            issued: Seq(0),
            lines: FxHashMap::default(),
            floors: Floors::default(),
        }
    }
}

/// Whose fetches find more than before.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Raised {
    /// The lines whose floors rose: first bytes.
    pub lines: Vec<Phys>,
    /// Did all floors rise?
    pub all: bool,
}

/// The instruction caches of all CPUs.
#[derive(Clone, Debug)]
pub struct InstructionCache {
    kind: Option<CacheType>,
    own: Vec<Own>,
    data: FxHashMap<LineNumber, Cleaned>,
    lines: FxHashMap<LineNumber, Line>,
    /// Invalidations of everything: the last one, and what it made of the floors.
    issued: Seq,
    floors: Floors,
    /// The last barrier of any CPU that waits for stores.
    complete: Seq,
    /// The last store that nobody was seen to make. Its writer may turn out.
    unseen: Seq,
    /// Stores past the caches.
    uncached: BTreeSet<Seq>,
    /// How many lines are kept, and whether there were more.
    max_lines: usize,
    full: bool,
}

impl InstructionCache {
    /// Caches that hold nothing yet. `None`: caches that see every store.
    #[must_use]
    pub fn new(kind: Option<CacheType>, cpus: usize) -> Self {
        Self {
            kind,
            own: vec![Own::new(); if kind.is_some() { cpus } else { 0 }],
            data: FxHashMap::default(),
            lines: FxHashMap::default(),
            issued: Seq(0),
            floors: Floors::default(),
            complete: Seq(0),
            unseen: Seq(0),
            uncached: BTreeSet::new(),
            max_lines: MAX_LINES,
            full: false,
        }
    }

    /// Do fetches not see stores by themselves?
    #[inline(always)]
    #[must_use]
    pub const fn is_incoherent(&self) -> bool {
        self.kind.is_some()
    }

    fn own(&self, cpu: Vcpu) -> Option<&Own> {
        self.own.get(usize::from(cpu.0))
    }

    /// The oldest moment whose value of a byte a CPU's fetch at `moment` may bring in.
    #[must_use]
    pub fn floor(&self, cpu: Vcpu, phys: Phys, moment: Seq) -> Seq {
        let Some(kind) = self.kind else { return moment };
        let number = phys.0 / kind.instruction_line;
        let line = self.lines.get(&number);
        if line.is_none() && self.full {
            return moment;
        }
        let shared = line.map_or(Seq(0), |line| line.floors.at(phys, moment)).max(self.floors.at(phys, moment));
        let Some(own) = self.own(cpu) else { return shared };
        let line = own.lines.get(&number).map_or(Seq(0), |floors| floors.at(phys, moment));
        shared.max(line).max(own.floors.at(phys, moment))
    }

    /// The lowest floor of any of these bytes.
    #[inline(always)]
    #[must_use]
    pub fn lowest(&self, cpu: Vcpu, phys: Phys, len: u64, moment: Seq) -> Seq {
        if self.kind.is_none() {
            return moment;
        }
        (0..len).map(|i| self.floor(cpu, phys.offset(i), moment)).min().unwrap_or(moment)
    }

    /// The oldest moment whose value of any of these bytes any CPU may still fetch.
    #[must_use]
    pub fn oldest(&self, phys: Phys, len: u64, moment: Seq) -> Seq {
        let cpus = (0..self.own.len() as u16).map(Vcpu);
        cpus.map(|cpu| self.lowest(cpu, phys, len, moment)).min().unwrap_or(moment)
    }

    /// Is the maintenance of these bytes' lines kept? `false`: there were too many lines, and nothing older is taken to
    /// be fetched there.
    #[inline(always)]
    #[must_use]
    pub fn knows(&self, phys: Phys, len: u64) -> bool {
        !self.full || self.knows_lines(phys, len)
    }

    fn knows_lines(&self, phys: Phys, len: u64) -> bool {
        let Some(kind) = self.kind else { return true };
        let known =
            |line: u64, keys: &dyn Fn(u64) -> bool| (phys.0 / line..=(phys.0 + len.max(1) - 1) / line).all(keys);
        known(kind.instruction_line, &|number| self.lines.contains_key(&number))
            && known(kind.data_line, &|number| self.data.contains_key(&number))
    }

    /// A store, at its place in the order.
    #[inline]
    pub fn store(&mut self, seq: Seq, store: &Store) {
        if self.kind.is_none() {
            return;
        }
        let Some(cpu) = store.vcpu else {
            self.unseen = seq;
            return;
        };
        if let Some(own) = self.own.get_mut(usize::from(cpu.0)) {
            own.stored = own.stored.max(seq);
            if !own.cached {
                self.uncached.insert(seq);
            }
        }
    }

    /// From now on the CPU stores through its caches, or past them: then its stores need no clean.
    pub fn caches(&mut self, cpu: Vcpu, on: bool) {
        if let Some(own) = self.own.get_mut(usize::from(cpu.0)) {
            own.cached = on;
        }
    }

    /// Would a barrier of that CPU change anything?
    #[must_use]
    pub fn awaits_barrier(&self, cpu: Vcpu) -> bool {
        self.own(cpu).is_some_and(|own| {
            let begun = !own.cleans.is_empty() || !own.invalidations.is_empty();
            begun || own.all.is_some() || own.own.is_some() || own.stored.max(self.unseen) > own.complete
        })
    }

    fn needs_clean(&self, kind: CacheType, store: Seq) -> bool {
        kind.needs != Needs::Invalidate && !self.uncached.contains(&store)
    }

    /// Is the store of that version clean?
    fn is_clean(&self, kind: CacheType, memory: &Memory, phys: Phys, store: Seq) -> bool {
        if self.cleaned(kind, phys).complete > store {
            return true;
        }
        let writer = memory.record(store).and_then(|record| self.own(record.store.vcpu?));
        !self.needs_clean(kind, store) && store < writer.map_or(self.complete, |own| own.complete)
    }

    fn cleaned(&self, kind: CacheType, phys: Phys) -> Cleaned {
        let unknown = if self.full { Cleaned { issued: NEVER, complete: NEVER } } else { Cleaned::default() };
        self.data.get(&(phys.0 / kind.data_line)).copied().unwrap_or(unknown)
    }

    /// The last moment up to which all of these bytes are clean, for each.
    fn capture(&self, kind: CacheType, memory: &Memory, now: Seq, bytes: impl Iterator<Item = (Phys, Seq)>) -> Floor {
        let dirty = bytes.filter(|(phys, last)| !self.is_clean(kind, memory, *phys, *last)).map(|(phys, last)| {
            let run = memory.changes(phys, Seq(0)).take_while(|seq| !self.is_clean(kind, memory, phys, *seq));
            let first = run.last().unwrap_or(last);
            (phys, Seq(first.0 - 1))
        });
        Floor { at: now, dirty: dirty.collect() }
    }

    /// A maintenance instruction, at its place in the order. Answers what it changed at once.
    pub fn maintain(&mut self, now: Seq, cpu: Vcpu, operation: Maintenance, memory: &Memory) -> Raised {
        let (Some(kind), Some(_)) = (self.kind, self.own(cpu)) else { return Raised::default() };
        // What is not known of memory has no past: it will have been there always when it is seen.
        if let Maintenance::Clean(phys) | Maintenance::Invalidate(phys) = operation
            && memory.page(phys).is_none()
        {
            return Raised::default();
        }
        let everything = |cache: &Self| {
            let cells = memory.changed_cells().flat_map(|cell| memory.changed_bytes(cell, crate::memory::CELL as u64));
            cache.capture(kind, memory, now, cells)
        };
        let captured = match operation {
            Maintenance::Clean(_) => None,
            Maintenance::Invalidate(phys) => {
                let (line, size) = (phys.align_down(kind.instruction_line), kind.instruction_line);
                Some(self.capture(kind, memory, now, memory.changed_bytes(line, size)))
            }
            Maintenance::InvalidateAll | Maintenance::InvalidateOwn => Some(everything(self)),
            Maintenance::FetchFence => Some(Floor { at: now, dirty: BTreeMap::new() }),
        };
        let Self { own, data, lines, max_lines, full, issued, .. } = self;
        let own = &mut own[usize::from(cpu.0)];
        match (operation, captured) {
            (Maintenance::Clean(phys), _) => {
                let number = phys.0 / kind.data_line;
                if data.len() < *max_lines || data.contains_key(&number) {
                    data.entry(number).or_default().issued = now;
                    own.cleans.insert(number, now);
                } else {
                    *full = true;
                }
            }
            (Maintenance::Invalidate(phys), Some(floor)) => {
                let number = phys.0 / kind.instruction_line;
                if lines.len() < *max_lines || lines.contains_key(&number) {
                    lines.entry(number).or_default().issued = now;
                    let joined = own.invalidations.get(&number).map_or(floor.clone(), |known| known.join(&floor));
                    own.invalidations.insert(number, joined);
                } else {
                    *full = true;
                }
            }
            (Maintenance::InvalidateAll, Some(floor)) => {
                *issued = now;
                floor.join_into(&mut own.all);
            }
            (Maintenance::InvalidateOwn, Some(floor)) => {
                own.issued = now;
                floor.join_into(&mut own.own);
            }
            (Maintenance::FetchFence, Some(floor)) => {
                own.issued = now;
                return Raised { lines: Vec::new(), all: own.floors.raise(now, &floor) };
            }
            (_, None) => {}
        }
        Raised::default()
    }

    /// A barrier, at its place in the order. Answers what it changed.
    pub fn barrier(&mut self, now: Seq, cpu: Vcpu, domain: Domain, accesses: Accesses) -> Raised {
        let mut raised = Raised::default();
        let Self { kind, own, data, lines, floors, complete, .. } = self;
        let (Some(kind), Some(own)) = (kind, own.get_mut(usize::from(cpu.0))) else { return raised };
        if domain.holds_all() && accesses != Accesses::Loads {
            own.complete = now;
            *complete = now;
        }
        if accesses != Accesses::All {
            return raised;
        }
        let first = |number: &LineNumber| Phys(number * kind.instruction_line);
        if domain.holds_all() {
            for (number, at) in std::mem::take(&mut own.cleans) {
                let known = &mut data.entry(number).or_default().complete;
                *known = at.max(*known);
            }
            for (number, floor) in std::mem::take(&mut own.invalidations) {
                if lines.entry(number).or_default().floors.raise(now, &floor) {
                    raised.lines.push(first(&number));
                }
            }
            raised.all |= own.all.take().is_some_and(|floor| floors.raise(now, &floor));
        } else {
            for (number, floor) in &own.invalidations {
                if own.lines.entry(*number).or_default().raise(now, floor) {
                    raised.lines.push(first(number));
                }
            }
            raised.all |= own.all.as_ref().is_some_and(|floor| own.floors.raise(now, floor));
        }
        raised.all |= own.own.take().is_some_and(|floor| own.floors.raise(now, &floor));
        raised
    }

    /// What was left out, if a CPU may execute at `now` what was there before a store to a byte: the first step of the
    /// storing CPU that is missing, or, if none is, the executor's.
    #[must_use]
    pub fn missing(&self, cpu: Vcpu, phys: Phys, store: Seq, memory: &Memory, now: Seq) -> Kind {
        let Some(kind) = self.kind.filter(|_| self.floor(cpu, phys, now) < store) else { return Kind::Unsynchronized };
        let (cleaned, needs_clean) = (self.cleaned(kind, phys), self.needs_clean(kind, store));
        if !self.is_clean(kind, memory, phys, store) {
            return if needs_clean && cleaned.issued < store { Kind::Unclean } else { Kind::Incomplete };
        }
        let line = self.lines.get(&(phys.0 / kind.instruction_line)).map_or(Seq(0), |line| line.issued);
        let invalidated = line.max(self.issued).max(self.own(cpu).map_or(Seq(0), |own| own.issued));
        let clean = if needs_clean { cleaned.issued } else { store };
        if invalidated > clean { Kind::Incomplete } else { Kind::Uninvalidated }
    }

    /// By what maintenance the CPU's fetches of a byte find a store to it, or a later one. `None`: they find it without
    /// any, or not for certain.
    #[must_use]
    pub fn maintained(&self, cpu: Vcpu, phys: Phys, store: Seq) -> Option<Maintained> {
        let kind = self.kind?;
        let number = phys.0 / kind.instruction_line;
        let (line, own) = (self.lines.get(&number), self.own(cpu)?);
        let ways = [
            (line.and_then(|line| line.floors.reached(phys, store)), Invalidated::Line),
            (own.lines.get(&number).and_then(|floors| floors.reached(phys, store)), Invalidated::Line),
            (self.floors.reached(phys, store), Invalidated::All),
            (own.floors.reached(phys, store), Invalidated::Own),
        ];
        let (_, invalidated) = ways.into_iter().filter_map(|(from, by)| Some((from?, by))).min()?;
        Some(Maintained { cleaned: self.cleaned(kind, phys).complete > store, invalidated })
    }

    /// The first moment from which on every CPU's fetch of these bytes, all in one page, finds exactly what is there
    /// now. [`NEVER`]: it has not come.
    #[must_use]
    pub fn settled(&self, phys: Phys, len: u64, memory: &Memory) -> Seq {
        let changed = memory.changed_bytes(phys, len);
        let Some(kind) = self.kind else { return memory.last_change(phys, len) };
        let reached = |(phys, last): (Phys, Seq)| {
            let number = phys.0 / kind.instruction_line;
            let line = self.lines.get(&number);
            if line.is_none() && self.full {
                return last;
            }
            let shared = line.and_then(|line| line.floors.reached(phys, last));
            let shared = [shared, self.floors.reached(phys, last)].into_iter().flatten().min();
            let alone = |own: &Own| {
                let line = own.lines.get(&number).and_then(|floors| floors.reached(phys, last));
                [shared, line, own.floors.reached(phys, last)].into_iter().flatten().min().unwrap_or(NEVER)
            };
            self.own.iter().map(alone).max().unwrap_or(last)
        };
        changed.map(reached).max().unwrap_or(Seq(0))
    }

    /// Forgets the floors from before event `horizon`, and the lines of pages that memory does not know.
    pub fn forget_before(&mut self, horizon: Seq, memory: &Memory) {
        let Self { kind, own, data, lines, floors, uncached, .. } = self;
        let Some(kind) = kind else { return };
        let known = |number: u64, size: u64| memory.page(Phys(number * size)).is_some();
        data.retain(|number, _| known(*number, kind.data_line));
        lines.retain(|number, line| {
            line.floors.forget_before(horizon);
            known(*number, kind.instruction_line)
        });
        floors.forget_before(horizon);
        for own in own {
            own.lines.retain(|number, floors| {
                floors.forget_before(horizon);
                known(*number, kind.instruction_line)
            });
            own.floors.forget_before(horizon);
        }
        uncached.retain(|store| memory.record(*store).is_some());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPU: Vcpu = Vcpu(0);
    const OTHER: Vcpu = Vcpu(1);

    fn floor(at: u64, dirty: &[(u64, u64)]) -> Floor {
        Floor { at: Seq(at), dirty: dirty.iter().map(|(phys, seq)| (Phys(*phys), Seq(*seq))).collect() }
    }

    #[test]
    fn floors_are_joined_byte_for_byte() {
        let joined = floor(9, &[(1, 2), (2, 5)]).join(&floor(7, &[(2, 3), (3, 1)]));
        assert_eq!(joined, floor(9, &[(1, 7), (2, 5)]));
        let mut floors = Floors::default();
        assert!(floors.raise(Seq(10), &floor(9, &[(1, 2)])) && !floors.raise(Seq(12), &floor(8, &[(1, 1)])));
        assert!(floors.raise(Seq(14), &floor(3, &[])));
        let at = |floors: &Floors, moment| floors.at(Phys(1), Seq(moment)).0;
        assert_eq!([9, 10, 13, 14].map(|moment| at(&floors, moment)), [0, 2, 2, 3]);
        assert_eq!((floors.reached(Phys(1), Seq(3)), floors.reached(Phys(1), Seq(4))), (Some(Seq(14)), None));
        floors.forget_before(Seq(13));
        assert_eq!([13, 14].map(|moment| at(&floors, moment)), [2, 3]);
    }

    fn stored(cache: &mut InstructionCache, memory: &mut Memory, seq: u64, phys: u64) {
        let store = Store { vcpu: Some(CPU), pc: None, linear: None, phys: Phys(phys), bytes: vec![seq as u8] };
        cache.store(Seq(seq), &store);
        memory.store(Seq(seq), store);
    }

    #[test]
    fn what_made_a_store_seen_is_the_first_invalidation_behind_it() {
        let kind = CacheType::of(Needs::CleanAndInvalidate);
        let (mut cache, mut memory) = (InstructionCache::new(Some(kind), 2), Memory::default());
        memory.contents(Phys(0), &[0; crate::memory::PAGE as usize]);
        let by = |cache: &InstructionCache, cpu, store| cache.maintained(cpu, Phys(4), Seq(store));
        let done = |cleaned, invalidated| Some(Maintained { cleaned, invalidated });
        let full = |cache: &mut InstructionCache, seq| cache.barrier(Seq(seq), CPU, Domain::Inner, Accesses::All);
        stored(&mut cache, &mut memory, 1, 4);
        cache.maintain(Seq(2), CPU, Maintenance::Clean(Phys(4)), &memory);
        full(&mut cache, 3);
        cache.maintain(Seq(4), CPU, Maintenance::InvalidateOwn, &memory);
        assert_eq!(by(&cache, CPU, 1), None, "not complete");
        full(&mut cache, 5);
        assert_eq!((by(&cache, CPU, 1), by(&cache, OTHER, 1)), (done(true, Invalidated::Own), None));
        cache.maintain(Seq(6), CPU, Maintenance::Invalidate(Phys(4)), &memory);
        full(&mut cache, 7);
        assert_eq!(by(&cache, CPU, 1), done(true, Invalidated::Own), "the first one");
        assert_eq!(by(&cache, OTHER, 1), done(true, Invalidated::Line));
        // Past the caches no clean is needed.
        cache.caches(CPU, false);
        stored(&mut cache, &mut memory, 8, 4);
        full(&mut cache, 9);
        assert_eq!(by(&cache, OTHER, 8), None);
        cache.maintain(Seq(10), CPU, Maintenance::InvalidateAll, &memory);
        full(&mut cache, 11);
        assert_eq!(by(&cache, OTHER, 8), done(false, Invalidated::All));
        assert_eq!(InstructionCache::new(None, 2).maintained(CPU, Phys(4), Seq(0)), None);
    }

    #[test]
    fn a_line_too_many_is_not_followed_and_said_to_be_unknown() {
        let kind = CacheType::of(Needs::CleanAndInvalidate);
        let (mut cache, mut memory) = (InstructionCache::new(Some(kind), 2), Memory::default());
        cache.max_lines = 1;
        for (seq, phys) in [(1, 0), (2, 64)] {
            stored(&mut cache, &mut memory, seq, phys);
        }
        assert!(cache.knows(Phys(64), 4) && cache.floor(OTHER, Phys(64), Seq(9)) == Seq(0));
        for (seq, phys) in [(3, 0), (4, 64)] {
            cache.maintain(Seq(seq), CPU, Maintenance::Clean(Phys(phys)), &memory);
            cache.maintain(Seq(seq), CPU, Maintenance::Invalidate(Phys(phys)), &memory);
        }
        assert!(cache.knows(Phys(0), 64) && !cache.knows(Phys(64), 4) && !cache.knows(Phys(63), 2));
        assert_eq!(cache.floor(OTHER, Phys(64), Seq(9)), Seq(9), "nothing older is taken to be fetched there");
        assert_eq!(cache.floor(OTHER, Phys(0), Seq(9)), Seq(0));
        assert_eq!((cache.settled(Phys(0), 4, &memory), cache.settled(Phys(64), 4, &memory)), (NEVER, Seq(2)));
    }

    #[test]
    fn what_awaits_a_barrier_is_known() {
        let kind = CacheType::of(Needs::CleanAndInvalidate);
        let mut memory = Memory::default();
        memory.contents(Phys(0), &[0]);
        let steps = [
            Maintenance::Clean(Phys(0)),
            Maintenance::Invalidate(Phys(0)),
            Maintenance::InvalidateAll,
            Maintenance::InvalidateOwn,
        ];
        for step in steps {
            let mut cache = InstructionCache::new(Some(kind), 2);
            cache.maintain(Seq(1), CPU, step, &memory);
            assert!(cache.awaits_barrier(CPU) && !cache.awaits_barrier(OTHER));
            cache.barrier(Seq(2), CPU, Domain::System, Accesses::Stores);
            assert!(cache.awaits_barrier(CPU), "it waits for no maintenance");
            cache.barrier(Seq(3), CPU, Domain::Inner, Accesses::All);
            assert!(!cache.awaits_barrier(CPU));
        }
        let mut cache = InstructionCache::new(Some(kind), 2);
        stored(&mut cache, &mut memory, 1, 0);
        assert!(cache.awaits_barrier(CPU));
        cache.barrier(Seq(2), CPU, Domain::Inner, Accesses::Stores);
        assert!(!cache.awaits_barrier(CPU));
    }

    #[test]
    fn lines_of_pages_that_are_forgotten_are() {
        let kind = CacheType::of(Needs::CleanAndInvalidate);
        let (mut cache, mut memory) = (InstructionCache::new(Some(kind), 2), Memory::default());
        stored(&mut cache, &mut memory, 1, 0);
        cache.maintain(Seq(2), CPU, Maintenance::Clean(Phys(0)), &memory);
        cache.maintain(Seq(3), CPU, Maintenance::Invalidate(Phys(0)), &memory);
        cache.barrier(Seq(4), CPU, Domain::Own, Accesses::All);
        cache.barrier(Seq(5), CPU, Domain::Inner, Accesses::All);
        assert_eq!((cache.data.len(), cache.lines.len(), cache.own[0].lines.len()), (1, 1, 1));
        memory.forget_page(Phys(0));
        cache.forget_before(Seq(5), &memory);
        assert_eq!((cache.data.len(), cache.lines.len(), cache.own[0].lines.len()), (0, 0, 0));
    }
}
