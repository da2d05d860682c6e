//! arm64 kernel images that the tests write themselves: every order of the kallsyms tables, every way to pack them, and
//! what is said about those that do not work.

mod common;

use common::aarch64_image::{LAYOUTS, LINK, STEXT, header, image, symbols, zboot};
use common::image::{Layout, compress_stream};
use common::{FUNCTION, FUNCTIONS, Sym, elf};
use icsan_symbols::{Compression, Origin, SymbolError, SymbolTable};
use lzma_rust2::FilterType::BcjArm64;

const COMPRESSIONS: [Compression; 5] =
    [Compression::Gzip, Compression::Xz, Compression::Zstd, Compression::Lz4, Compression::Bzip2];

fn assert_same(table: &SymbolTable, symbols: &[Sym], what: impl std::fmt::Debug) {
    let found: Vec<Sym> = table.symbols().map(|s| (s.addr, s.kind, s.name.to_owned())).collect();
    assert_eq!(found, symbols, "{what:?}");
}

#[test]
fn every_order_of_the_tables_is_found() {
    for layout in LAYOUTS {
        for all in [true, false] {
            let symbols = symbols(all);
            let table = SymbolTable::parse(&image(layout, &symbols)).unwrap_or_else(|e| panic!("{layout:?}: {e}"));
            assert_same(&table, &symbols, (layout, all));
            assert!(table.is_kernel());
            assert_eq!(table.origin(), Origin::KernelImage { compression: Compression::None });
            assert_eq!(table.resolve(STEXT + 7 * FUNCTION + 0x12).unwrap().to_string(), "do_sys_function_7+0x12/0x40");
            assert_eq!(table.address_of("vectors"), Some(STEXT + (FUNCTIONS + 1) * FUNCTION));
        }
    }
}

#[test]
fn every_way_to_pack_it_is_unpacked() {
    let symbols = symbols(true);
    let kernel = image(Layout::NewUnsigned, &symbols);
    for compression in COMPRESSIONS {
        let packed = compress_stream(compression, &kernel, BcjArm64);
        for (what, file) in [("alone", packed.clone()), ("zboot", zboot(&compression.to_string(), &packed))] {
            let table = SymbolTable::parse(&file).unwrap_or_else(|e| panic!("{what} {compression}: {e}"));
            assert_same(&table, &symbols, (what, compression));
            assert_eq!(table.origin(), Origin::KernelImage { compression });
        }
    }
}

#[test]
fn a_stripped_vmlinux_of_a_kernel_that_relocates_itself_is_read() {
    for layout in LAYOUTS {
        let symbols = symbols(false);
        let contents = image(layout, &symbols);
        let mut file = elf::file(elf::DYNAMIC, &[elf::Segment { addr: LINK, contents: &contents }], &[]);
        file[18..20].copy_from_slice(&183_u16.to_le_bytes());
        assert_same(&SymbolTable::parse(&file).unwrap(), &symbols, layout);
        // Of another architecture nothing is known of relocations, nor of what is before the text.
        file[18..20].copy_from_slice(&62_u16.to_le_bytes());
        assert!(matches!(SymbolTable::parse(&file), Err(SymbolError::NoKallsyms { .. })), "{layout:?}");
    }
}

#[test]
fn mapping_symbols_are_no_names() {
    let owned = symbols(true);
    let mut list: Vec<elf::ElfSym<'_>> =
        owned.iter().map(|(addr, _, name)| (*addr, 0, elf::GLOBAL_FUNC, 1, &name[..])).collect();
    for (at, mapping) in [(0, "$x"), (3, "$d"), (3, "$x.7"), (9, "$d.12")] {
        list.push((STEXT + at * FUNCTION + 8 * at, 0, elf::LOCAL_NOTYPE, 1, mapping));
    }
    let text = vec![0; (STEXT - LINK + (FUNCTIONS + 3) * FUNCTION) as usize];
    let mut vmlinux = elf::file(elf::DYNAMIC, &[elf::Segment { addr: LINK, contents: &text }], &list);
    vmlinux[18..20].copy_from_slice(&183_u16.to_le_bytes());
    let map: String = list.iter().map(|(addr, _, _, _, name)| format!("{addr:016x} t {name}\n")).collect();
    for (what, file) in [("vmlinux", vmlinux), ("System.map", map.into_bytes())] {
        let table = SymbolTable::parse(&file).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert!(table.is_kernel() && table.symbols().all(|symbol| !symbol.name.starts_with('$')), "{what}");
        let name = |addr| table.resolve(addr).unwrap().to_string();
        assert_eq!(name(STEXT + 3 * FUNCTION + 0x1c), "do_sys_function_3+0x1c/0x40", "{what}");
        assert_eq!(name(STEXT + 9 * FUNCTION), "do_sys_function_9+0x0/0x40", "{what}");
        assert_eq!(table.address_of("$x"), None, "{what}");
    }
}

#[test]
fn the_text_offset_of_old_kernels_counts() {
    const OFFSET: u64 = 0x8_0000;
    let moved: Vec<Sym> = symbols(true).into_iter().map(|(addr, kind, name)| (addr + OFFSET, kind, name)).collect();
    let mut kernel = image(Layout::PlaceRelative, &symbols(true));
    kernel[8..16].copy_from_slice(&OFFSET.to_le_bytes());
    assert_same(&SymbolTable::parse(&kernel).unwrap(), &moved, "moved");
}

#[test]
fn an_image_that_does_not_say_where_it_is_linked_is_refused() {
    let mut kernel = image(Layout::PlaceRelative, &symbols(true));
    assert!(SymbolTable::parse(&kernel).is_ok());
    for word in kernel.as_chunks_mut::<8>().0 {
        if u64::from_le_bytes(*word) >> 48 == 0xffff {
            *word = [0; 8];
        }
    }
    let error = SymbolTable::parse(&kernel).unwrap_err();
    assert!(error.to_string().contains("where it is linked"), "{error}");
}

#[test]
fn a_base_that_is_in_no_relocation_is_refused() {
    let mut kernel = image(Layout::NewUnsigned, &symbols(true));
    let end = kernel.len();
    kernel.truncate(end - 24);
    assert!(matches!(SymbolTable::parse(&kernel), Err(SymbolError::NoKallsyms { .. })));
}

#[test]
fn other_kernels_are_named() {
    let refused = |file: &[u8], what: &str| {
        let error = SymbolTable::parse(file).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, SymbolError::Unsupported { .. }) && text.contains(what), "{text}");
    };
    let mut riscv = vec![0; 64];
    riscv[0x30..0x34].copy_from_slice(b"RISC");
    refused(&riscv, "RISC-V");
    for packed in [&riscv, &b"a text\n".repeat(99)] {
        let what = if packed == &riscv { "RISC-V" } else { "no kernel image" };
        let gzip = compress_stream(Compression::Gzip, packed, BcjArm64);
        refused(&gzip, what);
        refused(&zboot("gzip", &gzip), what);
    }
    refused(&header(0, 0xb), "big-endian");
    refused(&zboot("none", b"what is this"), "unknown compression");
    let mut cut = zboot("gzip", &[0x1f; 64]);
    cut.truncate(0x420);
    assert!(matches!(SymbolTable::parse(&cut), Err(SymbolError::Truncated { .. })));
    assert!(matches!(SymbolTable::parse(&header(0, 0xa)[..60]), Err(SymbolError::NoKallsyms { .. })));
}
