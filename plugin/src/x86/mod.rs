//! What the plugin knows of x86-64 beyond the model: which instructions to watch, and what must be looked up when they
//! run.

pub mod carry_out;
pub mod known_findings;
pub mod page_table;
mod page_walk;
pub mod registers;
pub mod stack;
pub mod straight;
pub mod text;

use crate::patching::TaskName;
use crate::qemu::cpu::CurrentCpu;
use icsan_model::addr::{Linear, Vcpu};
use icsan_model::arch::decode::Decode;
use icsan_model::arch::profile::Profile;
use icsan_model::arch::sync_event::{SyncEventId, SyncEventSet};
use icsan_model::arch::x86::classify::{Class, classify};
use icsan_model::arch::x86::events::{self, Seen};
use icsan_model::arch::x86::length::X86Length;
pub use icsan_model::arch::x86::may_store::may_store;
use icsan_symbols::{Symbolizer, protocol};

/// The guest's page size, in bytes.
pub const PAGE: u64 = 4096;

/// Does the plugin learn of the event at all? It watches instructions, resets, and restored states; interrupt delivery
/// and system management mode show in none.
#[must_use]
pub fn can_see(event: SyncEventId) -> bool {
    matches!(events::seen(event), Seen::Instruction | Seen::Resolved | Seen::Hot)
        || [events::RESET, events::RESTORED].contains(&event)
}

/// May this instruction serialize under that profile? Cheap: it is asked for every translated instruction.
#[must_use]
pub fn may_synchronize(bytes: &[u8], profile: &Profile) -> bool {
    match classify(bytes) {
        None => false,
        Some(Class::Fixed(event)) => profile.serializes(event),
        Some(Class::Iret { .. }) => profile.serializes(events::IRET) || profile.serializes(events::IRET_TO_SELF),
        Some(Class::Wrmsr) => profile.serializes(events::WRMSR) || profile.serializes(events::WRMSR_NONSERIALIZING),
        Some(Class::MovCr3 { .. }) => [events::MOV_CR3, events::MOV_CR3_NOFLUSH, events::MOV_CR3_PTI]
            .iter()
            .any(|event| profile.serializes(*event)),
    }
}

/// After which of these may linear addresses mean other memory? Whatever empties the TLB, or changes what it is filled
/// from.
#[must_use]
pub fn may_change_mapping(event: SyncEventId) -> bool {
    [
        events::MOV_CR0,
        events::MOV_CR3,
        events::MOV_CR3_NOFLUSH,
        events::MOV_CR3_PTI,
        events::MOV_CR4,
        events::LMSW,
        events::INVLPG,
        events::INVPCID,
        events::INVEPT,
        events::INVVPID,
        events::INVLPGA,
        events::INVLPGB,
        events::TLBSYNC,
        events::WRMSR,
        events::WRMSR_NONSERIALIZING,
        events::WRMSRNS,
        events::RSM,
        events::VMLAUNCH,
        events::VMRESUME,
        events::VMRUN,
    ]
    .contains(&event)
}

/// Does the store side have to know of this instruction, whatever the profile counts? It may change the mapping, enter
/// an address space, or return from an interrupt, which is a branch.
#[must_use]
pub fn concerns_stores(bytes: &[u8]) -> bool {
    match classify(bytes) {
        None => false,
        Some(Class::Fixed(event)) => may_change_mapping(event) || returns(event),
        Some(Class::MovCr3 { .. } | Class::Wrmsr | Class::Iret { .. }) => true,
    }
}

/// Is it a return from an interrupt, a fault or the like? Then what runs next is not the next instruction, although no
/// branch leads there.
#[must_use]
pub fn returns(event: SyncEventId) -> bool {
    [events::IRET, events::RSM].contains(&event)
}

/// The privilege level of the vCPU whose callback runs, if its registers can be read.
#[must_use]
pub fn privilege(cpu: &CurrentCpu) -> Option<u8> {
    registers::Registers::get().cs(cpu).map(|cs| cs as u8 & 3)
}

/// The program counter of the vCPU whose callback runs, if its registers can be read: that of the callback's
/// instruction, or of one before it in the same block. In 64-bit code only, where the code segment begins at 0.
#[must_use]
pub fn program_counter(cpu: &CurrentCpu) -> Option<Linear> {
    registers::Registers::get().rip(cpu).map(Linear)
}

