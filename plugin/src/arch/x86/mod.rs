//! x86-64: which instructions to watch, and what must be looked up when they run, beyond what the model knows.

mod call_chain;
mod carry_out;
mod known_findings;
mod linux;
mod page_table;
mod page_walk;
mod past_helpers;
mod registers;
mod straight;
mod synchronizing;
mod text;

use super::caller::Caller;
use super::known_finding::KnownFinding;
use super::platform::{
    CacheEffect, Decoder, Entered, Facts, InstructionAt, Platform, Resolved, Synchronizing, ToldStore, Words,
};
use super::store_form::StoreForm;
use crate::qemu::cpu::CurrentCpu;
use crate::qemu::divert::Divert;
use crate::qemu::x86 as in_qemu;
use icsan_model::addr::{Linear, Vcpu};
use icsan_model::arch::decode::Decode;
use icsan_model::arch::maintenance::{CacheType, Maintenance};
use icsan_model::arch::profile::Profile;
use icsan_model::arch::sync_event::{SyncEventId, SyncEventSet};
use icsan_model::arch::x86::events::{self, Seen};
use icsan_model::arch::x86::length::X86Length;
use icsan_model::arch::x86::store_kind::{self, StoreKind, store_kind};
use icsan_model::arch::x86::{X86_64, atomicity, may_store};
use icsan_symbols::linux::entries::KernelEntry;
use icsan_symbols::linux::x86_calls::{self, calls_ending};
use icsan_symbols::{Names, Symbolizer};
pub use linux::LINUX;
use registers::{CR0, CR3, CS, RAX, RIP, RSP};
use std::ops::Range;

/// The guest's page size, in bytes.
const PAGE: u64 = 4096;

/// Display and system management memory of a PC; from its end up to 1 MiB RAM shows at its place, or firmware, which is
/// elsewhere in the host's memory, and where stores may be lost.
const HOLE: Range<u64> = 0xa_0000..0xc_0000;
const MEGABYTE: u64 = 0x10_0000;

/// Protection enable, of CR0.
const PE: u64 = 1;

/// A NOP that no compiler makes, with the memory operand `[rax+rax+0x4E534349]`; real CPUs ignore it. RAX holds the
/// value.
const MARKER: [u8; 8] = [0x0f, 0x1f, 0x84, 0x00, 0x49, 0x43, 0x53, 0x4e];

static FACTS: Facts = Facts {
    arch: &X86_64,
    decoder: Decoder(&X86Length),
    linux: &LINUX,
    counter: &RIP,
    // Below there may be code that is not 64-bit code, whose segment begins elsewhere than at 0.
    counter_is_linear_from: Linear(1 << 32),
    longest_call: x86_calls::LONGEST,
    // After RESET, and after INIT on the boot processor (SDM vol. 3A, "First Instruction Executed"). Other processors
    // wait to be started, and sleep until then.
    reset_vectors: &[Linear(0xffff_fff0)],
    ram_hidden: HOLE,
    ram_unproven: HOLE.start..MEGABYTE,
    // CPUID without prefixes; TCG does not end a block after it.
    exact_after: &[0x0f, 0xa2],
    in_place_of_lacking: &synchronizing::NOP,
    changes_mapping: synchronizing::CHANGES_MAPPING,
    // Each CPU invalidates its own.
    changes_mapping_of_all: SyncEventSet::EMPTY,
    returns: synchronizing::RETURNS,
    interrupt_return: events::IRET,
    // An interrupt's delivery does not serialize.
    entry: None,
    reset: events::RESET,
    restored: events::RESTORED,
    words: Words {
        privilege: "CPL",
        space: "CR3",
        kernel_place: "it writes its system-call entry to MSR LSTAR when it boots",
        entries: "iret an entry (asm_exc_…, asm_sysvec_…, asm_common_interrupt)",
    },
};

/// See the module.
#[derive(Debug)]
pub struct X86;

/// The one.
pub static PLATFORM: X86 = X86;

