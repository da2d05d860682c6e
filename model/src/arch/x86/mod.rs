//! x86-64: the event table, the classification of instructions, the profiles.
//!
//! [`events`] holds what is known of each event and from whom; [`classify`] finds the event of an instruction from its
//! bytes, [`resolve`] finishes the job where run-time values decide ([`msr`] is one of its tables); [`profiles`]
//! chooses which events count.
//!
//! Sources are named in each row ([`events`]). Which way this errs: an event that no text calls serializing, or on
//! which texts conflict, does not count, so hazards may be reported that a given CPU cannot show; an instruction that
//! is not classified never counts.
//!
//! Where we deviate from, or do not reach, the manuals:
//! 1. The footnoted MSRs are those of the newest edition that was seen, whatever CPU the guest believes to run on
//!    ([`msr`]).
//! 2. A CR3 write of page-table isolation is recognised by its value, and two neighbouring page tables look the same
//!    ([`resolve::mov_cr3`]).
//! 3. IRET-to-self is recognised by target and privilege level; the stack pointer is not compared ([`resolve::iret`]).
//! 4. An instruction is classified from bytes alone. That it completed (no fault, no #UD for want of a CPUID bit) is
//!    for the caller to find out. QEMU decodes a few encodings more loosely than hardware; see [`classify`].
//! 5. APX (REX2, EVEX-promoted INVEPT, INVVPID, INVPCID) is not classified. TCG has no APX.
//! 6. Reset is taken as serializing by inference: no list names it.

pub mod atomicity;
pub mod classify;
pub mod events;
#[cfg(feature = "iced")]
pub mod interpret;
#[cfg(feature = "iced")]
pub mod length;
pub mod may_store;
pub mod msr;
pub mod profiles;
pub mod resolve;
pub mod rules;
pub mod store_kind;

use crate::arch::architecture::Architecture;
use crate::arch::decode::Decode;

/// The length of the longest instruction, in bytes.
const LONGEST: usize = 15;

#[cfg(feature = "iced")]
const DECODER: Option<&'static dyn Decode> = Some(&length::X86Length);
#[cfg(not(feature = "iced"))]
const DECODER: Option<&'static dyn Decode> = None;

/// x86-64 as data.
pub static X86_64: Architecture = Architecture {
    name: "x86_64",
    vendors: &["Intel", "AMD"],
    events: events::EVENTS,
    profiles: profiles::PROFILES,
    max_instruction: LONGEST,
    decoder: DECODER,
    rules: rules::RULES,
};
