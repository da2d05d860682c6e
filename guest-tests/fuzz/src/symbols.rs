//! Kernel images with their kallsyms, ELF files, lists of symbols, and BTF.

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
    let symbols = Symbolizer::new(vec![table], icsan_symbols::linux::x86::KASLR);
    for (addr, name) in some {
        let _ = symbols.learn_offset(&name, addr.wrapping_add(2 << 20));
        let _ = (symbols.resolve(addr), symbols.is_text(addr));
        assert!(symbols.function_range(&name).is_none_or(|range| !range.is_empty()), "{name}");
    }
    let _ = (symbols.resolve(u64::MAX), icsan_symbols::linux::x86::current_task_offset(&symbols));
}

/// The payload of a kernel image: what is packed, by its magic number.
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
