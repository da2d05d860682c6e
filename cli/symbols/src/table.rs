//! One file's symbols, sorted and immutable.
//!
//! # Which name an address gets
//! The nearest symbol at or below it, as in the kernel's own `%pS`. Where several stand at the same
//! address: functions before data, then real names before the linker script's section markers
//! (`_stext`, `__entry_text_end`), before `__pfx_` paddings, strong before weak names, global
//! before local ones, fewer leading underscores, and last the file's own order.
//! `__pfx_` and `.cold` symbols remain names and boundaries of their own, as in kallsyms: the
//! padding before a function is not the end of the function before it.
//!
//! # Which address gets none
//! - In a kernel: one below the image's part of the address space, one in or behind an end marker
//!   (`_etext`, `_einittext`, `_end`), one more than [`MAX_FUNCTION`] into a function, and anything
//!   that only an absolute symbol (`A`, the per-CPU ones of kernels before 6.15) would name.
//! - In a program: one outside of every sized symbol, and behind the section of an unsized one.

use std::cmp::Ordering;
use std::fmt;

use crate::compression::Compression;
use crate::error::SymbolError;

/// The largest number of symbols in one file. Kernels have some 200,000.
pub const MAX_SYMBOLS: usize = 4_000_000;
/// The longest name that is kept, in bytes; a symbol with a longer one is left out. The kernel's own
/// limit is 512.
pub const MAX_NAME: usize = 4096;
/// The most bytes that the names of one file may take together.
pub const MAX_NAMES: usize = 256 << 20;
/// Kernel functions are smaller than this; what is farther from a text symbol is not in it.
pub const MAX_FUNCTION: u64 = 1 << 20;

/// Where the kernel's half of the address space starts, on every 64-bit architecture.
pub(crate) const KERNEL_HALF: u64 = 1 << 63;
/// Where the kernel image lives on x86-64 (`__START_KERNEL_map`).
const X86_IMAGE: u64 = 0xffff_ffff_8000_0000;
/// How many symbols below an address are looked at for one that encloses it.
const ENCLOSING: usize = 16;

/// Symbols that every 64-bit kernel or every x86-64 kernel has in its text.
const KERNEL_ANCHORS: [&str; 5] = ["_text", "_stext", "startup_64", "start_kernel", "entry_SYSCALL_64"];
/// Markers behind which there is nothing until the next symbol.
const END_MARKERS: [&str; 4] = ["_etext", "_einittext", "_end", "__bss_stop"];

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
struct Entry {
    addr: u64,
    /// From the ELF file; 0 if not known.
    size: u64,
    name: u32,
    len: u16,
    kind: u8,
}

impl Entry {
    fn is_text(self) -> bool {
        matches!(self.kind, b't' | b'T' | b'w' | b'W' | b'i')
    }

    fn is_weak(self) -> bool {
        matches!(self.kind, b'w' | b'W' | b'v' | b'V')
    }

    fn is_absolute(self) -> bool {
        matches!(self.kind, b'a' | b'A')
    }

    fn name(self, names: &str) -> &str {
        let start = self.name as usize;
        names.get(start..start + usize::from(self.len)).unwrap_or_default()
    }
}

/// All symbols at one address, or (with no `best`) an address where the symbol before it ends.
#[derive(Clone, Copy, Debug)]
struct Group {
    addr: u64,
    /// Distance to where the symbol ends.
    size: u64,
    /// Index of the entry that names the address.
    best: Option<u32>,
}

/// The symbols of one file, sorted by address; immutable once built.
#[derive(Clone)]
pub struct SymbolTable {
    origin: Origin,
    kernel: bool,
    position_independent: bool,
    names: String,
    entries: Vec<Entry>,
    by_name: Vec<u32>,
    groups: Vec<Group>,
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
        let start = self.by_name.partition_point(|&index| self.name_at(index) < name);
        let rest = self.by_name.get(start..).unwrap_or_default();
        rest.iter().take_while(move |&&index| self.name_at(index) == name).filter_map(|&index| Some(self.entries.get(index as usize)?.addr))
    }

    /// The name of a link-time address; the module documentation says which.
    #[must_use]
    pub fn resolve(&self, addr: u64) -> Option<Resolved<'_>> {
        let end = self.groups.partition_point(|group| group.addr <= addr);
        let below = self.groups.get(..end)?;
        // In a program a sized function may enclose smaller symbols; a kernel's symbols all end
        // where the next one starts.
        let depth = if self.kernel { 1 } else { ENCLOSING };
        below.iter().rev().take(depth).find_map(|group| {
            let entry = self.entries.get(group.best? as usize)?;
            let offset = addr - group.addr;
            (offset < group.size).then(|| Resolved { name: entry.name(&self.names), offset, size: group.size })
        })
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
        self.entries.iter().map(|entry| Symbol { addr: entry.addr, name: entry.name(&self.names), kind: char::from(entry.kind) })
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

