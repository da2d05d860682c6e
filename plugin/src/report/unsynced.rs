//! The report on a patching protocol that did not make a CPU serialize, and the table of what all commits came to.

use super::deferrals::{self, EndedObject};
use super::evidence::{Evidence, Unsynced};
use super::findings::Hazard;
use super::hex::hex;
use super::objects::{ContextObject, LastSyncObject, chain, context};
use super::words::{asker_name, missing, name, step, whereabouts, writes};
use super::{Counts, Report, origin_name};
use crate::coverage::{Row, Tally};
use crate::patching::{Covering, Missing};
use icsan_model::addr::Vcpu;
use icsan_symbols::Names;
use serde::Serialize;
use std::fmt::Write;

/// The same in JSON.
#[derive(Serialize, Debug)]
#[allow(missing_docs)]
pub struct UnsyncedObject {
    pub function: String,
    pub missing: String,
    pub class: &'static str,
    /// What came by chance.
    pub luck: Option<LastSyncObject>,
    /// How it was serialized at last, if it is exposed and was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<EndedObject>,
    pub patcher: u16,
    pub sleeps: bool,
    pub user_mode: Option<bool>,
    pub held: usize,
    pub changed: usize,
    pub stores: usize,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub chain: Vec<String>,
    pub context: Option<ContextObject>,
}

/// A row of the table in JSON: commits (or steps) of a function, and the vCPUs that were online at them.
#[derive(Serialize, Debug)]
#[allow(missing_docs)]
pub struct CoverageObject {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot: Option<usize>,
    pub function: String,
    pub missing: String,
    pub commits: u64,
    pub synced: u64,
    pub lucky: u64,
    pub exposed: u64,
    /// vCPUs that patched, and that only their own switch back from the mapping that they stored through serialized.
    pub own_switch: u64,
    /// vCPUs that an event of `defer=` serialized before they executed anything that was changed.
    pub deferred: u64,
}

impl Unsynced {
    /// What went wrong, in a few words: function, vCPU and class.
    pub(super) fn title(&self, vcpu: Vcpu, symbols: Names<'_>) -> String {
        format!("{} / vCPU {vcpu}, {}", asker_name(symbols, self.asker), self.class())
    }

    /// The other hazards of the group that this one leads.
    pub(super) fn more(&self, symbols: Names<'_>, hazards: &[&Hazard], sites: &[String], rest: &str) -> String {
        let (function, class, missing) = (asker_name(symbols, self.asker), self.class(), missing(self.missing));
        let count: u64 = hazards.iter().map(|hazard| hazard.count).sum();
        let others = hazards.len() - 1;
        format!(
            "unsynced in {function}, {class} {missing}: {others} more patches, {count} times in all: {}{rest}",
            sites.join(", ")
        )
    }

    /// `lucky` or `exposed`.
    #[must_use]
    pub fn class(&self) -> &'static str {
        if self.luck.is_some() { "lucky" } else { "exposed" }
    }

    /// In JSON; `short`: without what the first of the group has said.
    pub(super) fn object(&self, report: &Report<'_>, short: bool, symbols: Names<'_>) -> UnsyncedObject {
        let symbol = |address: u64| symbols.resolve(address).map(|resolved| resolved.to_string());
        let luck = self.luck.map(|by| LastSyncObject {
            event: report.arch.event_name(by.event),
            pc: Some(hex(by.pc.0)),
            symbol: symbol(by.pc.0),
            origin: by.origin.map(|origin| origin_name(symbols, origin)),
            seq: None,
        });
        UnsyncedObject {
            function: asker_name(symbols, self.asker),
            missing: missing(self.missing),
            class: self.class(),
            luck,
            ended: self.ended.as_ref().map(|ended| deferrals::ended(report, symbols, ended)),
            patcher: self.patcher.0,
            sleeps: self.sleeps,
            user_mode: self.user_mode,
            held: self.held,
            changed: self.changed,
            stores: self.stores,
            chain: if short { Vec::new() } else { chain(&self.chain, &symbol) },
            context: context(&self.context),
        }
    }

    /// The report for people, between its bars, but for what every hazard has.
    pub(super) fn text(&self, text: &mut String, report: &Report<'_>, evidence: &Evidence, symbols: Names<'_>) {
        let name = |address: u64| name(symbols, address);
        let (function, vcpu) = (asker_name(symbols, self.asker), evidence.vcpu);
        let vcpu_is =
            if vcpu == self.patcher { format!("vCPU {vcpu}, which patches,") } else { format!("vCPU {vcpu}") };
        let went_on = match self.missing {
            Missing::AtTheEnd => "returned".to_owned(),
            Missing::Between(_, after) => format!("went on to {}", step(after)),
        };
        let stores =
            if self.stores == 1 { "its store".to_owned() } else { format!("the last of its {} stores", self.stores) };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{function} {went_on} on vCPU {}, and nothing that it does made {vcpu_is} serialize after {stores}:",
            self.goes_on
        );
        let _ = match self.luck {
            Some(by) => {
                let origin =
                    by.origin.map(|origin| format!(" of {}", origin_name(symbols, origin))).unwrap_or_default();
                writeln!(text, "  {}{origin} in {} did, by chance", report.arch.event_name(by.event), name(by.pc.0))
            }
            None => match &self.ended {
                Some(ended) => {
                    writeln!(text, "  nothing else did either; {}", deferrals::words(report, symbols, ended))
                }
                None => writeln!(text, "  nothing else did either, so far"),
            },
        };
        let held = match self.held {
            0 => "holds no code of before".to_owned(),
            held => format!("holds {held} of {} changed pieces of code as they were before", self.changed),
        };
        let state = match (self.sleeps, self.user_mode) {
            (true, _) => "sleeps",
            (false, Some(true)) => "runs in user mode",
            (false, Some(false)) => "runs in the kernel",
            (false, None) => "runs",
        };
        let _ = writeln!(text, "  it {state}, and {held}");
        let protocol = &report.platform.facts().linux.kernel.protocol;
        let by = match self.covering {
            Covering::TextPoke => protocol
                .text_poke_syncs
                .iter()
                .map(|sync| format!("{} ({})", sync.function, sync.events.join(", or ")))
                .collect(),
            Covering::Membarrier { .. } => protocol.membarrier_syncs.iter().map(|sync| sync.what.to_owned()).collect(),
            Covering::By(events) => {
                events.iter().map(|event| report.arch.event_name(event).to_owned()).collect::<Vec<_>>()
            }
        };
        let _ = writeln!(text, "missing {}: {}", missing(self.missing), by.join(", or "));
        let _ = writeln!(text, "patches {} (the first address)", name(evidence.linear.0));
        whereabouts(text, report, &self.context, &self.chain, &name);
        writes(text, report, evidence, &name);
    }
}

