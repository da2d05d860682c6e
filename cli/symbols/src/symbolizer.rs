//! Names for *runtime* addresses: several tables together, and the kernel's KASLR offset.
//!
//! KASLR moves the whole kernel image by one offset. Nobody tells the plugin which, but the guest
//! gives it away: a kernel that starts writes addresses of its own to system registers
//! ([`crate::linux::kaslr::PlaceEvidence`]). [`Symbolizer::learn_offset`] takes such evidence, and checks it: a kernel
//! that is not the one of the symbol file nearly never ends up at an aligned offset.
//!
//! Before that, kernel addresses have no names.
//!
//! A machine may run one kernel after the other: it is reset, or boots the next one by kexec. Each is a *boot*,
//! numbered from 1, and has an offset of its own
//! ([`Symbolizer::next_boot`]); what was seen in one is named by that one's offset ([`Symbolizer::names_of`]).

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use crate::error::OffsetError;
use crate::linux::kaslr::{KaslrRange, OtherValues, PlaceEvidence};
use crate::table::{KERNEL_HALF, Origin, Resolved, SymbolTable};

/// Where a symbol is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    /// The link-time address.
    pub link: u64,
    /// Is it the kernel's? Then the runtime address is known once the offset is.
    pub kernel: bool,
}

/// No offset is known yet. No real one is like this, as it is not aligned.
const UNKNOWN: u64 = u64::MAX;
/// Evidence contradicted itself: there are no names any more.
const FORGOTTEN: u64 = u64::MAX - 1;

/// Kernels, one after the other, that are told apart.
pub const MAX_BOOTS: usize = 1024;

/// Names as they are in one boot.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    symbols: &'a Symbolizer,
    offset: Option<u64>,
}

impl<'a> Names<'a> {
    /// The name of a runtime address. One in the kernel's half of the address space has a name
    /// only if the boot's offset is known; a program's is taken as linked (`ET_EXEC`).
    #[must_use]
    pub fn resolve(self, runtime: u64) -> Option<Resolved<'a>> {
        if runtime >= KERNEL_HALF {
            let link = runtime.wrapping_sub(self.offset?);
            self.symbols.kernel.as_ref()?.resolve(link)
        } else {
            self.symbols
                .programs
                .iter()
                .filter(|table| !table.is_position_independent())
                .find_map(|table| table.resolve(runtime))
        }
    }

    /// Is there a symbol of that name at a runtime address of the kernel's? It may have other names as well.
    #[must_use]
    pub fn begins_at(self, name: &str, runtime: u64) -> bool {
        let at = |offset: u64| {
            self.symbols
                .kernel
                .as_ref()
                .is_some_and(|kernel| kernel.addresses_of(name).any(|link| link.wrapping_add(offset) == runtime))
        };
        self.offset.is_some_and(at)
    }
}

/// Several tables and the kernel's KASLR offset.
///
/// It may be shared between threads: the offset is learned through `&self`.
#[derive(Debug)]
pub struct Symbolizer {
    kernel: Option<SymbolTable>,
    programs: Vec<SymbolTable>,
    /// The kernel's text, at link-time addresses; empty if its bounds are not known.
    text: Range<u64>,
    range: KaslrRange,
    offset: AtomicU64,
    /// Was there any evidence of a kernel in the boot that runs?
    seen: AtomicBool,
    /// The offsets of earlier boots, the first one first.
    earlier: RwLock<Vec<Option<u64>>>,
}

impl Symbolizer {
    /// Joins tables, for a guest whose kernel may be moved by these offsets. Only the first kernel's table is used; a
    /// second one would be of another kernel, or say the same.
    #[must_use]
    pub fn new(tables: Vec<SymbolTable>, range: KaslrRange) -> Self {
        let (kernels, programs): (Vec<_>, _) = tables.into_iter().partition(|t| t.is_kernel());
        let kernel = kernels.into_iter().next();
        let text = kernel
            .as_ref()
            .and_then(|table| Some(table.address_of("_stext")?..table.address_of("_etext")?))
            .unwrap_or(0..0);
        Symbolizer {
            kernel,
            programs,
            text,
            range,
            offset: AtomicU64::new(UNKNOWN),
            seen: AtomicBool::new(false),
            earlier: RwLock::default(),
        }
    }

