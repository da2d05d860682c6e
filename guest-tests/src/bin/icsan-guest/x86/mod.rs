//! What only x86-64 has: scenarios about its instructions, and what the other ones ask of an architecture.

mod guard_word;
pub mod guarded_call;
mod int3_protocol;
mod neighbours;
mod own_code;
pub mod scenarios;
pub mod shape;
mod stores;

/// Where kernels are linked to; KASLR moves them within it.
pub const KERNEL_IMAGE: std::ops::Range<u64> = 0xFFFF_FFFF_8000_0000..0xFFFF_FFFF_C000_0000;

/// How the jump begins that takes the place of a kprobe's breakpoint.
pub const JUMP: u8 = 0xE9;

/// What the name of a system call's function begins with in the kernel.
pub const SYSTEM_CALL: &str = "__x64_sys_";

pub use icsan_guest_tests::table::x86::TABLE;
