//! The arm64 kernel image: an `Image`, which distributions call `vmlinuz`, and which the build may compress
//! (`Image.gz`), or pack into an EFI program ([`super::zboot`]).
//!
//! It is the kernel's memory as it is loaded, behind a header of 64 bytes in its first instructions (Linux's
//! `Documentation/arch/arm64/booting.rst`). It carries [`kallsyms`].
//!
//! # Where it is linked
//! The header does not say. The kernel is linked at `KIMAGE_VADDR`, a multiple of 128 MiB that depends on the
//! configuration, and relocates itself when it starts (`CONFIG_RELOCATABLE`): so the image has some hundred thousand
//! relocations, and pointers, with addresses of its own. No other addresses of that half of the address space are
//! nearly as many. (Of the words of Debian's 6.1, 6.12 and 7.3 that could be one, more than 99 % are in the image.)

use std::collections::BTreeMap;

use crate::btf::KernelLayout;
use crate::compression::Compression;
use crate::error::SymbolError;
use crate::kallsyms;
use crate::linux::aarch64::LINUX;
use crate::table::{Origin, SymbolTable};
use crate::unpacked::{Image, Segment};

/// Where the magic number is.
const MAGIC: usize = 0x38;
/// From where the kernel is to be loaded how far from a multiple of 2 MiB, since 5.8 always 0.
const TEXT_OFFSET: usize = 0x8;
/// How much memory it takes, with what is zero behind the file.
const IMAGE_SIZE: usize = 0x10;
const FLAGS: usize = 0x18;
/// A flag: it is a kernel for big-endian data.
const BIG_ENDIAN: u64 = 1;

/// `KIMAGE_VADDR` is a multiple of this (arch/arm64/include/asm/memory.h: the modules before it have 128 MiB or 2 GiB).
const LINK_ALIGNMENT: u64 = 128 << 20;
/// The largest kernel that is considered.
const MAX_IMAGE: u64 = 1 << 30;
/// The fewest addresses that say where it is linked: real kernels have more than 100,000.
const MIN_ADDRESSES: u64 = 256;

/// Has this the magic number of an arm64 image?
#[must_use]
pub fn is_kernel_image(bytes: &[u8]) -> bool {
    bytes.get(MAGIC..MAGIC + 4) == Some(b"ARM\x64")
}

/// Reads the symbols out of an unpacked image.
///
/// # Errors
/// [`SymbolError::Truncated`], [`SymbolError::Unsupported`] or [`SymbolError::NoKallsyms`].
pub fn parse(bytes: &[u8], compression: Compression) -> Result<SymbolTable, SymbolError> {
    let mut table = kallsyms::extract(&loaded(bytes)?, Origin::KernelImage { compression })?;
    if table.is_kernel() {
        table.layout = KernelLayout::search(bytes);
    }
    Ok(table)
}

/// The kernel's memory as an unpacked image has it.
///
/// # Errors
/// As [`parse`].
pub fn loaded(bytes: &[u8]) -> Result<Image<'_>, SymbolError> {
    let field = |at| u64_at(bytes, at).ok_or(SymbolError::Truncated { what: "its header" });
    if field(FLAGS)? & BIG_ENDIAN != 0 {
        return Err(SymbolError::Unsupported {
            what: "a big-endian kernel",
            advice: "give System.map, vmlinux or a copy of /proc/kallsyms",
        });
    }
    let size = field(IMAGE_SIZE)?.max(bytes.len() as u64).min(MAX_IMAGE);
    let place = link_place(bytes, size).and_then(|place| place.checked_add(field(TEXT_OFFSET).ok()?));
    let Some(addr) = place else {
        return Err(SymbolError::NoKallsyms { reason: "nothing in it tells where it is linked".to_owned() });
    };
    let segments = vec![Segment { file_offset: 0, file_size: bytes.len() as u64, addr }];
    Ok(Image { bytes, segments, relative: LINUX.elf.relative, head: LINUX.elf.head })
}

/// Where most of the addresses are that the image has of this half of the address space: see the module.
fn link_place(bytes: &[u8], size: u64) -> Option<u64> {
    // All sizes of address spaces that Linux has (up to 52 bits, the kernel in the upper 48) leave these bits set.
    const HIGH: u64 = 0xffff << 48;
    let mut counts: BTreeMap<u64, u64> = BTreeMap::new();
    let words = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
    for word in words.filter(|word| word & HIGH == HIGH) {
        *counts.entry(word / LINK_ALIGNMENT * LINK_ALIGNMENT).or_default() += 1;
    }
    let within = |start: u64| counts.range(start..start.saturating_add(size)).map(|(_, count)| count).sum::<u64>();
    let (count, place) = counts.keys().map(|start| (within(*start), *start)).max()?;
    (count >= MIN_ADDRESSES).then_some(place)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|word| u64::from_le_bytes(*word))
}