    /// The name of a runtime address in the boot that runs: [`Names::resolve`].
    #[must_use]
    pub fn resolve(&self, runtime: u64) -> Option<Resolved<'_>> {
        self.names().resolve(runtime)
    }

    /// The names of the boot that runs.
    #[must_use]
    pub fn names(&self) -> Names<'_> {
        Names { symbols: self, offset: self.offset() }
    }

    /// The names of a boot. Of one that has not come there are none in the kernel.
    #[must_use]
    pub fn names_of(&self, boot: usize) -> Names<'_> {
        Names { symbols: self, offset: self.offsets().get(boot.wrapping_sub(1)).copied().flatten() }
    }

    fn earlier(&self) -> RwLockReadGuard<'_, Vec<Option<u64>>> {
        self.earlier.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the boot that runs, from 1.
    #[must_use]
    pub fn boot(&self) -> usize {
        self.earlier().len() + 1
    }

    /// The offset of each boot so far, as far as it is known.
    #[must_use]
    pub fn offsets(&self) -> Vec<Option<u64>> {
        let mut offsets = self.earlier().clone();
        offsets.push(self.offset());
        offsets
    }

    /// Another kernel begins, or the same one anew: its offset has to be learned. Answers with its number; `None`:
    /// there were too many. A boot in which no kernel has been seen
    /// goes on: firmware resets the machine, too, before it boots one.
    pub fn next_boot(&self) -> Option<usize> {
        let mut earlier = self.earlier.write().unwrap_or_else(PoisonError::into_inner);
        if !self.seen.swap(false, Ordering::AcqRel) {
            return Some(earlier.len() + 1);
        }
        if earlier.len() + 1 >= MAX_BOOTS {
            self.offset.store(FORGOTTEN, Ordering::Release);
            return None;
        }
        earlier.push(self.offset());
        self.offset.store(UNKNOWN, Ordering::Release);
        Some(earlier.len() + 1)
    }

    /// Is this runtime address in the kernel's text, from `_stext` up to `_etext`? Never before the offset is known.
    /// Modules, BPF programs and the like are elsewhere, and so is what the kernel runs only while it starts
    /// (`.init.text`). This is much quicker than [`resolve`](Self::resolve): a scan of a stack asks it first.
    #[must_use]
    pub fn is_text(&self, runtime: u64) -> bool {
        runtime >= KERNEL_HALF && self.offset().is_some_and(|offset| self.text.contains(&runtime.wrapping_sub(offset)))
    }

    /// The runtime addresses of a function, from its first up to where the next symbol starts; a kernel's only once the
    /// offset is known. [`SymbolTable::function_range`] says more.
    #[must_use]
    pub fn function_range(&self, symbol: &str) -> Option<Range<u64>> {
        if let Some(link) = self.kernel.as_ref().and_then(|table| table.function_range(symbol)) {
            let offset = self.offset()?;
            return Some(link.start.wrapping_add(offset)..link.end.wrapping_add(offset));
        }
        self.programs
            .iter()
            .filter(|table| !table.is_position_independent())
            .find_map(|table| table.function_range(symbol))
    }

    /// The link-time address of a symbol: the kernel's first, then the programs' in their order.
    #[must_use]
    pub fn address_of(&self, name: &str) -> Option<Location> {
        let found = |table: &SymbolTable, kernel| {
            let link = table.address_of(name)?;
            Some(Location { link, kernel })
        };
        let kernel = self.kernel.as_ref().and_then(|table| found(table, true));
        kernel.or_else(|| self.programs.iter().find_map(|table| found(table, false)))
    }

    /// The runtime address of a symbol; a kernel's only once the offset is known.
    #[must_use]
    pub fn runtime_address_of(&self, name: &str) -> Option<u64> {
        let location = self.address_of(name)?;
        if location.kernel { Some(location.link.wrapping_add(self.offset()?)) } else { Some(location.link) }
    }

    /// The runtime addresses at which a function of the kernel's begins: its own, and those of copies that the compiler
    /// specialized. If it is none of the kernel's, [`Self::runtime_address_of`] it. A kernel's only once the offset is
    /// known.
    #[must_use]
    pub fn entries_of(&self, name: &str) -> Vec<u64> {
        let offset = self.offset();
        let kernel = self.kernel.iter().flat_map(|table| table.entries_of(name));
        let mut entries: Vec<u64> = kernel.filter_map(|link| Some(link.wrapping_add(offset?))).collect();
        if entries.is_empty() {
            entries.extend(self.runtime_address_of(name));
        }
        entries
    }

    /// By how much the kernel may have been moved.
    #[must_use]
    pub fn kaslr(&self) -> KaslrRange {
        self.range
    }

    /// The kernel's table.
    #[must_use]
    pub fn kernel_table(&self) -> Option<&SymbolTable> {
        self.kernel.as_ref()
    }

    /// The programs' tables, in the order in which they were given.
    #[must_use]
    pub fn program_tables(&self) -> &[SymbolTable] {
        &self.programs
    }

    /// The kernel's offset, once it is known: add it (with [`u64::wrapping_add`]) to a link-time
    /// address to have the runtime one. It is "negative" only if the table is a copy of
    /// `/proc/kallsyms` from a boot that was randomized itself.
    #[must_use]
    pub fn offset(&self) -> Option<u64> {
        match self.offset.load(Ordering::Acquire) {
            UNKNOWN | FORGOTTEN => None,
            offset => Some(offset),
        }
    }

    /// Does a value of the evidence's register tell anything of the kernel's place? Ask before
    /// [`learn_offset`](Self::learn_offset) and [`confirm`](Self::confirm).
    #[must_use]
    pub fn tells(&self, evidence: &PlaceEvidence, runtime: u64) -> bool {
        let OtherValues::SayNothing { within } = evidence.others else { return true };
        if self.names_any(evidence.symbols, runtime) {
            return true;
        }
        let inside = |symbol: &&str| self.function_range(symbol).is_some_and(|range| range.contains(&runtime));
        self.may_be_image(evidence.symbols, runtime) && !within.iter().any(inside)
    }

    /// Does one of these symbols stand there?
    fn names_any(&self, symbols: &[&str], runtime: u64) -> bool {
        symbols.iter().any(|symbol| self.names().begins_at(symbol, runtime))
    }

    /// Could a kernel that KASLR moved have one of these symbols there? It leaves the top of the address space free,
    /// however large that is.
    fn may_be_image(&self, symbols: &[&str], runtime: u64) -> bool {
        let link = symbols.iter().find_map(|symbol| self.kernel.as_ref()?.address_of(symbol));
        let Some(link) = link.filter(|_| runtime >= KERNEL_HALF) else { return false };
        runtime < link || runtime - link < link.wrapping_neg() / 8 * 7
    }

    /// Takes evidence from the running guest: the kernel's `symbol` stands at `runtime`. The first
    /// evidence decides; later evidence has to agree.
    ///
    /// # Errors
    /// [`OffsetError::WrongKernel`] if no kernel of this table could be there. The offset then stays
    /// as it was, so that no wrong names come of it. [`OffsetError::Contradiction`] if an other
    /// offset was learned before.
    pub fn learn_offset(&self, symbol: &str, runtime: u64) -> Result<u64, OffsetError> {
        let table = self.kernel.as_ref().ok_or(OffsetError::NoKernelTable)?;
        let link = table.address_of(symbol).ok_or_else(|| OffsetError::UnknownSymbol { symbol: symbol.to_owned() })?;
        self.seen.store(true, Ordering::Release);
        let found = self.offset_between(link, runtime, table.origin()).map_err(|reason| OffsetError::WrongKernel {
            symbol: symbol.to_owned(),
            link,
            runtime,
            reason,
        })?;
        let raced = self.offset.compare_exchange(UNKNOWN, found, Ordering::AcqRel, Ordering::Acquire);
        match raced {
            Err(FORGOTTEN) => Ok(found),
            Err(known) if known != found => Err(OffsetError::Contradiction { symbol: symbol.to_owned(), known, found }),
            _ => Ok(found),
        }
    }

    /// Takes evidence that decides: a register was set to `runtime` by the instruction at `pc`. Where a kernel has one
    /// of the functions that do so first, it must be in that one, since one address alone fits the symbols of many a
    /// kernel. Later it may be elsewhere.
    ///
    /// # Errors
    /// As [`learn_offset`](Self::learn_offset).
    pub fn learn_offset_by(&self, evidence: &PlaceEvidence, runtime: u64, pc: u64) -> Result<u64, OffsetError> {
        let symbol = evidence.symbols.first().copied().unwrap_or_default();
        if let (None, Some(table)) = (self.offset(), self.kernel.as_ref())
            && let Some(link) = table.address_of(symbol)
        {
            let pc_link = pc.wrapping_sub(runtime.wrapping_sub(link));
            let mut writers = evidence.writers.iter().filter_map(|name| table.function_range(name)).peekable();
            if writers.peek().is_some() && !writers.any(|range| range.contains(&pc_link)) {
                self.seen.store(true, Ordering::Release);
                let reason = "other code than that of these symbols set it";
                return Err(OffsetError::WrongKernel { symbol: symbol.to_owned(), link, runtime, reason });
            }
        }
        self.learn_offset(symbol, runtime)
    }

    /// Takes more evidence from the running guest: one of these symbols stands at `runtime`, in a kernel that has any
    /// of them. It is needed because an aligned symbol fits, at some offset, the table of nearly every other kernel.
    ///
    /// # Errors
    /// [`OffsetError::Contradiction`] if none of them is there, which is said once. The offset is then forgotten for
    /// good: no names rather than wrong ones.
    pub fn confirm(&self, symbols: &[&str], runtime: u64) -> Result<(), OffsetError> {
        let (Some(table), Some(known)) = (self.kernel.as_ref(), self.offset()) else { return Ok(()) };
        let links: Vec<_> = symbols.iter().filter_map(|symbol| Some((symbol, table.address_of(symbol)?))).collect();
        let Some((symbol, link)) = links.first().copied().filter(|_| runtime >= KERNEL_HALF) else { return Ok(()) };
        if links.iter().any(|(_, link)| link.wrapping_add(known) == runtime) {
            return Ok(());
        }
        self.offset.store(FORGOTTEN, Ordering::Release);
        Err(OffsetError::Contradiction { symbol: (*symbol).to_owned(), known, found: runtime.wrapping_sub(link) })
    }

    fn offset_between(&self, link: u64, runtime: u64, origin: Origin) -> Result<u64, &'static str> {
        let KaslrRange { alignment, limit } = self.range;
        if runtime < KERNEL_HALF || link < KERNEL_HALF {
            return Err("that is no kernel address");
        }
        if runtime < link && origin != Origin::Kallsyms {
            return Err("KASLR moves upwards only");
        }
        if runtime.abs_diff(link) >= limit {
            return Err("that is too far for KASLR");
        }
        let offset = runtime.wrapping_sub(link);
        if alignment != 0 && !runtime.abs_diff(link).is_multiple_of(alignment) {
            return Err("KASLR moves by whole steps only");
        }
        Ok(offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: u64 = 0xffff_ffff_8200_0080;
    const STEP: u64 = 2 << 20;
    const RANGE: KaslrRange = KaslrRange { alignment: STEP, limit: 1 << 30 };

    fn tables() -> Vec<SymbolTable> {
        let kernel = b"ffffffff81000000 T _text\nffffffff82000080 T entry_SYSCALL_64\nffffffff82000180 T _etext\n";
        let program = b"0000000000401000 T main\n0000000000401040 t loop\n0000000000401080 T end\n";
        [&program[..], kernel].map(|bytes| SymbolTable::parse(bytes).unwrap()).into()
    }

    #[test]
    fn kernel_names_wait_for_the_offset() {
        let symbols = Symbolizer::new(tables(), RANGE);
        let runtime = ENTRY + 7 * STEP;
        assert_eq!(symbols.offset(), None);
        assert_eq!(symbols.resolve(ENTRY), None);
        assert_eq!(symbols.runtime_address_of("entry_SYSCALL_64"), None);
        assert_eq!(symbols.learn_offset("entry_SYSCALL_64", runtime), Ok(7 * STEP));
        let name = symbols.resolve(runtime + 0x12).unwrap();
        assert_eq!(name.to_string(), "entry_SYSCALL_64+0x12/0x100");
        assert_eq!(symbols.resolve(ENTRY), None);
        assert_eq!(symbols.runtime_address_of("entry_SYSCALL_64"), Some(runtime));
        assert_eq!(symbols.address_of("entry_SYSCALL_64"), Some(Location { link: ENTRY, kernel: true }));
    }

    #[test]
    fn programs_are_where_they_are_linked() {
        let symbols = Symbolizer::new(tables(), RANGE);
        let name = symbols.resolve(0x40_1041).unwrap();
        assert_eq!(name.to_string(), "loop+0x1/0x40");
        assert_eq!(symbols.runtime_address_of("main"), Some(0x40_1000));
        assert_eq!(symbols.resolve(0x40_0fff), None);
    }

    #[test]
    fn wrong_evidence_is_refused() {
        let symbols = Symbolizer::new(tables(), RANGE);
        for runtime in [0, 0x40_1000, ENTRY - STEP, ENTRY + 0x1000, ENTRY + (1 << 30), u64::MAX] {
            let learned = symbols.learn_offset("entry_SYSCALL_64", runtime);
            assert!(matches!(learned, Err(OffsetError::WrongKernel { .. })), "{runtime:#x}");
        }
        assert!(matches!(symbols.learn_offset("main", ENTRY), Err(OffsetError::UnknownSymbol { .. })));
        assert_eq!(symbols.offset(), None);
        assert_eq!(Symbolizer::new(Vec::new(), RANGE).learn_offset("_text", ENTRY), Err(OffsetError::NoKernelTable));
    }

    #[test]
    fn what_says_nothing_of_the_place_is_left_out() {
        use crate::linux::aarch64::{KASLR, LINUX, VBAR_EL1};
        const TABLE: u64 = 0xffff_8000_8001_0800;
        const MOVED: u64 = 0x2b4c_1e60_0000;
        let list = "ffff800080000000 T _text\nffff800080010000 T _stext\nffff800080010800 t vectors\n\
                    ffff800080011000 t __bp_harden_el1_vectors\nffff800080013000 T do_nothing\n\
                    ffff800081000000 T _etext\n";
        let symbols = Symbolizer::new(vec![SymbolTable::parse(list.as_bytes()).unwrap()], KASLR);
        let evidence = LINUX.evidence_of(VBAR_EL1).unwrap();
        // Firmware's table, and the trampolines of Debian's 6.1, 6.12 and 7.3, before and after the place is known.
        let nothing = [0, 0x4000_0800, 0xffff_fbff_fdbf_7800, 0xffff_ffff_ff5f_5800, 0xffff_ffff_ff3f_4800];
        assert!(nothing.iter().all(|value| !symbols.tells(evidence, *value)));
        assert!(symbols.tells(evidence, TABLE + MOVED));
        assert_eq!(symbols.learn_offset("vectors", TABLE + MOVED), Ok(MOVED));
        assert!(nothing.iter().all(|value| !symbols.tells(evidence, *value)));
        assert!(symbols.tells(evidence, TABLE + MOVED));
        for mitigation in [0x800, 0x1000, 0x2000, 0x27ff] {
            assert!(!symbols.tells(evidence, TABLE + MOVED + mitigation), "{mitigation:#x}");
        }
        // Another kernel: at the same place, and elsewhere.
        assert!(symbols.tells(evidence, TABLE + MOVED + 0x2800));
        assert!(symbols.tells(evidence, TABLE + 2 * MOVED));
        assert!(symbols.tells(evidence, TABLE));
        // Where every other value contradicts, every value tells.
        let strict = crate::linux::x86::LINUX.evidence.first().unwrap();
        assert!(symbols.tells(strict, 0));
    }

    #[test]
    fn who_set_the_register_must_be_where_the_symbols_have_it() {
        use crate::linux::aarch64::{KASLR, LINUX, VBAR_EL1};
        const TABLE: u64 = 0xffff_8000_8001_0800;
        const WRITER: u64 = 0xffff_8000_8180_0010;
        const MOVED: u64 = 0x2b4c_1e60_0000;
        let evidence = LINUX.evidence_of(VBAR_EL1).unwrap();
        let list = "ffff800080000000 T _text\nffff800080010800 t vectors\nffff800081800000 t __primary_switched\n\
                    ffff800081800090 t early_mem\n";
        let new = |list: &str| Symbolizer::new(vec![SymbolTable::parse(list.as_bytes()).unwrap()], KASLR);
        let symbols = new(list);
        for wrong in [WRITER + 0x90, WRITER - 0x11, 0x4180_0010, WRITER + MOVED] {
            let learned = symbols.learn_offset_by(evidence, TABLE, wrong);
            assert!(matches!(learned, Err(OffsetError::WrongKernel { .. })), "{wrong:#x}");
        }
        assert_eq!(symbols.offset(), None);
        assert_eq!(symbols.learn_offset_by(evidence, TABLE + MOVED, WRITER + MOVED), Ok(MOVED));
        // Once it is known, it does not matter who sets it; another value is another place.
        assert_eq!(symbols.learn_offset_by(evidence, TABLE + MOVED, 0xffff_ffff_ff5f_7000), Ok(MOVED));
        assert!(symbols.learn_offset_by(evidence, TABLE, WRITER).is_err());
        // Symbols without such a function cannot tell.
        let few = new("ffff800080000000 T _text\nffff800080010800 t vectors\n");
        assert_eq!(few.learn_offset_by(evidence, TABLE, 1), Ok(0));
        assert_eq!(
            Symbolizer::new(Vec::new(), KASLR).learn_offset_by(evidence, TABLE, 1),
            Err(OffsetError::NoKernelTable)
        );
    }

    #[test]
    fn the_first_evidence_stays() {
        let symbols = Symbolizer::new(tables(), RANGE);
        assert_eq!(symbols.learn_offset("entry_SYSCALL_64", ENTRY), Ok(0));
        assert_eq!(symbols.learn_offset("_text", 0xffff_ffff_8100_0000), Ok(0));
        assert_eq!(
            symbols.learn_offset("entry_SYSCALL_64", ENTRY + STEP),
            Err(OffsetError::Contradiction { symbol: "entry_SYSCALL_64".to_owned(), known: 0, found: STEP })
        );
        assert_eq!(symbols.offset(), Some(0));
    }

    #[test]
    fn each_boot_has_an_offset_of_its_own() {
        let symbols = Symbolizer::new(tables(), RANGE);
        symbols.learn_offset("entry_SYSCALL_64", ENTRY + STEP).unwrap();
        assert_eq!((symbols.boot(), symbols.next_boot()), (1, Some(2)));
        assert_eq!((symbols.offset(), symbols.resolve(ENTRY + STEP)), (None, None));
        assert!(symbols.names_of(1).resolve(ENTRY + STEP).is_some());
        symbols.learn_offset("entry_SYSCALL_64", ENTRY + 3 * STEP).unwrap();
        let name = |boot, runtime| symbols.names_of(boot).resolve(runtime).map(|name| name.to_string());
        assert_eq!(name(2, ENTRY + 3 * STEP).as_deref(), Some("entry_SYSCALL_64+0x0/0x100"));
        assert_eq!(name(1, ENTRY + STEP), name(2, ENTRY + 3 * STEP));
        assert_eq!(
            [name(0, ENTRY), name(1, ENTRY + 3 * STEP), name(2, ENTRY + STEP), name(3, ENTRY)],
            [const { None }; 4]
        );
        assert_eq!(name(1, 0x40_1041), name(7, 0x40_1041), "programs are where they are linked");
        // A kernel whose evidence contradicts itself has no names; the next one has.
        let other = b"ffffffff81000000 T _text\nffffffff82000080 T entry_SYSCALL_64\nffffffff82000180 T entry_SYSENTER_compat\n";
        let symbols = Symbolizer::new(vec![SymbolTable::parse(other).unwrap()], RANGE);
        symbols.learn_offset("entry_SYSCALL_64", ENTRY).unwrap();
        symbols.confirm(&["entry_SYSENTER_compat"], ENTRY + 0x40).unwrap_err();
        symbols.next_boot();
        assert_eq!(symbols.learn_offset("entry_SYSCALL_64", ENTRY + STEP), Ok(STEP));
        assert_eq!(symbols.offsets(), [None, Some(STEP)]);
    }

    #[test]
    fn the_number_of_boots_is_bounded() {
        let symbols = Symbolizer::new(tables(), RANGE);
        assert_eq!((symbols.next_boot(), symbols.next_boot()), (Some(1), Some(1)), "no kernel has been seen");
        let boot = |_: &usize| symbols.learn_offset("entry_SYSCALL_64", ENTRY).is_ok() && symbols.next_boot().is_some();
        assert_eq!((0..2 * MAX_BOOTS).filter(boot).count(), MAX_BOOTS - 1);
        assert_eq!(symbols.boot(), MAX_BOOTS);
        symbols.learn_offset("entry_SYSCALL_64", ENTRY).unwrap();
        assert_eq!(symbols.offset(), None);
    }

    #[test]
    fn a_randomized_copy_of_kallsyms_may_be_above() {
        let copy = b"ffffffff9a000000 T _text\nffffffff9a000100 T f\nffffffffc0000000 t m\t[m]\n";
        let symbols = Symbolizer::new(vec![SymbolTable::parse(copy).unwrap()], RANGE);
        let offset = symbols.learn_offset("_text", 0xffff_ffff_8100_0000).unwrap();
        assert_eq!(offset, (STEP * 200).wrapping_neg());
        let name = symbols.resolve(0xffff_ffff_8100_0040).unwrap();
        assert_eq!(name.to_string(), "_text+0x40/0x100");
    }

    #[test]
    fn text_is_what_is_between_its_bounds() {
        let list = b"ffffffff81000000 T _text\nffffffff81000000 T _stext\nffffffff81000100 t f\nffffffff81000180 T _etext\nffffffff81000200 D data\n";
        let symbols = Symbolizer::new(vec![SymbolTable::parse(list).unwrap()], RANGE);
        let text = 0xffff_ffff_8100_0000;
        assert!(!symbols.is_text(text + 0x10), "the offset is not known yet");
        assert_eq!(symbols.function_range("f"), None);
        symbols.learn_offset("_text", text + STEP).unwrap();
        for (address, expected) in [
            (text + STEP, true),
            (text + STEP + 0x17f, true),
            (text + STEP + 0x180, false),
            (text + STEP - 1, false),
            (text, false),
            (text + STEP + 0x200, false),
            (0xffff_ffff_c000_0000, false),
            (0x40_1000, false),
            (0, false),
            (u64::MAX, false),
        ] {
            assert_eq!(symbols.is_text(address), expected, "{address:#x}");
        }
        assert_eq!(symbols.function_range("f"), Some(text + STEP + 0x100..text + STEP + 0x180));
        for no_function in ["_etext", "data", "g", ""] {
            assert_eq!(symbols.function_range(no_function), None, "{no_function}");
        }
        assert!(!Symbolizer::new(Vec::new(), RANGE).is_text(text));
    }

    #[test]
    fn text_without_bounds_is_none() {
        let symbols = Symbolizer::new(tables(), RANGE);
        symbols.learn_offset("entry_SYSCALL_64", ENTRY).unwrap();
        assert!(!symbols.is_text(ENTRY));
        assert_eq!(symbols.function_range("entry_SYSCALL_64"), Some(ENTRY..ENTRY + 0x100));
        assert_eq!(symbols.function_range("loop"), Some(0x40_1040..0x40_1080));
    }

    #[test]
    fn alignment_is_a_parameter() {
        let range = KaslrRange { alignment: 0x1000, limit: 1 << 30 };
        let symbols = Symbolizer::new(tables(), range);
        assert_eq!(symbols.learn_offset("entry_SYSCALL_64", ENTRY + 0x1000), Ok(0x1000));
    }
}
