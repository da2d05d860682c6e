//! The light detector: what one vCPU executed in this epoch, compared with what it executes now.
//!
//! It knows executed bytes and serializing events, and nothing of stores. A vCPU that executes other bytes at a linear address than it executed
//! there earlier in the same epoch executes changed code with no serializing event in between; that is a hazard of the plain model, too
//! (the older bytes are still a candidate), unless the change was the vCPU's own store and a taken branch came after it.
//!
//! # Which way it errs
//! 1. It misses whatever needs the store side: bytes that were brought in but not executed (look-ahead, the rest of a chunk), torn mixes of
//!    versions that this vCPU never executed, the end of an exemption at a commit.
//! 2. It over-reports one legal thing: a vCPU that stores to its own code through the address that it executes from and then takes a branch. Only
//!    the store side can tell that from another CPU's store.
//! 3. [`Exemption::AlignedStore`] is granted if all differing bytes lie in one aligned block; how many stores made the difference is not known (misses).

use crate::addr::{Epoch, Linear};
use crate::exemption::Exemption;

/// Bytes that are compared at once. An implementation constant: no rule depends on it.
const GRANULE: usize = 16;

/// How many bytes of an older version a conflict shows: enough for the longest instruction of any architecture here.
pub const WINDOW: usize = 15;

/// Older versions that are kept for one vCPU in one epoch. Past this the oldest evidence is not extended, which can only miss; see [`EpochTrace::dropped`].
const MAX_OLDER: usize = 4096;

/// A run of instructions that execute one after the other, prepared for comparison. Made once for each translated run.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct CodeRun {
    linear: Linear,
    bytes: Box<[u8]>,
    lengths: Box<[u8]>,
    granules: Box<[Granule]>,
}

/// The part of a run that lies in one aligned granule: bytes in the order of addresses from the least significant on, and zero outside of the mask.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Granule {
    at: Linear,
    bytes: u128,
    mask: u128,
    /// Bit n: an instruction starts at byte n.
    starts: u16,
    /// Bit n: the run covers byte n.
    covers: u16,
}

impl CodeRun {
    /// A run at `linear` of instructions with these `lengths`, whose bytes follow each other in `bytes`.
    ///
    /// Bytes beyond the sum of the lengths are ignored; instructions beyond the end of `bytes` are, too.
    #[must_use]
    pub fn new(linear: Linear, bytes: &[u8], lengths: &[u8]) -> Self {
        let mut total = 0usize;
        let lengths: Box<[u8]> = lengths
            .iter()
            .copied()
            .take_while(|len| {
                total += usize::from(*len);
                *len > 0 && total <= bytes.len()
            })
            .collect();
        let bytes = &bytes[..lengths.iter().map(|len| usize::from(*len)).sum()];
        let mut granules: Vec<Granule> = Vec::new();
        let mut next_start = 0usize;
        let mut ends = lengths.iter();
        for (offset, byte) in bytes.iter().enumerate() {
            let at = linear.offset(offset as u64);
            let base = at.align_down(GRANULE as u64);
            let position = (at.0 - base.0) as u32;
            if granules.last().is_none_or(|granule| granule.at != base) {
                granules.push(Granule { at: base, bytes: 0, mask: 0, starts: 0, covers: 0 });
            }
            if let Some(granule) = granules.last_mut() {
                granule.bytes |= u128::from(*byte) << (8 * position);
                granule.mask |= 0xff << (8 * position);
                granule.covers |= 1 << position;
                if offset == next_start {
                    granule.starts |= 1 << position;
                    next_start += ends.next().map_or(0, |len| usize::from(*len));
                }
            }
        }
        Self { linear, bytes: bytes.into(), lengths, granules: granules.into() }
    }

