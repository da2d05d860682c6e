//! The reliance ledger as people and programs read it: summed by writing function, event and place.

use super::Report;
use icsan_model::arch::sync_event::SyncEventSet;
use icsan_model::detector::ledger::Ledger;
use icsan_model::fetch::instruction_cache::{Invalidated, Maintained};
use serde::Serialize;
use std::collections::BTreeMap;

/// Rows of the text table; the JSON report has all.
const SHOWN: usize = 25;

/// Executions of changed code that were safe for one reason.
#[derive(Clone, PartialEq, Eq, Serialize, Debug)]
pub struct ReliedOn {
    /// The function that made the last change; `None`: nobody was seen to make it.
    pub writer: Option<String>,
    /// The first serializing event of the executing vCPU after the change.
    pub event: &'static str,
    /// The function that it happened in, or its address.
    pub place: String,
    /// What it belongs to, where that is known: the entry that an IRET returns from, or the function that wrote CR3 on
    /// its own behalf.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// All events without which the old code might still have been held.
    pub events: Vec<&'static str>,
    /// The maintenance of caches by which the change is found, where it takes any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub maintained: Vec<&'static str>,
    /// Do these executions hang on one kind of event alone?
    pub alone: bool,
    /// How often: one for each site, vCPU and change.
    pub executions: u64,
    /// Distinct instructions. Counted by row of the ledger: one that several instructions wrote to is counted for each.
    pub sites: usize,
}

type Key = (Option<String>, &'static str, String, Option<String>, SyncEventSet, Option<Maintained>);

impl ReliedOn {
    /// Where it comes from, as far as is known: what follows the event's name in a sentence.
    fn whence(&self) -> String {
        let place = self.origin.as_ref().map_or_else(|| format!("in {}", self.place), |origin| format!("of {origin}"));
        if self.maintained.is_empty() { place } else { format!("{place}, after {}", self.maintained.join(" and ")) }
    }
}

/// The steps by name.
fn steps(maintained: Maintained) -> Vec<&'static str> {
    let invalidated = match maintained.invalidated {
        Invalidated::Line => "invalidate",
        Invalidated::All => "invalidate-all",
        Invalidated::Own => "invalidate-own",
    };
    maintained.cleaned.then_some("clean").into_iter().chain([invalidated]).collect()
}

/// The ledgers of all boots, the most frequent first.
#[must_use]
pub fn rows(report: &Report<'_>, ledgers: &[(usize, Ledger)]) -> Vec<ReliedOn> {
    let mut sums: BTreeMap<Key, (u64, usize)> = BTreeMap::new();
    for (boot, (reliance, tally)) in
        ledgers.iter().flat_map(|(boot, ledger)| ledger.rows().map(move |row| (*boot, row)))
    {
        let names = report.config.symbols.names_of(boot);
        let function = |address: u64| {
            names.resolve(address).map_or_else(|| format!("{address:#x}"), |resolved| resolved.name.to_owned())
        };
        let key = (
            reliance.writer.map(|pc| function(pc.0)),
            report.arch.event_name(reliance.by.event),
            function(reliance.by.pc.0),
            reliance.by.origin.map(|origin| super::origin_name(names, origin)),
            reliance.events,
            reliance.maintained,
        );
        let sum = sums.entry(key).or_default();
        sum.0 += tally.executions;
        sum.1 += tally.sites();
    }
    let mut rows: Vec<ReliedOn> = sums
        .into_iter()
        .map(|((writer, event, place, origin, events, maintained), (executions, sites))| {
            let events: Vec<&'static str> = events.iter().map(|event| report.arch.event_name(event)).collect();
            let maintained = maintained.map(steps).unwrap_or_default();
            ReliedOn { writer, event, place, origin, alone: events.len() == 1, events, maintained, executions, sites }
        })
        .collect();
    rows.sort_by(|a, b| {
        b.executions
            .cmp(&a.executions)
            .then_with(|| (&a.writer, a.event, &a.place, &a.origin).cmp(&(&b.writer, b.event, &b.place, &b.origin)))
    });
    rows
}

/// The table for people.
#[must_use]
pub fn text(report: &Report<'_>, ledgers: &[(usize, Ledger)]) -> String {
    let rows = rows(report, ledgers);
    if rows.is_empty() {
        return "icsan: reliance: no vCPU ran code again after it had changed\n".to_owned();
    }
    // People read it by writer, event and origin, or place; which other events would have to go, too, only as far as it
    // is none.
    let mut sums: BTreeMap<(Option<&str>, &str, String), (u64, u64)> = BTreeMap::new();
    for row in &rows {
        let sum = sums.entry((row.writer.as_deref(), row.event, row.whence())).or_default();
        sum.0 += row.executions;
        sum.1 += if row.alone { row.executions } else { 0 };
    }
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_by(|(a, x), (b, y)| y.0.cmp(&x.0).then_with(|| a.cmp(b)));
    let mut text = String::from(
        "icsan: reliance: what made it safe to run changed code again\n\
         icsan:   written by               executions  on that event alone  first serialized by\n",
    );
    for ((writer, event, place), (executions, alone)) in sums.iter().take(SHOWN) {
        let writer = writer.unwrap_or("(writer unknown)");
        text.push_str(&format!("icsan:   {writer:<24} {executions:>10} {alone:>20}  {event} {place}\n"));
    }
    if sums.len() > SHOWN {
        let rest: u64 = sums[SHOWN..].iter().map(|(_, (executions, _))| executions).sum();
        text.push_str(&format!(
            "icsan:   … and {} more rows with {rest} executions: they are in the summary of report=\n",
            sums.len() - SHOWN
        ));
    }
    text
}
