//! The fetch window: the bytes from an executed address on that could be part of the instruction, cut where chunks
//! meet, each part with its past.

use crate::addr::{Linear, Phys, Seq};
use crate::memory::mapping::Mapping;
use crate::memory::{Memory, PAGE};
use std::collections::BTreeSet;

/// A stretch of time, both ends included, in which a part's bytes stayed the same.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stretch {
    /// The first moment.
    pub from: Seq,
    /// The last moment.
    pub to: Seq,
    /// Where the part's first byte was in memory.
    pub phys: Option<Phys>,
    /// The bytes, up to the first one that was unmapped or unknown.
    pub bytes: Vec<u8>,
}

/// The bytes of the window that lie in one chunk.
#[derive(Clone, Debug)]
pub struct Part {
    /// Address of its first byte.
    pub linear: Linear,
    /// Position of its first byte in the window.
    pub at: usize,
    /// How many bytes it has.
    pub len: usize,
    /// The moment from which on the vCPU's bytes may stem.
    pub since: Seq,
    /// What it was from then on, oldest first. The last one is the present.
    pub stretches: Vec<Stretch>,
}

impl Part {
    /// Is every byte of the window's part known in this stretch?
    #[must_use]
    pub fn is_whole(&self, stretch: &Stretch) -> bool {
        stretch.bytes.len() == self.len
    }

    /// The end of the part, as a position in the window.
    #[must_use]
    pub fn end(&self) -> usize {
        self.at + self.len
    }
}

/// What a vCPU sees of memory: the two things that have a past.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Memory.
    pub memory: &'a Memory,
    /// The vCPU's translations.
    pub mapping: &'a Mapping,
    /// This moment.
    pub now: Seq,
}

impl View<'_> {
    /// The parts of the window of `len` bytes at `linear`. `since` says from when on a chunk's bytes may stem.
    pub fn parts(&self, linear: Linear, len: usize, chunk: u64, since: impl Fn(Linear) -> Seq) -> Vec<Part> {
        let mut parts = Vec::new();
        let mut at = 0;
        while at < len {
            let first = linear.offset(at as u64);
            let block = first.align_down(chunk);
            let room = chunk - (first.0 - block.0);
            let count = (len - at).min(usize::try_from(room).unwrap_or(usize::MAX));
            let since = since(block);
            parts.push(Part { linear: first, at, len: count, since, stretches: self.stretches(first, count, since) });
            at += count;
        }
        parts
    }

    /// What `len` bytes at `linear`, all in one page, were from `since` on; oldest first, without gaps but for those of
    /// the mapping.
    #[must_use]
    pub fn stretches(&self, linear: Linear, len: usize, since: Seq) -> Vec<Stretch> {
        let page = linear.align_down(PAGE);
        let mut stretches: Vec<Stretch> = Vec::new();
        for placement in self.mapping.placements(page, since, self.now) {
            let phys = placement.phys.map(|phys| phys.offset(linear.0 - page.0));
            for from in self.moments(phys, len, placement.from, placement.to) {
                let bytes = self.bytes(phys, len, from);
                match stretches.last_mut() {
                    Some(last) if last.phys == phys && last.bytes == bytes => last.to = placement.to,
                    last => {
                        if let Some(last) = last {
                            last.to = last.to.min(Seq(from.0 - 1));
                        }
                        stretches.push(Stretch { from, to: placement.to, phys, bytes });
                    }
                }
            }
        }
        stretches
    }

    /// The moments between `from` and `to` at which the bytes may have become something else; `from` is the first.
    fn moments(&self, phys: Option<Phys>, len: usize, from: Seq, to: Seq) -> BTreeSet<Seq> {
        let changes = phys
            .into_iter()
            .flat_map(|phys| (0..len as u64).flat_map(move |i| self.memory.changes(phys.offset(i), from)));
        changes.filter(|seq| *seq <= to).chain([from]).collect()
    }

    fn bytes(&self, phys: Option<Phys>, len: usize, at: Seq) -> Vec<u8> {
        let Some(phys) = phys else { return Vec::new() };
        (0..len as u64).map_while(|i| self.memory.byte(phys.offset(i), at)).collect()
    }

    /// The byte that is in memory at `linear` now, and where.
    #[must_use]
    pub fn byte_now(&self, linear: Linear) -> (Option<Phys>, Option<u8>) {
        let phys = self.mapping.translate(linear);
        (phys, phys.and_then(|phys| self.memory.byte(phys, self.now)))
    }
}
