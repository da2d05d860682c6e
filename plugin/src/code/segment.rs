//! A segment: the instructions of a translated block that are fetched together, and that therefore get one callback.
//!
//! A block is cut after every instruction that may serialize, since what follows is fetched in a new epoch; and where
//! its bytes are known to have changed before, after every instruction, so that a block that faults half-way is not
//! blamed for what it did not execute.
//!
//! A vCPU's slots say which segments it executed in its current epoch, and since when. Code that never changed costs no
//! more than its slot. What needs a closer look: a segment at whose bytes, or right behind them, memory changed since
//! the vCPU last came here (**last change**; with the store side); and a segment that others contradict (**conflicting
//! segments**: other bytes at the same linear address). With the store side these are those that lie elsewhere in
//! memory: the page was remapped. In the light mode they are all that is known.

use crate::qemu::host_code::HostCode;
use crate::qemu::locks::Mutex;
use icsan_model::detector::flags::{self, LastChange, SlotId};
use icsan_model::detector::history::Place;
use icsan_model::detector::light::CodeRun;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

/// A run of code at one linear and one physical place. Segments live for ever: QEMU's generated code points at them.
///
/// What every first execution in an epoch looks at is one cache line, the rest is behind it.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Segment {
    /// What memory must hold, and where.
    pub host: HostCode,
    /// The last store that changed a byte of it, or one behind it that an older and longer instruction might reach.
    last_change: LastChange<AtomicU64>,
    /// The slot that says, for each vCPU, whether it executed the segment in its current epoch.
    pub slot: SlotId,
    /// Bits of [`traits`].
    traits: AtomicU8,
    rest: Rest,
}

/// What few segments have. None is ever lost.
mod traits {
    /// Other segments contradict it.
    pub(super) const CONTESTED: u8 = 1;
    /// Memory differed from it when a vCPU ran it.
    pub(super) const SUSPECTED: u8 = 2;
    /// It may run at other linear addresses than the one where it was translated.
    pub(super) const ELSEWHERE: u8 = 4;
}

const _: () = assert!(std::mem::offset_of!(Segment, rest) == 64, "what is looked at on every call is one cache line");

/// The slots of so many conflicting segments are kept with a segment.
const KNOWN_CONFLICTS: usize = 6;

#[derive(Debug)]
struct Rest {
    run: CodeRun,
    place: Option<Place>,
    /// Whom it shares its linear addresses with.
    neighbours: Box<[&'static Neighbours]>,
    conflicts: Conflicts,
}

/// Who contradicts a segment, by slot: each once, the first few. They are never taken out.
#[derive(Debug, Default)]
struct Conflicts([AtomicU32; KNOWN_CONFLICTS]);

impl Conflicts {
    /// In place of the last one: there are more than are kept. (The others stand for a slot, and 1; 0 is none.)
    const MANY: u32 = u32::MAX;

    fn add(&self, slot: SlotId) {
        let value = slot.0 + 1;
        match self.0.iter().find(|known| [0, value, Self::MANY].contains(&known.load(Ordering::Relaxed))) {
            Some(place) if place.load(Ordering::Relaxed) == 0 => place.store(value, Ordering::Relaxed),
            Some(_) => {}
            None => self.0.iter().next_back().into_iter().for_each(|last| last.store(Self::MANY, Ordering::Relaxed)),
        }
    }

    /// Are there more than are kept?
    fn are_many(&self) -> bool {
        self.0.iter().next_back().is_some_and(|last| last.load(Ordering::Relaxed) == Self::MANY)
    }

