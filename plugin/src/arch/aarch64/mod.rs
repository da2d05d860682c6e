//! AArch64: which instructions to watch, and what must be looked up when they run, beyond what the model knows.

mod caching;
mod call_chain;
mod carry_out;
mod known_findings;
mod linux;
mod past_helpers;
mod privilege;
mod registers;
mod straight;
mod synchronizing;
mod text;
mod translation_table;

use super::caller::Caller;
use super::known_finding::KnownFinding;
use super::platform::{
    CacheEffect, Decoder, Entered, Facts, InstructionAt, Platform, Resolved, Synchronizing, ToldStore, Words,
};
use super::store_form::StoreForm;
use crate::qemu::aarch64 as in_qemu;
use crate::qemu::cpu::CurrentCpu;
use crate::qemu::divert::Divert;
use icsan_model::addr::{Linear, Vcpu};
use icsan_model::arch::aarch64::events::{self, Seen};
use icsan_model::arch::aarch64::length::A64Length;
use icsan_model::arch::aarch64::store_kind::{self, StoreKind, store_kind};
use icsan_model::arch::aarch64::{AARCH64, atomicity, may_store};
use icsan_model::arch::decode::Decode;
use icsan_model::arch::maintenance::{CacheType, Maintenance};
use icsan_model::arch::profile::Profile;
use icsan_model::arch::sync_event::SyncEventId;
use icsan_symbols::linux::entries::KernelEntry;
use icsan_symbols::{Names, Symbolizer};
use linux::LINUX;
use registers::{PC, SCTLR_EL1, SP, TTBR0, X0};
use std::ops::Range;

/// `movk xzr, #0x4943`: no effect, and no compiler makes it. X0 holds the value.
const MARKER: [u8; 4] = [0x7f, 0x28, 0x89, 0xf2];

/// SCTLR_EL1.M: addresses are translated.
const SCTLR_M: u64 = 1;

static FACTS: Facts = Facts {
    arch: &AARCH64,
    decoder: Decoder(&A64Length),
    linux: &LINUX,
    counter: &PC,
    counter_is_linear_from: Linear(0),
    longest_call: 4,
    // Firmware; and where QEMU's `virt` has the few instructions that start a kernel. Other processors are started by
    // the firmware's call, and sleep until then.
    reset_vectors: &[Linear(0), Linear(0x4000_0000)],
    // RAM is one region on `virt` (hw/arm/virt.c, `base_memmap`), and nothing else shows at its addresses.
    ram_hidden: 0..0,
    ram_unproven: 0..0,
    // Whatever changes QEMU's idea of the state ends its block.
    exact_after: &[],
    in_place_of_lacking: &[],
    changes_mapping: synchronizing::CHANGES_MAPPING,
    changes_mapping_of_all: synchronizing::CHANGES_MAPPING_OF_ALL,
    returns: synchronizing::RETURNS,
    interrupt_return: events::EXCEPTION_RETURN,
    entry: Some(events::EXCEPTION_ENTRY),
    reset: events::RESET,
    restored: events::RESTORED,
    words: Words {
        privilege: "EL",
        space: "TTBR0",
        kernel_place: "it writes the address of its vectors to VBAR_EL1 when it boots",
        entries: "exception-return an entry (el1h_64_irq, el0t_64_sync, …)",
    },
};

/// The kind of a store, by its form's number.
fn kind_of(form: u8) -> StoreKind {
    StoreKind::ALL.get(usize::from(form)).copied().unwrap_or(StoreKind::Plain)
}

/// See the module.
#[derive(Debug)]
pub struct Aarch64;

/// The one.
pub static PLATFORM: Aarch64 = Aarch64;

