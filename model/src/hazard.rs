//! Hazards: what the model answers.

use crate::addr::{Epoch, Linear, Phys, Seq, Vcpu};
use crate::candidates::Candidate;
use crate::event::Store;
use crate::memory::Memory;
use crate::vcpu::LastSync;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What happened. What an execution shows comes first, worst first; what a commit shows is last, since recordings hold
/// the numbers of the others.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A candidate mixes versions that never stood in memory together.
    Torn,
    /// The commit is past, and a candidate is older than it.
    Stale,
    /// Own store through another linear address, with no serializing event since.
    Alias,
    /// Own store, with neither a taken branch nor a serializing event since.
    Smc,
    /// Somebody else's store, or one that nobody was seen to make, with no serializing event since.
    Unserialized,
    /// Not the guest's fault: the emulator ran what memory has not held for a while. The model never says this; a
    /// plugin does.
    Emulator,
    /// Never brought in during this epoch, but it could have been.
    Speculative,
    /// No execution: a patch was taken for done (or its next step was begun), and the protocol had not made every CPU
    /// serialize since the last store. Worse than what executions show but for [`Kind::Torn`] and [`Kind::Stale`]. The
    /// model never says this; a plugin does.
    Unsynced,
}

impl Kind {
    /// Every kind, in the order of their numbers.
    pub const ALL: [Self; 8] =
        [Self::Torn, Self::Stale, Self::Alias, Self::Smc, Self::Unserialized, Self::Emulator, Self::Speculative, Self::Unsynced];

    /// The stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Torn => "torn",
            Self::Stale => "stale",
            Self::Alias => "alias",
            Self::Smc => "smc",
            Self::Unserialized => "unserialized",
            Self::Emulator => "emulator",
            Self::Speculative => "speculative",
            Self::Unsynced => "unsynced",
        }
    }

    /// The kind of that name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A store that separates a candidate from memory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Write {
    /// Its place in the order.
    pub seq: Seq,
    /// Who wrote; `None`: nobody that was seen.
    pub vcpu: Option<Vcpu>,
    /// The storing instruction.
    pub pc: Option<Linear>,
    /// The linear address that was written through.
    pub linear: Option<Linear>,
    /// The physical address of the first byte.
    pub phys: Phys,
    /// What was there before; `None` if not all of it was known.
    pub old: Option<Vec<u8>>,
    /// What was written.
    pub new: Vec<u8>,
}

impl Write {
    /// The store at that place in the order, if memory remembers it.
    #[must_use]
    pub fn of(memory: &Memory, seq: Seq) -> Option<Self> {
        let Store { vcpu, pc, linear, phys, bytes } = memory.record(seq)?.store.clone();
        let before = Seq(seq.0.saturating_sub(1));
        let old = (0..bytes.len() as u64).map(|i| memory.byte(phys.offset(i), before)).collect();
        Some(Self { seq, vcpu, pc, linear, phys, old, new: bytes })
    }
}

/// An execution with a candidate that is not in memory and that no exemption covers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Hazard {
    /// The worst that applies.
    pub kind: Kind,
    /// Who executed.
    pub vcpu: Vcpu,
    /// The address of the instruction.
    pub linear: Linear,
    /// Where it is in memory.
    pub phys: Phys,
    /// The instruction that is in memory.
    pub memory: Vec<u8>,
    /// What may be executed instead, exempt candidates included; memory's own instruction is not in this list.
    pub candidates: Vec<Candidate>,
    /// The stores that separate the candidates that are not exempt from memory, oldest first. Empty if a page was
    /// remapped instead.
    pub writes: Vec<Write>,
    /// The last time that a page of the instruction moved in this vCPU's address space while a buffer may have held
    /// bytes of it.
    pub remapped: Option<Seq>,
    /// What began the epoch; `None` before the first serializing event.
    pub last_sync: Option<LastSync>,
    /// The epoch that the vCPU is in.
    pub epoch: Epoch,
}

/// What the model says of one event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// The event's place in the order.
    pub seq: Seq,
    /// The hazard, if it is an execution and there is one.
    pub hazard: Option<Box<Hazard>>,
    /// How many candidates an exemption covered.
    pub exempt: usize,
    /// Was everything looked at? `false` if a bound was hit: no hazard then proves nothing.
    pub complete: bool,
}

impl Verdict {
    /// The verdict on an event that is no execution.
    #[must_use]
    pub fn silent(seq: Seq) -> Self {
        Self { seq, hazard: None, exempt: 0, complete: true }
    }
}
