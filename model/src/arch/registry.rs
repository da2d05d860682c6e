//! Which instruction sets there are, by QEMU's name of the target. The reader of a recording, and the host of a guest,
//! ask here, and need not name one.

use crate::arch::aarch64::AARCH64;
use crate::arch::architecture::Architecture;
use crate::arch::x86::X86_64;

/// All of them.
pub static ALL: &[&Architecture] = &[&X86_64, &AARCH64];

/// The architecture of that name.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static Architecture> {
    ALL.iter().copied().find(|arch| arch.name == name)
}