impl Platform for Aarch64 {
    fn facts(&self) -> &'static Facts {
        &FACTS
    }

    fn can_see(&self, event: SyncEventId) -> bool {
        matches!(events::seen(event), Some(Seen::Instruction | Seen::Hot | Seen::Callback))
    }

    fn synchronizing(&self, bytes: &[u8]) -> Option<Synchronizing> {
        synchronizing::synchronizing(bytes)
    }

    fn may_synchronize(&self, bytes: &[u8], profile: &Profile) -> bool {
        synchronizing::may_synchronize(bytes, profile)
    }

    fn concerns_stores(&self, bytes: &[u8]) -> bool {
        synchronizing::concerns_stores(bytes)
    }

    fn may_store(&self, bytes: &[u8]) -> bool {
        may_store::may_store(bytes)
    }

    fn past_helpers(&self) -> fn(&[u8]) -> bool {
        past_helpers::past_helpers
    }

    fn store_form(&self, bytes: &[u8]) -> StoreForm {
        let kind = store_kind(bytes);
        StoreForm { number: kind as u8, needs_load: kind.needs_load() }
    }

    /// ERET does, and is an event.
    fn goes_to_user_mode(&self, _bytes: &[u8]) -> bool {
        false
    }

    fn is_marker(&self, bytes: &[u8]) -> bool {
        bytes == MARKER
    }

    fn call_before(&self, bytes: &[u8], at: Linear) -> Option<u64> {
        straight::call_before(bytes, at)
    }

    fn cache_effect(&self, bytes: &[u8]) -> Option<CacheEffect> {
        caching::cache_effect(bytes)
    }

    fn is_lacking(&self, _bytes: &[u8]) -> bool {
        false
    }

    fn resolve(&self, tag: u8, _at: Linear, cpu: &CurrentCpu) -> Resolved {
        synchronizing::resolve(tag, cpu)
    }

    fn maintenance(&self, tag: u8, cpu: &CurrentCpu) -> Option<Maintenance> {
        caching::maintenance(tag, cpu)
    }

    fn unseen_store(&self, tag: u8, at: Linear, cpu: &CurrentCpu) -> Option<(Linear, u64)> {
        caching::unseen_store(tag, at, cpu)
    }

    fn cache_type(&self, cpu: &CurrentCpu) -> Option<CacheType> {
        caching::cache_type(cpu)
    }

    fn watch_entries(&self, vcpu: Vcpu) -> bool {
        in_qemu::el_change::watch(vcpu)
    }

    /// SCTLR_ELx.C is 0 after a reset.
    fn starts_uncached(&self) -> bool {
        true
    }

    fn is_vector(&self, at: Linear, cpu: &CurrentCpu) -> bool {
        privilege::is_vector(at, cpu)
    }

    fn interrupted(&self, cpu: &CurrentCpu) -> Option<Linear> {
        privilege::interrupted(cpu)
    }

    fn entered(&self, entry: &KernelEntry, cpu: &CurrentCpu) -> Option<Entered> {
        // What the entry itself returns to.
        Some(match privilege::returns_to(cpu)? {
            0 => Entered::FromUser,
            _ => Entered::FromKernel { frame: SP.read(cpu)?.wrapping_add(entry.pushed + privilege::made_room(cpu)?) },
        })
    }

    /// Linux never turns its translation off again on a processor that runs, but to start another kernel.
    fn was_reset(&self, cpu: &CurrentCpu) -> bool {
        SCTLR_EL1.read(cpu).is_some_and(|sctlr| sctlr & SCTLR_M == 0)
    }

    fn marker(&self, cpu: &CurrentCpu) -> Option<u64> {
        X0.read(cpu)
    }

    fn space(&self, cpu: &CurrentCpu) -> Option<u64> {
        TTBR0.read(cpu).map(translation_table::of_ttbr)
    }

    fn privilege(&self, cpu: &CurrentCpu) -> Option<u8> {
        privilege::level(cpu)
    }

    fn instruction_at(&self, cpu: &CurrentCpu, linear: Linear) -> Option<Vec<u8>> {
        cpu.memory(linear.0, A64Length.max_len())
    }

    fn callers(&self, cpu: &CurrentCpu, symbols: &Symbolizer) -> Vec<Caller> {
        call_chain::callers(cpu, symbols, false)
    }

    fn callers_at_entry(&self, cpu: &CurrentCpu, symbols: &Symbolizer) -> Vec<Caller> {
        call_chain::callers(cpu, symbols, true)
    }

    fn stored(&self, form: u8, store: ToldStore) -> Vec<u128> {
        let ToldStore { stored, loaded, len, atomic } = store;
        kind_of(form).results(store_kind::Access { stored, loaded, len, atomic }).collect()
    }

    fn atomic_parts(&self, form: u8, linear: u64, len: u64) -> Vec<Range<usize>> {
        atomicity::parts(kind_of(form), linear, len).collect()
    }

    fn is_straight(&self, from: Linear, to: Linear, instruction: InstructionAt<'_>) -> bool {
        straight::is_straight(from, to, instruction)
    }

    fn text(&self, bytes: &[u8], at: u64, symbols: Names<'_>) -> String {
        text::disassemble(bytes, at, symbols)
    }

    fn first_instruction<'a>(&self, bytes: &'a [u8], like: &[u8]) -> &'a [u8] {
        text::first_instruction(bytes, like)
    }

    fn jump_target(&self, bytes: &[u8], at: Linear) -> Option<u64> {
        straight::jump_target(bytes, at)
    }

    fn known_findings(&self) -> &'static [KnownFinding] {
        known_findings::KNOWN
    }

    fn prepare_to_carry_out(&self) -> Result<(), String> {
        in_qemu::prepare()
    }

    fn carry_out(&self, cpu: &CurrentCpu, bytes: &[u8], linear: Linear) -> Result<Divert, String> {
        carry_out::prepare(cpu, bytes, linear)
    }
}

#[cfg(test)]
mod tests {
    use super::{AARCH64, PLATFORM, Platform, StoreKind};
    use crate::arch::store_form::{PLAIN, STORE_FORMS};

    #[test]
    fn a_form_of_a_store_is_a_kind_by_its_number() {
        for (number, kind) in StoreKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, number);
        }
        assert!(StoreKind::ALL.len() <= STORE_FORMS && StoreKind::Plain as u8 == PLAIN);
        // stp w10, w10, [x1, #4]; stur x10, [x1, #4].
        for (word, parts) in [(0x2900_a82au32, 2), (0xf800_402a, 8)] {
            let form = PLATFORM.store_form(&word.to_le_bytes()).number;
            assert_eq!(PLATFORM.atomic_parts(form, 0x1004, 8).len(), parts, "{word:#x}");
        }
        assert_eq!(PLATFORM.facts().arch.name, AARCH64.name);
    }
}
