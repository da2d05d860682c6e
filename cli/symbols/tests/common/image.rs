//! Kernel images: kallsyms tables in each order and encoding, a `vmlinux` around them, and a
//! `bzImage` around that.

use std::io::Write;

use icsan_symbols::Compression;

use super::elf::{self, Segment};
use super::{FUNCTION, FUNCTIONS, Sym, TEXT};

/// The orders and encodings that kernels have had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// To 6.1.
    Old,
    /// 6.2 and 6.3: with seqs_of_names before the token table.
    OldWithSeqs,
    /// 6.4 to 6.14.
    New,
    /// 6.15 to 6.x: no absolute symbols.
    NewUnsigned,
    /// Since 7.0: relative to its own place, aligned to 4 bytes.
    PlaceRelative,
    /// To 6.3, on architectures without absolute per-CPU symbols.
    OldUnsigned,
}

pub const LAYOUTS: [Layout; 5] =
    [Layout::Old, Layout::OldWithSeqs, Layout::New, Layout::NewUnsigned, Layout::PlaceRelative];

impl Layout {
    pub fn per_cpu(self) -> bool {
        !matches!(self, Layout::NewUnsigned | Layout::PlaceRelative | Layout::OldUnsigned)
    }

    fn align(self) -> usize {
        if self == Layout::PlaceRelative { 4 } else { 8 }
    }
}

/// The token of a byte: itself where it is printable, pairs that are frequent in the names above.
fn token(byte: u8) -> String {
    const PAIRS: [&str; 6] = ["do_", "sys_", "function_", "fun", "t_", "tdo"];
    let high = usize::from(byte).wrapping_sub(0xfa);
    match PAIRS.get(high) {
        Some(pair) => (*pair).to_owned(),
        None if byte.is_ascii_graphic() => char::from(byte).to_string(),
        None => String::new(),
    }
}

fn pack(name: &str) -> Vec<u8> {
    let mut packed = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let best = (0..=255)
            .filter(|&byte| !token(byte).is_empty() && rest.starts_with(&token(byte)))
            .max_by_key(|&byte| token(byte).len())
            .unwrap();
        packed.push(best);
        rest = &rest[token(best).len()..];
    }
    packed
}

struct Writer {
    bytes: Vec<u8>,
    align: usize,
}

impl Writer {
    fn table(&mut self, contents: &[u8]) -> usize {
        self.bytes.resize(self.bytes.len().next_multiple_of(self.align), 0);
        let place = self.bytes.len();
        self.bytes.extend(contents);
        place
    }
}

fn offsets(layout: Layout, symbols: &[Sym], place: u64, base: u64) -> Vec<u8> {
    let entry = |(index, (addr, kind, _)): (usize, &Sym)| match layout {
        Layout::PlaceRelative => addr.wrapping_sub(place + index as u64 * 4) as u32,
        Layout::NewUnsigned | Layout::OldUnsigned => (addr - base) as u32,
        _ if *kind == 'A' => *addr as u32,
        _ => base.wrapping_sub(*addr).wrapping_sub(1) as u32,
    };
    symbols.iter().enumerate().map(entry).flat_map(u32::to_le_bytes).collect()
}

/// The kallsyms tables, behind `before` in a segment that is linked at `addr`.
pub fn kallsyms(layout: Layout, symbols: &[Sym], before: Vec<u8>, addr: u64) -> Vec<u8> {
    kallsyms_from(layout, symbols, before, addr, TEXT)
}

