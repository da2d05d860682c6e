//! Kernel images as boot loaders take them, a file for each format.

pub mod aarch64;
pub mod bzimage;
pub mod zboot;

use crate::compression::Compression;
use crate::error::SymbolError;
use crate::table::SymbolTable;
use crate::unpack;

/// Reads the symbols out of a kernel image of any format that is told by its contents. `None`: it is none.
#[must_use]
pub fn read(bytes: &[u8]) -> Option<Result<SymbolTable, SymbolError>> {
    if bzimage::is_kernel_image(bytes) {
        Some(bzimage::parse(bytes))
    } else if zboot::is_kernel_image(bytes) {
        Some(zboot::payload(bytes).and_then(unpack::decompress_stream).and_then(flat))
    } else if is_flat(bytes) {
        Some(parse_flat(bytes, Compression::None))
    } else if Compression::detect(bytes).is_some_and(|kind| kind != Compression::None) {
        // As the build leaves an Image.gz.
        Some(unpack::decompress_stream(bytes).and_then(flat))
    } else {
        None
    }
}

/// Does it begin like a kernel that is loaded as it is?
fn is_flat(bytes: &[u8]) -> bool {
    aarch64::is_kernel_image(bytes) || other(bytes).is_some()
}

/// Names the kernel images that are recognised without being supported.
fn other(bytes: &[u8]) -> Option<&'static str> {
    (bytes.get(0x30..0x34) == Some(b"RISC") || bytes.get(0x38..0x3c) == Some(b"RSC\x05"))
        .then_some("a RISC-V kernel image")
}

fn flat((compression, bytes): (Compression, Vec<u8>)) -> Result<SymbolTable, SymbolError> {
    parse_flat(&bytes, compression)
}

/// Reads the symbols of a kernel that is loaded as it is.
fn parse_flat(bytes: &[u8], compression: Compression) -> Result<SymbolTable, SymbolError> {
    if aarch64::is_kernel_image(bytes) {
        aarch64::parse(bytes, compression)
    } else {
        Err(SymbolError::Unsupported {
            what: other(bytes).unwrap_or("a compressed file that is no kernel image"),
            advice: "give System.map, vmlinux or a copy of /proc/kallsyms, unpacked",
        })
    }
}
