//! Where a processor begins that was reset.

use super::sink::sink;
use crate::qemu::cpu::{CurrentCpu, CurrentVcpu};
use crate::qemu::translation::{Instruction, Payload};
use crate::x86::registers::Registers;

/// The linear address of the first instruction after RESET, and after INIT on the boot processor (SDM vol. 3A, "First
/// Instruction Executed"). Others wait to be started, and
/// sleep until then.
const VECTOR: u64 = 0xffff_fff0;

/// Protection enable, of CR0.
const PE: u64 = 1;

/// The callback.
static POINT: Vector = Vector;

#[derive(Debug)]
struct Vector;

impl Payload for Vector {
    fn fire(&'static self, vcpu: &CurrentVcpu, cpu: &CurrentCpu) {
        // In real mode nothing else leads there: the code segment's base is one that only a reset gives it.
        if let Some(sink) = sink().filter(|_| Registers::get().cr0(cpu).is_some_and(|cr0| cr0 & PE == 0)) {
            sink.was_reset(vcpu);
        }
    }
}

/// Puts the callback on the instruction if it is the first one.
pub fn instrument(instruction: &Instruction<'_>) {
    if instruction.linear.0 == VECTOR {
        instruction.on_execute(&POINT, true);
    }
}
