//! Instructions that serialize, or may.

use super::carry_out::prepare;
use super::page_table;
use super::registers::Registers;
use crate::qemu::cpu::{CurrentCpu, CurrentVcpu};
use crate::qemu::divert::{Divert, MayDivert};
use crate::qemu::locks::Mutex;
use crate::qemu::translation::{Instruction, Payload};
use crate::sanitizer::Sanitizer;
use icsan_model::addr::Linear;
use icsan_model::sync_event::SyncEventId;
use icsan_model::x86::classify::{Class, classify};
use icsan_model::x86::{events, resolve};
use std::collections::HashMap;

/// The MSR that holds the address of the kernel's system-call entry (SDM vol. 4, IA32_LSTAR), and Linux's name for what is there.
const LSTAR: u32 = 0xc000_0082;
const LSTAR_SYMBOL: &str = "entry_SYSCALL_64";

/// Other MSRs that hold addresses of the kernel's entries, and Linux's names for what may be there (CSTAR, SYSENTER_EIP). LSTAR alone proves nothing: its target is
/// 0x80 behind a whole 2 MiB in every Debian kernel, and so it fits the symbols of any of them.
const MORE_ENTRIES: [(u32, &[&str]); 2] =
    [(0xc000_0083, &["entry_SYSCALL_compat", "entry_SYSCALL32_ignore", "ignore_sysret"]), (0x176, &["entry_SYSENTER_compat"])];

/// The instructions that have a callback so far: retranslation uses them again.
#[derive(Debug, Default)]
pub struct SyncPoints {
    fixed: Mutex<HashMap<(Linear, SyncEventId), &'static FixedPoint>>,
    resolved: Mutex<HashMap<(Linear, Class), &'static ResolvedPoint>>,
    emulated: Mutex<HashMap<Linear, &'static EmulatedPoint>>,
}

/// An instruction whose event is known from its bytes.
#[derive(Debug)]
struct FixedPoint {
    sanitizer: &'static Sanitizer,
    pc: Linear,
    event: SyncEventId,
}

impl Payload for FixedPoint {
    fn fire(&'static self, vcpu: &CurrentVcpu, _cpu: &CurrentCpu) {
        self.sanitizer.synchronizes(vcpu, self.event, self.pc);
    }
}

/// An instruction whose event depends on registers or memory.
#[derive(Debug)]
struct ResolvedPoint {
    sanitizer: &'static Sanitizer,
    pc: Linear,
    len: u8,
    class: Class,
}

impl Payload for ResolvedPoint {
    fn fire(&'static self, vcpu: &CurrentVcpu, cpu: &CurrentCpu) {
        let event = match self.class {
            Class::Fixed(event) => event,
            Class::Iret { operand_bytes } => self.iret(cpu, operand_bytes),
            Class::Wrmsr => self.wrmsr(cpu),
            Class::MovCr3 { register } => {
                let event = mov_cr3(cpu, register);
                if let Some(new) = Registers::get().general(cpu, register) {
                    let from = Registers::get().cr3(cpu).map(page_table::of_cr3);
                    self.sanitizer.enters_space(vcpu.id(), from, page_table::of_cr3(new));
                }
                event
            }
        };
        self.sanitizer.synchronizes(vcpu, event, self.pc);
    }
}

/// A SERIALIZE that TCG does not know: what comes before #UD is carried out, so that it does not come (`serialize=emulate`).
#[derive(Debug)]
struct EmulatedPoint {
    pc: Linear,
}

/// What is carried out in place of SERIALIZE, which only does what the sync point was told of: a NOP of the same length.
const INSTEAD_OF_SERIALIZE: [u8; 3] = [0x0f, 0x1f, 0x00];

impl MayDivert for EmulatedPoint {
    fn decide(&'static self, _vcpu: &CurrentVcpu, cpu: &CurrentCpu) -> Option<Divert> {
        prepare(cpu, &INSTEAD_OF_SERIALIZE, self.pc).ok()
    }