    /// Where the run starts.
    #[must_use]
    pub fn linear(&self) -> Linear {
        self.linear
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The length of each of its instructions, in bytes.
    #[must_use]
    pub fn lengths(&self) -> &[u8] {
        &self.lengths
    }

    /// Its instructions: address and bytes.
    pub fn instructions(&self) -> impl Iterator<Item = (Linear, &[u8])> {
        let mut offset = 0usize;
        self.lengths.iter().map(move |len| {
            let start = offset;
            offset += usize::from(*len);
            (self.linear.offset(start as u64), &self.bytes[start..offset])
        })
    }
}

/// What the trace remembers of one granule.
#[derive(Clone, Copy, Debug)]
struct Slot {
    at: Linear,
    /// Epoch of the entry, cut to 32 bits; an entry of another epoch is vacant.
    epoch: u32,
    /// Index + 1 of the first older version in [`EpochTrace::older`].
    older: u32,
    starts: u16,
    bytes: u128,
    mask: u128,
}

const VACANT: Slot = Slot { at: Linear(0), epoch: 0, older: 0, starts: 0, bytes: 0, mask: 0 };

/// A version that was executed earlier in the epoch and has been replaced since.
#[derive(Clone, Copy, Debug)]
struct Older {
    bytes: u128,
    mask: u128,
    starts: u16,
    next: u32,
}

/// An instruction that differs from what the same vCPU executed at its address earlier in the epoch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Conflict {
    /// Address of the instruction.
    pub linear: Linear,
    /// The bytes that are in memory and about to be executed.
    pub memory: Vec<u8>,
    /// The bytes that were executed from the same address on earlier in this epoch, latest first: at least as many as `memory` has (those that were not
    /// executed earlier are as in memory), and what was executed right after them, up to [`WINDOW`] in all. Only those that no exemption covers.
    pub older: Vec<Vec<u8>>,
}

/// The answer to one executed run.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Findings {
    /// Instructions with a difference that no exemption covers.
    pub conflicts: Vec<Conflict>,
    /// Differences that an exemption covers.
    pub exempt: u64,
}

/// The bytes that one vCPU executed in its current epoch, by linear address.
#[derive(Debug)]
pub struct EpochTrace {
    epoch: Epoch,
    exemptions: &'static [Exemption],
    /// Open addressing, a power of two in size. Entries live as long as the epoch, so a vacant slot always ends a probe.
    slots: Vec<Slot>,
    used: usize,
    older: Vec<Older>,
    dropped: u64,
}

impl EpochTrace {
    /// An empty trace.
    #[must_use]
    pub fn new(exemptions: &'static [Exemption]) -> Self {
        Self { epoch: Epoch(1), exemptions, slots: vec![VACANT; 64], used: 0, older: Vec::new(), dropped: 0 }
    }

    /// The current epoch.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// How many older versions were not kept because a bound was hit. Not zero: some hazards may have been missed.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// The vCPU met a serializing event: what it executed before does not matter any more.
    pub fn serialize(&mut self) {
        self.epoch = self.epoch.next();
        self.used = 0;
        self.older.clear();
        if self.epoch.0 & 0xffff_ffff == 0 {
            // The shortened epoch would repeat: really empty the table, and skip the number that means "never used".
            self.slots.fill(VACANT);
            self.epoch = self.epoch.next();
        }
    }

    /// The vCPU executes `run`. Remembers it, and tells where it differs from what was executed before in this epoch.
    ///
    /// The common answer, no difference, costs one probe for each 16 bytes and allocates nothing.
    pub fn execute(&mut self, run: &CodeRun) -> Findings {
        let mut findings = Findings::default();
        let mut differs = false;
        for granule in &*run.granules {
            differs |= self.differs(granule);
        }
        if differs {
            for (linear, memory) in run.instructions() {
                self.compare(linear, memory, &mut findings);
            }
        }
        for granule in &*run.granules {
            self.remember(granule);
        }
        findings
    }

