//! The marker: a NOP by which a guest program tells the report where it is.
//!
//! `0F 1F 84 00 49 43 53 4E`, a NOP with the memory operand `[rax+rax+0x4E534349]` that no compiler makes; real CPUs
//! ignore it. RAX holds the value.

use super::registers::Registers;
use crate::qemu::cpu::{CurrentCpu, CurrentVcpu};
use crate::qemu::translation::{Instruction, Payload};
use crate::sanitizer::Sanitizer;
use std::sync::OnceLock;

const MARKER: [u8; 8] = [0x0f, 0x1f, 0x84, 0x00, 0x49, 0x43, 0x53, 0x4e];

/// The callback on markers: one for all of them.
#[derive(Debug, Default)]
pub struct MarkerPoint {
    payload: OnceLock<&'static Marker>,
}

#[derive(Debug)]
struct Marker {
    sanitizer: &'static Sanitizer,
}

impl Payload for Marker {
    fn fire(&'static self, vcpu: &CurrentVcpu, cpu: &CurrentCpu) {
        if let Some(value) = Registers::get().rax(cpu) {
            self.sanitizer.mark(vcpu.id(), value);
        }
    }
}

impl MarkerPoint {
    /// Puts the callback on the instruction if it is a marker.
    pub fn instrument(&self, instruction: &Instruction<'_>, sanitizer: &'static Sanitizer) {
        if instruction.bytes() == MARKER {
            instruction.on_execute(*self.payload.get_or_init(|| Box::leak(Box::new(Marker { sanitizer }))), true);
        }
    }
}
