//! Exposures: vCPUs that a protocol left out, until an event ends that.

use super::coverage::Answer;
use super::{Code, Sanitizer};
use crate::code::segment::Segment;
use crate::coverage::Row;
use crate::exposure::{Ended, Exposure, ExposureId, Piece, Way};
use crate::qemu::cpu::CurrentVcpu;
use crate::report::evidence::Evidence;
use crate::stores::store_side::StoreSide;
use crate::vcpu::VcpuState;
use icsan_model::addr::{Linear, Seq, Vcpu};
use icsan_model::detector::flags::SlotId;
use icsan_model::detector::sync_log::SyncAt;
use icsan_model::verdict::kind::Kind;
use std::time::Instant;

/// Exposures of one vCPU that are followed at a time.
const MAX_EXPOSURES: usize = 1024;

impl Sanitizer {
    /// Does the user's design mean to serialize CPUs late, by this event?
    pub(super) fn is_deferral(&self, at: &SyncAt) -> bool {
        let names = || self.config.symbols.names();
        self.config.defer.iter().any(|deferral| deferral.includes(at, names()))
    }

    /// A protocol leaves the vCPU in that state exposed. `None`: there is no room to follow that.
    pub(super) fn begins_exposure(&self, state: &mut VcpuState, row: Row, last: Seq) -> Option<ExposureId> {
        if state.exposures.len() >= MAX_EXPOSURES {
            self.deferrals.lock().drop_one();
            return None;
        }
        let id = self.deferrals.lock().begin();
        state.exposures.push(Exposure { id, row, last, began: Instant::now(), writes: Vec::new(), met: None });
        Some(id)
    }

    /// What there is to report of a vCPU that a protocol left out, now: if the design may mean it to be serialized
    /// late, that is put off.
    pub(super) fn goes_on_exposed(
        &self,
        answer: Answer,
        writes: &[icsan_model::verdict::hazard::Write],
        evidence: Evidence,
    ) -> Option<Evidence> {
        let state = self.vcpus.get(usize::from(answer.vcpu.0)).filter(|_| answer.exposure.is_some());
        let Some(mut state) = state.map(|state| state.lock()) else { return Some(evidence) };
        let Some(exposure) = state.exposures.iter_mut().find(|exposure| Some(exposure.id) == answer.exposure) else {
            return Some(evidence);
        };
        exposure.writes = writes.to_vec();
        if self.config.defer.is_empty() {
            return Some(evidence);
        }
        self.undecided.lock().insert(exposure.id, evidence);
        None
    }

    /// The vCPU is about to complete a serializing event that counts: that ends its exposures.
    #[cold]
    pub(super) fn ends_exposures(&self, current: &CurrentVcpu, by: SyncAt, code: &mut Code) {
        let vcpu = current.id();
        let Some((state, slots)) = self.vcpus.get(usize::from(vcpu.0)).zip(self.flags.board().of(current)) else {
            return;
        };
        let exposures = std::mem::take(&mut state.lock().exposures);
        let Code { table, side: Some(side) } = code else { return };
        let executed: Vec<(&Segment, Seq)> = self
            .flags
            .executed(&slots)
            .into_iter()
            .filter_map(|(slot, since)| Some((table.of_slot(slot)?, since)))
            .collect();
        let since = |slot: SlotId| executed.iter().find(|(segment, _)| segment.slot == slot).map(|(_, since)| *since);
        for exposure in exposures {
            let ended = self.end_of(&exposure, by, &executed, since, side);
            self.has_ended(exposure, ended);
        }
    }

    /// How an exposure ends that the event `by` ends. `executed`: what the vCPU executed since it had last serialized,
    /// with its first fetches; `since` finds one of them.
    fn end_of(
        &self,
        exposure: &Exposure,
        by: SyncAt,
        executed: &[(&Segment, Seq)],
        since: impl Fn(SlotId) -> Option<Seq>,
        side: &StoreSide,
    ) -> Ended {
        let names = self.config.symbols.names();
        let mut way = Way::default();
        for (segment, since) in executed {
            way.add(Piece::of(segment.run().linear(), names), *since > exposure.last);
        }
        let changed = side.changed_by(&exposure.writes);
        let at = |segment: &Segment| segment.run().linear();
        // Code of before the change cannot be met any more without a hazard; what stands there now can.
        let met = changed.iter().filter(|(segment, change)| since(segment.slot).is_some_and(|since| since > *change));
        let near = changed.iter().filter(|(segment, _)| way.includes(Piece::of(at(segment), names)));
        let first = |segments: &mut dyn Iterator<Item = Linear>| segments.min();
        let met = exposure.met.or_else(|| first(&mut met.map(|(segment, _)| at(segment))));
        let near = first(&mut near.map(|(segment, _)| at(segment)));
        Ended { by, after: exposure.began.elapsed(), met, near, way }
    }

    /// Counts it, and reports it, or what has become of what was reported.
    fn has_ended(&self, Exposure { id, row, .. }: Exposure, ended: Ended) {
        let undecided = self.undecided.lock().remove(&id);
        let meant = self.is_deferral(&ended.by);
        self.deferrals.lock().end(row, &ended, meant);
        match undecided {
            Some(_) if meant && ended.met.is_none() => self.coverage.lock().defer(row),
            Some(mut evidence) => {
                evidence.unsynced.iter_mut().for_each(|unsynced| unsynced.ended = Some(Box::new(ended.clone())));
                self.found(Kind::Unsynced, evidence);
            }
            None => {
                let mut findings = self.findings.lock();
                if let Some(hazard) = findings.exposure_ended(id, ended) {
                    self.sink.lock().exposure_ended(&self.report(), hazard);
                }
            }
        }
    }

    /// The guest has ended. What is not decided by now, and has met nothing that was changed, stays so.
    pub(super) fn leaves_exposures(&self, vcpu: Vcpu, state: &mut VcpuState, side: &StoreSide) {
        self.flags.fence();
        for exposure in std::mem::take(&mut state.exposures) {
            let since = |slot: SlotId| self.flags.holds_since(vcpu, slot);
            let met = side
                .changed_by(&exposure.writes)
                .iter()
                .any(|(segment, change)| since(segment.slot).is_some_and(|since| since > *change));
            let undecided = self.undecided.lock().remove(&exposure.id);
            if let Some(evidence) = undecided.filter(|_| met || exposure.met.is_some()) {
                self.found(Kind::Unsynced, evidence);
            }
        }
    }
}
