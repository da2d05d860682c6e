//! What real kernel images say of their structures, their text and their patching functions. As in `real_kernels.rs`,
//! `ICSAN_KERNELS` names the images.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use icsan_symbols::image::bzimage;
use icsan_symbols::linux::protocol::{Effect, Version};
use icsan_symbols::linux::x86::{KASLR, LINUX, current_task_offset};
use icsan_symbols::{KernelLayout, SymbolTable, Symbolizer, elf};

/// A kernel image, its version and its symbols.
struct Kernel {
    path: PathBuf,
    version: Version,
    table: SymbolTable,
    vmlinux: Vec<u8>,
}

impl Kernel {
    fn load(path: PathBuf) -> Kernel {
        let table = SymbolTable::load(&path).unwrap();
        let (_, vmlinux) = bzimage::vmlinux(&fs::read(&path).unwrap()).unwrap();
        let mut kernel = Kernel { path, version: (0, 0), table, vmlinux };
        let banner = kernel.at("linux_banner", 64).to_vec();
        let text = String::from_utf8_lossy(&banner);
        let mut numbers =
            text.strip_prefix("Linux version ").expect("a banner").split('.').map(|n| n.parse::<u16>().unwrap_or(0));
        kernel.version = (numbers.next().unwrap(), numbers.next().unwrap());
        kernel
    }

    /// What the image holds at a symbol.
    fn at(&self, symbol: &str, length: usize) -> &[u8] {
        let addr = self.table.address_of(symbol).unwrap_or_else(|| panic!("{}: no {symbol}", self.path.display()));
        let image = elf::kernel_segments(&self.vmlinux).unwrap();
        let segment = image
            .segments
            .iter()
            .find(|s| addr.checked_sub(s.addr).is_some_and(|inside| inside < s.file_size))
            .unwrap();
        let offset = (segment.file_offset + addr - segment.addr) as usize;
        &self.vmlinux[offset..offset + length]
    }

    fn layout(&self) -> &KernelLayout {
        self.table.layout().unwrap_or_else(|| panic!("{}: no layout", self.path.display()))
    }
}

/// Unpacked once for all tests.
static KERNELS: LazyLock<Vec<Kernel>> =
    LazyLock::new(|| common::real::kernels().into_iter().map(Kernel::load).collect());

fn kernels() -> &'static [Kernel] {
    &KERNELS
}

fn word(bytes: &[u8], at: u32) -> u64 {
    u64::from_le_bytes(bytes[at as usize..][..8].try_into().unwrap())
}

#[test]
fn the_layout_fits_the_first_task() {
    for kernel in kernels() {
        let layout = *kernel.layout();
        println!("{}: {:?} {layout:?}", kernel.path.display(), kernel.version);
        assert_eq!((layout.task_comm_len, layout.task_tgid), (16, layout.task_pid + 4));
        let task = kernel.at("init_task", layout.task_size as usize);
        let comm = &task[layout.task_comm as usize..][..layout.task_comm_len as usize];
        assert_eq!(comm, b"swapper\0\0\0\0\0\0\0\0\0");
        assert_eq!(word(task, layout.task_stack), kernel.table.address_of("init_stack").unwrap());
        assert_eq!(word(task, layout.task_mm), 0);
        assert_eq!(word(task, layout.task_active_mm.unwrap()), kernel.table.address_of("init_mm").unwrap());
        assert_eq!(word(task, layout.task_pid), 0);
        let mm = kernel.at("init_mm", layout.mm_pgd.unwrap() as usize + 8);
        let tables = ["init_top_pgt", "swapper_pg_dir"].iter().find_map(|name| kernel.table.address_of(name));
        assert_eq!(Some(word(mm, layout.mm_pgd.unwrap())), tables);
        assert_eq!(layout.pcpu_hot_current_task.is_some(), ((6, 2)..(6, 15)).contains(&kernel.version));
    }
}

#[test]
fn the_layout_is_found_by_section_and_by_magic_number() {
    for kernel in kernels() {
        assert_eq!(elf::layout(&kernel.vmlinux).as_ref(), Some(kernel.layout()));
        assert_eq!(KernelLayout::search(&kernel.vmlinux).as_ref(), Some(kernel.layout()));
    }
}

/// The functions of [`protocol`] that Debian's kernels of these versions lack although their sources have them:
/// inlined.
const INLINED: [&str; 3] = ["text_poke_flush", "int3_update_optimize", "int3_update_unoptimize"];

#[test]
fn the_patching_functions_are_symbols() {
    for kernel in kernels() {
        let names: Vec<&str> = kernel.table.symbols().map(|symbol| symbol.name).collect();
        let mut found = Vec::new();
        for function in LINUX.protocol.functions {
            let symbols: Vec<&str> = names.iter().copied().filter(|name| function.is_symbol(name)).collect();
            let expected =
                (function.first..=function.last).contains(&kernel.version) && !INLINED.contains(&function.name);
            let wanted: &[&str] = if expected { &[function.name] } else { &[] };
            assert_eq!(symbols, wanted, "{} in {:?}", function.name, kernel.version);
            if expected && function.commits() {
                found.push(function.name);
            }
        }
        println!("{:?}: {} functions commit: {}", kernel.version, found.len(), found.join(" "));
        // The protocol itself is always there.
        let own = |name: &&str| LINUX.protocol.functions.iter().any(|f| f.name == *name && f.effect == Effect::Commits);
        assert!(found.iter().filter(|name| own(name)).count() >= 4);
    }
}

#[test]
fn patching_functions_have_ranges_in_the_text() {
    const OFFSET: u64 = 5 << 21;
    for Kernel { table, path, .. } in kernels() {
        let entry = table.address_of("entry_SYSCALL_64").unwrap();
        let symbols = Symbolizer::new(vec![table.clone()], KASLR);
        symbols.learn_offset("entry_SYSCALL_64", entry + OFFSET).unwrap();
        check_ranges(&symbols, path);
        assert!(symbols.is_text(entry + OFFSET));
        for outside in ["init_task", "linux_banner", "_etext", "_end", "start_kernel"] {
            let address = symbols.runtime_address_of(outside).unwrap();
            assert!(!symbols.is_text(address), "{}: {outside}", path.display());
        }
        assert!(!symbols.is_text(0xffff_ffff_c012_3456));
        println!("{}: current_task at gs:{:#x}", path.display(), current_task_offset(&symbols).unwrap());
    }
}

fn check_ranges(symbols: &Symbolizer, path: &Path) {
    for function in LINUX.protocol.committing() {
        let Some(range) = symbols.function_range(function.name) else { continue };
        assert!(
            symbols.is_text(range.start) && symbols.is_text(range.end - 1),
            "{}: {}",
            path.display(),
            function.name
        );
        assert!(range.end - range.start < 0x1000, "{}: {}", path.display(), function.name);
        for inside in [range.start, range.end - 1] {
            assert_eq!(symbols.resolve(inside).unwrap().name, function.name);
        }
        assert_ne!(symbols.resolve(range.end).map(|r| r.name), Some(function.name));
    }
}
