//! A segment: the instructions of a translated block that are fetched together, and that therefore get one callback.
//!
//! A block is cut after every instruction that may serialize, since what follows is fetched in a new epoch; and where
//! its bytes are known to have changed before, after every instruction, so that a block that faults half-way is not
//! blamed for what it did not execute.
//!
//! A vCPU's slots say which segments it executed in its current epoch, and since when. Code that never changed costs no
//! more than its slot. What needs a closer look: a segment at whose bytes, or right behind them, memory changed since
//! the vCPU last came here (**last change**; with the store side); and a segment that others contradict (**rivals**:
//! other bytes at the same linear address). With the store side rivals are those that lie elsewhere in memory: the page
//! was remapped. In the light mode they are all that is known.

use crate::qemu::cpu::{CurrentCpu, CurrentVcpu};
use crate::qemu::divert::{Divert, MayDivert};
use crate::qemu::host_code::HostCode;
use crate::qemu::locks::Mutex;
use crate::qemu::translation::Payload;
use crate::sanitizer::Sanitizer;
use crate::views::Views;
use icsan_model::addr::Linear;
use icsan_model::detector::flags::{self, LastChange, SlotId};
use icsan_model::history::Place;
use icsan_model::light::CodeRun;
use rustc_hash::{FxBuildHasher, FxHashMap};
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use icsan_model::memory::PAGE;

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

/// The slots of so many rivals are kept with a segment.
const KNOWN_RIVALS: usize = 6;

#[derive(Debug)]
struct Rest {
    run: CodeRun,
    place: Option<Place>,
    /// Whom it shares its linear addresses with.
    neighbours: Box<[&'static Neighbours]>,
    rivals: Rivals,
}

/// Who contradicts a segment, by slot: each once, the first few. They are never taken out.
#[derive(Debug, Default)]
struct Rivals([AtomicU32; KNOWN_RIVALS]);

impl Rivals {
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
struct Neighbours(Mutex<Vec<&'static Segment>>);

impl Payload for Segment {
    #[inline(always)]
    fn passes(&'static self, vcpu: &CurrentVcpu) -> bool {
        Sanitizer::the_one().is_some_and(|sanitizer| sanitizer.executes_quietly(self, vcpu))
    }

    fn fire(&'static self, vcpu: &CurrentVcpu, cpu: &CurrentCpu) {
        if let Some(sanitizer) = Sanitizer::the_one() {
            sanitizer.executes(self, vcpu, cpu);
        }
    }
}

impl MayDivert for Segment {
    fn decide(&'static self, vcpu: &CurrentVcpu, cpu: &CurrentCpu) -> Option<Divert> {
        Sanitizer::the_one()?.executes(self, vcpu, cpu)
    }

    fn decided(&'static self, vcpu: &CurrentVcpu, carried_out: Result<(), &'static str>) {
        if let Some(sanitizer) = Sanitizer::the_one() {
            sanitizer.injected(vcpu, carried_out);
        }
    }
}

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

impl Segment {
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
    pub fn may_have_rivals(&self, executed: impl Fn(SlotId) -> bool) -> bool {
        // A vCPU that executed a rival did so after the rival was made, which set the flag, and QEMU's own publication
        // of the block came in between.
        self.contested() && self.rest.rivals.may_include(executed)
    }

    /// The segments that have other bytes at some of its addresses and that `executed` says yes to, latest first.
    /// Nearly always none.
    #[inline]
    #[must_use]
    pub fn rivals(&self, executed: impl Fn(SlotId) -> bool) -> Vec<&'static Segment> {
        if !self.may_have_rivals(&executed) {
            return Vec::new();
        }
        let mut rivals: Vec<&'static Segment> = Vec::new();
        for neighbours in &self.rest.neighbours {
            rivals.extend(neighbours.0.lock().iter().filter(|other| executed(other.slot)).copied());
        }
        rivals.retain(|other| self.is_rival_of(other));
        rivals.sort_by_key(|rival| std::cmp::Reverse(rival.slot.0));
        rivals.dedup_by_key(|rival| rival.slot.0);
        rivals
    }

    /// Does it contradict the other one, and may that not lie at the same place in memory, of which the history knows
    /// all?
    fn is_rival_of(&self, other: &Self) -> bool {
        let elsewhere = self.place().is_none() || other.place().is_none() || self.place() != other.place();
        elsewhere && self.run().contradicts(other.run())
    }

    /// `other` contradicts it.
    fn contest(&self, other: SlotId) {
        self.rest.rivals.add(other);
        self.traits.fetch_or(traits::CONTESTED, Ordering::Release);
    }
}

/// Segments are found by the aligned pieces of linear address space that they touch; of that many bytes.
const PIECE: u64 = 64;

fn pieces(linear: Linear, len: usize) -> impl Iterator<Item = u64> {
    let last = linear.0.saturating_add(len.max(1) as u64 - 1) / PIECE;
    linear.0 / PIECE..=last
}

/// What segments have held in one piece of the host's memory.
#[derive(Clone, Copy, Debug)]
struct Seen {
    bytes: [u8; PIECE as usize],
    /// Bit n: byte n has been seen.
    known: u64,
    /// Bit n: byte n has been seen with different values.
    changed: u64,
}

impl Default for Seen {
    fn default() -> Self {
        Self { bytes: [0; PIECE as usize], known: 0, changed: 0 }
    }
}

impl Seen {
    /// Has any of these bytes, the first of which is byte `first`, been seen with another value, or several?
    fn any_changed(&self, first: usize, bytes: &[u8]) -> bool {
        (first..).zip(bytes).any(|(bit, byte)| self.changed >> bit & 1 != 0 || (self.known >> bit & 1 != 0 && self.bytes[bit] != *byte))
    }

