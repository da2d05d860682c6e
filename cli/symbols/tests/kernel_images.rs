//! Kernel images that the tests write themselves: every order of the kallsyms tables, every
//! compression, and what is said about those that do not work.

mod common;

use common::image::{LAYOUTS, Layout, bz_image, compress, kallsyms, vmlinux};
use common::{FUNCTION, FUNCTIONS, Sym, TEXT, elf, kernel_symbols};
use icsan_symbols::{Compression, Origin, SymbolError, SymbolTable};

const COMPRESSIONS: [Compression; 6] =
    [Compression::None, Compression::Gzip, Compression::Xz, Compression::Zstd, Compression::Lz4, Compression::Bzip2];

fn assert_same(table: &SymbolTable, symbols: &[Sym]) {
    let found: Vec<Sym> = table.symbols().map(|s| (s.addr, s.kind, s.name.to_owned())).collect();
    assert_eq!(found, symbols);
}

#[test]
fn every_order_of_the_tables_is_found() {
    for layout in LAYOUTS {
        let symbols = kernel_symbols(layout.per_cpu());
        let table = SymbolTable::parse(&vmlinux(layout, &symbols)).unwrap_or_else(|e| panic!("{layout:?}: {e}"));
        assert_same(&table, &symbols);
        assert!(table.is_kernel());
        assert_eq!(table.origin(), Origin::KernelImage { compression: Compression::None });
        let name = table.resolve(TEXT + 7 * FUNCTION + 0x12).unwrap();
        assert_eq!(name.to_string(), "do_sys_function_7+0x12/0x40");
        assert_eq!(table.resolve(TEXT).unwrap().name, "do_sys_function_0");
        assert_eq!(table.resolve(TEXT + (FUNCTIONS + 2) * FUNCTION), None);
        assert_eq!(table.resolve(0x1f040), None);
    }
}

#[test]
fn every_compression_is_unpacked() {
    let symbols = kernel_symbols(true);
    let kernel = vmlinux(Layout::New, &symbols);
    for compression in COMPRESSIONS {
        let image = bz_image(&compress(compression, &kernel));
        let table = SymbolTable::parse(&image).unwrap_or_else(|e| panic!("{compression}: {e}"));
        assert_same(&table, &symbols);
        assert_eq!(table.origin(), Origin::KernelImage { compression });
    }
}

#[test]
fn a_kernel_of_several_lz4_blocks_is_unpacked() {
    let symbols = kernel_symbols(true);
    let mut kernel = vmlinux(Layout::New, &symbols);
    kernel.resize((16 << 20) + 5, 0x5a);
    let image = bz_image(&compress(Compression::Lz4, &kernel));
    assert_same(&SymbolTable::parse(&image).unwrap(), &symbols);
}

#[test]
fn unsupported_compressions_are_named() {
    for compression in [Compression::Lzma, Compression::Lzo] {
        let error = SymbolTable::parse(&bz_image(&compress(compression, b""))).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, SymbolError::Compression { kind, .. } if kind == compression));
        assert!(text.contains(&compression.to_string()) && text.contains("not supported"), "{text}");
    }
    let unknown = SymbolTable::parse(&bz_image(b"what is this")).unwrap_err();
    assert!(matches!(unknown, SymbolError::Unsupported { .. }), "{unknown}");
}

#[test]
fn damaged_payloads_are_errors() {
    let kernel = vmlinux(Layout::New, &kernel_symbols(true));
    for compression in COMPRESSIONS.into_iter().skip(1) {
        let mut payload = compress(compression, &kernel);
        let last = payload.len() - 4;
        payload[last] ^= 1; // the uncompressed length
        let error = SymbolTable::parse(&bz_image(&payload)).unwrap_err();
        assert!(matches!(error, SymbolError::Compression { .. }), "{compression}: {error}");
    }
}

#[test]
fn tables_that_contradict_each_other_are_refused() {
    let symbols = kernel_symbols(false);
    let text = vec![0; 0x20000];
    let kernel = |tables: &[u8], addr| elf::executable(&[elf::Segment { addr, contents: tables }], &[]);
    let tables = |symbols: &[Sym]| kallsyms(Layout::PlaceRelative, symbols, text.clone(), TEXT);
    let refused = |file: &[u8]| {
        let error = SymbolTable::parse(file).unwrap_err();
        assert!(matches!(error, SymbolError::NoKallsyms { .. } | SymbolError::NoSymbols), "{error}");
    };
    assert!(SymbolTable::parse(&kernel(&tables(&symbols), TEXT)).is_ok());
    // Linked elsewhere: the functions are not in the segment.
    let absolute = kallsyms(Layout::NewUnsigned, &symbols, text.clone(), TEXT);
    assert!(SymbolTable::parse(&kernel(&absolute, TEXT)).is_ok());
    refused(&kernel(&absolute, TEXT + 0x1000_0000));
    refused(&kernel(&tables(&symbols), 0x40_0000));
    // Not sorted.
    let mut unsorted = symbols.clone();
    unsorted.swap(10, 20);
    refused(&kernel(&tables(&unsorted), TEXT));
    // Without _text and _stext.
    refused(&kernel(&tables(&symbols[2..]), TEXT));
    // One byte of the names is wrong: the markers do not fit any more.
    let good = tables(&symbols);
    let first_name = good.windows(6).position(|w| w == b"T_stex").unwrap() - 1;
    let mut bad = good.clone();
    bad[first_name] += 1;
    refused(&kernel(&bad, TEXT));
    // One token less.
    let token = good.windows(4).position(|w| w == b"A\0B\0").unwrap();
    let mut bad = good;
    bad[token] = 0;
    refused(&kernel(&bad, TEXT));
}

#[test]
fn old_boot_protocols_are_refused() {
    let mut image = bz_image(b"");
    image[0x206] = 7;
    assert!(matches!(SymbolTable::parse(&image), Err(SymbolError::Unsupported { .. })));
}
