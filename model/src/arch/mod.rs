//! Instruction sets as data and pure functions: which events there are and what the manuals say of each, which of them
//! a profile counts, which differences are exempt, and what an instruction is. Nothing here has a state.

pub mod aarch64;
pub mod architecture;
pub mod decode;
pub mod exemption;
pub mod maintenance;
pub mod profile;
pub mod registry;
pub mod rule;
mod selection;
pub mod sync_event;
pub mod x86;