    /// Notes these bytes. Had any of them another value?
    fn note(&mut self, first: usize, bytes: &[u8]) -> bool {
        let mut changed = false;
        for (bit, byte) in (first..).zip(bytes) {
            if self.known >> bit & 1 != 0 && self.bytes[bit] != *byte {
                self.changed |= 1 << bit;
                changed = true;
            }
            self.known |= 1 << bit;
            self.bytes[bit] = *byte;
        }
        changed
    }
}

/// The bytes of code at `host` in the host's memory, and `linear` in the guest's, by the pieces that they lie in:
/// number of the piece, the first byte's place in it, bytes. What crosses into the next page lies elsewhere, and is
/// left out.
fn by_piece(host: u64, linear: Linear, bytes: &[u8]) -> impl Iterator<Item = (u64, usize, &[u8])> {
    let room = (PAGE - linear.0 % PAGE) as usize;
    let mut rest = &bytes[..bytes.len().min(room)];
    let mut at = host;
    std::iter::from_fn(move || {
        let first = (at % PIECE) as usize;
        let (here, behind) = rest.split_at(rest.len().min(PIECE as usize - first));
        let piece = at / PIECE;
        rest = behind;
        at += here.len() as u64;
        (!here.is_empty()).then_some((piece, first, here))
    })
}

/// All segments.
#[derive(Debug, Default)]
pub struct CodeTable {
    by_piece: FxHashMap<u64, &'static Neighbours>,
    /// By the hash of what makes segments the same (a site that is patched again and again has many at one address), or
    /// the next number that was free then.
    by_content: FxHashMap<u64, &'static Segment>,
    /// By piece of the host's memory. No larger than the segments are.
    seen: FxHashMap<u64, Seen>,
    views: Views,
    len: u32,
    dropped: u64,
}

impl CodeTable {
    /// How many times a segment could not be watched because there was no slot for it.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// How many segments there are.
    #[must_use]
    pub fn segments(&self) -> usize {
        self.len as usize
    }

    /// The segments that touch these bytes, each once, in the order of their slots.
    #[must_use]
    pub fn touching(&self, linear: Linear, len: u64) -> Vec<&'static Segment> {
        let mut found: Vec<&'static Segment> = Vec::new();
        for neighbours in pieces(linear, len as usize).filter_map(|piece| self.by_piece.get(&piece)) {
            found.extend(neighbours.0.lock().iter().copied());
        }
        found.sort_by_key(|segment| segment.slot.0);
        found.dedup_by_key(|segment| segment.slot.0);
        let end = linear.0.saturating_add(len);
        found.retain(|segment| {
            let start = segment.run().linear().0;
            start < end && start.saturating_add(segment.run().bytes().len() as u64) > linear.0
        });
        found
    }

