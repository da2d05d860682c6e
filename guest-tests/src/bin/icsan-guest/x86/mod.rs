//! What only x86-64 has: scenarios about its instructions, and what the other ones ask of an architecture.

mod guard_word;
pub mod guarded_call;
mod int3_protocol;
mod neighbours;
mod own_code;
pub mod scenarios;
pub mod shape;
mod stores;

pub use icsan_guest_tests::table::x86::TABLE;
