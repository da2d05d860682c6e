//! arm64 kernel images.

use super::image::{Layout, kallsyms_from};
use super::{FUNCTION, FUNCTIONS, Sym, functions};

/// Where they are linked.
pub const LINK: u64 = 0xffff_8000_8000_0000;
/// Where `_stext` is.
pub const STEXT: u64 = LINK + 0x1_0000;
/// The orders and encodings that arm64 kernels have had.
pub const LAYOUTS: [Layout; 3] = [Layout::OldUnsigned, Layout::NewUnsigned, Layout::PlaceRelative];

const HEADER: usize = 64;
/// Relocations, as many as make the place certain.
const RELOCATIONS: u64 = 300;

/// The symbols of a small kernel; without those that only `CONFIG_KALLSYMS_ALL` has, if wanted.
pub fn symbols(all: bool) -> Vec<Sym> {
    let mut list = Vec::new();
    if all {
        list.push((LINK, 'T', "_text".to_owned()));
    }
    list.push((STEXT, 'T', "_stext".to_owned()));
    list.extend(functions(STEXT, "vectors"));
    list
}

/// An unpacked image. Its relocations are behind everything, and the value of `relative_base` is in one of them alone.
pub fn image(layout: Layout, symbols: &[Sym]) -> Vec<u8> {
    let mut text = vec![0; (STEXT - LINK + (FUNCTIONS + 3) * FUNCTION) as usize];
    text[..HEADER].copy_from_slice(&header(0, 0xa));
    let base = symbols[0].0;
    let mut out = kallsyms_from(layout, symbols, text, LINK, base);
    out.resize(out.len().next_multiple_of(8), 0);
    let pointer = out.chunks_exact(8).position(|word| word == base.to_le_bytes()).map(|index| index * 8);
    for index in 0..RELOCATIONS {
        relocation(&mut out, LINK + 8 * index, LINK + 0x40 * index);
    }
    if let Some(at) = pointer {
        out[at..at + 8].fill(0);
        relocation(&mut out, LINK + at as u64, base);
    }
    let size = out.len() as u64 + 0x1_0000;
    out[16..24].copy_from_slice(&size.to_le_bytes());
    out
}

/// A header with that text offset and these flags.
pub fn header(text_offset: u64, flags: u64) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(&[0x4d, 0x5a, 0x40, 0xfa, 0x3b, 0xd4, 0x61, 0x14]);
    header[8..16].copy_from_slice(&text_offset.to_le_bytes());
    header[24..32].copy_from_slice(&flags.to_le_bytes());
    header[56..60].copy_from_slice(b"ARM\x64");
    header
}

fn relocation(out: &mut Vec<u8>, place: u64, addend: u64) {
    out.extend([place, 0x403, addend].into_iter().flat_map(u64::to_le_bytes));
}

/// An EFI program with a packed kernel, and that compression's name.
pub fn zboot(compression: &str, packed: &[u8]) -> Vec<u8> {
    let mut image = vec![0; 0x400];
    image[..8].copy_from_slice(b"MZ\0\0zimg");
    image[8..12].copy_from_slice(&0x400_u32.to_le_bytes());
    image[12..16].copy_from_slice(&(packed.len() as u32).to_le_bytes());
    image[24..24 + compression.len()].copy_from_slice(compression.as_bytes());
    image.extend(packed);
    image.extend(0x1234_5678_u32.to_le_bytes());
    image.extend([0; 32]);
    image
}