/// The name of the task whose `task_struct` is at that address.
#[must_use]
pub fn task_name(cpu: &CurrentCpu, layout: &icsan_symbols::KernelLayout, task: u64) -> Option<TaskName> {
    let comm = cpu.memory(task.wrapping_add(layout.task_comm.into()), layout.task_comm_len as usize)?;
    let pid = cpu.memory(task.wrapping_add(layout.task_pid.into()), 4)?;
    let comm = String::from_utf8_lossy(comm.split(|byte| *byte == 0).next()?).into();
    Some(TaskName { pid: u32::from_le_bytes(pid.try_into().ok()?), comm })
}

/// The vCPUs whose CPUs are online, as the running kernel's mask says; the kernel numbers its CPUs as QEMU does.
/// `None`: the symbols do not tell where it is.
#[must_use]
pub fn online_vcpus(cpu: &CurrentCpu, symbols: &Symbolizer, vcpus: usize) -> Option<Vec<Vcpu>> {
    let mask = cpu.memory(symbols.runtime_address_of(protocol::ONLINE_MASK)?, vcpus.div_ceil(8))?;
    let is_online = |vcpu: &usize| mask[vcpu / 8] >> (vcpu % 8) & 1 != 0;
    Some((0..vcpus).filter(is_online).map(|vcpu| Vcpu(vcpu as u16)).collect())
}

/// The events by which a patching function leaves the mapping that it stored through (alternative.c, `__text_poke`:
/// `switch_mm_irqs_off`, `unuse_temporary_mm`).
#[must_use]
pub fn switches_mapping() -> SyncEventSet {
    [events::MOV_CR3, events::MOV_CR3_NOFLUSH, events::MOV_CR3_PTI].into_iter().collect()
}

/// The instructions that do nothing but serialize (`sync_core()`, arch/x86/include/asm/sync_core.h).
#[must_use]
pub fn explicit_syncs() -> SyncEventSet {
    [events::IRET_TO_SELF, events::SERIALIZE, events::CPUID].into_iter().collect()
}

/// Is it an address of the kernel's?
#[must_use]
pub fn is_kernel(at: Linear) -> bool {
    at.0 >> 63 == 1
}

/// The instruction that memory holds there, if it can be read and is one.
#[must_use]
pub fn instruction_at(cpu: &CurrentCpu, linear: Linear) -> Option<Vec<u8>> {
    // It may end where nothing is mapped behind it.
    (1..=X86Length.max_len()).rev().find_map(|len| {
        let bytes = cpu.memory(linear.0, len)?;
        let len = X86Length.len(&bytes)?;
        Some(bytes[..len].to_vec())
    })
}

/// The callers of what executes now, if its registers can be read.
#[must_use]
pub fn callers_now(cpu: &CurrentCpu, symbols: &icsan_symbols::Symbolizer) -> Vec<stack::Caller> {
    registers::Registers::get().rsp(cpu).map_or_else(Vec::new, |rsp| stack::callers(cpu, symbols, rsp, false))
}

#[cfg(test)]
mod tests {
    use super::*;
    use icsan_model::arch::x86::X86_64;

    /// `without=` of all that the table knows.
    fn nothing_serializes() -> Profile {
        let all: Vec<String> = events::EVENTS.iter().map(|event| event.name.to_owned()).collect();
        Profile::select(&X86_64, None, &[], &all).unwrap()
    }

    #[test]
    fn what_the_store_side_must_know_of_does_not_depend_on_the_profile() {
        let profile = nothing_serializes();
        let watched: [&[u8]; 9] = [
            &[0xcf],
            &[0x48, 0xcf],
            &[0x0f, 0xaa],
            &[0x0f, 0x22, 0xd8],
            &[0x0f, 0x22, 0xc0],
            &[0x0f, 0x22, 0xe0],
            &[0x0f, 0x30],
            &[0x0f, 0x01, 0x38],
            &[0x0f, 0x01, 0xdf],
        ];
        for bytes in watched {
            assert!(concerns_stores(bytes) && !may_synchronize(bytes, &profile), "{bytes:x?}");
        }
        for bytes in [&[0x0f, 0xa2][..], &[0x90], &[0x0f, 0x01, 0xe8], &[0xc3]] {
            assert!(!concerns_stores(bytes), "{bytes:x?}");
        }
    }
}
