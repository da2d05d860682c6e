//! The fetch window: the bytes from an executed address on that could be part of the instruction, cut where chunks
//! meet, each part with its past.

use crate::addr::{Linear, Phys, Seq, Vcpu};
use crate::fetch::instruction_cache::InstructionCache;
use crate::memory::mapping::Mapping;
use crate::memory::{Memory, PAGE};
use std::collections::BTreeSet;

/// A stretch of time, both ends included, in which a part's bytes stayed the same.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stretch {
    /// The first moment that the bytes may stem from.
    pub from: Seq,
    /// The last one.
    pub to: Seq,
    /// The first and the last moment at which they may have been fetched.
    pub fetched: (Seq, Seq),
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
    /// The moment from which on they stem: earlier than `since` where an instruction cache may have had older ones.
    pub oldest: Seq,
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

/// What a vCPU sees of memory: the things that have a past.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Memory.
    pub memory: &'a Memory,
    /// The vCPU's translations.
    pub mapping: &'a Mapping,
    /// What it fetches through.
    pub cache: &'a InstructionCache,
    /// Who.
    pub vcpu: Vcpu,
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
            let stretches = self.stretches(first, count, since, None);
            let oldest = match self.cache.is_incoherent() {
                true => stretches.iter().map(|stretch| stretch.from).min().unwrap_or(since),
                false => since,
            };
            parts.push(Part { linear: first, at, len: count, since, stretches, oldest });
            at += count;
        }
        parts
    }

    /// What `len` bytes at `linear`, all in one page, may have been to fetches from `since` on; oldest first, without
    /// gaps but for those of the mapping. Through an instruction cache that does not see stores a fetch brings in what
    /// was there earlier, down to the lowest floor that any of the bytes had when their page was first where it is; or
    /// down to `oldest`. (That the floors rise between two fetches of one chunk, byte by byte, is not followed: a chunk
    /// has those of its first fetch.)
    #[must_use]
    pub fn stretches(&self, linear: Linear, len: usize, since: Seq, oldest: Option<Seq>) -> Vec<Stretch> {
        let page = linear.align_down(PAGE);
        let incoherent = self.cache.is_incoherent();
        let mut stretches: Vec<Stretch> = Vec::new();
        for placement in self.mapping.placements(page, since, self.now) {
            let phys = placement.phys.map(|phys| phys.offset(linear.0 - page.0));
            let fetched = (placement.from, placement.to);
            let first = match phys.filter(|_| incoherent) {
                Some(phys) => oldest.unwrap_or_else(|| self.cache.lowest(self.vcpu, phys, len as u64, placement.from)),
                None => placement.from,
            };
            // Through a cache, times of one placement say nothing of another's.
            let before = if incoherent { stretches.len() } else { 0 };
            for from in self.moments(phys, len, first.min(placement.from), placement.to) {
                let bytes = self.bytes(phys, len, from, placement.from);
                match stretches.get_mut(before..).and_then(<[Stretch]>::last_mut) {
                    Some(last) if last.phys == phys && last.bytes == bytes => {
                        (last.to, last.fetched.1) = (placement.to, placement.to);
                    }
                    last => {
                        if let Some(last) = last {
                            last.to = last.to.min(Seq(from.0 - 1));
                        }
                        stretches.push(Stretch { from, to: placement.to, fetched, phys, bytes });
                    }
                }
            }
            // What did not change up to the first fetch stems from that, unless it is asked about what was before.
            if let Some(first) =
                stretches.get_mut(before).filter(|first| incoherent && oldest.is_none() && first.to >= placement.from)
            {
                first.from = placement.from;
            }
        }
        stretches
    }

    /// The moment from which a byte stems that came in with what memory held at `moment`, if the chunk that it is in
    /// was first fetched, where it is, at `fetched`.
    #[inline]
    #[must_use]
    pub fn stems(&self, phys: Phys, moment: Seq, fetched: Seq) -> Seq {
        if self.cache.is_incoherent() { moment.max(self.cache.floor(self.vcpu, phys, fetched)) } else { moment }
    }

    /// The moments between `from` and `to` at which the bytes may have become something else; `from` is the first.
    fn moments(&self, phys: Option<Phys>, len: usize, from: Seq, to: Seq) -> BTreeSet<Seq> {
        let changes = phys
            .into_iter()
            .flat_map(|phys| (0..len as u64).flat_map(move |i| self.memory.changes(phys.offset(i), from)));
        changes.filter(|seq| *seq <= to).chain([from]).collect()
    }

    fn bytes(&self, phys: Option<Phys>, len: usize, at: Seq, fetched: Seq) -> Vec<u8> {
        let Some(phys) = phys else { return Vec::new() };
        let byte = |phys| self.memory.byte(phys, self.stems(phys, at, fetched));
        (0..len as u64).map_while(|i| byte(phys.offset(i))).collect()
    }

    /// The byte that is in memory at `linear` now, and where.
    #[must_use]
    pub fn byte_now(&self, linear: Linear) -> (Option<Phys>, Option<u8>) {
        let phys = self.mapping.translate(linear);
        (phys, phys.and_then(|phys| self.memory.byte(phys, self.now)))
    }
}
