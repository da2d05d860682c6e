//! Real kernel images, named by `ICSAN_KERNELS` (paths joined by `:`); every file has to be good. Built with the
//! feature `real-kernels` only.
//!
//! ```text
//! ICSAN_KERNELS=$(scripts/kernel 6.1):$(scripts/kernel 6.12):$(scripts/kernel 7):$(scripts/kernel 6.12 --arch arm64) \
//!     cargo test --release -p icsan-symbols --features real-kernels --test real_kernels -- --nocapture
//! ```

mod common;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use common::real::{deciding, kernels, linux_of};
use icsan_symbols::image::aarch64;
use icsan_symbols::linux::kernel::ONLINE_MASK;
use icsan_symbols::{Origin, SymbolTable, Symbolizer, exports};

/// The shortest of three times: other jobs may share the machine.
fn load_time(path: &Path) -> Duration {
    let load = |_| {
        let start = Instant::now();
        SymbolTable::load(path).unwrap();
        start.elapsed()
    };
    (0..3).map(load).min().unwrap()
}

#[test]
fn every_kernel_has_symbols_that_make_sense() {
    for path in kernels() {
        let table = SymbolTable::load(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let took = load_time(&path);
        let place = path.display();
        println!("{place}: {} symbols, {:?}, {took:?}", table.len(), table.origin());

        assert!(matches!(table.origin(), Origin::KernelImage { .. }));
        assert!(table.is_kernel() && table.len() > 20_000, "{place}");
        let linux = linux_of(&table);
        // Without CONFIG_KALLSYMS_ALL the text alone has symbols.
        let text = table.address_of("_text").or_else(|| Some(table.address_of("_stext")? - linux.elf.head));
        let text = text.expect("_text or _stext");
        assert_eq!(text % (2 << 20), 0, "{place}: {text:#x}");
        let names: &[&str] = match linux.arch {
            "x86_64" => &["entry_SYSCALL_64", "__text_poke", "do_syscall_64", "schedule"],
            _ => &["aarch64_insn_patch_text_nosync", "caches_clean_inval_pou", "do_el0_svc", "schedule"],
        };
        for &name in names {
            let addr = table.address_of(name).unwrap_or_else(|| panic!("{place}: no {name}"));
            let resolved = table.resolve(addr + 1).unwrap();
            assert_eq!((resolved.name, resolved.offset), (name, 1), "{place}");
            assert!(resolved.size < 0x2000, "{place}: {resolved}");
        }
        let end = table.address_of("_etext").expect("_etext");
        assert_eq!(table.resolve(end + 0x10), None, "{place}");
        if cfg!(not(debug_assertions)) {
            assert!(took.as_secs_f64() < 2.0, "{place}: {took:?}");
        }
    }
}

#[test]
fn every_kernel_tells_which_cpus_are_online() {
    let mut both = 0;
    for path in kernels() {
        let table = SymbolTable::load(&path).unwrap();
        let mask = table.address_of(ONLINE_MASK).unwrap_or_else(|| panic!("{}: no {ONLINE_MASK}", path.display()));
        if linux_of(&table).arch != "aarch64" {
            continue;
        }
        let bytes = fs::read(&path).unwrap();
        let image = aarch64::loaded(&bytes).unwrap();
        assert_eq!(exports::address_of(&image, ONLINE_MASK), Some(mask), "{}", path.display());
        // Only kallsyms has this one, so that the two are independent here.
        both += usize::from(table.address_of("__cpu_possible_mask").is_some());
    }
    assert!(both > 0, "no arm64 kernel with CONFIG_KALLSYMS_ALL is among them");
}

#[test]
fn every_kernel_takes_its_offset_from_its_entry() {
    for path in kernels() {
        let table = SymbolTable::load(&path).unwrap();
        let linux = linux_of(&table);
        let symbols = Symbolizer::new(vec![table], linux.kaslr);
        let entry = deciding(linux);
        let link = symbols.address_of(entry).unwrap().link;
        let offset = 0x1a20_0000;
        assert_eq!(symbols.learn_offset(entry, link + offset), Ok(offset));
        let name = symbols.resolve(link + offset + 3).unwrap();
        assert!(name.to_string().starts_with(&format!("{entry}+0x3/0x")), "{name}");
    }
}

/// Where the evidence has writers: the entry is at the same distance from the start in many kernels, the code that sets
/// the register is not.
#[test]
fn no_kernel_is_taken_for_another_one() {
    let tables: Vec<SymbolTable> = kernels().iter().map(|path| SymbolTable::load(path).unwrap()).collect();
    let mut compared = 0;
    for (runs, table) in tables.iter().enumerate() {
        let linux = linux_of(table);
        let evidence = linux.evidence.iter().find(|evidence| evidence.decides).unwrap();
        let Some(writer) = evidence.writers.first() else { continue };
        let entry = table.address_of(evidence.symbols[0]).unwrap();
        let pc = table.function_range(writer).unwrap().start + 0x10;
        for (given, other) in tables.iter().enumerate().filter(|(_, other)| linux.is_of(other)) {
            let symbols = Symbolizer::new(vec![other.clone()], linux.kaslr);
            let learned = symbols.learn_offset_by(evidence, entry, pc);
            assert_eq!(learned.is_ok(), given == runs, "{given} given, {runs} runs: {learned:?}");
            compared += usize::from(given != runs);
        }
    }
    println!("{compared} kernels were not taken for another one");
}
