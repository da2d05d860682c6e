//! From a list of symbols to a [`SymbolTable`]: sorting, and choosing what names an address.
//!
//! [`crate::table`] says by which rules.

use crate::buckets::Buckets;
use crate::error::SymbolError;
use crate::linux::KERNELS;
use crate::table::{Entry, Group, KERNEL_HALF, MAX_FUNCTION, MAX_NAME, MAX_NAMES, MAX_SYMBOLS, Origin, SymbolTable};

/// Symbols that every 64-bit kernel has in its text. Those of an architecture: [`LinuxKernel::anchors`].
///
/// [`LinuxKernel::anchors`]: crate::linux::kernel::LinuxKernel::anchors
const ANCHORS: [&str; 3] = ["_text", "_stext", "start_kernel"];
/// Markers behind which there is nothing until the next symbol.
const END_MARKERS: [&str; 4] = ["_etext", "_einittext", "_end", "__bss_stop"];
/// How far a symbol reaches that has a hole, or nothing at all, behind it.
const BEFORE_HOLE: u64 = 4096;

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

    /// Adds a symbol; `size` is 0 if not known. Not one like `$x` or `$d.5`, which tells code from data on some
    /// architectures, and would take the rest of its function from it.
    pub(crate) fn push(&mut self, addr: u64, size: u64, kind: char, name: &str) -> Result<(), SymbolError> {
        if name.is_empty() || name.len() > MAX_NAME || name.starts_with('$') {
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
            by_name: Vec::new(),
            groups: Vec::new(),
            buckets: Buckets::default(),
            layout: None,
            names: self.names,
            entries: self.entries,
        };
        let (entries, names) = (&table.entries, &table.names);
        // With the first letters of each name beside its index: most comparisons then need neither the entry nor the
        // name.
        let letters = |name: &str| {
            name.bytes().chain(std::iter::repeat(0)).take(16).fold(0_u128, |word, byte| word << 8 | u128::from(byte))
        };
        let mut by_name: Vec<(u128, u32)> =
            (0..).zip(entries).map(|(index, entry)| (letters(entry.name(names)), index)).collect();
        let key = |index: u32| entries.get(index as usize).map(|entry| (entry.name(names), preference(entry)));
        by_name.sort_unstable_by(|(a_letters, a), (b_letters, b)| {
            a_letters.cmp(b_letters).then_with(|| key(*a).cmp(&key(*b))).then(a.cmp(b))
        });
        table.by_name = by_name.into_iter().map(|(_, index)| index).collect();
        table.groups = match anchor {
            Some(anchor) => kernel_groups(entries, names, anchor),
            None => program_groups(entries, names, self.ends),
        };
        table.buckets = Buckets::new(table.groups.iter().map(|group| group.addr));
        table
    }

    /// The address of a symbol that only a kernel has.
    fn anchor(&self) -> Option<u64> {
        let is_anchor =
            |entry: &&Entry| entry.addr >= KERNEL_HALF && entry.is_text() && is_anchor_name(entry.name(&self.names));
        self.entries.iter().find(is_anchor).map(|entry| entry.addr)
    }
}

fn is_anchor_name(name: &str) -> bool {
    ANCHORS.contains(&name) || KERNELS.iter().any(|kernel| kernel.anchors.contains(&name))
}

/// Orders symbols of one name.
fn preference(entry: &Entry) -> (bool, bool, bool, u64) {
    (entry.is_absolute(), !entry.is_text(), !entry.kind.is_ascii_uppercase(), entry.addr)
}

/// Orders symbols of one address, the best name first.
fn rank(entry: Entry, names: &str) -> (bool, bool, bool, usize) {
    let name = entry.name(names);
    let underscores = name.len() - name.trim_start_matches('_').len();
    (!entry.is_text(), entry.is_weak(), is_section_marker(name), underscores)
}

/// What a symbol's second name begins with that code has for it which runs before the kernel is where it is linked.
const EARLY_ALIAS: &str = "__pi_";

/// Is this a name that the linker script gives to a section's bounds, rather than a function?
fn is_section_marker(name: &str) -> bool {
    let name = name.strip_prefix(EARLY_ALIAS).unwrap_or(name);
    let inner = name.strip_prefix("__").unwrap_or_default();
    END_MARKERS.contains(&name)
        || ["start_", "stop_", "end_"].iter().any(|part| inner.starts_with(part))
        || ["_start", "_end"].iter().any(|part| inner.ends_with(part))
}

/// Index and entry of the best name in each run of equal addresses.
fn best_names<'a>(
    entries: &'a [Entry],
    names: &'a str,
    usable: impl Fn(&Entry) -> bool + 'a,
) -> impl Iterator<Item = (u32, Entry)> + 'a {
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
    // Below the image lie per-CPU variables, and symbols that are no addresses.
    let images = KERNELS.iter().map(|kernel| kernel.image_from).filter(|from| *from <= anchor);
    let floor = images.max().unwrap_or(KERNEL_HALF);
    let usable = move |entry: &Entry| entry.addr >= floor && !entry.is_absolute();
    let mut groups: Vec<Group> = best_names(entries, names, usable)
        .map(|(index, entry)| Group {
            addr: entry.addr,
            size: 0,
            best: (!END_MARKERS.contains(&entry.name(names))).then_some(index),
        })
        .collect();
    bound_by_next(&mut groups, |group| {
        let best = group.best.and_then(|index| entries.get(index as usize));
        if best.is_some_and(|entry| entry.is_text()) { MAX_FUNCTION } else { u64::MAX }
    });
    groups
}

fn program_groups(entries: &[Entry], names: &str, mut ends: Vec<u64>) -> Vec<Group> {
    let usable = |entry: &Entry| !entry.is_absolute();
    let mut groups: Vec<Group> = best_names(entries, names, usable)
        .map(|(index, entry)| Group { addr: entry.addr, size: entry.size, best: Some(index) })
        .collect();
    // An end needs a group of its own only where no symbol starts: one that does ends the others.
    ends.sort_unstable();
    ends.dedup();
    ends.retain(|end| groups.binary_search_by_key(end, |g| g.addr).is_err());
    groups.extend(ends.into_iter().map(|addr| Group { addr, size: 0, best: None }));
    groups.sort_unstable_by_key(|group| group.addr);
    bound_by_next(&mut groups, |_| u64::MAX);
    groups
}

/// Lets each symbol without a size of its own end where the next one starts, or soon if that is
/// farther than its `reach`.
fn bound_by_next(groups: &mut [Group], reach: impl Fn(&Group) -> u64) {
    let mut next: Option<u64> = None;
    for group in groups.iter_mut().rev() {
        if group.size == 0 {
            let distance = next.map(|next| next - group.addr);
            group.size = distance.filter(|&d| d <= reach(group)).unwrap_or(BEFORE_HOLE);
        }
        next = Some(group.addr);
    }
}
