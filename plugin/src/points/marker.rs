//! The marker: an instruction without effect, by which a guest program tells the report where it is. Each architecture
//! has its own.

use super::sink::{Sink, sink};
use crate::qemu::cpu::{CurrentCpu, CurrentVcpu};
use crate::qemu::translation::{Instruction, Payload};

/// The callback on markers: one for all of them.
static POINT: Marker = Marker;

#[derive(Debug)]
struct Marker;

impl Payload for Marker {
    fn fire(&'static self, vcpu: &CurrentVcpu, cpu: &CurrentCpu) {
        if let Some(sink) = sink()
            && let Some(value) = sink.platform().marker(cpu)
        {
            sink.mark(vcpu.id(), value);
        }
    }
}

/// Puts the callback on the instruction if it is a marker.
pub fn instrument(instruction: &Instruction<'_>, sink: &dyn Sink) {
    if sink.platform().is_marker(instruction.bytes()) {
        instruction.on_execute(&POINT, true);
    }
}
