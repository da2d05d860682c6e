//! What must be known of Linux, as data: what is the same everywhere in files of plain names, what an architecture does
//! its own way in a file (or several) of that architecture's name.
//!
//! [`kernel::LinuxKernel`] is one architecture's Linux: [`x86::LINUX`], [`aarch64::LINUX`].

pub mod aarch64;
pub mod aarch64_entries;
pub mod entries;
pub mod kaslr;
pub mod kernel;
pub mod protocol;
pub mod x86;
pub mod x86_calls;
mod x86_entries;

/// All of them: a file of symbols does not say which one it is of.
pub static KERNELS: [&kernel::LinuxKernel; 2] = [&x86::LINUX, &aarch64::LINUX];

/// Linux of the architecture that QEMU, and the model's registry, call so.
#[must_use]
pub fn by_arch(name: &str) -> Option<&'static kernel::LinuxKernel> {
    KERNELS.iter().copied().find(|kernel| kernel.arch == name)
}