impl Platform for X86 {
    fn facts(&self) -> &'static Facts {
        &FACTS
    }

    /// It watches instructions, resets, and restored states; interrupt delivery and system management mode show in
    /// none.
    fn can_see(&self, event: SyncEventId) -> bool {
        matches!(events::seen(event), Seen::Instruction | Seen::Resolved | Seen::Hot)
            || [events::RESET, events::RESTORED].contains(&event)
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

    fn goes_to_user_mode(&self, bytes: &[u8]) -> bool {
        synchronizing::goes_to_user_mode(bytes)
    }

    fn is_marker(&self, bytes: &[u8]) -> bool {
        bytes == MARKER
    }

    fn call_before(&self, bytes: &[u8], at: Linear) -> Option<u64> {
        calls_ending(bytes).find_map(|call| call.target(at.0))
    }

    /// Fetches see stores; and QEMU tells of each store.
    fn cache_effect(&self, _bytes: &[u8]) -> Option<CacheEffect> {
        None
    }

    fn is_lacking(&self, bytes: &[u8]) -> bool {
        synchronizing::is_serialize(bytes)
    }

    fn resolve(&self, tag: u8, at: Linear, cpu: &CurrentCpu) -> Resolved {
        synchronizing::resolve(tag, at, cpu)
    }

    fn maintenance(&self, _tag: u8, _cpu: &CurrentCpu) -> Option<Maintenance> {
        None
    }

    fn unseen_store(&self, _tag: u8, _at: Linear, _cpu: &CurrentCpu) -> Option<(Linear, u64)> {
        None
    }

    fn cache_type(&self, _cpu: &CurrentCpu) -> Option<CacheType> {
        None
    }

    fn watch_entries(&self, _vcpu: Vcpu) -> bool {
        false
    }

    /// It may, but what is stored so needs nothing more than any other store.
    fn starts_uncached(&self) -> bool {
        false
    }

    /// Entries are no events, and not asked for.
    fn is_vector(&self, _at: Linear, _cpu: &CurrentCpu) -> bool {
        false
    }

    fn interrupted(&self, _cpu: &CurrentCpu) -> Option<Linear> {
        None
    }

    fn entered(&self, entry: &KernelEntry, cpu: &CurrentCpu) -> Option<Entered> {
        let frame = RSP.read(cpu)?.wrapping_add(entry.pushed);
        // The saved code segment lies above the saved RIP.
        let cs = cpu.bytes(frame.wrapping_add(8)).map(u64::from_le_bytes)?;
        let from_user = cs & 3 != 0;
        Some(if from_user { Entered::FromUser } else { Entered::FromKernel { frame: frame.wrapping_sub(entry.moves) } })
    }

    /// In real mode nothing else leads there: the code segment's base is one that only a reset gives it.
    fn was_reset(&self, cpu: &CurrentCpu) -> bool {
        CR0.read(cpu).is_some_and(|cr0| cr0 & PE == 0)
    }

    fn marker(&self, cpu: &CurrentCpu) -> Option<u64> {
        RAX.read(cpu)
    }

    fn space(&self, cpu: &CurrentCpu) -> Option<u64> {
        CR3.read(cpu).map(page_table::of_cr3)
    }

    fn privilege(&self, cpu: &CurrentCpu) -> Option<u8> {
        CS.read(cpu).map(|cs| cs as u8 & 3)
    }

    fn instruction_at(&self, cpu: &CurrentCpu, linear: Linear) -> Option<Vec<u8>> {
        // It may end where nothing is mapped behind it.
        (1..=X86Length.max_len()).rev().find_map(|len| {
            let bytes = cpu.memory(linear.0, len)?;
            let len = X86Length.len(&bytes)?;
            Some(bytes[..len].to_vec())
        })
    }

    fn callers(&self, cpu: &CurrentCpu, symbols: &Symbolizer) -> Vec<Caller> {
        RSP.read(cpu).map_or_else(Vec::new, |rsp| call_chain::callers(cpu, symbols, rsp, false))
    }

    fn callers_at_entry(&self, cpu: &CurrentCpu, symbols: &Symbolizer) -> Vec<Caller> {
        RSP.read(cpu).map_or_else(Vec::new, |rsp| call_chain::callers(cpu, symbols, rsp, true))
    }

    fn stored(&self, form: u8, store: ToldStore) -> Vec<u128> {
        let ToldStore { stored, loaded, len, atomic } = store;
        let kind = StoreKind::ALL.get(usize::from(form)).copied().unwrap_or(StoreKind::Plain);
        kind.results(store_kind::Access { stored, loaded, len, atomic }).collect()
    }

    fn atomic_parts(&self, _form: u8, linear: u64, len: u64) -> Vec<Range<usize>> {
        atomicity::parts(linear, len).collect()
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
        known_findings::jump_target(bytes, at)
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
    use super::{PLATFORM, Platform, StoreKind, X86_64};
    use crate::arch::store_form::{PLAIN, STORE_FORMS};

    #[test]
    fn a_form_of_a_store_is_a_kind_by_its_number() {
        for (number, kind) in StoreKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, number);
        }
        assert!(StoreKind::ALL.len() <= STORE_FORMS && StoreKind::Plain as u8 == PLAIN);
        assert_eq!(PLATFORM.facts().arch.name, X86_64.name);
    }
}
