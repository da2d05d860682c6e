//! Real kernel images, named by `ICSAN_KERNELS` (paths joined by `:`); every file has to be good. Built with the
//! feature `real-kernels` only.
//!
//! ```text
//! ICSAN_KERNELS=$(scripts/kernel 6.1):$(scripts/kernel 6.12):$(scripts/kernel 7) \
//!     cargo test --release -p icsan-symbols --features real-kernels --test real_kernels -- --nocapture
//! ```

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use common::real::kernels;
use icsan_symbols::linux::x86::KASLR;
use icsan_symbols::{Origin, SymbolTable, Symbolizer};

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
        let text = table.address_of("_text").expect("_text");
        assert_eq!(text % (2 << 20), 0, "{place}: {text:#x}");
        for name in ["entry_SYSCALL_64", "__text_poke", "do_syscall_64", "schedule"] {
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
fn every_kernel_takes_its_offset_from_the_system_call_entry() {
    for path in kernels() {
        let symbols = Symbolizer::new(vec![SymbolTable::load(&path).unwrap()], KASLR);
        let link = symbols.address_of("entry_SYSCALL_64").unwrap().link;
        let offset = 0x1a20_0000;
        assert_eq!(symbols.learn_offset("entry_SYSCALL_64", link + offset), Ok(offset));
        let name = symbols.resolve(link + offset + 3).unwrap();
        assert!(name.to_string().starts_with("entry_SYSCALL_64+0x3/0x"), "{name}");
    }
}
