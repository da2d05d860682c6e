//! Instructions that serialize, or may.

use super::point_word::PointWord;
use super::sink::{Sink, sink};
use crate::arch::platform::{Does, Resolved, Synchronizing};
use crate::gaps::Gap;
use crate::qemu::cpu::{CurrentCpu, CurrentVcpu};
use crate::qemu::divert::{Divert, MayDivertWord};
use crate::qemu::translation::{Instruction, WordPayload};
use icsan_model::addr::Linear;
use icsan_model::arch::sync_event::SyncEventId;
use icsan_model::detector::sync_log::SyncAt;

/// An instruction whose event is known from its bytes: the tag of its word.
#[derive(Debug)]
struct FixedPoint;

impl WordPayload for FixedPoint {
    fn fire(word: u64, vcpu: &CurrentVcpu, _cpu: &CurrentCpu) {
        let PointWord { at, tag } = PointWord::from_bits(word);
        if let Some(sink) = sink() {
            sink.synchronizes(vcpu, SyncAt { event: SyncEventId(tag), pc: at, origin: None });
        }
    }
}

/// An instruction whose event depends on registers or memory: the tag of its word says what the platform must know of
/// it.
#[derive(Debug)]
struct ResolvedPoint;

impl WordPayload for ResolvedPoint {
    fn fire(word: u64, vcpu: &CurrentVcpu, cpu: &CurrentCpu) {
        let Some(sink) = sink() else { return };
        let PointWord { at, tag } = PointWord::from_bits(word);
        let Resolved { event, does } = sink.platform().resolve(tag, at, cpu);
        let origin = match does {
            Does::Nothing => None,
            Does::ReturnsToKernel { frame } => sink.origins().returns_to_kernel(frame),
            Does::ReturnsToUser | Does::ReturnsToForeign => sink.origins().returns_to_user(vcpu.id()),
            Does::EntersSpace { from, to } => sink.enters_space(vcpu.id(), from, to),
            Does::Caches { on } => {
                sink.caches(vcpu.id(), on);
                None
            }
            Does::TellsPlace { evidence, runtime } => {
                sink.kernel_place(evidence, runtime, at);
                None
            }
        };
        if does == Does::ReturnsToForeign {
            Gap::ForeignMode.note();
        }
        sink.synchronizes(vcpu, SyncAt { event, pc: at, origin });
        // Its own serialization is not one that a protocol intends.
        if matches!(does, Does::ReturnsToUser | Does::ReturnsToForeign) {
            sink.goes_to_user_mode(vcpu.id(), cpu);
        }
    }
}

/// An instruction that serializes, and that QEMU lacks: what comes before its exception is carried out, so that it does
/// not come (`serialize=emulate`). The word is its linear address.
#[derive(Debug)]
struct EmulatedPoint;

impl MayDivertWord for EmulatedPoint {
    /// What cannot be carried out ends in the exception, as it does without us.
    fn decide(word: u64, _vcpu: &CurrentVcpu, cpu: &CurrentCpu) -> Option<Divert> {
        let platform = sink()?.platform();
        platform.carry_out(cpu, platform.facts().in_place_of_lacking, Linear(word)).ok()
    }
}

/// Puts a callback on the instruction if it `may_synchronize`, or tells what must be known in any case.
pub fn instrument(instruction: &Instruction<'_>, sink: &dyn Sink, may_synchronize: bool) {
    let (at, platform) = (instruction.linear, sink.platform());
    match platform.synchronizing(instruction.bytes()) {
        Some(Synchronizing::Fixed(event)) if may_synchronize => {
            if let Some(word) = (PointWord { at, tag: event.0 }).bits() {
                instruction.on_execute_word::<FixedPoint>(word, false);
            }
        }
        Some(Synchronizing::AtRunTime { tag, always }) if may_synchronize || always => {
            if let Some(word) = (PointWord { at, tag }).bits() {
                instruction.on_execute_word::<ResolvedPoint>(word, true);
            }
        }
        _ => {}
    }
    // After the callback that ends the epoch: this one does not come back.
    if sink.config().serialize && platform.is_lacking(instruction.bytes()) {
        instruction.may_divert_word::<EmulatedPoint>(at.0);
    }
}
