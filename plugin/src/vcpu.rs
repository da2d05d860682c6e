//! What is kept for each vCPU. Touched from that vCPU's thread only, but for the report at the end.

use crate::code::segment::Segment;
use crate::coverage::Serialized;
use crate::exposure::Exposure;
use crate::injection::{Injected, Trail};
use crate::patching::Asked;
use crate::skipped::Executions;
use icsan_model::addr::{Epoch, Seq};
use icsan_model::arch::sync_event::{SyncEventId, SyncEventSet};
use icsan_model::detector::sync_log::SyncAt;
use icsan_model::detector::sync_origin::SyncOrigin;
use icsan_model::verdict::hazard::Hazard;
use icsan_model::verdict::last_sync::LastSync;
use std::collections::HashSet;
use std::sync::Arc;

/// Blocks whose bytes memory does not hold any more, kept until they run again or memory agrees again. More of them at
/// a time than this are not told apart from races.
const MAX_SUSPECTS: usize = 1024;

/// One vCPU.
#[derive(Debug)]
pub struct VcpuState {
    /// The epoch that it is in.
    pub epoch: Epoch,
    /// Its last serializing event.
    pub last_sync: Option<LastSync>,
    /// What that one belonged to.
    pub last_origin: Option<SyncOrigin>,
    /// What emptied its buffers lately.
    pub serialized: Serialized,
    /// Since when protocols have left it exposed: those of them that nothing has ended.
    pub exposures: Vec<Exposure>,
    /// What is asked of it when it goes to user mode the next time.
    pub asked: Option<Arc<Asked>>,
    /// How often it met each event that the profile counts.
    pub syncs: Vec<u64>,
    /// Differences that an exemption covered.
    pub exempt: u64,
    /// Executions at which not everything could be looked at, and in what was looked at there was no hazard.
    pub incomplete: u64,
    /// What was chosen for the instruction that the vCPU is about to execute.
    pub pending: Option<Injected>,
    /// What the vCPU does after the first injection of its kind: the number of its record, and so far.
    pub trail: Option<(usize, Trail)>,
    /// With a recording: what of its executions is in it.
    pub recorded: Executions,
    /// Segments that ran although memory had other bytes, by address of the segment.
    suspects: HashSet<usize>,
}

/// What a mismatch between a block and memory means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mismatch {
    /// Memory may have changed just now, while QEMU was entering the block: a race that any CPU can lose.
    Race,
    /// The vCPU came back to the block, and memory still has other bytes: QEMU did not drop it when they were stored.
    StaleBlock,
}

impl Default for VcpuState {
    fn default() -> Self {
        Self::new()
    }
}

impl VcpuState {
    /// A vCPU that has executed nothing.
    #[must_use]
    pub fn new() -> Self {
        Self {
            epoch: Epoch(1),
            last_sync: None,
            last_origin: None,
            serialized: Serialized::default(),
            exposures: Vec::new(),
            asked: None,
            syncs: vec![0; SyncEventSet::CAPACITY],
            exempt: 0,
            incomplete: 0,
            pending: None,
            trail: None,
            recorded: Executions::default(),
            suspects: HashSet::new(),
        }
    }

    /// The next epoch.
    pub fn serialize(&mut self, at: SyncAt, seq: Seq) {
        self.epoch = self.epoch.next();
        self.last_sync = Some(LastSync { event: Some(at.event), pc: Some(at.pc), seq });
        self.last_origin = at.origin;
        self.serialized.log.push(seq, at);
        if let Some(count) = self.syncs.get_mut(usize::from(at.event.0)) {
            *count += 1;
        }
    }

    /// The next epoch, and nothing that came before counts: the vCPU was reset, or its state restored.
    pub fn reset(&mut self, event: SyncEventId, seq: Seq) {
        self.epoch = self.epoch.next();
        self.last_sync = Some(LastSync { event: Some(event), pc: None, seq });
        self.last_origin = None;
        self.serialized.reset_at = seq;
        self.pending = None;
        self.asked = None;
        self.exposures.clear();
        self.suspects.clear();
        if let Some(count) = self.syncs.get_mut(usize::from(event.0)) {
            *count += 1;
        }
    }

    /// It may execute what was before one of these stores: if a protocol left it exposed to that, it did not serialize
    /// in time.
    pub fn meets(&mut self, hazard: &Hazard) {
        for exposure in &mut self.exposures {
            if hazard.writes.iter().any(|write| exposure.writes.iter().any(|known| known.seq == write.seq)) {
                exposure.met.get_or_insert(hazard.linear);
            }
        }
    }

    /// The vCPU is about to run `segment`, and memory does not hold its bytes.
    pub fn mismatch(&mut self, segment: &'static Segment) -> Mismatch {
        let key = std::ptr::from_ref(segment) as usize;
        if self.suspects.remove(&key) {
            return Mismatch::StaleBlock;
        }
        if self.suspects.len() < MAX_SUSPECTS {
            self.suspects.insert(key);
        }
        Mismatch::Race
    }

    /// The vCPU is about to run `segment`, and memory holds its bytes.
    pub fn agrees(&mut self, segment: &'static Segment) {
        if !self.suspects.is_empty() {
            self.suspects.remove(&(std::ptr::from_ref(segment) as usize));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coverage::Row;
    use crate::exposure::ExposureId;
    use crate::patching::{Asker, Missing};
    use icsan_model::addr::{Linear, Phys, Vcpu};
    use icsan_model::verdict::hazard::Write;
    use icsan_model::verdict::kind::Kind;
    use std::time::Instant;

    fn write(seq: u64) -> Write {
        Write { seq: Seq(seq), vcpu: None, pc: None, linear: None, phys: Phys(0), old: None, new: vec![0xcc] }
    }

    #[test]
    fn a_hazard_of_the_patch_ends_the_hope_of_an_exposed_vcpu() {
        let mut state = VcpuState::new();
        let row = Row { boot: 1, asker: Asker::Membarrier, missing: Missing::AtTheEnd };
        let exposure = |id, seq| {
            let (id, last, began, writes) = (ExposureId(id), Seq(seq), Instant::now(), vec![write(seq)]);
            Exposure { id, row, last, began, writes, met: None }
        };
        state.exposures = vec![exposure(1, 5), exposure(2, 7)];
        let mut hazard = Hazard {
            kind: Kind::Stale,
            vcpu: Vcpu(1),
            linear: Linear(0x10),
            phys: Phys(0x10),
            memory: vec![0xcc],
            candidates: Vec::new(),
            writes: vec![write(6), write(7)],
            remapped: None,
            last_sync: None,
            epoch: Epoch(1),
        };
        state.meets(&hazard);
        hazard.linear = Linear(0x20);
        state.meets(&hazard);
        let met: Vec<_> = state.exposures.iter().map(|exposure| exposure.met).collect();
        assert_eq!(met, [None, Some(Linear(0x10))], "the first place, of the patch that it is about");
    }
}
