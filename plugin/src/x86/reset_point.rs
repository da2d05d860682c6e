//! Where a processor begins that was reset.

use super::registers::Registers;
use crate::qemu::cpu::{CurrentCpu, CurrentVcpu};
use crate::qemu::translation::{Instruction, Payload};
use crate::sanitizer::Sanitizer;
use std::sync::OnceLock;

/// The linear address of the first instruction after RESET, and after INIT on the boot processor (SDM vol. 3A, "First
/// Instruction Executed"). Others wait to be started, and
/// sleep until then.
const VECTOR: u64 = 0xffff_fff0;

/// Protection enable, of CR0.
const PE: u64 = 1;

/// The callback.
#[derive(Debug, Default)]
pub struct ResetPoint {
    payload: OnceLock<&'static Vector>,
}

#[derive(Debug)]
struct Vector {
    sanitizer: &'static Sanitizer,
}

impl Payload for Vector {
    fn fire(&'static self, vcpu: &CurrentVcpu, cpu: &CurrentCpu) {
        // In real mode nothing else leads there: the code segment's base is one that only a reset gives it.
        if Registers::get().cr0(cpu).is_some_and(|cr0| cr0 & PE == 0) {
            self.sanitizer.was_reset(vcpu);
        }
    }
}

impl ResetPoint {
    /// Puts the callback on the instruction if it is the first one.
    pub fn instrument(&self, instruction: &Instruction<'_>, sanitizer: &'static Sanitizer) {
        if instruction.linear.0 == VECTOR {
            instruction.on_execute(*self.payload.get_or_init(|| Box::leak(Box::new(Vector { sanitizer }))), true);
        }
    }
}
