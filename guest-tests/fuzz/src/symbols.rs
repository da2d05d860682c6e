//! Kernel images with their kallsyms, ELF files, lists of symbols, and BTF.

use icsan_symbols::linux::KERNELS;
use icsan_symbols::{KernelLayout, SymbolTable, Symbolizer};

/// A file of symbols, of whatever kind.
pub fn file(bytes: &[u8]) {
    let Ok(table) = SymbolTable::parse(bytes) else { return };
    let some: Vec<(u64, String)> =
        table.symbols().take(50).map(|symbol| (symbol.addr, symbol.name.to_owned())).collect();
    for (addr, name) in &some {
        assert!(table.address_of(name).is_some(), "{name} is lost");
        for near in [addr.wrapping_sub(1), *addr, addr.wrapping_add(1)] {
            if let Some(resolved) = table.resolve(near) {
                assert!(resolved.offset < resolved.size && !resolved.to_string().is_empty(), "{near:#x}: {resolved:?}");
            }
        }
    }
    // The file does not say which Linux it is of: each must stand it.
    for linux in KERNELS {
        let _ = linux.is_of(&table);
        let symbols = Symbolizer::new(vec![table.clone()], linux.kaslr);
        for (addr, name) in &some {
            let _ = symbols.learn_offset(name, addr.wrapping_add(linux.kaslr.alignment));
            let _ = (symbols.resolve(*addr), symbols.is_text(*addr), linux.entry_of(name));
            assert!(symbols.function_range(name).is_none_or(|range| !range.is_empty()), "{name}");
        }
        let _ = (symbols.resolve(u64::MAX), linux.current_task.map(|offset| offset(&symbols)));
    }
}

/// What follows the header of an arm64 image.
pub fn image(bytes: &[u8]) {
    let mut image = vec![0; 64];
    image.extend_from_slice(bytes);
    let size = image.len() as u64;
    image[0x10..0x18].copy_from_slice(&size.to_le_bytes());
    image[0x38..0x3c].copy_from_slice(b"ARM\x64");
    file(&image);
}

/// The payload of an EFI program that unpacks a kernel.
pub fn zboot(bytes: &[u8]) {
    const START: usize = 0x40;
    let mut image = vec![0; START];
    image[..8].copy_from_slice(b"MZ\0\0zimg");
    image[8..12].copy_from_slice(&(START as u32).to_le_bytes());
    image[12..16].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
    image.extend_from_slice(bytes);
    file(&image);
}

/// The payload of a bzImage: what is packed, by its magic number.
pub fn payload(bytes: &[u8]) {
    const SETUP: usize = 0x400;
    let mut image = vec![0; SETUP];
    image[0x1f1] = 1;
    image[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&0x20f_u16.to_le_bytes());
    image[0x248..0x24c].copy_from_slice(&0_u32.to_le_bytes());
    image[0x24c..0x250].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
    image.extend_from_slice(bytes);
    file(&image);
}

/// A kernel's type information, alone and within something else.
pub fn btf(bytes: &[u8]) {
    let parsed = KernelLayout::parse(bytes);
    let found = KernelLayout::search(bytes);
    assert!(parsed.is_none() || found.is_some(), "what is read alone is found, too");
}