    /// What could not be carried out ends in #UD, as it does without us.
    fn decided(&'static self, _vcpu: &CurrentVcpu, _carried_out: Result<(), &'static str>) {}
}

impl ResolvedPoint {
    /// Only the 64-bit form is told apart: its frame lies at RSP, while older modes add a segment base that QEMU does not show.
    fn iret(&self, cpu: &CurrentCpu, operand_bytes: u8) -> SyncEventId {
        let registers = Registers::get();
        let frame = || {
            let frame = u128::from_le_bytes(cpu.bytes(registers.rsp(cpu)?)?);
            Some((frame as u64, (frame >> 64) as u64, registers.cs(cpu)?))
        };
        if operand_bytes != 8 {
            return events::IRET;
        }
        match frame() {
            Some((target, new_cs, cs)) => resolve::iret(self.pc, self.len, target, (new_cs ^ cs) & 3 == 0),
            // Not readable: the IRET will fault. `iret` is what the stricter profiles do not count.
            None => events::IRET,
        }
    }

    fn wrmsr(&self, cpu: &CurrentCpu) -> SyncEventId {
        let registers = Registers::get();
        let Some(msr) = registers.rcx(cpu).map(|rcx| rcx as u32) else { return events::WRMSR_NONSERIALIZING };
        let value = || Some(registers.rdx(cpu)? << 32 | registers.rax(cpu)? & 0xffff_ffff);
        if msr == LSTAR {
            value().into_iter().for_each(|value| self.sanitizer.kernel_symbol_at(LSTAR_SYMBOL, value));
        } else if let Some((_, symbols)) = MORE_ENTRIES.iter().find(|(entry, _)| *entry == msr) {
            value().into_iter().for_each(|value| self.sanitizer.kernel_symbol_among(symbols, value));
        }
        resolve::wrmsr(msr)
    }
}

fn mov_cr3(cpu: &CurrentCpu, register: u8) -> SyncEventId {
    let registers = Registers::get();
    match (registers.cr3(cpu), registers.general(cpu, register)) {
        (Some(old), Some(new)) => resolve::mov_cr3(old, new),
        _ => events::MOV_CR3,
    }
}

impl SyncPoints {
    /// Puts a callback on the instruction if it `may_synchronize`, or tells where the kernel is.
    pub fn instrument(&self, instruction: &Instruction<'_>, sanitizer: &'static Sanitizer, may_synchronize: bool) {
        let pc = instruction.linear;
        let class = classify(instruction.bytes());
        match class {
            Some(Class::Fixed(event)) if may_synchronize => {
                let make = || -> &'static FixedPoint { Box::leak(Box::new(FixedPoint { sanitizer, pc, event })) };
                let point = *self.fixed.lock().entry((pc, event)).or_insert_with(make);
                instruction.on_execute(point, false);
            }
            None | Some(Class::Fixed(_)) => {}
            Some(class) if may_synchronize || class == Class::Wrmsr => {
                let len = instruction.bytes().len() as u8;
                let make = || -> &'static ResolvedPoint { Box::leak(Box::new(ResolvedPoint { sanitizer, pc, len, class })) };
                let point = *self.resolved.lock().entry((pc, class)).or_insert_with(make);
                instruction.on_execute(point, true);
            }
            Some(_) => {}
        }
        // After the callback that ends the epoch: this one does not come back.
        let serialize = class == Some(Class::Fixed(events::SERIALIZE)) && instruction.bytes().len() == INSTEAD_OF_SERIALIZE.len();
        if serialize && sanitizer.config().serialize {
            let make = || -> &'static EmulatedPoint { Box::leak(Box::new(EmulatedPoint { pc })) };
            let point = *self.emulated.lock().entry(pc).or_insert_with(make);
            instruction.may_divert(point);
        }
    }
}