/// Collects symbols and sorts them into a table.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    names: String,
    entries: Vec<Entry>,
    /// Where sections end: no symbol reaches beyond.
    ends: Vec<u64>,
    pub(crate) position_independent: bool,
}

impl Builder {
    /// The number of symbols so far.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Adds a symbol; `size` is 0 if not known.
    pub(crate) fn push(&mut self, addr: u64, size: u64, kind: char, name: &str) -> Result<(), SymbolError> {
        if name.is_empty() || name.len() > MAX_NAME {
            return Ok(());
        }
        let too_large = |what, limit: String| Err(SymbolError::TooLarge { what, limit });
        if self.entries.len() >= MAX_SYMBOLS {
            return too_large("number of symbols", MAX_SYMBOLS.to_string());
        }
        if self.names.len() + name.len() > MAX_NAMES {
            return too_large("length of all names", format!("{} MiB", MAX_NAMES >> 20));
        }
        self.entries.push(Entry {
            addr,
            size,
            name: self.names.len() as u32,
            len: name.len() as u16,
            kind: u8::try_from(kind).unwrap_or(b'?'),
        });
        self.names.push_str(name);
        Ok(())
    }

    /// Says that a section ends here.
    pub(crate) fn end_at(&mut self, addr: u64) {
        self.ends.push(addr);
    }

    /// Sorts everything.
    pub(crate) fn build(mut self, origin: Origin) -> SymbolTable {
        self.entries.sort_by_key(|entry| entry.addr); // stable: the file's order remains
        let anchor = self.anchor();
        let mut table = SymbolTable {
            origin,
            kernel: anchor.is_some(),
            position_independent: self.position_independent,
            by_name: (0..self.entries.len() as u32).collect(),
            groups: Vec::new(),
            names: self.names,
            entries: self.entries,
        };
        let (entries, names) = (&table.entries, &table.names);
        let key = |index: u32| entries.get(index as usize).map(|e| (e.name(names), e));
        table.by_name.sort_unstable_by(|&a, &b| match (key(a), key(b)) {
            (Some((name_a, a_entry)), Some((name_b, b_entry))) => {
                name_a.cmp(name_b).then_with(|| preference(a_entry).cmp(&preference(b_entry))).then(a.cmp(&b))
            }
            _ => Ordering::Equal,
        });
        table.groups = match anchor {
            Some(anchor) => kernel_groups(entries, names, anchor),
            None => program_groups(entries, names, self.ends),
        };
        table
    }

    /// The address of a symbol that only a kernel has.
    fn anchor(&self) -> Option<u64> {
        let is_anchor = |entry: &&Entry| entry.addr >= KERNEL_HALF && entry.is_text() && KERNEL_ANCHORS.contains(&entry.name(&self.names));
        self.entries.iter().find(is_anchor).map(|entry| entry.addr)
    }
}

/// Orders symbols of one name.
fn preference(entry: &Entry) -> (bool, bool, bool, u64) {
    (entry.is_absolute(), !entry.is_text(), !entry.kind.is_ascii_uppercase(), entry.addr)
}

/// Orders symbols of one address, the best name first.
fn rank(entry: Entry, names: &str) -> (bool, bool, bool, bool, bool, usize) {
    let name = entry.name(names);
    (
        !entry.is_text(),
        is_section_marker(name),
        name.starts_with("__pfx_"),
        entry.is_weak(),
        !entry.kind.is_ascii_uppercase(),
        name.len() - name.trim_start_matches('_').len(),
    )
}