    /// The instruction at an address, out of the segments that `executed` says yes to: other processes have other code
    /// there. If there are several, the one that memory holds, or the latest.
    #[must_use]
    pub fn instruction(&self, at: Linear, executed: impl Fn(SlotId) -> bool) -> Option<Vec<u8>> {
        let begins = |segment: &&'static Segment| segment.run().instructions().any(|(linear, _)| linear == at);
        let mut found = self.touching(at, 1);
        found.retain(|segment| executed(segment.slot) && begins(segment));
        let segment = found.iter().rev().find(|segment| segment.host.holds()).or(found.last())?;
        segment.run().instructions().find(|(linear, _)| *linear == at).map(|(_, bytes)| bytes.to_vec())
    }

    /// Is it known that other bytes stood at the place of this instruction, in the same memory?
    #[must_use]
    pub fn changed(&self, linear: Linear, bytes: &[u8], host: Option<usize>) -> bool {
        let Some(host) = host else { return false };
        by_piece(host as u64, linear, bytes)
            .any(|(piece, first, bytes)| self.seen.get(&piece).is_some_and(|seen| seen.any_changed(first, bytes)))
    }

    /// Notes what a new segment holds, for [`CodeTable::changed`].
    fn note(&mut self, segment: &'static Segment) {
        let Some(host) = segment.host.identity() else { return };
        let mut changed = false;
        for (piece, first, bytes) in by_piece(host as u64, segment.run().linear(), segment.run().bytes()) {
            changed |= self.seen.entry(piece).or_default().note(first, bytes);
        }
        self.views.add(segment);
        if changed {
            self.views.changed(segment);
        }
    }