/// The same, where addresses count from `base`.
pub fn kallsyms_from(layout: Layout, symbols: &[Sym], before: Vec<u8>, addr: u64, base: u64) -> Vec<u8> {
    let mut names = Vec::new();
    let mut markers = Vec::new();
    for (index, (_, kind, name)) in symbols.iter().enumerate() {
        if index % 256 == 0 {
            markers.extend((names.len() as u32).to_le_bytes());
        }
        let packed = pack(&format!("{kind}{name}"));
        match packed.len() {
            short @ 0..0x80 => names.push(short as u8),
            long => names.extend([long as u8 | 0x80, (long >> 7) as u8]),
        }
        names.extend(packed);
    }
    let mut tokens = Vec::new();
    let mut index = Vec::new();
    for byte in 0..=255 {
        index.extend((tokens.len() as u16).to_le_bytes());
        tokens.extend(token(byte).into_bytes());
        tokens.push(0);
    }
    let count = (symbols.len() as u32).to_le_bytes();
    let seqs = vec![0x55; symbols.len() * 3];

    let mut out = Writer { bytes: before, align: layout.align() };
    if matches!(layout, Layout::Old | Layout::OldWithSeqs | Layout::OldUnsigned) {
        out.table(&offsets(layout, symbols, 0, base));
        out.table(&base.to_le_bytes());
    }
    out.table(&count);
    out.table(&names);
    out.table(&markers);
    if layout == Layout::OldWithSeqs {
        out.table(&seqs);
    }
    out.table(&tokens);
    let end = out.table(&index) + index.len();
    match layout {
        Layout::Old | Layout::OldWithSeqs | Layout::OldUnsigned => {}
        Layout::PlaceRelative => {
            out.table(&offsets(layout, symbols, addr + end as u64, base));
            out.table(&seqs);
        }
        _ => {
            out.table(&offsets(layout, symbols, 0, base));
            out.table(&base.to_le_bytes());
            out.table(&seqs);
        }
    }
    out.table(&[0xcc; 16]);
    out.bytes
}

/// A stripped `vmlinux` with these tables, and text that has calls for the x86 branch filter.
pub fn vmlinux(layout: Layout, symbols: &[Sym]) -> Vec<u8> {
    let mut text = vec![0x90; ((FUNCTIONS + 3) * FUNCTION) as usize];
    for at in (0..text.len() - 8).step_by(24) {
        text[at] = 0xe8;
        text[at + 1..at + 5].copy_from_slice(&(at as u32).wrapping_mul(0x11).to_le_bytes());
    }
    let contents = kallsyms(layout, symbols, text, TEXT);
    elf::executable(&[Segment { addr: TEXT, contents: &contents }], &[])
}

/// The payload of a `bzImage`: compressed, with its uncompressed length at the end.
pub fn compress(kind: Compression, data: &[u8]) -> Vec<u8> {
    let mut out = compress_stream(kind, data, lzma_rust2::FilterType::BcjX86);
    if !matches!(kind, Compression::None | Compression::Gzip) {
        out.extend((data.len() as u32).to_le_bytes()); // gzip ends in it
    }
    out
}

/// The same without the length, and with the filter of an architecture.
pub fn compress_stream(kind: Compression, data: &[u8], filter: lzma_rust2::FilterType) -> Vec<u8> {
    match kind {
        Compression::Gzip => {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
            gzip.write_all(data).unwrap();
            gzip.finish().unwrap()
        }
        Compression::Bzip2 => {
            let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
            bzip2.write_all(data).unwrap();
            bzip2.finish().unwrap()
        }
        Compression::Zstd => zstd::encode_all(data, 3).unwrap(),
        Compression::Xz => {
            let mut options = lzma_rust2::XzOptions::with_preset(3);
            options.set_check_sum_type(lzma_rust2::CheckType::Crc32);
            options.prepend_pre_filter(filter, 0);
            let mut xz = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
            xz.write_all(data).unwrap();
            xz.finish().unwrap()
        }
        Compression::Lz4 => {
            let mut lz4 = 0x184c_2102_u32.to_le_bytes().to_vec();
            for block in data.chunks(8 << 20) {
                let packed = lz4_flex::block::compress(block);
                lz4.extend((packed.len() as u32).to_le_bytes());
                lz4.extend(packed);
            }
            lz4
        }
        Compression::Lzma => b"\x5d\0\0\0\x01".to_vec(),
        Compression::Lzo => b"\x89LZO\0\r\n\x1a\n".to_vec(),
        _ => data.to_vec(),
    }
}

/// A `bzImage` around a payload.
pub fn bz_image(payload: &[u8]) -> Vec<u8> {
    let sectors = 2_usize;
    let stub = 64_usize;
    let mut image = vec![0; (sectors + 1) * 512 + stub];
    image[0x1f1] = sectors as u8;
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&0x020f_u16.to_le_bytes());
    image[0x248..0x24c].copy_from_slice(&(stub as u32).to_le_bytes());
    image[0x24c..0x250].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    image.extend(payload);
    image.extend([0; 32]);
    image
}
