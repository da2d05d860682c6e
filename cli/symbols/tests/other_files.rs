//! Everything that is not a kernel image: System.map, copies of kallsyms, ELF files, and files
//! that are none of these.

mod common;

use std::fs;
use std::path::Path;

use common::elf::{self, ElfSym, Segment};
use common::{TEXT, kernel_symbols};
use icsan_symbols::{Origin, SymbolError, SymbolTable};

const LOAD: u64 = 0x40_1000;

fn program() -> Vec<ElfSym<'static>> {
    vec![
        (0, 0, elf::LOCAL_FILE, elf::ABSOLUTE, "guest.c"),
        (LOAD, 0x20, elf::GLOBAL_FUNC, 1, "main"),
        (LOAD + 0x40, 0, elf::LOCAL_NOTYPE, 1, "loop"),
        (LOAD + 0x80, 0x10, elf::WEAK_FUNC, 1, "handler"),
        (0x1234, 0, elf::LOCAL_NOTYPE, elf::ABSOLUTE, "constant"),
        (0, 0, elf::GLOBAL_FUNC, elf::UNDEFINED, "printf"),
        (LOAD, 0, elf::LOCAL_NOTYPE, 1, "$x"),
    ]
}

fn segment() -> [Segment<'static>; 1] {
    [Segment { addr: LOAD, contents: &[0x90; 0x100] }]
}

#[test]
fn a_program_keeps_its_addresses() {
    let table = SymbolTable::parse(&elf::executable(&segment(), &program())).unwrap();
    assert_eq!(table.origin(), Origin::Elf);
    assert!(!table.is_kernel() && !table.is_position_independent());
    let list: Vec<(char, &str)> = table.symbols().map(|s| (s.kind, s.name)).collect();
    assert_eq!(list, [('a', "constant"), ('T', "main"), ('t', "loop"), ('W', "handler")]);
    let name = |addr| table.resolve(addr).map(|r| r.to_string());
    assert_eq!(name(LOAD + 4).as_deref(), Some("main+0x4/0x20"));
    assert_eq!(name(LOAD + 0x30), None);
    assert_eq!(name(LOAD + 0x41).as_deref(), Some("loop+0x1/0x40"));
    assert_eq!(name(LOAD + 0x100), None);
    assert_eq!(name(0x1234), None);
}

#[test]
fn a_vmlinux_with_symbols_is_a_kernel() {
    let owned = kernel_symbols(true);
    let symbols: Vec<ElfSym<'_>> = owned
        .iter()
        .map(|(addr, kind, name)| (*addr, 0, elf::GLOBAL_FUNC, if *kind == 'A' { elf::ABSOLUTE } else { 1 }, &name[..]))
        .collect();
    let text = vec![0x90; 0x20_0000];
    for kind in [elf::EXECUTABLE, elf::DYNAMIC] {
        let table = SymbolTable::parse(&elf::file(kind, &[Segment { addr: TEXT, contents: &text }], &symbols)).unwrap();
        assert!(table.is_kernel() && !table.is_position_independent());
        assert_eq!(table.resolve(TEXT + 0x41).unwrap().to_string(), "do_sys_function_1+0x1/0x40");
        assert_eq!(table.resolve(table.address_of("_etext").unwrap() + 1), None);
    }
}

#[test]
fn elf_files_without_use_are_refused() {
    let stripped = SymbolTable::parse(&elf::executable(&segment(), &[])).unwrap_err();
    assert!(matches!(stripped, SymbolError::NoSymbols), "{stripped}");
    let module = SymbolTable::parse(&elf::file(elf::RELOCATABLE, &segment(), &program())).unwrap_err();
    assert!(matches!(module, SymbolError::Unsupported { .. }), "{module}");
    let cut = SymbolTable::parse(&elf::executable(&segment(), &program())[..40]).unwrap_err();
    assert!(matches!(cut, SymbolError::Truncated { .. }), "{cut}");
}

#[test]
fn this_test_itself_can_be_loaded() {
    let table = SymbolTable::load(&std::env::current_exe().unwrap()).unwrap();
    assert_eq!(table.origin(), Origin::Elf);
    let main = table.address_of("main").unwrap();
    assert_eq!(table.resolve(main).unwrap().name, "main");
}

#[test]
fn the_functions_of_one_section() {
    use icsan_symbols::elf::parse_section;
    let bytes = fs::read(std::env::current_exe().unwrap()).unwrap();
    let (whole, section) = (SymbolTable::parse(&bytes).unwrap(), parse_section(&bytes, ".text").unwrap());
    let main = section.address_of("main").unwrap();
    assert_eq!(section.resolve(main + 1).unwrap().name, "main");
    // The same distances, from another origin.
    let start = whole.address_of("main").unwrap() - main;
    let named = section
        .symbols()
        .filter(|symbol| whole.addresses_of(symbol.name).any(|addr| addr == symbol.addr + start))
        .count();
    assert_eq!(named, section.len());
    assert!(matches!(parse_section(&bytes, ".no-such-section"), Err(SymbolError::NoSymbols)));
    assert!(matches!(parse_section(&bytes[..40], ".text"), Err(SymbolError::Truncated { .. })));
    assert!(parse_section(b"not ELF at all", ".text").is_err());
}

#[test]
fn files_are_loaded_as_they_are_parsed() {
    let folder = std::env::temp_dir().join(format!("icsan-symbols-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join("symbols");
    for bytes in [
        b"ffffffff81000000 T _text\nffffffff81000100 t f\n".to_vec(),
        elf::executable(&segment(), &program()),
        common::image::vmlinux(common::image::Layout::New, &kernel_symbols(true)),
    ] {
        fs::write(&path, &bytes).unwrap();
        let (loaded, parsed) = (SymbolTable::load(&path).unwrap(), SymbolTable::parse(&bytes).unwrap());
        assert!(loaded.symbols().eq(parsed.symbols()));
        assert_eq!(loaded.origin(), parsed.origin());
    }
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn errors_say_what_to_do() {
    let parse = |bytes: &[u8]| SymbolTable::parse(bytes).unwrap_err().to_string();
    let stub = b"ffffffffffffffff B The real System.map is in the linux-image-<version>-dbg package\n";
    assert_eq!(stub.len(), 83);
    assert!(parse(stub).contains("give the kernel image itself"));
    assert!(parse(b"0000000000000000 T _text\n").contains("kptr_restrict"));
    assert!(parse(b"").contains("empty"));
    assert!(parse(b"hello, world\n").contains("System.map"));
    assert!(parse(b"0 T a\nnonsense\n").contains("line 2"));
    let mut riscv = vec![0; 64];
    riscv[0x38..0x3c].copy_from_slice(b"RSC\x05");
    assert!(parse(&riscv).contains("RISC-V"));
    for missing in ["/nonexistent/System.map", "/", "/dev/zero"] {
        let error = SymbolTable::load(Path::new(missing)).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, SymbolError::Unreadable { .. }) && text.contains(missing), "{text}");
        assert!(!text.contains('\n'));
    }
}
