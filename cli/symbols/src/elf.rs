//! The symbol table of an ELF file: `vmlinux` as the build leaves it, or a guest program.

use std::fs::File;

use object::read::{ReadCache, ReadRef};
use object::{Object, ObjectKind, ObjectSection, ObjectSymbol, SectionKind, SymbolKind, SymbolSection};

use crate::btf::{KernelLayout, MAX_BTF};
use crate::builder::Builder;
use crate::error::SymbolError;
use crate::linux::KERNELS;
use crate::table::{Origin, SymbolTable};
use crate::unpacked::{Image, Segment};

/// Reads the symbols from a file of any size, without reading the rest of it.
///
/// # Errors
/// As [`parse`].
pub fn read_file(file: &mut File) -> Result<SymbolTable, SymbolError> {
    read(&ReadCache::new(file))
}

/// Reads the symbols: those of the symbol table, or the dynamic ones if that was stripped.
///
/// # Errors
/// [`SymbolError::NoSymbols`] if there are none, [`SymbolError::Truncated`] if the headers point
/// outside of the file.
pub fn parse(bytes: &[u8]) -> Result<SymbolTable, SymbolError> {
    read(bytes)
}

/// Reads the functions of one section of an object file, such as a kernel module, by their distance from that section's
/// start: where the section is, only the one who loaded it knows.
///
/// # Errors
/// [`SymbolError::NoSymbols`] if there is no such section, or no function of known size in it;
/// [`SymbolError::Truncated`] if the headers point outside of the file.
pub fn parse_section(bytes: &[u8], name: &str) -> Result<SymbolTable, SymbolError> {
    let elf = open(bytes)?;
    let section = elf.section_by_name(name).ok_or(SymbolError::NoSymbols)?;
    let mut builder = Builder::default();
    for symbol in elf.symbols().filter(|symbol| symbol.section_index() == Some(section.index())) {
        // Labels have no size, and would take the rest of their function from it.
        if let (SymbolKind::Text, 1.., Ok(name)) = (symbol.kind(), symbol.size(), symbol.name()) {
            builder.push(symbol.address().wrapping_sub(section.address()), symbol.size(), 't', name)?;
        }
    }
    if builder.len() == 0 {
        return Err(SymbolError::NoSymbols);
    }
    builder.end_at(section.size());
    Ok(builder.build(Origin::Elf))
}

/// The segments of a stripped `vmlinux`, for the search for its kallsyms.
///
/// # Errors
/// [`SymbolError::Truncated`] if the headers point outside of the file.
pub fn kernel_segments(bytes: &[u8]) -> Result<Image<'_>, SymbolError> {
    use object::ObjectSegment;
    let elf = open(bytes)?;
    let segments = elf.segments().map(|segment| {
        let (file_offset, file_size) = segment.file_range();
        Segment { file_offset, file_size, addr: segment.address() }
    });
    let machine =
        bytes.get(MACHINE..).and_then(|bytes| bytes.first_chunk()).map(|machine| u16::from_le_bytes(*machine));
    let kernel = KERNELS.iter().find(|kernel| Some(kernel.elf.machine) == machine);
    let (relative, head) = kernel.map_or((None, 0), |kernel| (kernel.elf.relative, kernel.elf.head));
    Ok(Image { bytes, segments: segments.take(MAX_SEGMENTS).collect(), relative, head })
}

/// Where the header has the architecture's number.
const MACHINE: usize = 18;
/// Kernels have four or five.
const MAX_SEGMENTS: usize = 64;

fn open<'d, R: ReadRef<'d>>(data: R) -> Result<object::File<'d, R>, SymbolError> {
    object::File::parse(data).map_err(|_| SymbolError::Truncated { what: "its ELF headers" })
}

fn read<'d, R: ReadRef<'d>>(data: R) -> Result<SymbolTable, SymbolError> {
    let elf = open(data)?;
    if elf.kind() == ObjectKind::Relocatable {
        return Err(SymbolError::Unsupported {
            what: "an object file or kernel module",
            advice: "its addresses are known only once it is linked or loaded; give vmlinux or the linked program",
        });
    }
    let mut builder = Builder::default();
    builder.position_independent = elf.kind() == ObjectKind::Dynamic;
    add_symbols(&elf, elf.symbols(), &mut builder)?;
    if builder.len() == 0 {
        add_symbols(&elf, elf.dynamic_symbols(), &mut builder)?;
    }
    if builder.len() == 0 {
        return Err(SymbolError::NoSymbols);
    }
    for section in elf.sections() {
        if section.address() != 0 {
            builder.end_at(section.address().saturating_add(section.size()));
        }
    }
    let mut table = builder.build(Origin::Elf);
    if table.is_kernel() {
        table.layout = layout_of(&elf);
    }
    Ok(table)
}

/// Reads the BTF of a `vmlinux`, stripped or not: strip leaves the section's name.
#[must_use]
pub fn layout(bytes: &[u8]) -> Option<KernelLayout> {
    layout_of(&open(bytes).ok()?)
}

fn layout_of<'d, R: ReadRef<'d>>(elf: &object::File<'d, R>) -> Option<KernelLayout> {
    let section = elf.section_by_name(".BTF")?;
    let (_, size) = section.file_range()?;
    KernelLayout::parse(if size <= MAX_BTF as u64 { section.data().ok()? } else { return None })
}

fn add_symbols<'d, R: ReadRef<'d>>(
    elf: &object::File<'d, R>,
    symbols: impl Iterator<Item = impl ObjectSymbol<'d>>,
    builder: &mut Builder,
) -> Result<(), SymbolError> {
    // Looking a section up walks over its header again: once for each section is enough.
    let letters: Vec<(usize, char)> =
        elf.sections().map(|section| (section.index().0, letter(section.kind()))).collect();
    for symbol in symbols {
        let kind = match symbol.section() {
            SymbolSection::Section(index) => letters
                .binary_search_by_key(&index.0, |&(index, _)| index)
                .ok()
                .and_then(|found| letters.get(found))
                .map_or('?', |&(_, letter)| letter),
            SymbolSection::Absolute => 'a',
            _ => continue,
        };
        if matches!(symbol.kind(), SymbolKind::File | SymbolKind::Section | SymbolKind::Tls) {
            continue;
        }
        // Damaged names are left out.
        let Ok(name) = symbol.name() else { continue };
        let kind = match kind {
            't' if symbol.is_weak() => 'W',
            _ if symbol.is_weak() => 'V',
            kind if symbol.is_global() => kind.to_ascii_uppercase(),
            kind => kind,
        };
        builder.push(symbol.address(), symbol.size(), kind, name)?;
    }
    Ok(())
}

/// The type letter of `nm` for a local symbol in such a section.
fn letter(kind: SectionKind) -> char {
    match kind {
        SectionKind::Text => 't',
        SectionKind::ReadOnlyData | SectionKind::ReadOnlyString | SectionKind::ReadOnlyDataWithRel => 'r',
        SectionKind::UninitializedData => 'b',
        _ => 'd',
    }
}
