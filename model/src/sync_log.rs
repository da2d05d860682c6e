//! The recent serializing events of one vCPU: what emptied its buffers since some moment.

use crate::addr::{Linear, Seq};
use crate::sync_event::{SyncEventId, SyncEventSet};
use crate::sync_origin::SyncOrigin;
use std::collections::VecDeque;

/// How many events are kept with their places. The *set* of events since a moment is exact however many there were; the
/// place of the first one of very many is not.
const KEPT: usize = 256;

/// A serializing event and where it happened.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SyncAt {
    /// Which row of the architecture's table.
    pub event: SyncEventId,
    /// The instruction.
    pub pc: Linear,
    /// What it belongs to, where that is known and its place does not say it.
    pub origin: Option<SyncOrigin>,
}

/// One vCPU's serializing events.
#[derive(Clone, Debug)]
pub struct SyncLog {
    recent: VecDeque<(Seq, SyncAt)>,
    last: Box<[Seq; SyncEventSet::CAPACITY]>,
}

impl Default for SyncLog {
    fn default() -> Self {
        Self { recent: VecDeque::with_capacity(KEPT), last: Box::new([Seq(0); SyncEventSet::CAPACITY]) }
    }
}

impl SyncLog {
    /// The vCPU completed a serializing event.
    pub fn push(&mut self, seq: Seq, at: SyncAt) {
        if self.recent.len() == KEPT {
            self.recent.pop_front();
        }
        self.recent.push_back((seq, at));
        if let Some(last) = self.last.get_mut(usize::from(at.event.0)) {
            *last = seq;
        }
    }

    /// Which events it completed after `seq`.
    #[must_use]
    pub fn since(&self, seq: Seq) -> SyncEventSet {
        (0..).map(SyncEventId).zip(&*self.last).filter(|(_, last)| **last > seq).map(|(event, _)| event).collect()
    }

    /// The first of them that is still kept.
    #[must_use]
    pub fn first_since(&self, seq: Seq) -> Option<SyncAt> {
        let index = self.recent.partition_point(|(at, _)| *at <= seq);
        self.recent.get(index).map(|(_, at)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_set_is_exact_and_the_first_is_the_first() {
        let mut log = SyncLog::default();
        let at = |event, pc| SyncAt { event: SyncEventId(event), pc: Linear(pc), origin: None };
        log.push(Seq(3), at(1, 10));
        log.push(Seq(5), at(2, 20));
        log.push(Seq(6), at(1, 30));
        assert_eq!(log.since(Seq(6)), SyncEventSet::EMPTY);
        assert_eq!(log.first_since(Seq(6)), None);
        assert_eq!(log.since(Seq(5)), SyncEventSet::EMPTY.with(SyncEventId(1)));
        assert_eq!(log.first_since(Seq(3)), Some(at(2, 20)));
        for seq in 7..1000 {
            log.push(Seq(seq), at(3, seq));
        }
        assert_eq!(log.since(Seq(2)).iter().count(), 3, "however many there were");
        assert!(log.recent.len() <= KEPT);
    }
}