    fn find(&self, at: Linear) -> Result<usize, usize> {
        let epoch = self.epoch.0 as u32;
        let size = self.slots.len();
        // Fibonacci hashing of the granule's number: neighbours spread, and no key of the guest's choosing needs more than the load factor allows.
        let mut index = (at.0 / GRANULE as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) as usize >> (usize::BITS - size.trailing_zeros());
        loop {
            let slot = &self.slots[index];
            if slot.epoch != epoch {
                return Err(index);
            }
            if slot.at == at {
                return Ok(index);
            }
            index = (index + 1) & (size - 1);
        }
    }

    fn differs(&self, granule: &Granule) -> bool {
        self.find(granule.at).is_ok_and(|index| {
            let slot = &self.slots[index];
            slot.older != 0 || (slot.bytes ^ granule.bytes) & slot.mask & granule.mask != 0
        })
    }

    /// All versions of a granule that were executed in this epoch, latest first: bytes, mask, instruction starts.
    fn versions(&self, at: Linear) -> impl Iterator<Item = (u128, u128, u16)> + '_ {
        let slot = self.find(at).ok().map(|index| &self.slots[index]);
        let mut next = slot.map_or(0, |slot| slot.older);
        slot.map(|slot| (slot.bytes, slot.mask, slot.starts)).into_iter().chain(std::iter::from_fn(move || {
            let older = self.older.get((next as usize).checked_sub(1)?)?;
            next = older.next;
            Some((older.bytes, older.mask, older.starts))
        }))
    }

    /// Compares one instruction with every version of its bytes. An instruction touches at most two granules; a version of one is combined with what is in
    /// memory of the other, and with the other's version of the same age rank, since the light mode does not know which stood in memory together.
    fn compare(&self, linear: Linear, memory: &[u8], findings: &mut Findings) {
        let mut older: Vec<Vec<u8>> = Vec::new();
        let mut exempt = 0;
        let end = linear.offset(WINDOW as u64 - 1);
        let bases = [linear.align_down(GRANULE as u64), end.align_down(GRANULE as u64)];
        let parts: Vec<Vec<(u128, u128, u16)>> =
            bases[..1 + usize::from(bases[0] != bases[1])].iter().map(|base| self.versions(*base).collect()).collect();
        for rank in 0..parts.iter().map(Vec::len).max().unwrap_or(0) {
            let mut version = memory.to_vec();
            let mut after = Vec::new();
            let mut same_start = true;
            for index in 0..memory.len().max(WINDOW) {
                let at = linear.offset(index as u64);
                let base = at.align_down(GRANULE as u64);
                let position = (at.0 - base.0) as u32;
                let part = parts.get(usize::from(base != bases[0])).and_then(|part| part.get(rank));
                let executed =
                    part.filter(|(_, mask, _)| mask >> (8 * position) & 0xff != 0).map(|(bytes, ..)| (bytes >> (8 * position)) as u8);
                match (version.get_mut(index), executed) {
                    (Some(byte), Some(executed)) => *byte = executed,
                    (Some(_), None) => {}
                    (None, Some(executed)) => after.push(executed),
                    (None, None) => break,
                }
                if index == 0 {
                    same_start = part.is_none_or(|(.., starts)| starts >> position & 1 != 0);
                }
            }
            if version == memory || older.iter().any(|known: &Vec<u8>| known.starts_with(&version)) {
                continue;
            }
            if self.is_exempt(linear, memory, &version, same_start) {
                exempt += 1;
            } else {
                version.append(&mut after);
                older.push(version);
            }
        }
        findings.exempt += exempt;
        if !older.is_empty() {
            findings.conflicts.push(Conflict { linear, memory: memory.to_vec(), older });
        }
    }

    /// Does an exemption cover the difference? `same_start`: the older version had an instruction at the same address.
    fn is_exempt(&self, linear: Linear, memory: &[u8], older: &[u8], same_start: bool) -> bool {
        self.exemptions.iter().any(|exemption| match *exemption {
            Exemption::Breakpoint(_) => same_start && exemption.covers_breakpoint(memory, older),
            Exemption::AlignedStore(block) => {
                let mut blocks = memory
                    .iter()
                    .zip(older)
                    .enumerate()
                    .filter(|(_, (new, old))| new != old)
                    .map(|(index, _)| linear.offset(index as u64).align_down(u64::from(block)));
                let first = blocks.next();
                blocks.all(|block| Some(block) == first)
            }
        })
    }

    fn remember(&mut self, granule: &Granule) {
        let index = match self.find(granule.at) {
            Ok(index) => {
                let slot = &self.slots[index];
                if (slot.bytes ^ granule.bytes) & slot.mask & granule.mask != 0 {
                    if self.older.len() < MAX_OLDER {
                        self.older.push(Older { bytes: slot.bytes, mask: slot.mask, starts: slot.starts, next: slot.older });
                        self.slots[index].older = self.older.len() as u32;
                    } else {
                        self.dropped += 1;
                    }
                }
                index
            }
            Err(index) => {
                if self.used * 2 >= self.slots.len() {
                    self.grow();
                    return self.remember(granule);
                }
                self.used += 1;
                self.slots[index] = Slot { at: granule.at, epoch: self.epoch.0 as u32, ..VACANT };
                index
            }
        };
        let slot = &mut self.slots[index];
        slot.bytes = slot.bytes & !granule.mask | granule.bytes;
        slot.mask |= granule.mask;
        slot.starts = slot.starts & !granule.covers | granule.starts;
    }

    fn grow(&mut self) {
        let epoch = self.epoch.0 as u32;
        let old = std::mem::take(&mut self.slots);
        self.slots = vec![VACANT; old.len() * 2];
        for slot in old.into_iter().filter(|slot| slot.epoch == epoch) {
            let (Ok(index) | Err(index)) = self.find(slot.at);
            self.slots[index] = slot;
        }
    }
}

