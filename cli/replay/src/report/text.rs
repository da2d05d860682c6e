//! The report for people: hazards in the two-sided form of the plugin's, without symbols.

use super::{disassemble, hex, rule, serializing};
use crate::check::{Difference, What};
use crate::session::{End, Outcome};
use crate::sites::Site;
use icsan_model::verdict::candidates::Candidate;
use icsan_model::verdict::hazard::Write as Store;
use icsan_recording::Record;
use std::fmt::Write;

const BAR: &str = "==================================================================";

/// Everything.
pub(super) fn text(outcome: &Outcome, limit: usize) -> String {
    let mut text = String::new();
    for site in outcome.sites.list().iter().take(limit) {
        hazard(&mut text, outcome, site);
    }
    more(&mut text, "hazards", outcome.sites.list().len() as u64, limit.min(outcome.sites.list().len()));
    for difference in &outcome.differences.list {
        self::difference(&mut text, difference);
    }
    more(&mut text, "differences", outcome.differences.total, outcome.differences.list.len());
    for (record, refused) in &outcome.refused.list {
        let _ =
            writeln!(text, "icsan-replay: record {record}, seq {}: the model refuses it: {}", refused.seq, refused.why);
    }
    more(&mut text, "refused events", outcome.refused.total, outcome.refused.list.len());
    summary(&mut text, outcome);
    text
}

// Writing to a String cannot fail: `let _` all over.

fn more(text: &mut String, what: &str, total: u64, shown: usize) {
    let hidden = total.saturating_sub(shown as u64);
    if hidden != 0 {
        let _ = writeln!(text, "icsan-replay: {hidden} more {what} (--limit)");
    }
}

fn hazard(text: &mut String, outcome: &Outcome, site: &Site) {
    let hazard = &site.hazard;
    let linear = hazard.linear;
    let mut writers: Vec<String> =
        hazard.writes.iter().map(|write| write.pc.map_or_else(|| "unknown".to_owned(), |pc| pc.to_string())).collect();
    writers.dedup();
    let writers = if writers.is_empty() { "no store: the page moved".to_owned() } else { writers.join(", ") };
    let _ = writeln!(text, "{BAR}\nBUG: ICSAN: {} in {linear} / {writers}", hazard.kind);
    let _ = writeln!(
        text,
        "vCPU {} executed {} bytes at {linear} (phys {}):",
        hazard.vcpu,
        hazard.memory.len(),
        hazard.phys
    );
    let width = hazard
        .candidates
        .iter()
        .map(|candidate| &candidate.bytes)
        .chain([&hazard.memory])
        .map(|bytes| bytes.len() * 3)
        .max()
        .unwrap_or(0);
    let mut line = |label: &str, bytes: &[u8], note: &str| {
        let line =
            format!("  {label} {:<width$} {:<40} {note}", hex(bytes, " "), disassemble(outcome.arch, bytes, linear.0));
        let _ = writeln!(text, "{}", line.trim_end());
    };
    line("in memory  ", &hazard.memory, "");
    for candidate in &hazard.candidates {
        line("may execute", &candidate.bytes, &note(candidate));
    }
    for write in &hazard.writes {
        store(text, write);
    }
    if let Some(seq) = hazard.remapped {
        let _ = writeln!(text, "its page moved at seq {seq}");
    }
    let _ = match hazard.last_sync {
        Some(sync) => {
            let event = sync.event.map_or("reset", |event| outcome.arch.event_name(event));
            let at = sync.pc.map(|pc| format!(" at {pc}")).unwrap_or_default();
            writeln!(text, "vCPU {} last serialized at seq {}: {event}{at}; not since", hazard.vcpu, sync.seq)
        }
        None => writeln!(text, "vCPU {} has not serialized since it started", hazard.vcpu),
    };
    let _ = writeln!(text, "rule: {}", rule(hazard.kind, outcome));
    let _ = writeln!(text, "first at seq {}; {} times\n{BAR}", site.seq, site.count);
}

fn note(candidate: &Candidate) -> String {
    let kind = candidate.kind.map_or("", |kind| kind.name());
    if candidate.exempt { "exempt".to_owned() } else { kind.to_owned() }
}

