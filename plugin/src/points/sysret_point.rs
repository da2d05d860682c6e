//! SYSRET and SYSEXIT: where a vCPU goes to user mode without an IRET.

use super::sink::sink;
use crate::qemu::cpu::{CurrentCpu, CurrentVcpu};
use crate::qemu::translation::{Instruction, WordPayload};
use icsan_model::arch::x86::classify::{Class, classify};
use icsan_model::arch::x86::events;

/// Such an instruction. The word says nothing.
#[derive(Debug)]
struct SysretPoint;

impl WordPayload for SysretPoint {
    fn fire(_word: u64, vcpu: &CurrentVcpu, cpu: &CurrentCpu) {
        if let Some(sink) = sink() {
            sink.goes_to_user_mode(vcpu.id(), cpu);
        }
    }
}

/// Puts the callback on the instruction if it is one.
pub fn instrument(instruction: &Instruction<'_>) {
    if let Some(Class::Fixed(events::SYSRET | events::SYSEXIT)) = classify(instruction.bytes()) {
        // What it may have to tell of needs memory, and no registers: those would cost each system call.
        instruction.on_execute_word::<SysretPoint>(0, false);
    }
}