/// Where a candidate's bytes come from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Origin {
    /// They are in memory.
    Memory,
    /// This vCPU executed them earlier in the epoch.
    Earlier,
    /// Fetch chunks of both: chunks are refreshed apart from each other.
    Mix,
}

/// A byte string that the vCPU may execute.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Candidate {
    /// The bytes: as many as the instruction in memory has, or more where the earlier instruction may have been longer.
    pub bytes: Vec<u8>,
    /// Where they come from.
    pub origin: Origin,
}

/// What the vCPU may execute at a conflict, if one fetch brings in `chunk` bytes (a power of two, at least 4): memory first, then what was executed earlier, then the
/// mixes. That a mix may also have stood in memory, byte by byte, cannot be told without the stores.
#[must_use]
pub fn candidates(conflict: &Conflict, chunk: u32) -> Vec<Candidate> {
    let mut found = vec![Candidate { bytes: conflict.memory.clone(), origin: Origin::Memory }];
    let chunk_of = |index: usize| conflict.linear.offset(index as u64).align_down(u64::from(chunk)).0;
    for older in &conflict.older {
        let common = conflict.memory.len();
        let mut chunks: Vec<u64> = (0..common).filter(|index| older[*index] != conflict.memory[*index]).map(chunk_of).collect();
        chunks.dedup();
        let all = (1u32 << chunks.len().min(8)) - 1;
        for choice in (1..=all).rev() {
            let take_older =
                |index: usize| chunks.iter().position(|chunk| *chunk == chunk_of(index)).is_some_and(|bit| choice >> bit & 1 != 0);
            let (bytes, origin) = if choice == all {
                (older.clone(), Origin::Earlier)
            } else {
                let byte = |index: usize| if take_older(index) { older[index] } else { conflict.memory[index] };
                ((0..common).map(byte).collect(), Origin::Mix)
            };
            if found.iter().all(|known| known.bytes != bytes) {
                found.push(Candidate { bytes, origin });
            }
        }
    }
    found.sort_by_key(|candidate| candidate.origin);
    found
}
