//! The reliance ledger: which serializing events made it safe to execute code that had changed.
//!
//! A vCPU that executed a site, and executes it again after it changed, is safe because something emptied its buffers
//! in between. Everything that did so since it last executed the site counts: without *all* of these events the old
//! instruction might still be held. So a row whose set has one member hangs on that event alone, and a profile without
//! it reports a hazard there, unless an exemption covers the difference (a step of an INT3 patch that is still
//! running).

use crate::addr::{Linear, Phys};
use crate::arch::sync_event::SyncEventSet;
use crate::detector::sync_log::SyncAt;
use crate::fetch::instruction_cache::Maintained;
use std::collections::{BTreeMap, HashSet};

/// Distinct rows that are kept. More are counted as dropped.
const MAX_ROWS: usize = 20_000;

/// Distinct sites that are counted in one row; the row says if there were more.
const MAX_SITES: usize = 100_000;

/// What one row is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Reliance {
    /// The instruction that made the last change; `None`: nobody was seen to make it.
    pub writer: Option<Linear>,
    /// The first serializing event after the change (or, if there was none, the last one before it).
    pub by: SyncAt,
    /// All events that emptied the vCPU's buffers since it last executed the site: a bit for each row of the
    /// architecture's table.
    pub events: SyncEventSet,
    /// The maintenance by which the vCPU's fetches find the change, where its cache does not see stores.
    pub maintained: Option<Maintained>,
}

/// How often.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Tally {
    /// Executions: one for each site, vCPU and change.
    pub executions: u64,
    sites: HashSet<Phys>,
}

impl Tally {
    /// Distinct sites, by physical address of the instruction.
    #[must_use]
    pub fn sites(&self) -> usize {
        self.sites.len()
    }
}

/// The ledger.
#[derive(Clone, Default, Debug)]
pub struct Ledger {
    rows: BTreeMap<Reliance, Tally>,
    dropped: u64,
}

impl Ledger {
    /// A vCPU safely executed the instruction at `site` for the first time since it changed.
    pub fn add(&mut self, site: Phys, reliance: Reliance) {
        if self.rows.len() >= MAX_ROWS && !self.rows.contains_key(&reliance) {
            self.dropped += 1;
            return;
        }
        let tally = self.rows.entry(reliance).or_default();
        tally.executions += 1;
        if tally.sites.len() < MAX_SITES {
            tally.sites.insert(site);
        }
    }

    /// The rows, in a stable order.
    pub fn rows(&self) -> impl Iterator<Item = (&Reliance, &Tally)> {
        self.rows.iter()
    }

    /// Executions that found no room.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}
