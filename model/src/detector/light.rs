//! The light detector: what a vCPU executes now, compared with what it executed earlier in the same epoch.
//!
//! It knows executed bytes and serializing events, and nothing of stores. A vCPU that executes other bytes at a linear
//! address than it executed there earlier in the same epoch executes changed code with no serializing event in between;
//! that is a hazard of the plain model, too (the older bytes are still a candidate), unless the change was the vCPU's
//! own store and a taken branch came after it.
//!
//! # Which way it errs
//! 1. It misses whatever needs the store side: bytes that were brought in but not executed (look-ahead, the rest of a
//!    chunk), torn mixes of versions that this vCPU never executed, the end of an exemption at a commit.
//! 2. It over-reports one legal thing: a vCPU that stores to its own code through the address that it executes from and
//!    then takes a branch. Only the store side can tell that from another CPU's store.
//! 3. [`Exemption::AlignedStore`] is granted if all differing bytes lie in one aligned block; how many stores made the
//!    difference is not known (misses).

use crate::addr::Linear;
use crate::arch::exemption::Exemption;

/// A run of instructions that execute one after the other.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct CodeRun {
    linear: Linear,
    bytes: Box<[u8]>,
    lengths: Box<[u8]>,
}

impl CodeRun {
    /// A run at `linear` of instructions with these `lengths`, whose bytes follow each other in `bytes`.
    ///
    /// Bytes beyond the sum of the lengths are ignored; instructions beyond the end of `bytes` are, too.
    #[must_use]
    pub fn new(linear: Linear, bytes: &[u8], lengths: &[u8]) -> Self {
        let mut total = 0usize;
        let mut fits = |len: &u8| {
            total += usize::from(*len);
            *len > 0 && total <= bytes.len()
        };
        let count = lengths.iter().take_while(|len| fits(len)).count();
        let lengths: Box<[u8]> = lengths[..count].into();
        let len: usize = lengths.iter().map(|len| usize::from(*len)).sum();
        Self { linear, bytes: bytes[..len].into(), lengths }
    }

    /// A run at `linear` of these instructions, each of at least one byte and at most 255.
    #[must_use]
    pub fn of<'a>(linear: Linear, instructions: impl Iterator<Item = &'a [u8]> + Clone) -> Self {
        let mut bytes = Vec::with_capacity(instructions.clone().map(<[u8]>::len).sum());
        instructions.clone().for_each(|instruction| bytes.extend_from_slice(instruction));
        Self { linear, bytes: bytes.into(), lengths: instructions.map(|instruction| instruction.len() as u8).collect() }
    }

    /// Where the run starts.
    #[must_use]
    pub fn linear(&self) -> Linear {
        self.linear
    }

    /// The same instructions `shift` bytes further on, modulo 2^64.
    #[must_use]
    pub fn shifted(&self, shift: u64) -> Self {
        Self { linear: Linear(self.linear.0.wrapping_add(shift)), ..self.clone() }
    }

    /// The address of its last instruction.
    #[must_use]
    pub fn last(&self) -> Linear {
        let last = self.lengths.last().map_or(0, |len| u64::from(*len));
        self.linear.offset(self.bytes.len() as u64 - last)
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
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

    /// The run's byte at an address.
    fn byte(&self, at: Linear) -> Option<u8> {
        self.bytes.get(usize::try_from(at.0.wrapping_sub(self.linear.0)).ok()?).copied()
    }

    /// Does one of the run's instructions start at that address?
    fn starts_at(&self, at: Linear) -> bool {
        self.instructions().any(|(linear, _)| linear == at)
    }

    /// Do the two runs have different bytes at an address that both cover? Only such a pair can be in conflict.
    #[must_use]
    pub fn contradicts(&self, other: &Self) -> bool {
        let differ = |first: &Self, second: &Self| {
            let overlap = usize::try_from(second.linear.0.wrapping_sub(first.linear.0))
                .ok()
                .and_then(|skip| first.bytes.get(skip..));
            overlap.is_some_and(|overlap| overlap.iter().zip(&second.bytes).any(|(a, b)| a != b))
        };
        differ(self, other) || differ(other, self)
    }
}

