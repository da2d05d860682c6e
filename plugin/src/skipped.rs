//! Executions that QEMU's generated code does not call for, since their flag says that there is nothing to judge. With
//! `record=` it calls all the same, and what is found here decides whether such an execution is recorded: if something
//! happened to its bytes, or an epoch began, since the vCPU's last one that was. So the plain model judges it, and
//! `icsan-replay --check` finds a flag that was wrong.
//!
//! It rests on nothing that flags rest on: not on the segments that a change reaches, nor on their last change, but on
//! the history of memory and on the vCPU's epoch.

use icsan_model::addr::{Epoch, Phys, Seq};
use icsan_model::detector::flags::SlotId;
use icsan_model::detector::history::Place;
use icsan_model::detector::light::CodeRun;
use icsan_model::memory::Memory;
use rustc_hash::FxHashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of commits and of stores that were told of late, which are remembered. If there are more, all are forgotten:
/// executions after them are no longer proven.
const MAX_BYTES: usize = 1 << 20;

/// The changes that a recording is told of, counted: stores, writers that turn out late, commits.
#[derive(Debug, Default)]
pub struct Happened {
    count: Arc<AtomicU64>,
    /// Of bytes whose stores were committed, or attributed late: when that was last.
    known_better: FxHashMap<Phys, u64>,
}

impl Happened {
    /// How many there were, to be looked at without a lock.
    #[must_use]
    pub fn count(&self) -> &Arc<AtomicU64> {
        &self.count
    }

    /// There was a store.
    pub fn stored(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// What is known of the store of these bytes changed.
    pub fn known_better(&mut self, phys: Phys, len: u64) {
        let at = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        if self.known_better.len() >= MAX_BYTES {
            self.known_better.clear();
        }
        self.known_better.extend((0..len).map(|i| (phys.offset(i), at)));
    }

    /// Did anything happen to the bytes that matter to a run, up to `window` from its last instruction's first on,
    /// since it was recorded?
    #[must_use]
    pub fn since(&self, recorded: &Recorded, run: &CodeRun, place: Place, window: u64, memory: &Memory) -> bool {
        let (start, end) = (run.linear(), run.last().offset(window));
        place.ranges(start, end.0.wrapping_sub(start.0)).any(|(phys, len)| {
            let better = |i| self.known_better.get(&phys.offset(i)).is_some_and(|at| *at > recorded.count);
            memory.last_change(phys, len) > recorded.seq || (0..len).any(better)
        })
    }
}

/// When an execution was recorded last, or found not to matter.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Recorded {
    /// In this epoch of the vCPU.
    pub epoch: Epoch,
    /// After so many changes.
    pub count: u64,
    /// After this place in the order.
    pub seq: Seq,
}

/// What a vCPU executed, as far as the recording says, by slot.
#[derive(Debug, Default)]
pub struct Executions(Vec<Recorded>);

impl Executions {
    /// A segment's last recorded execution, if it was in this epoch.
    #[must_use]
    pub fn last(&self, slot: SlotId, epoch: Epoch) -> Option<Recorded> {
        self.0.get(slot.0 as usize).copied().filter(|recorded| recorded.epoch == epoch)
    }

    /// An execution is recorded, or found not to matter.
    pub fn note(&mut self, slot: SlotId, recorded: Recorded) {
        let slot = slot.0 as usize;
        if self.0.len() <= slot {
            self.0.resize((slot + 1).next_power_of_two(), Recorded::default());
        }
        self.0[slot] = recorded;
    }
}

#[cfg(test)]
mod tests {
    use super::{Executions, Happened, Recorded};
    use icsan_model::addr::{Epoch, Linear, Phys, Seq};
    use icsan_model::detector::flags::SlotId;
    use icsan_model::detector::history::Place;
    use icsan_model::detector::light::CodeRun;
    use icsan_model::event::Store;
    use icsan_model::memory::Memory;
    use std::sync::atomic::Ordering;

    #[test]
    fn what_happened_to_a_run_is_what_happened_to_its_bytes_and_to_those_an_older_instruction_may_have_had() {
        let (mut memory, mut happened) = (Memory::default(), Happened::default());
        let place = Place { page: Linear(0x7000), first: Phys(0x2000), second: None };
        let run = CodeRun::new(Linear(0x7100), &[0x90; 4], &[2, 2]);
        let at = |count, seq| Recorded { epoch: Epoch(1), count, seq: Seq(seq) };
        let since = |happened: &Happened, memory: &Memory, recorded| happened.since(&recorded, &run, place, 15, memory);
        let store = |phys| Store { vcpu: None, pc: None, linear: None, phys: Phys(phys), bytes: vec![1] };
        for (seq, phys, matters) in
            [(1, 0x20ff, false), (2, 0x2100, true), (3, 0x2110, true), (4, 0x2111, false), (5, 0x3100, false)]
        {
            memory.store(Seq(seq), store(phys));
            happened.stored();
            assert_eq!(since(&happened, &memory, at(seq - 1, seq - 1)), matters, "{phys:#x}");
            assert!(!since(&happened, &memory, at(seq, seq)));
        }
        happened.known_better(Phys(0x2110), 1);
        assert!(since(&happened, &memory, at(5, 5)) && !since(&happened, &memory, at(6, 5)));
        happened.known_better(Phys(0x2111), 4);
        assert!(!since(&happened, &memory, at(6, 5)));
        assert_eq!(happened.count().load(Ordering::Relaxed), 7);
    }

    #[test]
    fn an_execution_of_another_epoch_is_none() {
        let mut executions = Executions::default();
        let recorded = Recorded { epoch: Epoch(2), count: 7, seq: Seq(9) };
        executions.note(SlotId(5), recorded);
        assert_eq!(executions.last(SlotId(5), Epoch(2)), Some(recorded));
        assert_eq!((executions.last(SlotId(5), Epoch(3)), executions.last(SlotId(4), Epoch(2))), (None, None));
        assert_eq!(executions.last(SlotId(99), Epoch(2)), None);
    }
}
