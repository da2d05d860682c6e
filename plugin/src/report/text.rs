//! The report for people: hazards in the two-sided form of KCSAN's reports, and the summary.

use super::evidence::{Evidence, Origin};
use super::findings::{Findings, Hazard};
use super::words::{SHOWN, name, whereabouts, writes};
use super::{Counts, MemoryCounts, Report};
use crate::arch::known_finding::KnownFinding;
use crate::injection::Injections;
use crate::qemu::hooks::HookCounts;
use crate::repair::RepairCounts;
use crate::stores::store_check::CheckCounts;
use icsan_model::arch::architecture::Architecture;
use icsan_model::arch::profile::Text;
use icsan_model::verdict::kind::Kind;
use icsan_symbols::Names;
use std::fmt::Write;

/// Further sites of a group that are named in the text.
const SITES_SHOWN: usize = 4;

const BAR: &str = "==================================================================";

/// The rule that a hazard of this kind breaks, with the section that states it.
#[must_use]
pub fn rule(kind: Kind, arch: &Architecture) -> String {
    let rule = icsan_model::arch::rule::rule(kind);
    match arch.source(kind) {
        Some(source) => format!("{}: {}", source.section, rule.text),
        None => rule.text.to_owned(),
    }
}

/// What the reader must know of a verdict that was made without the store side.
#[must_use]
pub fn note(report: &Report<'_>, hazard: &Hazard) -> Option<&'static str> {
    if hazard.evidence.writes.is_some() {
        return None;
    }
    let unplaced = report.config.writers;
    match hazard.kind {
        Kind::Unserialized if unplaced => Some(
            "it is not known where this code is in physical memory, so stores to it are not seen; if this vCPU itself wrote the bytes through this address and branched since, it is legal",
        ),
        Kind::Unserialized => Some(
            "light mode (writers=off): stores are not watched; if this vCPU itself wrote the bytes through this address and branched since, it is legal, and only writers=on can tell",
        ),
        Kind::Unsynchronized if unplaced => Some(
            "it is not known where this code is in physical memory, so stores to it and maintenance are not seen: other steps may have been left out, too",
        ),
        Kind::Unsynchronized => Some(
            "light mode (writers=off): stores and maintenance are not watched: other steps may have been left out, too, and only writers=on can tell",
        ),
        _ => None,
    }
}

/// A hazard.
#[must_use]
pub fn hazard(report: &Report<'_>, hazard: &Hazard) -> String {
    let evidence = &hazard.evidence;
    let symbols = report.config.symbols.names_of(evidence.boot);
    let (site, writer) = sides(symbols, evidence);
    let name = |address: u64| name(symbols, address);
    let pc = evidence.linear.0;
    let mut text = String::new();
    // Writing to a String cannot fail.
    if let Some(unsynced) = &evidence.unsynced {
        let _ =
            writeln!(text, "{BAR}\nBUG: ICSAN: {} in {}", hazard.kind.name(), unsynced.title(evidence.vcpu, symbols));
        unsynced.text(&mut text, report, evidence, symbols);
        serialized_last(&mut text, report, evidence, symbols);
        let _ = writeln!(text, "rule: {}\n{BAR}", rule(hazard.kind, report.arch));
        return text;
    }
    let _ = writeln!(text, "{BAR}\nBUG: ICSAN: {} in {site} / {writer}", hazard.kind.name());
    let physical = evidence.physical.map_or_else(|| "phys unknown".to_owned(), |physical| format!("phys {physical}"));
    let location = symbols.resolve(pc).map(|resolved| format!(" in {resolved}")).unwrap_or_default();
    let _ = writeln!(
        text,
        "vCPU {} executed {} bytes at {pc:#x} ({physical}){location}:",
        evidence.vcpu,
        evidence.memory.len()
    );
    candidates(&mut text, report, evidence, symbols);
    whereabouts(&mut text, report, &evidence.context, &evidence.chain, &name);
    writes(&mut text, report, evidence, &name);
    serialized_last(&mut text, report, evidence, symbols);
    let _ = writeln!(text, "rule: {}", rule(hazard.kind, report.arch));
    if let Some(note) = note(report, hazard) {
        let _ = writeln!(text, "note: {note}");
    }
    let _ = writeln!(text, "{BAR}");
    text
}

fn serialized_last(text: &mut String, report: &Report<'_>, evidence: &Evidence, symbols: Names<'_>) {
    let _ = match evidence.last_sync {
        Some(sync) => writeln!(
            text,
            "vCPU {} last serialized at seq {}: {}{}{}; not since",
            evidence.vcpu,
            sync.seq,
            sync.event.map_or("reset", |event| report.arch.event_name(event)),
            evidence
                .last_origin
                .map(|origin| format!(" of {}", super::origin_name(symbols, origin)))
                .unwrap_or_default(),
            sync.pc.map(|pc| format!(" in {}", name(symbols, pc.0))).unwrap_or_default()
        ),
        None => writeln!(text, "vCPU {} has not serialized since it started", evidence.vcpu),
    };
}

fn candidates(text: &mut String, report: &Report<'_>, evidence: &Evidence, symbols: Names<'_>) {
    let width = evidence.candidates.iter().take(SHOWN).map(|shown| shown.bytes.len() * 3).max().unwrap_or(0);
    for shown in evidence.candidates.iter().take(SHOWN) {
        let executed = evidence.injected.as_ref() == Some(&shown.bytes);
        let (label, origin) = match &shown.origin {
            Origin::Memory => ("in memory  ", String::new()),
            Origin::Earlier => ("may execute", "executed earlier in this epoch".to_owned()),
            Origin::Mix => ("may execute", "chunks of both, fetched apart".to_owned()),
            Origin::Versions { before, kind, exempt, .. } => {
                let before = match before {
                    Some(seq) => format!("version before seq {seq}"),
                    None if evidence.moved => "from before the page moved".to_owned(),
                    None => "an older version".to_owned(),
                };
                let exempt = if *exempt { ", exempt" } else { "" };
                ("may execute", format!("{before} ({kind}{exempt})"))
            }
        };
        let label = if executed { "did execute" } else { label };
        let bytes = shown.bytes.iter().map(|byte| format!("{byte:02x} ")).collect::<String>();
        let line = format!(
            "  {label} {bytes:<width$}  {:<40} {origin}",
            report.platform.text(&shown.bytes, evidence.linear.0, symbols)
        );
        let _ = writeln!(text, "{}", line.trim_end());
    }
    if !evidence.all_candidates {
        let _ = writeln!(
            text,
            "  … and perhaps others: not all mixes of what {} stores left were looked at",
            evidence.writes.as_ref().map_or(0, Vec::len)
        );
    }
    if let Some(more) = evidence.candidates.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        let _ = writeln!(text, "  … and {more} more: they are in report=");
    }
}

