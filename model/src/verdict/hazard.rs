//! Hazards: what the model answers.

use crate::addr::{Epoch, Linear, Phys, Seq, Vcpu};
use crate::event::Store;
use crate::memory::Memory;
use crate::verdict::candidates::Candidate;
use crate::verdict::kind::Kind;
use crate::verdict::last_sync::LastSync;
use serde::{Deserialize, Serialize};

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
    /// What was there before; `None` if not all of it was known, or is remembered.
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
        let byte = |i: u64| {
            let phys = phys.offset(i);
            memory.byte(phys, before).filter(|_| !memory.forgot_after(phys, 1, before))
        };
        let old = (0..bytes.len() as u64).map(byte).collect();
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
