//! All segments, found by what they are, by where they are, and by their slots.

use super::seen::{PIECE, Seen, by_piece};
use super::segment::{Neighbours, Segment, contest};
use super::virtual_aliases::VirtualAliases;
use crate::qemu::host_code::HostCode;
use icsan_model::addr::Linear;
use icsan_model::detector::flags::SlotId;
use icsan_model::detector::history::Place;
use icsan_model::detector::light::CodeRun;
use rustc_hash::{FxBuildHasher, FxHashMap};
use std::hash::BuildHasher;

/// The pieces of linear address space, as long as those of memory, that code touches. Segments are found by them.
fn pieces(linear: Linear, len: usize) -> impl Iterator<Item = u64> {
    let last = linear.0.saturating_add(len.max(1) as u64 - 1) / PIECE;
    linear.0 / PIECE..=last
}

/// All segments.
#[derive(Debug)]
pub struct CodeTable {
    by_piece: FxHashMap<u64, &'static Neighbours>,
    /// By the hash of what makes segments the same (a site that is patched again and again has many at one address), or
    /// the next number that was free then.
    by_content: FxHashMap<u64, &'static Segment>,
    /// By piece of the host's memory. No larger than the segments are.
    seen: FxHashMap<u64, Seen>,
    aliases: VirtualAliases,
    /// All of them: their slots are given out in order.
    by_slot: Vec<&'static Segment>,
    dropped: u64,
}

impl CodeTable {
    /// No segments, on an architecture whose program counter is a linear address from there on.
    #[must_use]
    pub fn new(counted_from: Linear) -> Self {
        Self {
            by_piece: FxHashMap::default(),
            by_content: FxHashMap::default(),
            seen: FxHashMap::default(),
            aliases: VirtualAliases::new(counted_from),
            by_slot: Vec::new(),
            dropped: 0,
        }
    }

    /// How many times a segment could not be watched because there was no slot for it.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// How many segments there are.
    #[must_use]
    pub fn segments(&self) -> usize {
        self.by_slot.len()
    }

    /// The segment that has a slot.
    #[must_use]
    pub fn of_slot(&self, slot: SlotId) -> Option<&'static Segment> {
        self.by_slot.get(slot.0 as usize).copied()
    }

    /// The segments that touch these bytes, each once, in the order of their slots.
    #[must_use]
    pub fn touching(&self, linear: Linear, len: u64) -> Vec<&'static Segment> {
        let mut found: Vec<&'static Segment> = Vec::new();
        for neighbours in pieces(linear, len as usize).filter_map(|piece| self.by_piece.get(&piece)) {
            found.extend(neighbours.all());
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
        self.aliases.add(segment);
        if changed {
            self.aliases.changed(segment);
        }
    }

    /// A store has changed these segments.
    pub fn stored_to(&mut self, segments: &[&'static Segment]) {
        segments.iter().for_each(|segment| self.aliases.changed(segment));
    }

    /// The segment of the same code `shift` bytes further on in linear memory, whole pages, made if it is new, and
    /// whether it was made. `None` if it cannot be.
    pub fn shifted(
        &mut self,
        segment: &Segment,
        shift: u64,
        reserve: impl FnOnce(SlotId) -> bool,
    ) -> Option<(&'static Segment, bool)> {
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
        let slot = SlotId(self.by_slot.len() as u32);
        if !reserve(slot) {
            self.dropped += 1;
            return None;
        }
        let neighbours: Box<[&'static Neighbours]> = pieces(run.linear(), run.bytes().len())
            .map(|piece| *self.by_piece.entry(piece).or_insert_with(|| Box::leak(Box::default())))
            .collect();
        let segment: &'static Segment = Box::leak(Box::new(Segment::new(run, host, place, slot, neighbours)));
        self.by_slot.push(segment);
        contest(segment);
        self.note(segment);
        self.by_content.insert(content, segment);
        Some((segment, true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qemu::translation::host_code;

    #[test]
    fn code_without_a_slot_is_counted_and_code_with_one_stays() {
        let mut table = CodeTable::new(Linear(0));
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
}