    /// A store has changed these segments.
    pub fn stored_to(&mut self, segments: &[&'static Segment]) {
        segments.iter().for_each(|segment| self.views.changed(segment));
    }

    /// The segment of the same code `shift` bytes further on in linear memory, whole pages, made if it is new, and
    /// whether it was made. `None` if it cannot be.
    pub fn shifted(&mut self, segment: &Segment, shift: u64, reserve: impl FnOnce(SlotId) -> bool) -> Option<(&'static Segment, bool)> {
        let place = segment.place().map(|place| Place { page: place.page.offset(shift), ..place });
        self.intern(segment.run().shifted(shift), segment.host.clone(), place, reserve)
    }

    /// The segment of this run, made if it is new, and whether it was made. `reserve` says whether there is a slot for
    /// it; they are asked for in order. `None` if there is none.
    pub fn intern(
        &mut self,
        run: CodeRun,
        host: HostCode,
        place: Option<Place>,
        reserve: impl FnOnce(SlotId) -> bool,
    ) -> Option<(&'static Segment, bool)> {
        let mut content = FxBuildHasher.hash_one((&run, &host, &place));
        while let Some(known) = self.by_content.get(&content) {
            if *known.run() == run && known.host == host && known.place() == place {
                return Some((known, false));
            }
            content = content.wrapping_add(1);
        }
        if !reserve(SlotId(self.len)) {
            self.dropped += 1;
            return None;
        }
        let neighbours: Box<[&'static Neighbours]> = pieces(run.linear(), run.bytes().len())
            .map(|piece| *self.by_piece.entry(piece).or_insert_with(|| Box::leak(Box::default())))
            .collect();
        let segment = Segment {
            host,
            last_change: LastChange::default(),
            slot: SlotId(self.len),
            traits: AtomicU8::new(0),
            rest: Rest { run, place, neighbours, rivals: Rivals::default() },
        };
        let segment: &'static Segment = Box::leak(Box::new(segment));
        self.len += 1;
        contest(segment);
        self.note(segment);
        self.by_content.insert(content, segment);
        Some((segment, true))
    }
}

/// Makes a new segment and those that it contradicts each other's rivals.
fn contest(segment: &'static Segment) {
    for neighbours in &segment.rest.neighbours {
        let mut neighbours = neighbours.0.lock();
        for other in neighbours.iter() {
            // Once both have many there is nothing to find out.
            if !(segment.rest.rivals.are_many() && other.rest.rivals.are_many()) && segment.is_rival_of(other) {
                segment.contest(other.slot);
                other.contest(segment.slot);
            }
        }
        neighbours.push(segment);
    }
}

#[cfg(test)]
mod tests {
    use super::{CodeTable, KNOWN_RIVALS, PIECE, Rivals, Seen, by_piece};
    use crate::qemu::translation::host_code;
    use icsan_model::addr::Linear;
    use icsan_model::detector::flags::SlotId;
    use icsan_model::light::CodeRun;

    #[test]
    fn code_without_a_slot_is_counted_and_code_with_one_stays() {
        let mut table = CodeTable::default();
        let add = |table: &mut CodeTable, at: u64, slots: u32| {
            let run = CodeRun::new(Linear(at), &[0x90], &[1]);
            let host = host_code(&[], &run, 4096);
            table.intern(run, host, None, |slot| slot.0 < slots).map(|(segment, new)| (segment.slot.0, new))
        };
        assert_eq!([1, 2, 3].map(|at| add(&mut table, at, 2)), [Some((0, true)), Some((1, true)), None]);
        assert_eq!([1, 2, 4].map(|at| add(&mut table, at, 2)), [Some((0, false)), Some((1, false)), None]);
        assert_eq!((table.segments(), table.dropped()), (2, 2));
        assert_eq!(add(&mut table, 3, 3), Some((2, true)), "a slot that turns up later is used");
    }

    #[test]
    fn code_lies_in_pieces_up_to_the_end_of_its_page() {
        let bytes: Vec<u8> = (0..200).collect();
        let pieces: Vec<_> = by_piece(0x1_0000 + 60, Linear(0x7f60), &bytes).collect();
        assert_eq!(
            pieces,
            [(0x400, 60, &bytes[..4]), (0x401, 0, &bytes[4..68]), (0x402, 0, &bytes[68..132]), (0x403, 0, &bytes[132..160])]
        );
        assert_eq!(by_piece(0x1_0000, Linear(0x7000), &[]).count(), 0);
    }

    #[test]
    fn what_was_seen_with_two_values_has_changed() {
        let last = PIECE as usize - 1;
        for at in [0, 5, last] {
            let mut seen = Seen::default();
            assert!(!seen.any_changed(0, &[0; PIECE as usize]) && !seen.note(at, &[1]) && !seen.note(at, &[1]));
            assert!(!seen.any_changed(at, &[1]) && seen.any_changed(at, &[2]), "it would be the second value");
            assert!(seen.note(at, &[2]) && !seen.note(at, &[2]));
            assert!(seen.any_changed(at, &[2]) && seen.any_changed(at, &[1]), "whatever it is now");
            assert!(!seen.any_changed(0, &vec![0; at]) && !seen.any_changed(at + 1, &vec![0; last - at]), "the others have not");
        }
    }

    #[test]
    fn no_rival_is_forgotten_however_many_there_are() {
        let rivals = Rivals::default();
        assert!(!rivals.may_include(|_| true));
        for slot in 0..KNOWN_RIVALS as u32 {
            rivals.add(SlotId(slot));
            rivals.add(SlotId(0));
            rivals.add(SlotId(slot));
            assert!((0..=slot).all(|known| rivals.may_include(|asked| asked == SlotId(known))));
            assert!(!rivals.are_many() && !rivals.may_include(|asked| asked.0 > slot), "each once, and no other");
        }
        rivals.add(SlotId(1000));
        assert!(rivals.are_many() && rivals.may_include(|_| false), "it may be any");
        rivals.add(SlotId(1001));
        assert!(rivals.are_many() && rivals.may_include(|asked| asked == SlotId(2)));
    }
}
