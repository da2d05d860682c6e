//! The marker: a NOP by which a guest program tells the report where it is.
//!
//! `0F 1F 84 00 49 43 53 4E`, a NOP with the memory operand `[rax+rax+0x4E534349]` that no compiler makes; real CPUs
//! ignore it. RAX holds the value.

use super::sink::sink;
use crate::qemu::cpu::{CurrentCpu, CurrentVcpu};
use crate::qemu::translation::{Instruction, Payload};
use crate::x86::registers::Registers;

const MARKER: [u8; 8] = [0x0f, 0x1f, 0x84, 0x00, 0x49, 0x43, 0x53, 0x4e];

/// The callback on markers: one for all of them.
static POINT: Marker = Marker;

#[derive(Debug)]
struct Marker;

impl Payload for Marker {
    fn fire(&'static self, vcpu: &CurrentVcpu, cpu: &CurrentCpu) {
        if let (Some(value), Some(sink)) = (Registers::get().rax(cpu), sink()) {
            sink.mark(vcpu.id(), value);
        }
    }
}

/// Puts the callback on the instruction if it is a marker.
pub fn instrument(instruction: &Instruction<'_>) {
    if instruction.bytes() == MARKER {
        instruction.on_execute(&POINT, true);
    }
}
