//! The report: JSON Lines for programs, text for people.
//!
//! - [`findings`]: the distinct hazards; [`injections`]: what was executed instead; [`ledger`]: what safe executions relied on; [`json`]: the objects of schema 1; [`text`]: KCSAN's form; [`sink`]: where both go.

pub mod findings;
pub mod injections;
pub mod json;
pub mod ledger;
pub mod sink;
pub mod text;

use crate::config::Config;
use crate::qemu::install::Machine;
use crate::repair::RepairCounts;
use crate::store_check::CheckCounts;
use crate::store_side::{StoreCounts, StoreSide};
use crate::vcpu::VcpuState;
use crate::widen::WidenCounts;
use icsan_model::architecture::Architecture;
use icsan_model::ledger::Ledger;
use serde::Serialize;
use std::collections::BTreeMap;

/// What every part of a report needs to know.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    /// The guest's architecture.
    pub arch: &'static Architecture,
    /// What the user chose.
    pub config: &'a Config,
    /// What QEMU said.
    pub machine: &'a Machine,
}

/// What the plugin holds on the heap, in bytes, and in its tables. QEMU's own memory, the slots among it, is not counted.
#[derive(Clone, Default, Debug, Serialize)]
pub struct MemoryCounts {
    /// Bytes when the report was made.
    pub held: usize,
    /// Bytes at most.
    pub most: usize,
    /// Entries, by table.
    pub tables: BTreeMap<&'static str, usize>,
}

/// The numbers of the summary.
#[derive(Clone, Debug)]
pub struct Counts {
    /// Blocks that QEMU translated. 0: nothing was watched.
    pub blocks: u64,
    /// Epochs of all vCPUs that started one.
    pub epochs: u64,
    /// By event: how often a vCPU met it.
    pub serializing: Vec<u64>,
    /// Differences that an exemption covered.
    pub exempt: u64,
    /// Of the store side; `None` in the light mode.
    pub stores: Option<StoreCounts>,
    /// What safe executions of changed code relied on.
    pub ledger: Option<Ledger>,
    /// Commits, and stores in them; `None` in the light mode.
    pub commits: Option<(u64, u64)>,
    /// How writers waited; `None` without `widen`.
    pub widened: Option<WidenCounts>,
    /// What was done about QEMU's own outdated blocks; `None` without `emulator=repair`.
    pub emulator: Option<RepairCounts>,
    /// How many stores were compared with memory; `None` without `check=stores`.
    pub checked: Option<CheckCounts>,
    /// Why writers may be unknown, if so.
    pub no_writers: Option<&'static str>,
    /// What the plugin itself holds.
    pub memory: MemoryCounts,
    /// What was lost: what did not fit into a table, or could not be looked at.
    pub dropped: u64,
    /// The same by what lost it.
    pub dropped_by: BTreeMap<&'static str, u64>,
    /// Nothing was lost.
    pub complete: bool,
    /// Why nothing was watched, if so.
    pub nothing_watched: Option<String>,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            blocks: 0,
            epochs: 0,
            serializing: Vec::new(),
            exempt: 0,
            stores: None,
            ledger: None,
            commits: None,
            widened: None,
            emulator: None,
            checked: None,
            no_writers: None,
            memory: MemoryCounts::default(),
            dropped: 0,
            dropped_by: BTreeMap::new(),
            complete: true,
            nothing_watched: None,
        }
    }
}

impl Counts {
    /// Adds a vCPU's.
    pub fn add(&mut self, vcpu: &VcpuState) {
        let met: u64 = vcpu.syncs.iter().sum();
        self.epochs += met;
        self.exempt += vcpu.exempt;
        self.drop(&[("candidates", vcpu.incomplete)]);
        self.serializing.resize(self.serializing.len().max(vcpu.syncs.len()), 0);
        for (sum, count) in self.serializing.iter_mut().zip(&vcpu.syncs) {
            *sum += count;
        }
    }

    /// Counts what was lost: what did not fit, by table, and what could not be looked at.
    pub fn drop(&mut self, tables: &[(&'static str, u64)]) {
        for (table, count) in tables.iter().filter(|(_, count)| *count > 0) {
            self.dropped += count;
            *self.dropped_by.entry(table).or_default() += count;
        }
    }

    /// Adds what the store side has.
    pub fn add_stores(&mut self, side: &mut StoreSide) {
        let counts = side.counts();
        self.drop(&[("ledger", side.ledger().dropped())]);
        let (pages, records) = side.past().memory().size();
        self.memory.tables.extend([
            ("pages", pages),
            ("retired pages", counts.retired as usize),
            ("stores", records),
            ("versions", side.past().memory().versions()),
        ]);
        self.stores = Some(counts);
        self.ledger = Some(side.ledger().clone());
        let patching = side.patching_known();
        self.commits = Some(patching.commits());
        self.drop(&[("patches", patching.dropped())]);
        self.no_writers = side.places_known().trouble();
        self.complete &= self.no_writers.is_none();
    }

    /// Says so if `start=` never executed: that is no clean verdict.
    pub fn note_never_started(&mut self, start: &str) {
        self.complete = false;
        self.nothing_watched = Some(format!(
            "start={start} was never executed (or before the kernel's place was known), so nothing was watched: give a function that runs later"
        ));
    }

    /// Says so if nothing was watched: that is no clean verdict.
    pub fn note_nothing_watched(&mut self, kvm: bool) {
        if self.blocks == 0 {
            self.complete = false;
            self.nothing_watched = Some(
                (if kvm {
                    "no block was translated: the guest ran under KVM, where plugins see nothing; use -accel tcg"
                } else {
                    "no block was translated, so nothing was watched: use -accel tcg, and let the guest run"
                })
                .to_owned(),
            );
        }
    }
}
