//! Names for guest addresses.
//!
//! A report that says `__text_poke+0x1a3/0x2d0` is worth reading, one that says
//! `0xffffffff8104e5c3` is not. This crate turns one into the other, from whatever the user has:
//!
//! | the user has | read by | [`Origin`] |
//! | --- | --- | --- |
//! | `System.map` of a kernel build | [`system_map`] | [`Origin::SystemMap`] |
//! | a copy of `/proc/kallsyms` | [`kallsyms_text`] | [`Origin::Kallsyms`] |
//! | `vmlinux`, or a guest program, with a symbol table | [`elf`] | [`Origin::Elf`] |
//! | the kernel image that boots (`bzImage`, `Image`, `vmlinuz`), or a stripped `vmlinux` | [`image`], [`compression`], [`kallsyms`] | [`Origin::KernelImage`] |
//!
//! The last one matters most: a distribution's kernel ships no useful `System.map`, but the image
//! that the user boots anyway carries its own kallsyms tables.
//!
//! [`SymbolTable`] is one such file, at link-time addresses. [`Symbolizer`] joins several and
//! knows where KASLR put the kernel, once the guest has shown it.
//!
//! Beside names there is what else the plugin must know of a kernel: where its structures keep what ([`btf`], as
//! [`SymbolTable::layout`]), and what Linux does on an architecture ([`linux`]): which of its functions finish a patch,
//! where it is entered, what gives its place away.
//!
//! # Which way it errs
//! *No name rather than a wrong one.* A kernel address has no name before the KASLR offset is
//! known, a module's address never has one, and neither has anything behind the last text symbol.
//! Tables found inside a kernel image are checked against themselves before they are believed
//! ([`kallsyms`] lists the checks).
//!
//! The plugin loads these files inside QEMU, so nothing here panics on any input, and every
//! allocation and loop has a bound (constants named `MAX_…`).

#![forbid(unsafe_code)]

pub mod btf;
mod buckets;
mod builder;
pub mod compression;
pub mod elf;
pub mod error;
pub mod exports;
pub mod image;
pub mod kallsyms;
pub mod kallsyms_text;
pub mod linux;
pub mod load;
mod specialized;
pub mod symbolizer;
pub mod system_map;
pub mod table;
mod unpack;
pub mod unpacked;

pub use btf::KernelLayout;
pub use compression::Compression;
pub use error::{OffsetError, SymbolError};
pub use linux::kaslr::KaslrRange;
pub use symbolizer::{Location, MAX_BOOTS, Names, Symbolizer};
pub use table::{Origin, Resolved, Symbol, SymbolTable};