/// One line for QEMU's own staleness: it is not the guest's fault and must not look like it.
#[must_use]
pub fn emulator(report: &Report<'_>, hazard: &Hazard) -> String {
    let pc = hazard.evidence.linear.0;
    let names = report.config.symbols.names_of(hazard.evidence.boot);
    let name = names.resolve(pc).map(|resolved| format!(" in {resolved}")).unwrap_or_default();
    format!(
        "icsan: emulator: vCPU {} runs a block at {pc:#x}{name} although memory has not held its bytes for a while; QEMU's fault, not the guest's (docs/emulator.md)\n",
        hazard.evidence.vcpu
    )
}

/// One line for a finding that is understood.
#[must_use]
pub fn known(report: &Report<'_>, hazard: &Hazard, known: &KnownFinding) -> String {
    let (site, writer) = sides(report.config.symbols.names_of(hazard.evidence.boot), &hazard.evidence);
    format!("icsan: known: {} in {site} / {writer}: {} ({})\n", hazard.kind.name(), known.what, known.page)
}

/// Executing and writing site.
fn sides(symbols: Names<'_>, evidence: &Evidence) -> (String, String) {
    let writer = evidence.writer().map_or_else(|| "writer unknown".to_owned(), |pc| name(symbols, pc.0));
    (name(symbols, evidence.linear.0), writer)
}

