//! Counters of what a model was told and what it said.

use crate::arch::sync_event::SyncEventId;
use crate::verdict::hazard::Verdict;
use crate::verdict::kind::Kind;
use std::collections::BTreeMap;

/// What a model has counted so far.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Stats {
    /// Executed instructions.
    pub fetches: u64,
    /// Stores.
    pub stores: u64,
    /// Epochs that were begun, by resets too.
    pub epochs: u64,
    /// Events that the profile counts as serializing, by event.
    pub serializing: BTreeMap<SyncEventId, u64>,
    /// Executions with a hazard, by kind. Every execution counts; a report counts distinct sites.
    pub hazards: BTreeMap<Kind, u64>,
    /// Executions at which an exemption covered a candidate.
    pub exempt: u64,
    /// Executions at which a bound was hit.
    pub incomplete: u64,
}

impl Stats {
    /// Was every execution looked at in full?
    #[must_use]
    pub const fn complete(&self) -> bool {
        self.incomplete == 0
    }

    /// Counts an execution.
    pub(crate) fn fetch(&mut self, verdict: &Verdict) {
        self.fetches += 1;
        self.exempt += u64::from(verdict.exempt > 0);
        self.incomplete += u64::from(!verdict.complete);
        if let Some(hazard) = &verdict.hazard {
            *self.hazards.entry(hazard.kind).or_default() += 1;
        }
    }
}
