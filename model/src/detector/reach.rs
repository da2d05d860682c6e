//! Which segments a change of memory concerns: those that it touches, and those behind whose last instruction it lies
//! so closely that an older, longer instruction there may have reached it.

use super::flags::Segment;
use crate::addr::{Phys, Seq};
use crate::detector::history::History;
use crate::memory::PAGE;
use rustc_hash::FxHashMap;
use std::ops::Deref;

/// Segments are found by the aligned pieces of physical memory that they reach; of that many bytes.
const PIECE: u64 = 64;

/// The pieces of physical memory that `len` bytes touch.
fn pieces(phys: Phys, len: u64) -> impl Iterator<Item = u64> {
    phys.0 / PIECE..=(phys.0 + len.max(1) - 1) / PIECE
}

/// Segments by what may change them.
#[derive(Clone, Debug)]
pub struct Reach<S> {
    window: u64,
    by_piece: FxHashMap<u64, Vec<S>>,
}

impl<S: Deref<Target: Segment> + Clone> Reach<S> {
    /// No segments; no instruction is longer than `window` bytes.
    #[must_use]
    pub fn new(window: u64) -> Self {
        Self { window, by_piece: FxHashMap::default() }
    }

    /// The physical ranges that matter to a segment.
    fn ranges(&self, segment: &S) -> impl Iterator<Item = (Phys, u64)> + use<S> {
        let (start, end) = (segment.run().linear(), segment.run().last().offset(self.window));
        segment.place().into_iter().flat_map(move |place| place.ranges(start, end.0.wrapping_sub(start.0)))
    }

    /// Does a change of these bytes concern the segment?
    #[must_use]
    pub fn reaches(&self, segment: &S, phys: Phys, len: u64) -> bool {
        self.ranges(segment).any(|(at, size)| at.0 < phys.0 + len && phys.0 < at.0 + size)
    }

    /// The segments that a change of these bytes concerns, each once, in the order of their slots.
    #[must_use]
    pub fn reached(&self, phys: Phys, len: u64) -> Vec<S> {
        let near = pieces(phys, len).filter_map(|piece| self.by_piece.get(&piece)).flatten();
        let mut found: Vec<S> = near.filter(|segment| self.reaches(segment, phys, len)).cloned().collect();
        found.sort_by_key(|segment| segment.slot());
        found.dedup_by_key(|segment| segment.slot());
        found
    }

    /// All segments, some of them more than once.
    pub fn all(&self) -> impl Iterator<Item = &S> {
        self.by_piece.values().flatten()
    }

    /// The first moment from which on every fetch of a segment finds what is there now, if that is known of all of its
    /// bytes and what is behind them.
    pub fn settled(&self, segment: &S, past: &History) -> Option<Seq> {
        let mut settled = Seq(0);
        for (phys, len) in self.ranges(segment) {
            past.memory().page(phys)?;
            settled = settled.max(past.cache().settled(phys, len, past.memory()));
        }
        Some(settled)
    }

    /// A new segment: changes find it from now on, and it knows of the last one before.
    pub fn add(&mut self, segment: &S, past: &History) {
        for (phys, len) in self.ranges(segment) {
            debug_assert!(phys.0 % PAGE + len <= PAGE);
            match past.cache().settled(phys, len, past.memory()) {
                Seq(0) => {}
                change => segment.last_change().note(change),
            }
            for piece in pieces(phys, len) {
                self.by_piece.entry(piece).or_default().push(segment.clone());
            }
        }
    }
}