/// The groups with more sites than the one that was told of.
fn groups(text: &mut String, report: &Report<'_>, findings: &Findings) {
    let mut left_out = (0, 0);
    let floods = findings.groups().filter(|(_, _, hazards)| hazards.len() > 1);
    for (number, (_, cause, hazards)) in floods.enumerate() {
        let others = hazards.len() - 1;
        if number >= SHOWN {
            left_out.0 += 1;
            left_out.1 += others;
            continue;
        }
        let Some(first) = hazards.first() else { continue };
        let symbols = report.config.symbols.names_of(cause.boot);
        let sites: Vec<String> =
            hazards.iter().skip(1).take(SITES_SHOWN).map(|hazard| name(symbols, hazard.evidence.linear.0)).collect();
        let rest = others
            .checked_sub(SITES_SHOWN)
            .filter(|rest| *rest > 0)
            .map(|rest| format!(", and {rest} more"))
            .unwrap_or_default();
        if let Some(unsynced) = &first.evidence.unsynced {
            let _ = writeln!(text, "icsan: {}", unsynced.more(symbols, &hazards, &sites, &rest));
            continue;
        }
        let by = cause
            .stores
            .map_or_else(|| "writer unknown".to_owned(), |stores| format!("written by {}", name(symbols, stores.0)));
        let behalf =
            cause.behalf.map(|function| format!(" on behalf of {}", name(symbols, function.0))).unwrap_or_default();
        let count: u64 = hazards.iter().map(|hazard| hazard.count).sum();
        let _ = writeln!(
            text,
            "icsan: {} in {}, {by}{behalf}: {others} more sites {} in its page, {count} executions in all: {}{rest}",
            cause.kind.name(),
            name(symbols, first.evidence.linear.0),
            if cause.stores.is_some() { "of the same cause" } else { "like it" },
            sites.join(", ")
        );
    }
    if left_out.0 > 0 {
        let _ =
            writeln!(text, "icsan: and {} more causes with {} more sites: they are in report=", left_out.0, left_out.1);
    }
}

/// The events that were met, by name.
#[must_use]
pub fn events_met(report: &Report<'_>, counts: &Counts) -> Vec<(&'static str, u64)> {
    report
        .arch
        .events
        .iter()
        .zip(&counts.serializing)
        .filter(|(_, count)| **count != 0)
        .map(|(row, count)| (row.name, *count))
        .collect()
}

