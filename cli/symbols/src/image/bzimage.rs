//! The x86 kernel image: a `bzImage`, which distributions call `vmlinuz`.
//!
//! It is a boot loader's stub with a setup header at [`HEADER`] that says where the compressed
//! `vmlinux` lies (Linux's `Documentation/arch/x86/boot.rst`; `payload_offset` and
//! `payload_length` came with boot protocol 2.08). That `vmlinux` is stripped, but it carries
//! [`kallsyms`].

use crate::btf::KernelLayout;
use crate::compression::Compression;
use crate::error::SymbolError;
use crate::table::{Origin, SymbolTable};
use crate::unpack;
use crate::{elf, kallsyms};

/// Where the setup header starts: its first byte is `setup_sects`.
pub const HEADER: usize = 0x1f1;
const MAGIC: usize = 0x202;
const VERSION: usize = 0x206;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;
/// The first boot protocol whose header says where the payload is: 2.08, Linux 2.6.26.
const FIRST_VERSION: u16 = 0x0208;
const SECTOR: usize = 512;

/// Has this the magic number of an x86 setup header?
#[must_use]
pub fn is_kernel_image(bytes: &[u8]) -> bool {
    bytes.get(MAGIC..MAGIC + 4) == Some(b"HdrS")
}

/// Reads the symbols out of a `bzImage`.
///
/// # Errors
/// [`SymbolError::Truncated`], [`SymbolError::Unsupported`], [`SymbolError::Compression`] or
/// [`SymbolError::NoKallsyms`].
pub fn parse(bytes: &[u8]) -> Result<SymbolTable, SymbolError> {
    let (compression, vmlinux) = vmlinux(bytes)?;
    kallsyms_of(&vmlinux, compression)
}

/// Reads the kallsyms of an uncompressed `vmlinux` that has no symbol table.
///
/// # Errors
/// [`SymbolError::NoSymbols`] if it is no kernel at all, else as [`parse`].
pub fn parse_vmlinux(bytes: &[u8]) -> Result<SymbolTable, SymbolError> {
    match kallsyms_of(bytes, Compression::None) {
        Err(SymbolError::NoKallsyms { .. }) if !elf::kernel_segments(bytes)?.is_kernel() => Err(SymbolError::NoSymbols),
        done => done,
    }
}

/// Unpacks the `vmlinux` of a `bzImage`.
///
/// # Errors
/// As [`parse`], but for [`SymbolError::NoKallsyms`].
pub fn vmlinux(bytes: &[u8]) -> Result<(Compression, Vec<u8>), SymbolError> {
    let header = || SymbolError::Truncated { what: "its setup header" };
    let version = bytes.get(VERSION..).and_then(u16_at).ok_or_else(header)?;
    if version < FIRST_VERSION {
        return Err(SymbolError::Unsupported {
            what: "a kernel image older than Linux 2.6.26",
            advice: "give System.map or vmlinux",
        });
    }
    let sectors = match *bytes.get(HEADER).ok_or_else(header)? {
        0 => 4, // as boot.rst has it
        sectors => usize::from(sectors),
    };
    let field = |at: usize| bytes.get(at..).and_then(u32_at).ok_or_else(header);
    let offset = field(PAYLOAD_OFFSET)? as usize;
    let length = field(PAYLOAD_LENGTH)? as usize;
    let payload = ((sectors + 1) * SECTOR)
        .checked_add(offset)
        .and_then(|start| Some(start..start.checked_add(length)?))
        .and_then(|range| bytes.get(range))
        .ok_or(SymbolError::Truncated { what: "the compressed kernel" })?;
    unpack::decompress(payload)
}

fn kallsyms_of(vmlinux: &[u8], compression: Compression) -> Result<SymbolTable, SymbolError> {
    if !vmlinux.starts_with(b"\x7fELF") {
        return Err(SymbolError::NoKallsyms { reason: "its payload is no ELF file".to_owned() });
    }
    let image = elf::kernel_segments(vmlinux)?;
    let mut table = kallsyms::extract(&image, Origin::KernelImage { compression })?;
    if table.is_kernel() {
        table.layout = elf::layout(vmlinux).or_else(|| KernelLayout::search(vmlinux));
    }
    Ok(table)
}

fn u16_at(bytes: &[u8]) -> Option<u16> {
    bytes.first_chunk().map(|b| u16::from_le_bytes(*b))
}

fn u32_at(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|b| u32::from_le_bytes(*b))
}
