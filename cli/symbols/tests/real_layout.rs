//! What real kernel images say of their structures, their text and their patching functions. As in `real_kernels.rs`,
//! `ICSAN_KERNELS` names the images.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use common::real::{deciding, linux_of};
use icsan_symbols::image::{aarch64, bzimage};
use icsan_symbols::linux::kernel::LinuxKernel;
use icsan_symbols::linux::protocol::{Effect, Version};
use icsan_symbols::unpacked::Image;
use icsan_symbols::{KernelLayout, SymbolTable, Symbolizer, elf};

/// A kernel image, its version and its symbols.
struct Kernel {
    path: PathBuf,
    version: Version,
    table: SymbolTable,
    linux: &'static LinuxKernel,
    /// The unpacked kernel: an ELF file, or what is loaded as it is.
    unpacked: Vec<u8>,
}

impl Kernel {
    fn load(path: PathBuf) -> Kernel {
        let table = SymbolTable::load(&path).unwrap();
        let linux = linux_of(&table);
        let file = fs::read(&path).unwrap();
        let unpacked = if bzimage::is_kernel_image(&file) { bzimage::vmlinux(&file).unwrap().1 } else { file };
        let banner = find(&unpacked, b"Linux version ").expect("a banner");
        let text = String::from_utf8_lossy(&unpacked[banner + 14..][..32]).into_owned();
        let mut numbers = text.split('.').map(|n| n.parse::<u16>().unwrap_or(0));
        let version = (numbers.next().unwrap(), numbers.next().unwrap());
        Kernel { path, version, table, linux, unpacked }
    }

