//! Events that do not count for where they happen: `without=EVENT@SYMBOL`, and profiles that take an event at one place
//! only.
//!
//! Where an event happens is its origin, if it has one (an IRET returns from an entry of the kernel's, a CR3 write is
//! `__text_poke()`'s), else the function of its instruction.

use crate::arch::platform::Facts;
use crate::qemu::locks::RwLock;
use icsan_model::addr::Linear;
use icsan_model::arch::profile::{OnlyAt, Profile};
use icsan_model::arch::sync_event::{SyncEventId, SyncEventSet};
use icsan_model::detector::sync_log::SyncAt;
use icsan_model::detector::sync_origin::SyncOrigin;
use icsan_symbols::Symbolizer;
use icsan_symbols::linux::entries::fits;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// An item of `without=` with a place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WithoutAt {
    /// The event.
    pub event: SyncEventId,
    /// A function of the kernel's; with `*` at its end, all that begin like that.
    pub symbol: String,
}

impl WithoutAt {
    /// The link-time addresses that are meant, in a kernel with these symbols.
    fn functions(&self, symbols: &Symbolizer, facts: &Facts) -> Vec<Range<u64>> {
        ranges(symbols, |name| self.means(name, facts))
    }

    fn means(&self, name: &str, facts: &Facts) -> bool {
        let is_entry = || facts.linux.kernel.entry_of(name).is_some();
        fits(&self.symbol, name) && (self.event != facts.interrupt_return || is_entry())
    }

    /// Is anything meant?
    #[must_use]
    pub fn is_known(&self, symbols: &Symbolizer, facts: &Facts) -> bool {
        !self.functions(symbols, facts).is_empty()
    }
}

/// The link-time addresses of the kernel's functions that are `meant` by name. Entries are single addresses of text,
/// too.
fn ranges(symbols: &Symbolizer, meant: impl Fn(&str) -> bool) -> Vec<Range<u64>> {
    let Some(table) = symbols.kernel_table() else { return Vec::new() };
    let named = table.symbols().filter(|symbol| meant(symbol.name));
    named.filter_map(|symbol| table.function_range(symbol.name).filter(|range| range.start == symbol.addr)).collect()
}

/// Functions of the kernel that runs, by runtime address.
type Places = Vec<(SyncEventId, Range<u64>)>;

#[derive(Clone, Debug)]
struct Resolved {
    offset: u64,
    without: Places,
    only: Places,
}

impl Resolved {
    fn new(offset: u64, without: &[WithoutAt], only: &[OnlyAt], symbols: &Symbolizer, facts: &Facts) -> Self {
        let moved = |range: Range<u64>| range.start.wrapping_add(offset)..range.end.wrapping_add(offset);
        let without = without
            .iter()
            .flat_map(|item| item.functions(symbols, facts).into_iter().map(move |range| (item.event, moved(range))));
        let only = only.iter().flat_map(|only| {
            ranges(symbols, |name| name == only.function).into_iter().map(move |range| (only.event, moved(range)))
        });
        Self { offset, without: without.collect(), only: only.collect() }
    }
}

/// See the module.
#[derive(Debug)]
pub struct WhatIf {
    facts: &'static Facts,
    without: Vec<WithoutAt>,
    only: &'static [OnlyAt],
    /// The events that it is about. Most runs have none.
    events: SyncEventSet,
    resolved: RwLock<Option<Arc<Resolved>>>,
    refused: AtomicU64,
    unknown: AtomicU64,
}

impl WhatIf {
    /// What the user and the profile want.
    #[must_use]
    pub fn new(without: &[WithoutAt], profile: &Profile, facts: &'static Facts) -> Self {
        let only = profile.only_at;
        let events = without.iter().map(|item| item.event).chain(only.iter().map(|only| only.event)).collect();
        let (refused, unknown) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { facts, without: without.to_vec(), only, events, resolved: RwLock::default(), refused, unknown }
    }

