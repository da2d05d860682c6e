//! Where a vCPU goes to user mode by an instruction that is no event, or none that says so (SYSRET on x86).

use super::sink::{Sink, sink};
use crate::qemu::cpu::{CurrentCpu, CurrentVcpu};
use crate::qemu::translation::{Instruction, WordPayload};

/// Such an instruction. The word says nothing.
#[derive(Debug)]
struct UserModePoint;

impl WordPayload for UserModePoint {
    fn fire(_word: u64, vcpu: &CurrentVcpu, cpu: &CurrentCpu) {
        if let Some(sink) = sink() {
            sink.goes_to_user_mode(vcpu.id(), cpu);
        }
    }
}

/// Puts the callback on the instruction if it is one.
pub fn instrument(instruction: &Instruction<'_>, sink: &dyn Sink) {
    if sink.platform().goes_to_user_mode(instruction.bytes()) {
        // What it may have to tell of needs memory, and no registers: those would cost each system call.
        instruction.on_execute_word::<UserModePoint>(0, false);
    }
}
