//! What must be known of Linux, as data: what is the same everywhere in files of plain names, what an architecture does
//! its own way in a file (or several) of that architecture's name.
//!
//! [`kernel::LinuxKernel`] is one architecture's Linux; [`x86::LINUX`] is the first of them.

pub mod entries;
pub mod kaslr;
pub mod kernel;
pub mod protocol;
pub mod x86;
pub mod x86_calls;
mod x86_entries;

/// All of them: a file of symbols does not say which one it is of.
pub static KERNELS: [&kernel::LinuxKernel; 1] = [&x86::LINUX];