fn store(text: &mut String, write: &Store) {
    let Store { seq, vcpu, pc, linear, phys, old, new } = write;
    let through = linear.map(|linear| format!(" through {linear}")).unwrap_or_default();
    let who = match (vcpu, pc) {
        (Some(vcpu), Some(pc)) => format!("vCPU {vcpu} at {pc}{through}"),
        (Some(vcpu), None) => format!("vCPU {vcpu}{through}"),
        (None, _) => "nobody that was seen".to_owned(),
    };
    let old = old.as_ref().map_or_else(|| "not known".to_owned(), |old| hex(old, " "));
    let _ = writeln!(
        text,
        "written by {who}:\n  seq {seq}  {old} -> {} ({} bytes at phys {phys})",
        hex(new, " "),
        new.len()
    );
}

fn difference(text: &mut String, difference: &Difference) {
    let Difference { record, seq, what } = difference;
    let _ = write!(text, "icsan-replay: DIFFERENCE at record {record}, seq {seq}: ");
    let _ = match what {
        What::Missing { model } => writeln!(text, "no verdict was recorded\n  model    {}", verdict(model)),
        What::Extra { recorded } => {
            writeln!(text, "a verdict was recorded that the model does not have\n  recorded {}", verdict(recorded))
        }
        What::Other { model, recorded } => {
            writeln!(text, "the verdicts differ\n  model    {}\n  recorded {}", verdict(model), verdict(recorded))
        }
    };
}

fn verdict(record: &Record) -> String {
    let Record::Verdict { vcpu, linear, kind, memory, candidates, writes } = record else { return String::new() };
    let candidates: Vec<_> = candidates.iter().map(|bytes| hex(bytes, "")).collect();
    format!(
        "{kind}: vCPU {vcpu} at {linear}, memory {}, may execute {}, stores {writes:?}",
        hex(memory, ""),
        candidates.join(" or ")
    )
}

fn summary(text: &mut String, outcome: &Outcome) {
    let Outcome { header, profile, stats, .. } = outcome;
    let buffers = profile.buffers;
    let bound = |bound: Option<u32>| bound.map_or_else(|| "unbounded".to_owned(), |bound| bound.to_string());
    let _ = writeln!(
        text,
        "icsan-replay: profile {}, chunk {}, lookahead {}, prefetch {}, trace {}, speculation {}; {} vCPUs; recorded by {} under {}",
        profile.name,
        buffers.chunk,
        buffers.lookahead,
        bound(buffers.prefetch),
        bound(buffers.trace),
        if buffers.speculation { "on" } else { "off" },
        header.vcpus,
        header.plugin,
        header.profile
    );
    let kinds: Vec<String> = outcome.sites.by_kind().iter().map(|(kind, count)| format!("{kind} {count}")).collect();
    let kinds = if kinds.is_empty() { "none".to_owned() } else { kinds.join(", ") };
    let all: u64 = stats.hazards.values().sum();
    let _ = writeln!(
        text,
        "icsan-replay: hazards (distinct sites): {kinds}; {all} executions; exempt executions {}",
        stats.exempt
    );
    let events: Vec<String> = serializing(outcome).iter().map(|(name, count)| format!("{name} {count}")).collect();
    let _ = writeln!(
        text,
        "icsan-replay: {} records, {} events: {} executions, {} stores, {} epochs{}{}",
        outcome.read.records,
        outcome.last,
        stats.fetches,
        stats.stores,
        stats.epochs,
        if events.is_empty() { "" } else { ": " },
        events.join(", ")
    );
    match &outcome.end {
        End::Whole(totals) if totals.dropped != 0 => {
            let _ = writeln!(text, "icsan-replay: the recorder left {} things out", totals.dropped);
        }
        End::Whole(_) => {}
        End::Early(error) => {
            let _ = writeln!(text, "icsan-replay: {error}; what follows is not known");
        }
    }
    if !outcome.complete() {
        let _ = writeln!(
            text,
            "icsan-replay: not complete ({} executions not looked at in full, {} events refused, {} hazards of sites beyond the limit): no hazard here does not mean that there was none",
            stats.incomplete,
            outcome.refused.total,
            outcome.sites.beyond()
        );
    }
    if let (Some(agreement), Some(proven)) = (outcome.agreement, outcome.proven()) {
        let _ = writeln!(
            text,
            "icsan-replay: check {}: {} verdicts agreed, {} executions were silent in both; {} missing, {} extra, {} other; {} on the emulator and {} at the cut not compared",
            if proven { "passed" } else { "FAILED" },
            agreement.agreed,
            agreement.silent(),
            agreement.missing,
            agreement.extra,
            agreement.other,
            agreement.emulator,
            agreement.not_compared
        );
    }
}
