//! One file's symbols, sorted and immutable.
//!
//! # Which name an address gets
//! The nearest symbol at or below it. Where several stand at the same address: functions before
//! data, then as the kernel itself chooses for `%pS` (`compare_symbols` in its `scripts/kallsyms.c`):
//! strong before weak ones, real names before the linker script's section markers
//! (`__entry_text_end`), fewer leading underscores first, and last the file's own order.
//! `__pfx_` and `.cold` symbols are names and boundaries of their own, as in kallsyms: the padding
//! before a function is not the end of the function before it.
//!
//! # Which address gets none
//! - In a kernel: one below the image's part of the address space, one at or behind an end marker
//!   (`_etext`, `_einittext`, `_end`) up to the next symbol, one more than a page behind a text
//!   symbol that would otherwise be larger than [`MAX_FUNCTION`], and anything that only an absolute
//!   symbol (`A`, the per-CPU ones of kernels before 6.15) would name.
//! - In a program: one outside of every sized symbol, and behind the section of an unsized one.

use std::fmt;
use std::ops::Range;

use crate::btf::KernelLayout;
use crate::buckets::Buckets;
use crate::compression::Compression;
use crate::specialized::is_function;

/// The largest number of symbols in one file. Kernels have some 200,000.
pub const MAX_SYMBOLS: usize = 4_000_000;
/// The longest name that is kept, in bytes; a symbol with a longer one is left out. The kernel's own
/// limit is 512.
pub const MAX_NAME: usize = 4096;
/// The most bytes that the names of one file may take together.
pub const MAX_NAMES: usize = 256 << 20;
/// Kernel functions are smaller than this: where a text symbol is farther from the next one, there
/// is a hole behind it. The largest function of Debian's 7.3 has 20 KiB.
pub const MAX_FUNCTION: u64 = 256 << 10;

/// Where the kernel's half of the address space starts, on every 64-bit architecture.
pub(crate) const KERNEL_HALF: u64 = 1 << 63;
/// How many symbols below an address are looked at for one that encloses it.
const ENCLOSING: usize = 16;

/// What a table was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// `System.map` of a kernel build.
    SystemMap,
    /// A copy of `/proc/kallsyms`; KASLR may already be in its addresses.
    Kallsyms,
    /// The symbol table of an ELF file.
    Elf,
    /// The kallsyms tables inside a kernel image.
    KernelImage {
        /// How the image's payload was compressed.
        compression: Compression,
    },
}

/// One symbol, as in a line of `nm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Symbol<'a> {
    /// The link-time address.
    pub addr: u64,
    /// The name.
    pub name: &'a str,
    /// The type letter of `nm`: `T` and `t` are functions, `A` is absolute, …
    pub kind: char,
}

/// The name of an address; prints like the kernel's `%pS`, `name+0x12/0x40`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolved<'a> {
    /// The symbol.
    pub name: &'a str,
    /// The address's distance from the symbol.
    pub offset: u64,
    /// The symbol's size: in a kernel the distance to the next one, else what the ELF file says.
    pub size: u64,
}

impl fmt::Display for Resolved<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{:#x}/{:#x}", self.name, self.offset, self.size)
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) addr: u64,
    /// From the ELF file; 0 if not known.
    pub(crate) size: u64,
    pub(crate) name: u32,
    pub(crate) len: u16,
    pub(crate) kind: u8,
}

impl Entry {
    pub(crate) fn is_text(self) -> bool {
        matches!(self.kind, b't' | b'T' | b'w' | b'W' | b'i')
    }

    pub(crate) fn is_weak(self) -> bool {
        matches!(self.kind, b'w' | b'W' | b'v' | b'V')
    }

    pub(crate) fn is_absolute(self) -> bool {
        matches!(self.kind, b'a' | b'A')
    }

    pub(crate) fn name(self, names: &str) -> &str {
        let start = self.name as usize;
        names.get(start..start + usize::from(self.len)).unwrap_or_default()
    }
}

/// All symbols at one address, or (with no `best`) an address where the symbol before it ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group {
    pub(crate) addr: u64,
    /// Distance to where the symbol ends.
    pub(crate) size: u64,
    /// Index of the entry that names the address.
    pub(crate) best: Option<u32>,
}

/// The symbols of one file, sorted by address; immutable once built.
#[derive(Clone)]
pub struct SymbolTable {
    pub(crate) origin: Origin,
    pub(crate) kernel: bool,
    pub(crate) position_independent: bool,
    pub(crate) names: String,
    pub(crate) entries: Vec<Entry>,
    pub(crate) by_name: Vec<u32>,
    pub(crate) groups: Vec<Group>,
    pub(crate) buckets: Buckets,
    pub(crate) layout: Option<KernelLayout>,
}