/// An instruction that differs from what the same vCPU executed at its address earlier in the epoch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Conflict {
    /// Address of the instruction.
    pub linear: Linear,
    /// The bytes that are in memory and about to be executed.
    pub memory: Vec<u8>,
    /// The bytes that were executed from the same address on earlier in this epoch: at least as many as `memory` has
    /// (those that were not executed earlier are as in memory), and what was executed right after them, up to
    /// the longest instruction's length in all. Only those that no exemption covers.
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

/// A vCPU executes `run`; `earlier` are the runs that it executed before in this epoch (those that
/// [contradict](CodeRun::contradicts) it are enough); the longest instruction has `longest` bytes.
pub fn judge<'a>(
    run: &CodeRun,
    earlier: impl Iterator<Item = &'a CodeRun> + Clone,
    exemptions: &[Exemption],
    longest: usize,
) -> Findings {
    let mut findings = Findings::default();
    for (linear, memory) in run.instructions() {
        // Several runs may hold the same older instruction: it counts once.
        let mut older: Vec<Vec<u8>> = Vec::new();
        let mut exempt: Vec<Vec<u8>> = Vec::new();
        for run in earlier.clone() {
            let version = version(run, linear, memory, longest);
            if version.starts_with(memory) || older.iter().chain(&exempt).any(|known| known.starts_with(&version)) {
                continue;
            }
            let covered = exemptions.iter().any(|exemption| covers(*exemption, run, linear, memory, &version));
            if covered { exempt.push(version) } else { older.push(version) }
        }
        findings.exempt += exempt.len() as u64;
        if !older.is_empty() {
            findings.conflicts.push(Conflict { linear, memory: memory.to_vec(), older });
        }
    }
    findings
}

/// What `run` had at the address of an instruction whose bytes are now `memory`, and up to the length of the longest
/// instruction.
fn version(run: &CodeRun, linear: Linear, memory: &[u8], longest: usize) -> Vec<u8> {
    let at = |index: usize| run.byte(linear.offset(index as u64));
    let mut version: Vec<u8> = memory.iter().enumerate().map(|(index, byte)| at(index).unwrap_or(*byte)).collect();
    version.extend((memory.len()..longest).map_while(at));
    version
}

fn covers(exemption: Exemption, run: &CodeRun, linear: Linear, memory: &[u8], older: &[u8]) -> bool {
    match exemption {
        Exemption::Breakpoint(_) => run.starts_at(linear) && exemption.covers_breakpoint(memory, older),
        Exemption::Listed(_) => run.starts_at(linear) && exemption.covers_listed(memory, older),
        Exemption::AlignedStore(block) => {
            let differing = (0..).zip(memory.iter().zip(older)).filter(|(_, (new, old))| new != old);
            let mut blocks = differing.map(|(index, _)| linear.offset(index).align_down(u64::from(block)));
            let first = blocks.next();
            blocks.all(|block| Some(block) == first)
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

/// What the vCPU may execute at a conflict, if one fetch brings in `chunk` bytes (a power of two, at least 4): memory
/// first, then what was executed earlier, then the mixes. That a mix may also have stood in memory, byte by byte,
/// cannot be told without the stores.
#[must_use]
pub fn candidates(conflict: &Conflict, chunk: u32) -> Vec<Candidate> {
    let mut found = vec![Candidate { bytes: conflict.memory.clone(), origin: Origin::Memory }];
    let chunk_of = |index: usize| conflict.linear.offset(index as u64).align_down(u64::from(chunk)).0;
    for older in &conflict.older {
        let common = conflict.memory.len();
        let mut chunks: Vec<u64> =
            (0..common).filter(|index| older[*index] != conflict.memory[*index]).map(chunk_of).collect();
        chunks.dedup();
        let all = (1u32 << chunks.len().min(8)) - 1;
        for choice in (1..=all).rev() {
            let take_older = |index: usize| {
                chunks.iter().position(|chunk| *chunk == chunk_of(index)).is_some_and(|bit| choice >> bit & 1 != 0)
            };
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