    /// Does the event count for where it is? Before the place of the kernel is known, that is asked of nothing.
    #[inline]
    #[must_use]
    pub fn counts(&self, at: &SyncAt, symbols: &Symbolizer) -> bool {
        !self.events.contains(at.event) || self.counts_here(at, symbols)
    }

    fn counts_here(&self, at: &SyncAt, symbols: &Symbolizer) -> bool {
        let Some(resolved) = self.resolved(symbols) else { return true };
        let place = match at.origin {
            Some(SyncOrigin::Function(function)) => Some(function),
            Some(SyncOrigin::SystemCall) => None,
            // What a return of the kernel's returns from is not known: it counts, as it would without.
            None if at.event == self.facts.interrupt_return => {
                self.unknown.fetch_add(u64::from(symbols.is_text(at.pc.0)), Ordering::Relaxed);
                None
            }
            None => Some(at.pc),
        };
        let is_in = |places: &Places| place.is_some_and(|place| includes(places, at.event, place));
        let counts =
            !is_in(&resolved.without) && (is_in(&resolved.only) || self.only.iter().all(|only| only.event != at.event));
        self.refused.fetch_add(u64::from(!counts), Ordering::Relaxed);
        counts
    }

    fn resolved(&self, symbols: &Symbolizer) -> Option<Arc<Resolved>> {
        let offset = symbols.offset()?;
        if let Some(known) = self.resolved.read().as_ref().filter(|known| known.offset == offset) {
            return Some(Arc::clone(known));
        }
        let new = Arc::new(Resolved::new(offset, &self.without, self.only, symbols, self.facts));
        *self.resolved.write() = Some(Arc::clone(&new));
        Some(new)
    }

    /// How many events did not count; `None`: nothing was asked for.
    #[must_use]
    pub fn refused(&self) -> Option<u64> {
        (self.events != SyncEventSet::EMPTY).then(|| self.refused.load(Ordering::Relaxed))
    }

    /// Returns of the kernel's that counted since what they return from is not known.
    #[must_use]
    pub fn unknown(&self) -> u64 {
        self.unknown.load(Ordering::Relaxed)
    }
}

