//! The light mode: what a vCPU executes, compared with what it executed at the same linear address earlier in its epoch
//! ([`icsan_model::detector::light`]). No store is seen.

use crate::arch::platform::Platform;
use crate::code::segment::Segment;
use crate::qemu::scoreboard::VcpuSlots;
use crate::report::evidence::{Origin, Shown};
use icsan_model::addr::Linear;
use icsan_model::arch::exemption::Exemption;
use icsan_model::arch::maintenance::Caches;
use icsan_model::arch::profile::Profile;
use icsan_model::detector::flags::OwnBoard;
use icsan_model::detector::light::{self, Conflict};
use icsan_model::verdict::kind::Kind;

/// What it finds: that the executor did not synchronize is certain, whatever other steps an architecture asks for.
#[must_use]
pub const fn kind(profile: &Profile) -> Kind {
    match profile.caches {
        Caches::Coherent => Kind::Unserialized,
        Caches::Maintained(_) => Kind::Unsynchronized,
    }
}

/// What the light mode has found at one instruction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// The instruction's address.
    pub linear: Linear,
    /// What is in memory.
    pub memory: Vec<u8>,
    /// What may be executed, memory's first.
    pub candidates: Vec<Shown>,
}

/// Compares a segment with what the vCPU of these slots executed at its addresses in this epoch. Answers with what
/// contradicts it, and with how many differences an exemption covered.
pub fn judge(
    segment: &Segment,
    slots: &VcpuSlots<'_>,
    exemptions: &[Exemption],
    chunk: u32,
    platform: &dyn Platform,
) -> (Vec<Found>, u64) {
    let conflicting = segment.conflicting(|slot| slots.flag(slot).executed());
    if conflicting.is_empty() {
        return (Vec::new(), 0);
    }
    let others = conflicting.iter().map(|other| other.run());
    let findings = light::judge(segment.run(), others, exemptions, platform.facts().arch.max_instruction);
    (findings.conflicts.into_iter().map(|conflict| found(&conflict, chunk, platform)).collect(), findings.exempt)
}

/// A conflict as a report shows it: every candidate cut to one instruction.
#[must_use]
pub fn found(conflict: &Conflict, chunk: u32, platform: &dyn Platform) -> Found {
    let shown = |candidate: light::Candidate| match candidate.origin {
        light::Origin::Memory => Shown { bytes: candidate.bytes, origin: Origin::Memory },
        light::Origin::Mix => Shown { bytes: candidate.bytes, origin: Origin::Mix },
        light::Origin::Earlier => Shown {
            bytes: platform.first_instruction(&candidate.bytes, &conflict.memory).to_vec(),
            origin: Origin::Earlier,
        },
    };
    Found {
        linear: conflict.linear,
        memory: conflict.memory.clone(),
        candidates: light::candidates(conflict, chunk).into_iter().map(shown).collect(),
    }
}