impl SymbolTable {
    /// The link-time address of a symbol. Of several with this name: a function before data, a
    /// global one before a local one, then the lowest.
    #[must_use]
    pub fn address_of(&self, name: &str) -> Option<u64> {
        self.addresses_of(name).next()
    }

    /// The link-time addresses of all symbols with this name, in the order of preference of
    /// [`address_of`](Self::address_of). Kernels have many static functions of the same name.
    pub fn addresses_of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = u64> + 'a {
        let rest = self.by_name.get(self.first_named(name)..).unwrap_or_default();
        rest.iter()
            .take_while(move |&&index| self.name_at(index) == name)
            .filter_map(|&index| Some(self.entries.get(index as usize)?.addr))
    }

    /// The name of a link-time address; the module documentation says which.
    #[must_use]
    pub fn resolve(&self, addr: u64) -> Option<Resolved<'_>> {
        let below = self.groups.get(..self.groups_up_to(addr))?;
        // In a program a sized function may enclose smaller symbols; a kernel's symbols all end
        // where the next one starts.
        let depth = if self.kernel { 1 } else { ENCLOSING };
        below.iter().rev().take(depth).find_map(|group| {
            let entry = self.entries.get(group.best? as usize)?;
            let offset = addr - group.addr;
            (offset < group.size).then(|| Resolved { name: entry.name(&self.names), offset, size: group.size })
        })
    }

    /// The link-time addresses at which a function begins: its own, as [`Self::address_of`] has it, and those of copies
    /// that the compiler specialized (`NAME.isra.0`, `NAME.constprop.0`), in the order of their names.
    pub fn entries_of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = u64> + 'a {
        let rest = self.by_name.get(self.first_named(name)..).unwrap_or_default();
        let begin = rest.iter().take_while(move |&&index| self.name_at(index).starts_with(name));
        let copy = move |symbol: &str| symbol != name && is_function(symbol, name);
        let copies = begin.filter(move |&&index| copy(self.name_at(index)));
        self.address_of(name).into_iter().chain(copies.filter_map(|&index| {
            self.entries.get(index as usize).filter(|entry| entry.is_text()).map(|entry| entry.addr)
        }))
    }

    /// The link-time addresses of a function, from its first up to where the next symbol starts (in a program: as its
    /// size says). What the compiler put into `NAME.cold` is apart. A function that was specialized, and is there as
    /// `NAME.constprop.0` or the like alone, is meant as well: the first of such copies. `None` if this is no text
    /// symbol.
    #[must_use]
    pub fn function_range(&self, name: &str) -> Option<Range<u64>> {
        let rest = self.by_name.get(self.first_named(name)..)?;
        let begin = rest.iter().take_while(|&&index| self.name_at(index).starts_with(name));
        let found = begin.copied().find(|&index| is_function(self.name_at(index), name))?;
        let found = self.entries.get(found as usize).filter(|entry| entry.is_text())?;
        let group =
            self.groups.get(self.groups_up_to(found.addr).checked_sub(1)?).filter(|group| group.addr == found.addr)?;
        group.best?; // an end marker is no function
        Some(found.addr..found.addr.checked_add(group.size)?)
    }

    /// Where the kernel keeps what in its structures; `None` if the file does not say. Kernel images and a `vmlinux` do
    /// if they have BTF, lists of symbols never do.
    #[must_use]
    pub fn layout(&self) -> Option<&KernelLayout> {
        self.layout.as_ref()
    }

    /// The number of symbols.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Is there no symbol at all?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What the table was read from.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// Is this a kernel's table: does it have one of a kernel's own text symbols (`_text`,
    /// `_stext`, `entry_SYSCALL_64`, …) in the kernel's half of the address space?
    #[must_use]
    pub fn is_kernel(&self) -> bool {
        self.kernel
    }

    /// Is this a position-independent program, whose addresses mean nothing until it is loaded?
    /// [`Symbolizer`](crate::Symbolizer) cannot name its addresses: link it with `-no-pie`.
    #[must_use]
    pub fn is_position_independent(&self) -> bool {
        self.position_independent && !self.kernel
    }

    /// All symbols by ascending address; those at the same address in the file's order.
    pub fn symbols(&self) -> impl Iterator<Item = Symbol<'_>> {
        self.entries.iter().map(|entry| Symbol {
            addr: entry.addr,
            name: entry.name(&self.names),
            kind: char::from(entry.kind),
        })
    }

    /// How many groups are at or below an address.
    fn groups_up_to(&self, addr: u64) -> usize {
        let near = self.buckets.near(addr);
        let start = near.start;
        start + self.groups.get(near).unwrap_or_default().partition_point(|group| group.addr <= addr)
    }

    /// Where in `by_name` this name is, or would be.
    fn first_named(&self, name: &str) -> usize {
        self.by_name.partition_point(|&index| self.name_at(index) < name)
    }

    fn name_at(&self, index: u32) -> &str {
        self.entries.get(index as usize).map_or("", |entry| entry.name(&self.names))
    }
}

