//! Executions on the slow path: what the vCPU may execute, and what made it safe.

use super::StoreSide;
use crate::code::code_table::CodeTable;
use crate::code::segment::Segment;
use crate::qemu::cpu::CurrentCpu;
use crate::qemu::scoreboard::VcpuSlots;
use crate::vcpu::VcpuState;
use icsan_model::addr::{Phys, Seq, Vcpu};
use icsan_model::detector::flags::OwnBoard;
use icsan_model::detector::history::{Footprint, Judged, Place, Question};
use icsan_model::detector::ledger::Reliance;
use icsan_model::memory::PAGE;
use icsan_model::verdict::candidates::Candidates;

/// Which vCPU takes the slow path, and when.
#[derive(Clone, Copy, Debug)]
pub struct Looked<'a> {
    /// The vCPU.
    pub vcpu: Vcpu,
    /// Its state.
    pub state: &'a VcpuState,
    /// Its slots.
    pub slots: &'a VcpuSlots<'a>,
    /// Now: later than all that the vCPU executed so far if other segments conflict with this one.
    pub now: Seq,
}

impl StoreSide {
    /// With a recording: a vCPU is about to execute a segment whose bytes memory holds.
    pub fn record_run(&mut self, table: &CodeTable, segment: &'static Segment, looked: &Looked<'_>, cpu: &CurrentCpu) {
        let Looked { vcpu, state, slots, .. } = *looked;
        let Some(place) = segment.place() else { return self.history.run(vcpu, segment.run(), None) };
        self.branch_before(vcpu, state, slots, segment.run().linear(), table);
        let place = self.window_place(segment, place, vcpu, cpu);
        self.history.run(vcpu, segment.run(), Some(place));
    }

    /// Where a segment lies, with the page that an instruction in it might reach into.
    fn window_place(&self, segment: &Segment, place: Place, vcpu: Vcpu, cpu: &CurrentCpu) -> Place {
        let next = place.page.offset(PAGE);
        if place.second.is_some() || segment.run().last().offset(self.history.window()) <= next {
            return place;
        }
        let second = cpu.physical(next.0).map(Phys).or_else(|| self.history.recorded_page(vcpu, next));
        Place { second, ..place }
    }

    /// A vCPU is about to execute a segment that needs a closer look. With `choices`, answers also with what it may
    /// execute as the segment's first instruction.
    pub fn judge(
        &mut self,
        table: &CodeTable,
        segment: &'static Segment,
        place: Place,
        looked: &Looked<'_>,
        cpu: &CurrentCpu,
        choices: bool,
    ) -> (Vec<Judged>, Option<Candidates>) {
        let Looked { vcpu, state, slots, now } = *looked;
        self.branch_before(vcpu, state, slots, segment.run().linear(), table);
        let place = self.window_place(segment, place, vcpu, cpu);
        let chunk = u64::from(self.profile.buffers.chunk);
        let start = segment.run().linear().align_down(chunk);
        let end = segment.run().last().offset(self.history.window() - 1).align_down(chunk).offset(chunk);
        let near = table.touching(start, end.0.wrapping_sub(start.0));
        let footprints: Vec<Footprint<'_>> = near
            .iter()
            .filter(|other| slots.flag(other.slot).executed())
            .filter_map(|other| {
                Some(Footprint { run: other.run(), place: other.place()?, since: slots.first_fetch(other.slot) })
            })
            .collect();
        let question = Question {
            vcpu,
            run: segment.run(),
            place,
            footprints: &footprints,
            last_sync: state.last_sync,
            epoch: state.epoch,
            now,
        };
        let judged = self.history.judge(&question);
        let candidates = choices.then(|| self.history.candidates(&question)).flatten();
        self.rely(segment, place, &near, &judged, looked);
        (judged, candidates)
    }

    /// Enters into the ledger what made the execution safe, where it was.
    fn rely(
        &mut self,
        segment: &'static Segment,
        place: Place,
        near: &[&'static Segment],
        judged: &[Judged],
        looked: &Looked<'_>,
    ) {
        let Looked { state, slots, .. } = *looked;
        let memory = self.history.memory();
        for (linear, bytes) in segment.run().instructions() {
            let phys = |i: u64| place.phys(linear.offset(i));
            let changed = (0..bytes.len() as u64)
                .filter_map(|i| Some(memory.version(phys(i)?, Seq(u64::MAX))))
                .max()
                .unwrap_or(Seq(0));
            let dangerous = judged.iter().any(|judged| judged.linear == linear && judged.verdict.hazard.is_some());
            if changed == Seq(0) || dangerous {
                continue;
            }
            // When did the vCPU last execute anything here?
            let end = linear.offset(bytes.len() as u64);
            let here = near.iter().filter(|other| {
                let start = other.run().linear();
                start < end
                    && start.offset(other.run().bytes().len() as u64) > linear
                    && other.place().and_then(|place| place.phys(linear)) == phys(0)
            });
            let last = here.map(|other| slots.first_fetch(other.slot)).max().unwrap_or(Seq(0));
            if last == Seq(0) || last >= changed || last < state.serialized.reset_at {
                continue;
            }
            let events = state.serialized.log.since(last);
            let by = state.serialized.log.first_since(changed).or_else(|| state.serialized.log.first_since(last));
            if let (Some(by), Some(site)) = (by, phys(0)) {
                let function = self.patching.writer(changed).and_then(|writer| writer.function);
                let writer = function.or_else(|| memory.record(changed).and_then(|record| record.store.pc));
                let maintained = self.history.history().cache().maintained(looked.vcpu, site, changed);
                self.ledger.add(site, Reliance { writer, by, events, maintained });
            }
        }
    }
}
