//! The report: JSON Lines for programs, text for people.
//!
//! - [`evidence`]: what was seen of a hazard; [`findings`]: the distinct hazards; [`groups`]: those of one cause;
//!   [`exit_code`]: what they make of QEMU's exit code; [`injections`]: what was executed instead; [`ledger`]: what
//!   safe executions relied on; [`json`]: the objects of schema 1; [`text`]: KCSAN's form; [`unsynced`]: patching
//!   protocols and the CPUs that they did not make serialize; [`deferrals`]: what did at last; [`sink`]: where both go.

pub mod deferrals;
pub mod evidence;
pub mod exit_code;
pub mod findings;
pub mod groups;
mod hex;
pub mod injections;
pub mod json;
mod known;
pub mod ledger;
pub mod objects;
pub mod sink;
pub mod text;
pub mod unsynced;
mod words;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod golden;

use crate::arch::platform::Platform;
use crate::config::Config;
use crate::coverage::CoverageTable;
use crate::exposure::Deferrals;
use crate::qemu::accelerator::Accelerator;
use crate::qemu::hooks::{HookCounts, Hooked};
use crate::qemu::install::Machine;
use crate::repair::RepairCounts;
use crate::stores::code_store::StoreCounts;
use crate::stores::store_check::CheckCounts;
use crate::stores::store_side::StoreSide;
use crate::vcpu::VcpuState;
use icsan_model::addr::Vcpu;
use icsan_model::arch::architecture::Architecture;
use icsan_model::detector::ledger::Ledger;
use icsan_model::detector::sync_origin::SyncOrigin;
use icsan_symbols::Names;
use serde::Serialize;
use std::collections::BTreeMap;

/// What every part of a report needs to know.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    /// The guest's architecture, as far as it must be asked.
    pub platform: &'static dyn Platform,
    /// The same as data.
    pub arch: &'static Architecture,
    /// What the user chose.
    pub config: &'a Config,
    /// What QEMU said.
    pub machine: &'a Machine,
    /// Are QEMU's own functions hooked?
    pub hooks: Hooked,
}

/// What an event belongs to, for people and programs: a function, or how the kernel was entered.
#[must_use]
pub fn origin_name(names: Names<'_>, origin: SyncOrigin) -> String {
    match origin {
        SyncOrigin::Function(at) => {
            names.resolve(at.0).map_or_else(|| at.to_string(), |resolved| resolved.name.to_owned())
        }
        SyncOrigin::SystemCall => "a system call or a new task".to_owned(),
    }
}

/// What the plugin holds on the heap, in bytes, and in its tables. QEMU's own memory, the slots among it, is not
/// counted.
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
    pub ledger: Option<Vec<(usize, Ledger)>>,
    /// Commits, and stores in them; `None` in the light mode.
    pub commits: Option<(u64, u64)>,
    /// What the commits of patching protocols came to; `None` in the light mode.
    pub coverage: Option<CoverageTable>,
    /// What ended the exposures; `None` in the light mode.
    pub deferrals: Option<Deferrals>,
    /// Events that did not count for where they were; `None`: nobody asked for that.
    pub refused: Option<u64>,
    /// How many states were restored.
    pub restored: u64,
    /// What was done about QEMU's own outdated blocks; `None` without `emulator=repair`.
    pub emulator: Option<RepairCounts>,
    /// What the hooks did; `None` where there are none.
    pub hooks: Option<HookCounts>,
    /// How many stores were compared with memory; `None` without `check=stores`.
    pub checked: Option<CheckCounts>,
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
    /// The vCPU on which the guest's kernel panicked, if it did.
    pub panicked: Option<Vcpu>,
}

/// What the user is told of a guest whose kernel panicked. That is no hazard, and the report may well be complete; but
/// what the guest did not come to was not tested.
#[must_use]
pub fn panic_text(vcpu: Vcpu) -> String {
    format!("the guest's kernel panicked, on vCPU {vcpu}: what it would have run after that is not tested")
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
            coverage: None,
            deferrals: None,
            refused: None,
            restored: 0,
            emulator: None,
            hooks: None,
            checked: None,
            memory: MemoryCounts::default(),
            dropped: 0,
            dropped_by: BTreeMap::new(),
            complete: true,
            nothing_watched: None,
            panicked: None,
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
    pub fn add_stores(&mut self, side: &mut StoreSide, boot: usize) {
        let counts = side.counts();
        let ledgers: Vec<_> = side.ledgers(boot).map(|(boot, ledger)| (boot, ledger.clone())).collect();
        self.drop(&[("ledger", ledgers.iter().map(|(_, ledger)| ledger.dropped()).sum())]);
        let (pages, records) = side.past().memory().size();
        self.memory.tables.extend([
            ("pages", pages),
            ("retired pages", counts.retired as usize),
            ("stores", records),
            ("versions", side.past().memory().versions()),
        ]);
        self.stores = Some(counts);
        self.ledger = Some(ledgers);
        let patching = side.patching_known();
        self.commits = Some(patching.commits());
        self.drop(&[("patches", patching.dropped())]);
    }

    /// Says so if `start=` never executed: that is no clean verdict.
    pub fn note_never_started(&mut self, start: &str) {
        self.complete = false;
        self.nothing_watched = Some(format!(
            "start={start} was never executed (or before the kernel's place was known), so nothing was watched: give a function that runs later"
        ));
    }

    /// Says so if nothing was watched: that is no clean verdict.
    pub fn note_nothing_watched(&mut self, accelerator: Accelerator) {
        if self.blocks == 0 {
            self.complete = false;
            let why = accelerator.blind().unwrap_or(match accelerator {
                Accelerator::Tcg => "the guest did not run",
                _ => "use -accel tcg, and let the guest run",
            });
            self.nothing_watched = Some(format!("no block was translated, so nothing was watched: {why}"));
        }
    }
}
