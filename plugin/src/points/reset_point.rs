//! Where a processor begins that was reset.

use super::sink::{Sink, sink};
use crate::qemu::cpu::{CurrentCpu, CurrentVcpu};
use crate::qemu::translation::{Instruction, Payload};

/// The callback.
static POINT: Vector = Vector;

#[derive(Debug)]
struct Vector;

impl Payload for Vector {
    fn fire(&'static self, vcpu: &CurrentVcpu, cpu: &CurrentCpu) {
        if let Some(sink) = sink().filter(|sink| sink.platform().was_reset(cpu)) {
            sink.was_reset(vcpu);
        }
    }
}

/// Puts the callback on the instruction if it is the first one.
pub fn instrument(instruction: &Instruction<'_>, sink: &dyn Sink) {
    if sink.platform().facts().reset_vectors.contains(&instruction.linear) {
        instruction.on_execute(&POINT, true);
    }
}
