//! Where a kernel has a symbol that it exports to modules: what is left of the names of its data without
//! `CONFIG_KALLSYMS_ALL`.
//!
//! For each such symbol the image has an entry of three little-endian `i32` (Linux's `struct kernel_symbol` with
//! `CONFIG_HAVE_ARCH_PREL32_RELOCATIONS`, include/linux/export.h): where the symbol, its name, and its namespace are,
//! each counted from its own place in the entry. The linker sorts the entries by name
//! (include/asm-generic/vmlinux.lds.h), and there are two tables of them. A kernel that relocates itself need not
//! touch them.
//!
//! # What makes an entry believable
//! It leads to the very name; the entries on both sides of it lead to names, one below and one above it; and where it
//! says that the symbol is, something is loaded. All entries that do agree, of which there should be one.

use crate::unpacked::Image;

/// How long an entry is, and where in it its name is told.
const ENTRY: usize = 12;
const NAME: usize = 4;
/// The longest name of a neighbour (`KSYM_NAME_LEN`).
const MAX_NAME: usize = 512;

/// The link-time address of an exported symbol.
#[must_use]
pub fn address_of(image: &Image<'_>, name: &str) -> Option<u64> {
    let bytes = image.bytes;
    let whole = [b"\0", name.as_bytes(), b"\0"].concat();
    let names: Vec<usize> = positions(bytes, &whole).map(|at| at + 1).collect();
    if names.is_empty() {
        return None;
    }
    let words = bytes.as_chunks::<4>().0.iter().enumerate();
    let mut found = words.filter_map(|(index, word)| {
        let at = index * 4;
        let told = at.checked_add_signed(i32::from_le_bytes(*word) as isize)?;
        let entry = at.checked_sub(NAME)?;
        (names.contains(&told) && stands_between(bytes, entry, name)).then(|| value(image, entry))?
    });
    let first = found.next()?;
    found.all(|other| other == first).then_some(first)
}

/// Where a few bytes begin. The first one is rare enough to look for alone.
fn positions<'a>(bytes: &'a [u8], wanted: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    bytes.windows(wanted.len()).enumerate().filter(move |(_, window)| *window == wanted).map(|(at, _)| at)
}

/// Are there names on both sides, one below and one above?
fn stands_between(bytes: &[u8], entry: usize, name: &str) -> bool {
    let below = entry.checked_sub(ENTRY).and_then(|entry| name_of(bytes, entry));
    let above = entry.checked_add(ENTRY).and_then(|entry| name_of(bytes, entry));
    below.zip(above).is_some_and(|(below, above)| below < name.as_bytes() && name.as_bytes() < above)
}

/// The name that an entry leads to.
fn name_of(bytes: &[u8], entry: usize) -> Option<&[u8]> {
    let at = target(bytes, entry + NAME)?;
    let text = bytes.get(at..)?;
    let len = text.iter().take(MAX_NAME).position(|byte| *byte == 0)?;
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.$".contains(byte);
    let starts = at.checked_sub(1).and_then(|before| bytes.get(before)) == Some(&0);
    (starts && len > 0).then(|| &text[..len]).filter(|name| name.iter().all(is_name))
}

/// Where the symbol of an entry is, if anything is loaded there.
fn value(image: &Image<'_>, entry: usize) -> Option<u64> {
    let word = image.bytes.get(entry..)?.first_chunk()?;
    let addr = image.addr_of(entry)?.checked_add_signed(i64::from(i32::from_le_bytes(*word)))?;
    image.is_loaded(addr).then_some(addr)
}

/// What an offset at a place leads to, within the file.
fn target(bytes: &[u8], at: usize) -> Option<usize> {
    let word = bytes.get(at..)?.first_chunk()?;
    at.checked_add_signed(i32::from_le_bytes(*word) as isize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unpacked::Segment;

    const LINK: u64 = 0xffff_8000_8000_0000;
    /// Where the table is, and the names.
    const TABLE: usize = 0x100;
    const NAMES: usize = 0x400;

    /// An image with entries of these names, the symbol of each 16 bytes behind that of the one before, from 0x40 on.
    fn image(names: &[&str]) -> Vec<u8> {
        let mut bytes = vec![0; 0x800];
        let mut at = NAMES + 1;
        for (index, name) in names.iter().enumerate() {
            bytes[at..at + name.len()].copy_from_slice(name.as_bytes());
            let entry = TABLE + index * ENTRY;
            let offsets = [0x40 + 16 * index as i32 - entry as i32, at as i32 - (entry + NAME) as i32, 0];
            bytes[entry..entry + ENTRY].copy_from_slice(&offsets.map(i32::to_le_bytes).concat());
            at += name.len() + 1;
        }
        bytes
    }

    fn found(bytes: &[u8]) -> Option<u64> {
        let segments = vec![Segment { file_offset: 0, file_size: bytes.len() as u64, addr: LINK }];
        address_of(&Image { bytes, segments, relative: None, head: 0 }, "mask")
    }

    #[test]
    fn an_exported_symbol_is_where_its_entry_says() {
        assert_eq!(found(&image(&["a", "mask", "z"])), Some(LINK + 0x50));
        assert_eq!(found(&image(&["a", "b", "c", "mask", "z"])), Some(LINK + 0x70));
    }

    #[test]
    fn what_is_no_entry_is_not_believed() {
        assert_eq!(found(&image(&["a", "masks", "z"])), None, "another name");
        assert_eq!(found(&image(&["n", "mask", "z"])), None, "not sorted below");
        assert_eq!(found(&image(&["a", "mask", "b"])), None, "not sorted above");
        assert_eq!(found(&image(&["mask", "z"])), None, "nothing below");
        assert_eq!(found(&image(&["a", "mask"])), None, "nothing above");
        assert_eq!(found(&image(&["a b", "mask", "z"])), None, "a neighbour that is no name");
        let mut nowhere = image(&["a", "mask", "z"]);
        nowhere[TABLE + ENTRY..TABLE + ENTRY + 4].copy_from_slice(&0x7000_0000_i32.to_le_bytes());
        assert_eq!(found(&nowhere), None, "nothing is loaded there");
    }

    #[test]
    fn entries_that_do_not_agree_tell_nothing() {
        assert_eq!(found(&image(&["a", "mask", "z", "a", "mask", "z"])), None);
    }

    #[test]
    fn any_bytes_are_stood() {
        for cut in 0..0x430 {
            let _ = found(&image(&["a", "mask", "z"])[..cut]);
        }
        assert_eq!(found(b"\0mask\0\xff\xff\xff\x7f"), None);
    }
}
