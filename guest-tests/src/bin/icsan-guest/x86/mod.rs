//! What only x86-64 has: scenarios about its instructions, and what the other ones ask of an architecture.

mod guard_word;
mod guarded_call;
mod int3_protocol;
mod kprobe_jump;
mod litmus;
mod maxcpus;
mod neighbours;
mod own_code;
pub mod scenarios;
pub mod shape;
mod stores;

use std::io;

/// Where kernels are linked to; KASLR moves them within it.
const KERNEL_IMAGE: std::ops::Range<u64> = 0xFFFF_FFFF_8000_0000..0xFFFF_FFFF_C000_0000;

/// Where the kernel's text begins, given where the segments of its memory do: the image as a whole is one of them.
/// Modules, which are in that range too, come behind it.
pub fn text_start(segments: impl Iterator<Item = u64>) -> io::Result<Option<u64>> {
    Ok(segments.filter(|start| KERNEL_IMAGE.contains(start)).min())
}

/// How the jump begins that takes the place of a kprobe's breakpoint.
const JUMP: u8 = 0xE9;

/// What the name of a system call's function begins with in the kernel.
pub const SYSTEM_CALL: &str = "__x64_sys_";

/// A system call's function, by the name that the tracer knows it by.
pub const TRACED: &str = "__do_sys_getppid";

pub use litmus::run_asked as litmus;

pub use icsan_guest_tests::table::x86::TABLE;
pub use icsan_guest_tests::zoo::x86::ZOO;
