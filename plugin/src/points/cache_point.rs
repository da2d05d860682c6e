//! Instructions that maintain caches, barriers, and stores that QEMU tells of by no access.

use super::point_word::PointWord;
use super::sink::{Sink, sink};
use crate::arch::platform::CacheEffect;
use crate::qemu::cpu::{CurrentCpu, CurrentVcpu};
use crate::qemu::translation::{Instruction, WordPayload};
use icsan_model::arch::maintenance::{Accesses, Domain};

/// Maintenance: the tag of its word says which.
#[derive(Debug)]
struct MaintenancePoint;

impl WordPayload for MaintenancePoint {
    fn fire(word: u64, vcpu: &CurrentVcpu, cpu: &CurrentCpu) {
        let tag = PointWord::from_bits(word).tag;
        if let Some(sink) = sink()
            && let Some(operation) = sink.platform().maintenance(tag, cpu)
        {
            sink.maintains(vcpu.id(), operation, cpu);
        }
    }
}

/// A barrier: the word is a place in [`BARRIERS`].
#[derive(Debug)]
struct BarrierPoint;

/// All barriers that there are.
const BARRIERS: [(Domain, Accesses); 12] = [
    (Domain::Own, Accesses::Loads),
    (Domain::Own, Accesses::Stores),
    (Domain::Own, Accesses::All),
    (Domain::Inner, Accesses::Loads),
    (Domain::Inner, Accesses::Stores),
    (Domain::Inner, Accesses::All),
    (Domain::Outer, Accesses::Loads),
    (Domain::Outer, Accesses::Stores),
    (Domain::Outer, Accesses::All),
    (Domain::System, Accesses::Loads),
    (Domain::System, Accesses::Stores),
    (Domain::System, Accesses::All),
];

impl WordPayload for BarrierPoint {
    fn fire(word: u64, vcpu: &CurrentVcpu, cpu: &CurrentCpu) {
        if let (Some(sink), Some(barrier)) = (sink(), BARRIERS.get(word as usize)) {
            sink.completes(vcpu.id(), *barrier, cpu);
        }
    }
}

/// A store: the tag of its word says which.
#[derive(Debug)]
struct UnseenStorePoint;

impl WordPayload for UnseenStorePoint {
    fn fire(word: u64, vcpu: &CurrentVcpu, cpu: &CurrentCpu) {
        let PointWord { at, tag } = PointWord::from_bits(word);
        if let Some(sink) = sink()
            && let Some((linear, len)) = sink.platform().unseen_store(tag, at, cpu)
        {
            sink.stores_unseen(vcpu, at, linear, len, cpu);
        }
    }
}

/// Puts the callback on the instruction if it is one of those.
pub fn instrument(instruction: &Instruction<'_>, sink: &dyn Sink) {
    let word = |tag| PointWord { at: instruction.linear, tag }.bits();
    match sink.platform().cache_effect(instruction.bytes()) {
        None => {}
        Some(CacheEffect::Maintains(tag)) => {
            if let Some(word) = word(tag) {
                instruction.on_execute_word::<MaintenancePoint>(word, true);
            }
        }
        Some(CacheEffect::Completes(domain, accesses)) => {
            if let Some(place) = BARRIERS.iter().position(|barrier| *barrier == (domain, accesses)) {
                instruction.on_execute_word::<BarrierPoint>(place as u64, false);
            }
        }
        Some(CacheEffect::StoresUnseen(tag)) => {
            if let Some(word) = word(tag) {
                instruction.on_execute_word::<UnseenStorePoint>(word, true);
            }
        }
    }
}