    /// May `executed` say yes to one of them?
    #[inline]
    fn may_include(&self, executed: impl Fn(SlotId) -> bool) -> bool {
        let mut known = self.0.iter().map(|known| known.load(Ordering::Relaxed)).take_while(|known| *known != 0);
        known.any(|known| known == Self::MANY || executed(SlotId(known - 1)))
    }
}

/// The segments that touch one piece of linear address space, the oldest first. One list for all of them: where
/// processes come and go at the same addresses, lists of their own would grow with the square of their number.
#[derive(Debug, Default)]
pub(super) struct Neighbours(Mutex<Vec<&'static Segment>>);

impl flags::Segment for Segment {
    type Word = AtomicU64;

    #[inline(always)]
    fn slot(&self) -> SlotId {
        self.slot
    }

    #[inline(always)]
    fn last_change(&self) -> &LastChange<AtomicU64> {
        &self.last_change
    }

    fn run(&self) -> &CodeRun {
        &self.rest.run
    }

    fn place(&self) -> Option<Place> {
        self.rest.place
    }
}

impl Neighbours {
    /// The segments that touch it, the oldest first.
    pub(super) fn all(&self) -> Vec<&'static Segment> {
        self.0.lock().clone()
    }
}

impl Segment {
    /// A segment that nothing contradicts so far. `neighbours`: those of each piece that it touches ([`contest`]).
    pub(super) fn new(
        run: CodeRun,
        host: HostCode,
        place: Option<Place>,
        slot: SlotId,
        neighbours: Box<[&'static Neighbours]>,
    ) -> Self {
        let rest = Rest { run, place, neighbours, conflicts: Conflicts::default() };
        Self { host, last_change: LastChange::default(), slot, traits: AtomicU8::new(0), rest }
    }

    /// Linear address, bytes, instructions.
    #[must_use]
    pub fn run(&self) -> &CodeRun {
        &self.rest.run
    }

    /// Where it is in memory, if that is known.
    #[must_use]
    pub fn place(&self) -> Option<Place> {
        self.rest.place
    }

    fn has(&self, trait_: u8) -> bool {
        self.traits.load(Ordering::Relaxed) & trait_ != 0
    }

    /// Is it neither contested nor suspected, and does it run nowhere else than where it was translated?
    #[inline(always)]
    #[must_use]
    pub fn is_ordinary(&self) -> bool {
        self.traits.load(Ordering::Relaxed) == 0
    }

    /// Do any other segments contradict it?
    #[must_use]
    pub fn contested(&self) -> bool {
        self.has(traits::CONTESTED)
    }

    /// May it run at other linear addresses than the one where it was translated, so that the vCPU must be asked?
    #[must_use]
    pub fn may_run_elsewhere(&self) -> bool {
        self.has(traits::ELSEWHERE)
    }

    /// From now on the vCPU must be asked where it runs.
    pub fn ask_where(&self) {
        self.traits.fetch_or(traits::ELSEWHERE, Ordering::Relaxed);
    }

    /// Did memory ever differ from it when a vCPU ran it? Set and asked by that vCPU's thread; to the others a late
    /// answer does not matter.
    #[must_use]
    pub fn suspected(&self) -> bool {
        self.has(traits::SUSPECTED)
    }

    /// Memory differs from it.
    pub fn suspect(&self) {
        self.traits.fetch_or(traits::SUSPECTED, Ordering::Relaxed);
    }

    /// Do other segments contradict it that `executed` may say yes to? Cheap, and nearly always no.
    #[inline]
    #[must_use]
    pub fn may_conflict(&self, executed: impl Fn(SlotId) -> bool) -> bool {
        // A vCPU that executed another one did so after that was made, which set the flag, and QEMU's own publication
        // of the block came in between.
        self.contested() && self.rest.conflicts.may_include(executed)
    }

    /// The segments that have other bytes at some of its addresses and that `executed` says yes to, latest first.
    /// Nearly always none.
    #[inline]
    #[must_use]
    pub fn conflicting(&self, executed: impl Fn(SlotId) -> bool) -> Vec<&'static Segment> {
        if !self.may_conflict(&executed) {
            return Vec::new();
        }
        let mut conflicting: Vec<&'static Segment> = Vec::new();
        for neighbours in &self.rest.neighbours {
            conflicting.extend(neighbours.0.lock().iter().filter(|other| executed(other.slot)).copied());
        }
        conflicting.retain(|other| self.conflicts_with(other));
        conflicting.sort_by_key(|other| std::cmp::Reverse(other.slot.0));
        conflicting.dedup_by_key(|other| other.slot.0);
        conflicting
    }

    /// Does it contradict the other one, and may that not lie at the same place in memory, of which the history knows
    /// all?
    fn conflicts_with(&self, other: &Self) -> bool {
        let elsewhere = self.place().is_none() || other.place().is_none() || self.place() != other.place();
        elsewhere && self.run().contradicts(other.run())
    }

    /// `other` contradicts it.
    fn contest(&self, other: SlotId) {
        self.rest.conflicts.add(other);
        self.traits.fetch_or(traits::CONTESTED, Ordering::Release);
    }
}

/// Makes a new segment and those that it contradicts known to each other.
pub(super) fn contest(segment: &'static Segment) {
    for neighbours in &segment.rest.neighbours {
        let mut neighbours = neighbours.0.lock();
        for other in neighbours.iter() {
            // Once both have many there is nothing to find out.
            if !(segment.rest.conflicts.are_many() && other.rest.conflicts.are_many()) && segment.conflicts_with(other)
            {
                segment.contest(other.slot);
                other.contest(segment.slot);
            }
        }
        neighbours.push(segment);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_conflict_is_forgotten_however_many_there_are() {
        let conflicts = Conflicts::default();
        assert!(!conflicts.may_include(|_| true));
        for slot in 0..KNOWN_CONFLICTS as u32 {
            conflicts.add(SlotId(slot));
            conflicts.add(SlotId(0));
            conflicts.add(SlotId(slot));
            assert!((0..=slot).all(|known| conflicts.may_include(|asked| asked == SlotId(known))));
            assert!(!conflicts.are_many() && !conflicts.may_include(|asked| asked.0 > slot), "each once, and no other");
        }
        conflicts.add(SlotId(1000));
        assert!(conflicts.are_many() && conflicts.may_include(|_| false), "it may be any");
        conflicts.add(SlotId(1001));
        assert!(conflicts.are_many() && conflicts.may_include(|asked| asked == SlotId(2)));
    }
}
