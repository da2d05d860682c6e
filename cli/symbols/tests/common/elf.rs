//! ELF files of x86-64.

/// A loaded segment, which gets a section of its own.
#[derive(Clone, Copy)]
pub struct Segment<'a> {
    pub addr: u64,
    pub contents: &'a [u8],
}

/// A symbol: address, size, `st_info`, section (1 for the first segment), name.
pub type ElfSym<'a> = (u64, u64, u8, u16, &'a str);

pub const LOCAL_FUNC: u8 = 0x02;
pub const LOCAL_NOTYPE: u8 = 0x00;
pub const GLOBAL_FUNC: u8 = 0x12;
pub const WEAK_FUNC: u8 = 0x22;
pub const LOCAL_FILE: u8 = 0x04;
pub const ABSOLUTE: u16 = 0xfff1;
pub const UNDEFINED: u16 = 0;

pub const EXECUTABLE: u16 = 2;
pub const DYNAMIC: u16 = 3;
pub const RELOCATABLE: u16 = 1;

const HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;

/// An executable; without symbols it has no symbol table either.
pub fn executable(segments: &[Segment<'_>], symbols: &[ElfSym<'_>]) -> Vec<u8> {
    file(EXECUTABLE, segments, symbols)
}

/// An ELF file of any type.
pub fn file(kind: u16, segments: &[Segment<'_>], symbols: &[ElfSym<'_>]) -> Vec<u8> {
    with_section(kind, segments, symbols, None)
}

/// An ELF file of any type, with one more section that has a name.
pub fn with_section(
    kind: u16,
    segments: &[Segment<'_>],
    symbols: &[ElfSym<'_>],
    named: Option<(&str, &[u8])>,
) -> Vec<u8> {
    let mut out = vec![0; HEADER + PROGRAM_HEADER * segments.len()];
    let mut program_headers = Vec::new();
    let mut sections = vec![[0_u8; 64]];
    for segment in segments {
        out.resize(out.len().next_multiple_of(64), 0);
        let (offset, size) = (out.len() as u64, segment.contents.len() as u64);
        out.extend(segment.contents);
        program_headers.extend([1_u32, 5].into_iter().flat_map(u32::to_le_bytes));
        let fields = [offset, segment.addr, segment.addr, size, size, 64];
        program_headers.extend(fields.into_iter().flat_map(u64::to_le_bytes));
        sections.push(section(1, 6, segment.addr, offset, size, 0, 0));
    }
    if !symbols.is_empty() {
        let mut names = vec![0];
        let mut table = vec![0; 24];
        for &(addr, size, info, index, name) in symbols {
            table.extend((names.len() as u32).to_le_bytes());
            table.extend([info, 0]);
            table.extend(index.to_le_bytes());
            table.extend([addr, size].into_iter().flat_map(u64::to_le_bytes));
            names.extend(name.bytes());
            names.push(0);
        }
        let strings = sections.len() as u32 + 1;
        out.resize(out.len().next_multiple_of(8), 0);
        sections.push(section(2, 0, 0, out.len() as u64, table.len() as u64, strings, 24));
        out.extend(table);
        sections.push(section(3, 0, 0, out.len() as u64, names.len() as u64, 0, 0));
        out.extend(names);
    }
    // The names of the sections: empty, but for one.
    let mut names = vec![0];
    if let Some((name, contents)) = named {
        let mut header = section(1, 2, 0, out.len() as u64, contents.len() as u64, 0, 0);
        header[0] = 1;
        sections.push(header);
        out.extend(contents);
        names.extend(name.bytes().chain([0]));
    }
    sections.push(section(3, 0, 0, out.len() as u64, names.len() as u64, 0, 0));
    out.extend(names);
    out.resize(out.len().next_multiple_of(8), 0);
    let section_headers = out.len() as u64;
    out.extend(sections.iter().flatten());

    out[..16].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    let mut header = Vec::new();
    header.extend([kind, 62].into_iter().flat_map(u16::to_le_bytes));
    header.extend(1_u32.to_le_bytes());
    header.extend([0, HEADER as u64, section_headers].into_iter().flat_map(u64::to_le_bytes));
    header.extend(0_u32.to_le_bytes());
    let counts = [64, 56, segments.len() as u16, 64, sections.len() as u16, sections.len() as u16 - 1];
    header.extend(counts.into_iter().flat_map(u16::to_le_bytes));
    out[16..64].copy_from_slice(&header);
    out[64..64 + program_headers.len()].copy_from_slice(&program_headers);
    out
}

fn section(kind: u32, flags: u64, addr: u64, offset: u64, size: u64, link: u32, entry: u64) -> [u8; 64] {
    let mut out = Vec::new();
    out.extend([0, kind].into_iter().flat_map(u32::to_le_bytes));
    out.extend([flags, addr, offset, size].into_iter().flat_map(u64::to_le_bytes));
    out.extend([link, 1].into_iter().flat_map(u32::to_le_bytes));
    out.extend([8, entry].into_iter().flat_map(u64::to_le_bytes));
    out.try_into().unwrap()
}
