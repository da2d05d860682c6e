//! Where a kernel dies: the entry of the function by which Linux says so.

use super::sink::sink;
use crate::qemu::cpu::{CurrentCpu, CurrentVcpu};
use crate::qemu::translation::{Instruction, Payload};
use icsan_symbols::Symbolizer;
use std::sync::OnceLock;

/// The function (kernel/panic.c). It does not return.
const PANIC: &str = "panic";

/// The callback on it: one, wherever the kernel is.
static POINT: DeathPoint = DeathPoint;

#[derive(Debug)]
struct DeathPoint;

impl Payload for DeathPoint {
    fn fire(&'static self, vcpu: &CurrentVcpu, _cpu: &CurrentCpu) {
        if let Some(sink) = sink() {
            sink.panics(vcpu.id());
        }
    }
}

/// Where the kernel was linked to have the function, if it has it.
#[derive(Debug, Default)]
pub struct DeathPoints {
    linked: OnceLock<Option<u64>>,
}

impl DeathPoints {
    /// Puts the callback on the instruction if it is the function's first. Before the kernel's place is known none is.
    pub fn instrument(&self, instruction: &Instruction<'_>, symbols: &Symbolizer) {
        let (Some(kernel), Some(offset)) = (symbols.kernel_table(), symbols.offset()) else { return };
        let link = *self.linked.get_or_init(|| kernel.address_of(PANIC));
        if link.is_some_and(|link| link.wrapping_add(offset) == instruction.linear.0) {
            instruction.on_execute(&POINT, false);
        }
    }
}