impl fmt::Debug for SymbolTable {
    /// The symbols themselves would fill many pages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SymbolTable")
            .field("origin", &self.origin)
            .field("kernel", &self.kernel)
            .field("position_independent", &self.position_independent)
            .field("symbols", &self.entries.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builder::Builder;
    use crate::error::SymbolError;

    const TEXT: u64 = 0xffff_ffff_8100_0000;

    fn table(symbols: &[(u64, u64, char, &str)]) -> SymbolTable {
        let mut builder = Builder::default();
        for &(addr, size, kind, name) in symbols {
            builder.push(addr, size, kind, name).unwrap();
        }
        builder.build(Origin::SystemMap)
    }

    #[test]
    fn specialized_copies_are_the_function_and_parts_are_not() {
        let name = "text_poke_bp_batch";
        for symbol in [
            "text_poke_bp_batch",
            "text_poke_bp_batch.isra.0",
            "text_poke_bp_batch.constprop.0.isra.12",
            "text_poke_bp_batch.llvm.987",
        ] {
            let table = table(&[(TEXT, 0, 'T', "_text"), (TEXT + 0x40, 0, 't', symbol), (TEXT + 0x90, 0, 'T', "_end")]);
            assert_eq!(table.function_range(name), Some(TEXT + 0x40..TEXT + 0x90), "{symbol}");
        }
        for symbol in [
            "text_poke_bp",
            "text_poke_bp_batch2",
            "__text_poke_bp_batch",
            "text_poke_bp_batch.cold",
            "text_poke_bp_batch.part.0",
            "text_poke_bp_batch.",
        ] {
            let table = table(&[(TEXT, 0, 'T', "_text"), (TEXT + 0x40, 0, 't', symbol), (TEXT + 0x90, 0, 'T', "_end")]);
            assert_eq!(table.function_range(name), None, "{symbol}");
        }
        let both = [(TEXT, 0, 't', "foo.isra.0"), (TEXT + 0x40, 0, 't', "foo"), (TEXT + 0x90, 0, 'T', "_end")];
        assert_eq!(table(&both).function_range("foo"), Some(TEXT + 0x40..TEXT + 0x90), "itself comes first");
        assert!(table(&both).entries_of("foo").eq([TEXT + 0x40, TEXT]), "it may be entered at either");
        let parts = [(TEXT, 0, 't', "foo.cold"), (TEXT + 0x40, 0, 't', "food"), (TEXT + 0x90, 0, 'T', "_end")];
        assert_eq!(table(&parts).entries_of("foo").count(), 0);
        let copies =
            [(TEXT, 0, 't', "f.isra.0"), (TEXT + 0x40, 0, 't', "f.constprop.0"), (TEXT + 0x90, 0, 'T', "_end")];
        assert!(table(&copies).entries_of("f").eq([TEXT + 0x40, TEXT]), "all of them, by name");
    }

    fn kernel() -> SymbolTable {
        table(&[
            (0, 0, 'A', "fixed_percpu_data"),
            (0x1f000, 0, 'A', "cpu_tss_rw"),
            (TEXT, 0, 'T', "_stext"),
            (TEXT, 0, 'T', "_text"),
            (TEXT, 0, 't', "startup_64"),
            (TEXT + 0x40, 0, 't', "__pfx_foo"),
            (TEXT + 0x50, 0, 'd', "data_at_foo"),
            (TEXT + 0x50, 0, 'T', "__foo_end"),
            (TEXT + 0x50, 0, 'W', "weak_foo"),
            (TEXT + 0x50, 0, 't', "foo"),
            (TEXT + 0x90, 0, 'T', "_etext"),
            (TEXT + 0x20_0000, 0, 'R', "rodata"),
            (TEXT + 0x30_0000, 0, 'B', "_end"),
        ])
    }

    #[test]
    fn names_as_a_kernel_developer_expects() {
        let table = kernel();
        let name = |addr| table.resolve(addr).map(|r| r.to_string());
        assert_eq!(name(TEXT).as_deref(), Some("startup_64+0x0/0x40"));
        assert_eq!(name(TEXT + 0x41).as_deref(), Some("__pfx_foo+0x1/0x10"));
        assert_eq!(name(TEXT + 0x62).as_deref(), Some("foo+0x12/0x40"));
        assert_eq!(name(TEXT + 0x20_0010).as_deref(), Some("rodata+0x10/0x100000"));
    }

    #[test]
    fn no_name_rather_than_a_wrong_one() {
        let table = kernel();
        for addr in [0, 0x1f008, TEXT - 1, TEXT + 0x90, TEXT + 0x1000, TEXT + 0x30_0000, u64::MAX] {
            assert_eq!(table.resolve(addr), None, "{addr:#x}");
        }
    }

    #[test]
    fn a_second_name_of_a_sections_bound_is_one_as_well() {
        let table = table(&[
            (TEXT, 0, 'T', "_text"),
            (TEXT + 0x40, 0, 'D', "__pi___start_rodata"),
            (TEXT + 0x40, 0, 'D', "__start_rodata"),
            (TEXT + 0x40, 0, 'D', "_etext"),
            (TEXT + 0x80, 0, 'D', "__pi_table"),
            (TEXT + 0xc0, 0, 'D', "last"),
        ]);
        assert_eq!(table.resolve(TEXT + 0x50), None);
        assert_eq!(table.resolve(TEXT + 0x90).unwrap().to_string(), "__pi_table+0x10/0x40");
    }

    #[test]
    fn a_function_does_not_reach_far() {
        let table = table(&[(TEXT, 0, 'T', "_text"), (TEXT + 0x200_0000, 0, 'T', "g")]);
        assert!(table.resolve(TEXT).is_some());
        assert!(table.resolve(TEXT + 0xfff).is_some());
        assert_eq!(table.resolve(TEXT + 0x1000), None);
        assert!(table.resolve(TEXT + 0x200_0000).is_some());
        assert_eq!(table.resolve(TEXT + 0x200_1000), None);
    }

    #[test]
    fn of_several_of_one_name_the_global_function_first() {
        let table = table(&[
            (TEXT, 0, 'T', "_text"),
            (TEXT + 1, 0, 'd', "x"),
            (TEXT + 2, 0, 't', "x"),
            (TEXT + 3, 0, 'T', "x"),
            (TEXT + 4, 0, 't', "x"),
        ]);
        let all: Vec<u64> = table.addresses_of("x").map(|a| a - TEXT).collect();
        assert_eq!(all, [3, 2, 4, 1]);
        assert_eq!(table.address_of("w"), None);
        assert_eq!(table.address_of("y"), None);
    }

    #[test]
    fn program_symbols_have_sizes() {
        let mut builder = Builder::default();
        for (addr, size, name) in
            [(0x1000, 0x100, "outer"), (0x1010, 8, "inner"), (0x1200, 0, "label"), (0x1210, 0, "last")]
        {
            builder.push(addr, size, 't', name).unwrap();
        }
        builder.end_at(0x1230);
        let table = builder.build(Origin::Elf);
        assert!(!table.is_kernel());
        let name = |addr| table.resolve(addr).map(|r| r.to_string());
        assert_eq!(name(0x1008).as_deref(), Some("outer+0x8/0x100"));
        assert_eq!(name(0x1012).as_deref(), Some("inner+0x2/0x8"));
        assert_eq!(name(0x1020).as_deref(), Some("outer+0x20/0x100"));
        assert_eq!(name(0x1100), None);
        assert_eq!(name(0x1204).as_deref(), Some("label+0x4/0x10"));
        assert_eq!(name(0x121f).as_deref(), Some("last+0xf/0x20"));
        assert_eq!(name(0x1230), None);
    }

    #[test]
    fn bounds_hold() {
        let mut builder = Builder::default();
        builder.push(0, 0, 't', "").unwrap();
        builder.push(0, 0, 't', &"x".repeat(MAX_NAME + 1)).unwrap();
        assert_eq!(builder.len(), 0);
        let long = "y".repeat(MAX_NAME);
        let mut result = Ok(());
        for _ in 0..=MAX_NAMES / MAX_NAME {
            result = result.and(builder.push(0, 0, 't', &long));
        }
        assert!(matches!(result, Err(SymbolError::TooLarge { .. })));
    }
}
