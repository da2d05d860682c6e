//! What only AArch64 has: scenarios about its instructions, and what the other ones ask of an architecture.

mod listed;
mod publish;
pub mod scenarios;
pub mod shape;
mod stores;

use crate::say::say;
use std::fs::File;
use std::io::{self, BufRead, BufReader};

/// Where the kernel's text begins: its own list of symbols says so. The image lies within the one segment of all that
/// the kernel maps where it likes.
pub fn text_start(_: impl Iterator<Item = u64>) -> io::Result<Option<u64>> {
    for line in BufReader::new(File::open("/proc/kallsyms")?).lines() {
        let line = line?;
        let mut words = line.split(' ');
        let address = words.next().and_then(|word| u64::from_str_radix(word, 16).ok());
        if words.nth(1) == Some("_stext") {
            return Ok(address.filter(|address| *address != 0));
        }
    }
    Ok(None)
}

/// There are no litmus tests of this architecture.
pub fn litmus(asked: &str) -> bool {
    say(&format!("# litmus {asked}: there are none for AArch64"));
    false
}

/// What the name of a system call's function begins with in the kernel.
pub const SYSTEM_CALL: &str = "__arm64_sys_";

/// A system call's function, by the name that the tracer knows it by.
pub const TRACED: &str = "__arm64_sys_getppid";

pub use icsan_guest_tests::table::aarch64::TABLE;
pub use icsan_guest_tests::zoo::aarch64::ZOO;