/// The summary.
#[must_use]
pub fn summary(
    report: &Report<'_>,
    findings: &Findings,
    injections: Option<&Injections>,
    counts: &Counts,
    fault: Option<&str>,
) -> String {
    let mut text = String::new();
    let profile = &report.config.profile;
    let _ = writeln!(
        text,
        "icsan: profile {}{}{}, {} vCPUs, plugin API {} (QEMU {}){}",
        profile.name,
        list(" with ", &report.config.with),
        list(" without ", &report.config.without),
        report.machine.vcpus,
        report.machine.generation as i32,
        report.machine.generation.qemu(),
        if report.config.writers { "" } else { ", light mode (writers=off)" },
    );
    let kinds = findings.by_kind();
    let guest: Vec<String> = kinds
        .iter()
        .filter(|(kind, _)| **kind != Kind::Emulator.name())
        .map(|(kind, count)| format!("{kind} {count}"))
        .collect();
    let guest = if guest.is_empty() { "none".to_owned() } else { guest.join(", ") };
    let emulator = kinds.get(Kind::Emulator.name()).copied().unwrap_or(0);
    let _ = writeln!(
        text,
        "icsan: hazards (distinct sites): {guest}; suppressed {}; known {}; exempt executions {}; stale blocks of QEMU's own {emulator}",
        findings.suppressed(),
        findings.known(),
        counts.exempt
    );
    groups(&mut text, report, findings);
    let events: Vec<String> =
        events_met(report, counts).iter().map(|(name, count)| format!("{name} {count}")).collect();
    let _ =
        writeln!(text, "icsan: {} blocks translated; {} epochs: {}", counts.blocks, counts.epochs, events.join(", "));
    if let Some(refused) = counts.refused {
        let _ = writeln!(
            text,
            "icsan: {refused} more events did not count for where they were{}",
            match profile.text {
                Text::All => "",
                Text::Kernel => "; programs were not judged: the profile is for the kernel's own text",
            }
        );
    }
    if let Some(stores) = counts.stores {
        let _ = writeln!(
            text,
            "icsan: {} stores to pages with code; {} changes of code that nobody was seen to make",
            stores.stores, stores.unseen
        );
        let _ = match counts.commits {
            Some((commits, committed)) if commits > 0 => {
                writeln!(
                    text,
                    "icsan: {commits} commits of {committed} stores, by the return of a patching protocol or of \
                     membarrier"
                )
            }
            _ => writeln!(text, "icsan: no commits were seen: without one nothing is `stale`"),
        };
    }
    text.push_str(&super::unsynced::table(report, counts));
    text.push_str(&super::deferrals::table(report, counts));
    if counts.restored > 0 {
        let _ =
            writeln!(text, "icsan: {} times a state was restored: no vCPU held anything from before", counts.restored);
    }
    if let Some(injections) = injections {
        text.push_str(&super::injections::summary(report, injections));
    }
    if let Some(RepairCounts { suspect, repaired, gave_up }) = counts.emulator {
        let _ = writeln!(
            text,
            "icsan: emulator=repair: {suspect} blocks of QEMU's may have been older than memory; {repaired} were translated again, {gave_up} executed as they were, and not judged"
        );
    }
    if let Some(HookCounts { dropped_again, without_notes }) = counts.hooks {
        let _ = writeln!(
            text,
            "icsan: hooks: after {dropped_again} stores QEMU's blocks were dropped once more, since one was \
             being decoded meanwhile{}",
            if without_notes > 0 {
                format!("; {without_notes} instructions were translated without a note of what they access")
            } else {
                String::new()
            }
        );
    }
    if let Some(CheckCounts { code, data, untrue, unsettled }) = counts.checked {
        let _ = writeln!(
            text,
            "icsan: check=stores: memory was compared after {code} stores to pages with code and {data} other ones: {untrue} differ; {unsettled} other ones may have been overwritten by another vCPU"
        );
    }
    if let Some(ledger) = &counts.ledger {
        text.push_str(&super::ledger::text(report, ledger));
    }
    let offsets = report.config.symbols.offsets();
    if offsets.len() > 1 {
        let known = offsets.iter().filter(|offset| offset.is_some()).count();
        let _ = writeln!(
            text,
            "icsan: {} boots, one after the other; where the kernel was is known of {known}",
            offsets.len()
        );
    }
    let MemoryCounts { held, most, tables } = &counts.memory;
    let tables: Vec<String> = tables.iter().map(|(table, count)| format!("{count} {table}")).collect();
    let _ = writeln!(
        text,
        "icsan: ICSAN's own memory: {} MiB, {} MiB at most; {}",
        held >> 20,
        most >> 20,
        tables.join(", ")
    );
    if report.config.symbols.kernel_table().is_some() && report.config.symbols.offset().is_none() {
        let _ = writeln!(
            text,
            "icsan: no kernel symbols: the kernel's place was not seen ({}); boot with nokaslr if the guest does something \
             else",
            report.platform.facts().words.kernel_place
        );
    }
    if let Some(vcpu) = counts.panicked {
        let _ = writeln!(text, "icsan: {}", super::panic_text(vcpu));
    }
    if let Some(note) = &counts.nothing_watched {
        let _ = writeln!(text, "icsan: {note}");
    }
    if let Some(fault) = fault {
        let _ = writeln!(text, "icsan: internal error, ICSAN was off from then on: {fault}");
    }
    if !counts.complete {
        let dropped: Vec<String> = counts.dropped_by.iter().map(|(table, count)| format!("{table} {count}")).collect();
        let dropped = if dropped.is_empty() {
            String::new()
        } else {
            format!(" ({} items dropped: {})", counts.dropped, dropped.join(", "))
        };
        let _ = writeln!(
            text,
            "icsan: the report is not complete{dropped}: no hazard here does not mean that there was none"
        );
    }
    text
}

fn list(label: &str, names: &[String]) -> String {
    if names.is_empty() { String::new() } else { format!("{label}{}", names.join("+")) }
}
