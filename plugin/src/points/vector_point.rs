//! Entries from interrupts and exceptions, where QEMU tells of them in no other way than by their first instruction.

use super::sink::{Sink, sink};
use crate::qemu::cpu::{CurrentCpu, CurrentVcpu};
use crate::qemu::entries;
use crate::qemu::translation::{Instruction, Payload};

/// The callback on it.
static POINT: Vector = Vector;

#[derive(Debug)]
struct Vector;

impl Payload for Vector {
    fn fire(&'static self, vcpu: &CurrentVcpu, cpu: &CurrentCpu) {
        if let Some(sink) = sink() {
            sink.entered(vcpu, sink.platform().interrupted(cpu));
        }
    }
}

/// Puts the callback on the instruction if it is one's first, and nothing else tells. `cpu`: the vCPU that translates.
pub fn instrument(instruction: &Instruction<'_>, sink: &dyn Sink, cpu: &CurrentCpu) {
    if sink.platform().facts().entry.is_some()
        && !entries::are_told()
        && sink.platform().is_vector(instruction.linear, cpu)
    {
        instruction.on_execute(&POINT, true);
    }
}