fn includes(places: &Places, event: SyncEventId, place: Linear) -> bool {
    places.iter().any(|(of, range)| *of == event && range.contains(&place.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::platform::Platform;
    use crate::arch::x86::PLATFORM;
    use icsan_model::arch::x86::{X86_64, events};
    use icsan_symbols::SymbolTable;

    const TIMER: u64 = 0xffff_ffff_8200_1000;
    const RESCHEDULE: u64 = 0xffff_ffff_8200_1100;
    const FAULT: u64 = 0xffff_ffff_8200_1200;
    const IRET: u64 = 0xffff_ffff_8200_1300;
    const POKE: u64 = 0xffff_ffff_8100_1000;
    const SWITCH: u64 = 0xffff_ffff_8100_2000;
    const STEP: u64 = 2 << 20;

    fn symbols(known: bool) -> Symbolizer {
        let map = "ffffffff81000000 T _stext\nffffffff81001000 t __text_poke\nffffffff81002000 T switch_mm_irqs_off\nffffffff82000080 T entry_SYSCALL_64\n\
                   ffffffff82001000 T asm_sysvec_apic_timer_interrupt\nffffffff82001100 T asm_sysvec_reschedule_ipi\n\
                   ffffffff82001200 T asm_exc_page_fault\nffffffff82001300 t native_irq_return_iret\nffffffff82002000 T _etext\n";
        let symbols =
            Symbolizer::new(vec![SymbolTable::parse(map.as_bytes()).unwrap()], PLATFORM.facts().linux.kernel.kaslr);
        if known {
            symbols.learn_offset("entry_SYSCALL_64", 0xffff_ffff_8200_0080 + STEP).unwrap();
        }
        symbols
    }

    fn without(event: SyncEventId, symbol: &str) -> WithoutAt {
        WithoutAt { event, symbol: symbol.to_owned() }
    }

    fn function(link: u64) -> Option<SyncOrigin> {
        Some(SyncOrigin::Function(Linear(link + STEP)))
    }

    fn at(event: SyncEventId, link: u64, origin: Option<SyncOrigin>) -> SyncAt {
        SyncAt { event, pc: Linear(link + STEP), origin }
    }

    fn plain() -> Profile {
        *X86_64.profile("linux-x86").unwrap()
    }

    #[test]
    fn one_origin_does_not_count_and_the_others_do() {
        let (what_if, symbols) = (
            WhatIf::new(&[without(events::IRET, "asm_sysvec_apic_timer_interrupt")], &plain(), PLATFORM.facts()),
            symbols(true),
        );
        let iret = |origin| what_if.counts(&at(events::IRET, IRET, origin), &symbols);
        assert!(!iret(function(TIMER)));
        assert!(iret(function(RESCHEDULE)) && iret(function(FAULT)) && iret(Some(SyncOrigin::SystemCall)));
        assert!(what_if.counts(&at(events::IRET_TO_SELF, IRET, function(TIMER)), &symbols), "another event");
        assert_eq!((what_if.refused(), what_if.unknown()), (Some(1), 0));
        assert!(iret(None) && what_if.unknown() == 1, "it may have been the timer's");
        assert!(
            what_if.counts(&SyncAt { event: events::IRET, pc: Linear(0x7c00), origin: None }, &symbols)
                && what_if.unknown() == 1,
            "firmware"
        );
    }

    #[test]
    fn a_star_means_all_that_begin_like_that() {
        let (what_if, symbols) =
            (WhatIf::new(&[without(events::IRET, "asm_sysvec_*")], &plain(), PLATFORM.facts()), symbols(true));
        let iret = |link| what_if.counts(&at(events::IRET, IRET, function(link)), &symbols);
        assert!(!iret(TIMER) && !iret(RESCHEDULE) && iret(FAULT));
    }

    #[test]
    fn other_events_are_where_their_instruction_is() {
        let (what_if, symbols) =
            (WhatIf::new(&[without(events::MOV_CR3, "switch_mm_irqs_off")], &plain(), PLATFORM.facts()), symbols(true));
        let cr3 = |link, origin| what_if.counts(&at(events::MOV_CR3, link, origin), &symbols);
        assert!(!cr3(SWITCH + 0x40, None) && cr3(POKE, None));
        assert!(cr3(SWITCH + 0x40, function(POKE)), "it belongs to the patch");
    }

    #[test]
    fn without_luck_only_the_patchs_own_switch_counts() {
        let (what_if, symbols) =
            (WhatIf::new(&[], X86_64.profile("no-luck").unwrap(), PLATFORM.facts()), symbols(true));
        for event in [events::MOV_CR3, events::MOV_CR3_NOFLUSH, events::MOV_CR3_PTI] {
            assert!(!what_if.counts(&at(event, SWITCH + 0x40, None), &symbols));
            assert!(
                what_if.counts(&at(event, SWITCH + 0x40, function(POKE)), &symbols)
                    && what_if.counts(&at(event, POKE + 9, None), &symbols)
            );
        }
        assert!(what_if.counts(&at(events::IRET_TO_SELF, SWITCH, None), &symbols));
    }

    #[test]
    fn symbols_are_looked_up_and_the_kernel_has_to_be_known() {
        let early = symbols(false);
        assert!(
            without(events::IRET, "asm_exc_*").is_known(&early, PLATFORM.facts())
                && without(events::MOV_CR3, "__text_poke").is_known(&early, PLATFORM.facts())
        );
        for (event, symbol) in [
            (events::IRET, "__text_poke"),
            (events::IRET, "asm_exc_nonsense"),
            (events::MOV_CR3, "nonsense"),
            (events::IRET, "nonsense*"),
        ] {
            assert!(!without(event, symbol).is_known(&early, PLATFORM.facts()), "{symbol}");
        }
        let what_if = WhatIf::new(&[without(events::IRET, "*")], &plain(), PLATFORM.facts());
        assert!(what_if.counts(&at(events::IRET, IRET, function(TIMER)), &early));
        assert_eq!(WhatIf::new(&[], &plain(), PLATFORM.facts()).refused(), None);
    }
}