    fn image(&self) -> Image<'_> {
        if aarch64::is_kernel_image(&self.unpacked) {
            aarch64::loaded(&self.unpacked).unwrap()
        } else {
            elf::kernel_segments(&self.unpacked).unwrap()
        }
    }

    /// Where the image holds a symbol, if it has it.
    fn place(&self, symbol: &str) -> Option<usize> {
        let addr = self.table.address_of(symbol)?;
        let image = self.image();
        let segment = image
            .segments
            .iter()
            .find(|s| addr.checked_sub(s.addr).is_some_and(|inside| inside < s.file_size))
            .unwrap();
        Some((segment.file_offset + addr - segment.addr) as usize)
    }

    /// A pointer that the image holds.
    fn pointer(&self, at: usize) -> u64 {
        self.image().pointer_at(at).unwrap()
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

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

#[test]
fn the_layout_fits_the_first_task() {
    for kernel in kernels() {
        let layout = *kernel.layout();
        println!("{}: {:?} {layout:?}", kernel.path.display(), kernel.version);
        assert_eq!((layout.task_comm_len, layout.task_tgid), (16, layout.task_pid + 4));
        const COMM: &[u8; 16] = b"swapper\0\0\0\0\0\0\0\0\0";
        let comm = layout.task_comm as usize;
        // Without CONFIG_KALLSYMS_ALL data have no symbols: then it is found by its name.
        let named = kernel.place("init_task");
        let task = named.or_else(|| find(&kernel.unpacked, COMM).map(|at| at - comm)).unwrap();
        assert_eq!(named.is_some(), kernel.place("linux_banner").is_some());
        assert_eq!(&kernel.unpacked[task + comm..][..layout.task_comm_len as usize], COMM);
        let pointer = |member: u32| kernel.pointer(task + member as usize);
        let address = |symbol| kernel.table.address_of(symbol).filter(|_| named.is_some());
        assert_eq!(pointer(layout.task_mm), 0);
        assert_eq!(pointer(layout.task_pid), 0);
        for (member, symbols) in [
            (layout.task_stack, &["init_stack", "init_thread_union"][..]),
            (layout.task_active_mm.unwrap(), &["init_mm"]),
        ] {
            let value = pointer(member);
            assert!(value >= kernel.linux.image_from, "{value:#x}");
            let known = symbols.iter().copied().find_map(address);
            assert_eq!(known.is_some(), named.is_some(), "{symbols:?}");
            assert!(known.is_none_or(|known| known == value), "{symbols:?}: {value:#x}");
        }
        let tables = ["init_top_pgt", "swapper_pg_dir"].into_iter().find_map(address);
        assert_eq!(tables.is_some(), named.is_some());
        let pgd = kernel.place("init_mm").map(|mm| kernel.pointer(mm + layout.mm_pgd.unwrap() as usize));
        assert_eq!(pgd, tables);
        let has_hot = kernel.linux.current_task.is_some() && ((6, 2)..(6, 15)).contains(&kernel.version);
        assert_eq!(layout.pcpu_hot_current_task.is_some(), has_hot);
    }
}

#[test]
fn the_layout_is_found_by_section_and_by_magic_number() {
    for kernel in kernels() {
        let by_section = elf::layout(&kernel.unpacked);
        assert_eq!(by_section.is_some(), kernel.unpacked.starts_with(b"\x7fELF"));
        assert!(by_section.is_none_or(|layout| layout == *kernel.layout()));
        assert_eq!(KernelLayout::search(&kernel.unpacked).as_ref(), Some(kernel.layout()));
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
        for function in kernel.linux.protocol.functions {
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
        // The protocol itself is always there; arm64's of 6.1 is the smallest, with three.
        let own = |name: &&str| {
            kernel.linux.protocol.functions.iter().any(|f| f.name == *name && f.effect == Effect::Commits)
        };
        assert!(found.iter().filter(|name| own(name)).count() >= 3);
        let others = kernel.linux.protocol.maintenance.iter().map(|function| function.name);
        let others = others.chain(kernel.linux.protocol.text_poke_syncs.iter().map(|sync| sync.function));
        for name in others {
            assert!(names.contains(&name), "{name} in {:?}", kernel.version);
        }
        if kernel.linux.current_task.is_none() {
            for entry in kernel.linux.entries {
                assert!(names.contains(&entry.symbol), "{} in {:?}", entry.symbol, kernel.version);
            }
        }
    }
}

#[test]
fn patching_functions_have_ranges_in_the_text() {
    const OFFSET: u64 = 5 << 21;
    for Kernel { table, path, linux, .. } in kernels() {
        let entry = table.address_of(deciding(linux)).unwrap();
        let symbols = Symbolizer::new(vec![table.clone()], linux.kaslr);
        symbols.learn_offset(deciding(linux), entry + OFFSET).unwrap();
        check_ranges(&symbols, linux, path);
        assert!(symbols.is_text(entry + OFFSET));
        for outside in ["init_task", "linux_banner", "_end"] {
            // Data has symbols with CONFIG_KALLSYMS_ALL only.
            let address = symbols.runtime_address_of(outside);
            assert!(address.is_none_or(|address| !symbols.is_text(address)), "{}: {outside}", path.display());
        }
        for outside in ["_etext", "start_kernel"] {
            let address = symbols.runtime_address_of(outside).unwrap();
            assert!(!symbols.is_text(address), "{}: {outside}", path.display());
        }
        assert!(!symbols.is_text(0xffff_ffff_c012_3456));
        if let Some(current_task) = linux.current_task {
            println!("{}: the running task at {:#x}", path.display(), current_task(&symbols).unwrap());
        }
    }
}

fn check_ranges(symbols: &Symbolizer, linux: &LinuxKernel, path: &Path) {
    let init = ["_sinittext", "_einittext"].map(|name| symbols.runtime_address_of(name).unwrap());
    for function in linux.protocol.committing() {
        let Some(range) = symbols.function_range(function.name) else { continue };
        let last = range.end - 1;
        let starting = (init[0]..init[1]).contains(&range.start) && last < init[1];
        assert!(
            starting || symbols.is_text(range.start) && symbols.is_text(last),
            "{}: {}",
            path.display(),
            function.name
        );
        assert!(range.end - range.start < 0x2000, "{}: {}", path.display(), function.name);
        for inside in [range.start, range.end - 1] {
            assert_eq!(symbols.resolve(inside).unwrap().name, function.name);
        }
        assert_ne!(symbols.resolve(range.end).map(|r| r.name), Some(function.name));
    }
}