/// Is this a name that the linker script gives to a section's bounds, rather than a function?
fn is_section_marker(name: &str) -> bool {
    const MARKERS: [&str; 5] = ["_text", "_stext", "_sinittext", "_sdata", "_edata"];
    if MARKERS.contains(&name) || END_MARKERS.contains(&name) {
        return true;
    }
    let Some(name) = name.strip_prefix("__") else {
        return false;
    };
    ["start_", "stop_", "end_"].iter().any(|part| name.starts_with(part))
        || ["_start", "_end", "_begin"].iter().any(|part| name.ends_with(part))
}

/// Index and entry of the best name in each run of equal addresses.
fn best_names<'a>(entries: &'a [Entry], names: &'a str, usable: impl Fn(&Entry) -> bool + 'a) -> impl Iterator<Item = (u32, Entry)> + 'a {
    let mut start = 0;
    entries.chunk_by(|a, b| a.addr == b.addr).filter_map(move |run| {
        let first = start;
        start += run.len();
        (first..)
            .zip(run)
            .filter(|(_, entry)| usable(entry))
            .min_by_key(|(_, entry)| rank(**entry, names))
            .map(|(index, entry)| (index as u32, *entry))
    })
}

fn kernel_groups(entries: &[Entry], names: &str, anchor: u64) -> Vec<Group> {
    let floor = if anchor >= X86_IMAGE { X86_IMAGE } else { KERNEL_HALF };
    let usable = move |entry: &Entry| entry.addr >= floor && !entry.is_absolute();
    let mut groups: Vec<Group> = best_names(entries, names, usable)
        .map(|(index, entry)| Group { addr: entry.addr, size: 0, best: (!END_MARKERS.contains(&entry.name(names))).then_some(index) })
        .collect();
    bound_by_next(&mut groups, |group| {
        let best = group.best.and_then(|index| entries.get(index as usize));
        if best.is_some_and(|entry| entry.is_text()) { MAX_FUNCTION } else { u64::MAX }
    });
    groups
}

fn program_groups(entries: &[Entry], names: &str, mut ends: Vec<u64>) -> Vec<Group> {
    let usable = |entry: &Entry| !entry.is_absolute();
    let mut groups: Vec<Group> =
        best_names(entries, names, usable).map(|(index, entry)| Group { addr: entry.addr, size: entry.size, best: Some(index) }).collect();
    // An end needs a group of its own only where no symbol starts: one that does ends the others.
    ends.sort_unstable();
    ends.dedup();
    ends.retain(|end| groups.binary_search_by_key(end, |g| g.addr).is_err());
    groups.extend(ends.into_iter().map(|addr| Group { addr, size: 0, best: None }));
    groups.sort_unstable_by_key(|group| group.addr);
    bound_by_next(&mut groups, |_| u64::MAX);
    groups
}

/// Lets each symbol without a size of its own end where the next one starts. Of one that would be
/// larger than its `reach`, or has no next, only the first byte is certain to belong to it.
fn bound_by_next(groups: &mut [Group], reach: impl Fn(&Group) -> u64) {
    let mut next: Option<u64> = None;
    for group in groups.iter_mut().rev() {
        if group.size == 0 {
            let distance = next.map(|next| next - group.addr);
            group.size = distance.filter(|&d| d <= reach(group)).unwrap_or(1);
        }
        next = Some(group.addr);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: u64 = 0xffff_ffff_8100_0000;

    fn table(symbols: &[(u64, u64, char, &str)]) -> SymbolTable {
        let mut builder = Builder::default();
        for &(addr, size, kind, name) in symbols {
            builder.push(addr, size, kind, name).unwrap();
        }
        builder.build(Origin::SystemMap)
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
    fn a_function_does_not_reach_far() {
        let table = table(&[(TEXT, 0, 'T', "_text"), (TEXT + 0x200_0000, 0, 'T', "g")]);
        assert!(table.resolve(TEXT).is_some());
        assert_eq!(table.resolve(TEXT + 0x100), None);
        assert!(table.resolve(TEXT + 0x200_0000).is_some());
        assert_eq!(table.resolve(TEXT + 0x200_0001), None);
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
        for (addr, size, name) in [(0x1000, 0x100, "outer"), (0x1010, 8, "inner"), (0x1200, 0, "label"), (0x1210, 0, "last")] {
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
