//! AArch64: the event table, the classification of instructions, the profiles, the list of instructions that may be
//! changed under a running CPU.
//!
//! [`events`] holds what Arm says of each event; [`classify`] finds what an instruction does from its word; [`cmodx`]
//! is the list; [`cache_type`] reads the guest's registers; [`profiles`] chooses what counts. [`may_store`],
//! [`store_kind`] and [`atomicity`] say of stores what an emulator does not.
//!
//! Which way this errs: an event that is not known to synchronize does not count, and maintenance that is not
//! recognised is none, so hazards may be reported that a given CPU cannot show.
//!
//! Where we deviate from, or do not reach, the manual:
//! 1. Exception entry and return synchronize always. With FEAT_ExS a kernel can switch that off (SCTLR_ELx.EIS, EOS);
//!    Linux does not. `without=exception-entry` and `without=exception-return` are that.
//! 2. HVC and SMC count as such, since what they call may be the emulator itself ([`events`]).
//! 3. Maintenance by set and way, and DC IVAC, is none ([`classify`]).
//! 4. 32-bit programs are not decoded: their instructions are taken in words of four bytes ([`length`]).
//! 5. What an implementation adds to a core's errata (Neoverse N1's 1542419: DIC=1, and yet an old instruction) is not
//!    there; `arm64-idc` and `arm64-base` ask for more than such a core claims to need.

pub mod atomicity;
pub mod cache_type;
pub mod classify;
pub mod cmodx;
pub mod events;
pub mod length;
pub mod may_store;
pub mod profiles;
pub mod rules;
pub mod store_kind;

use crate::arch::architecture::Architecture;

/// The length of every instruction, in bytes.
const WORD: usize = 4;

/// The instruction that these bytes begin with; `None`: they are too few.
fn word(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

/// AArch64 as data.
pub static AARCH64: Architecture = Architecture {
    name: "aarch64",
    vendors: &["Arm"],
    events: events::EVENTS,
    profiles: profiles::PROFILES,
    max_instruction: WORD,
    decoder: Some(&length::A64Length),
    rules: rules::RULES,
};
