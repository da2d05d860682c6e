//! The elements of a recording.

use icsan_model::addr::{Linear, Vcpu};
use icsan_model::event::Event;
use icsan_model::verdict::hazard::Hazard;
use icsan_model::verdict::kind::Kind;
use serde::{Deserialize, Serialize};

/// One element of a recording. The order of the variants, and of their fields, is the file format.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Record {
    /// Something that happened.
    Event(Event),
    /// Instructions that were executed one after another: short for one [`Event::Fetch`] each.
    Run {
        /// Who executed.
        vcpu: Vcpu,
        /// The address of the first instruction.
        linear: Linear,
        /// The length of each instruction in bytes; each begins where the one before ends.
        lengths: Box<[u8]>,
    },
    /// What the recorder said of an execution: of the record before (not counting other verdicts), or of one
    /// instruction of it, if it is a run. An execution without a verdict was no hazard.
    Verdict {
        /// Who executed.
        vcpu: Vcpu,
        /// The address of the instruction.
        linear: Linear,
        /// The kind of hazard.
        kind: Kind,
        /// The instruction that is in memory.
        memory: Vec<u8>,
        /// The candidates that are not in memory and that no exemption covers, by bytes.
        candidates: Vec<Vec<u8>>,
        /// The places of the stores that separate them from memory, oldest first.
        writes: Vec<u64>,
    },
}

impl Record {
    /// How many places in the order of events it takes.
    #[must_use]
    pub fn places(&self) -> u64 {
        match self {
            Self::Event(_) => 1,
            Self::Run { lengths, .. } => lengths.len() as u64,
            Self::Verdict { .. } => 0,
        }
    }

    /// A hazard as it is recorded.
    #[must_use]
    pub fn verdict(hazard: &Hazard) -> Self {
        let others = hazard.candidates.iter().filter(|candidate| !candidate.exempt);
        let mut candidates: Vec<_> = others.map(|candidate| candidate.bytes.clone()).collect();
        candidates.sort();
        let mut writes: Vec<_> = hazard.writes.iter().map(|write| write.seq.0).collect();
        writes.sort_unstable();
        Self::Verdict {
            vcpu: hazard.vcpu,
            linear: hazard.linear,
            kind: hazard.kind,
            memory: hazard.memory.clone(),
            candidates,
            writes,
        }
    }
}