/// The line that follows a report on an exposed vCPU.
pub(super) fn follows(report: &Report<'_>, hazard: &Hazard) -> Option<String> {
    let unsynced = hazard.evidence.unsynced.as_ref()?;
    let symbols = report.config.symbols.names_of(hazard.evidence.boot);
    let words = deferrals::words(report, symbols, unsynced.ended.as_ref()?);
    Some(format!("icsan: {}: {words}\n", unsynced.title(hazard.evidence.vcpu, symbols)))
}

fn row_name(report: &Report<'_>, row: &Row) -> String {
    asker_name(report.config.symbols.names_of(row.boot), row.asker)
}

/// The rows of the table.
#[must_use]
pub(super) fn rows(report: &Report<'_>, counts: &Counts) -> Option<Vec<CoverageObject>> {
    let object = |(row, tally): (&Row, &Tally)| CoverageObject {
        boot: (report.config.symbols.boot() > 1).then_some(row.boot),
        function: row_name(report, row),
        missing: missing(row.missing),
        commits: tally.commits,
        synced: tally.synced,
        lucky: tally.lucky,
        exposed: tally.exposed,
        own_switch: tally.own_switch,
        deferred: tally.deferred,
    };
    counts.coverage.as_ref().map(|table| table.rows().map(object).collect())
}

/// The table for people; nothing if no protocol was asked.
#[must_use]
pub(super) fn table(report: &Report<'_>, counts: &Counts) -> String {
    let Some(table) = counts.coverage.as_ref().filter(|table| table.rows().next().is_some()) else {
        return String::new();
    };
    let mut text = String::from("icsan: coverage: what made the online CPUs serialize after the stores of a patch\n");
    let mut own = 0;
    let defers = !report.config.defer.is_empty();
    let column = |text: &dyn std::fmt::Display| if defers { format!(" {text:>8}") } else { String::new() };
    let _ = writeln!(
        text,
        "icsan: {:>8} {:>8} {:>8} {:>8}{}  protocol function",
        "commits",
        "synced",
        "lucky",
        "exposed",
        column(&"deferred")
    );
    for (row, tally) in table.rows() {
        let place = match row.missing {
            Missing::AtTheEnd => String::new(),
            between => format!(", {}", missing(between)),
        };
        let place = if report.config.symbols.boot() > 1 { format!("{place}, boot {}", row.boot) } else { place };
        let Tally { commits, synced, lucky, exposed, own_switch, deferred } = tally;
        let deferred = column(deferred);
        let _ = writeln!(
            text,
            "icsan: {commits:>8} {synced:>8} {lucky:>8} {exposed:>8}{deferred}  {}{place}",
            row_name(report, row)
        );
        own += own_switch;
    }
    if own > 0 {
        let _ = writeln!(
            text,
            "icsan: note: {own} times only its own switch back from the mapping that it had stored through serialized the CPU that patched"
        );
    }
    text
}
