//! The report for programs: `start`, `hazard`, `difference`, `refused`, `summary`, an object a line. Names are those of
//! the plugin's report where they mean the same.

use super::{disassemble, hex, rule, serializing};
use crate::check::{Difference, What};
use crate::session::{End, Outcome};
use crate::sites::Site;
use icsan_model::arch::maintenance::Needs;
use icsan_model::verdict::candidates::Candidate;
use icsan_model::verdict::hazard::Write as Store;
use icsan_recording::{Header, Record};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{self, Write};

/// Version of the schema: changes that break readers raise it.
const SCHEMA: u32 = 1;

/// Everything, one object a line.
pub(super) fn print(output: &mut impl Write, outcome: &Outcome, limit: usize) -> io::Result<()> {
    let mut line = |kind: &str, object: Value| {
        let object = serde_json::to_string(&object)?;
        // "type" first, as in the plugin's report.
        writeln!(output, "{{\"type\":\"{kind}\",{}", object.strip_prefix('{').unwrap_or(&object))
    };
    line("start", start(outcome))?;
    for site in outcome.sites.list().iter().take(limit) {
        line("hazard", hazard(outcome, site))?;
    }
    for difference in &outcome.differences.list {
        line("difference", self::difference(difference))?;
    }
    for (record, refused) in &outcome.refused.list {
        line("refused", json!({ "record": record, "seq": refused.seq.0, "why": refused.why.to_string() }))?;
    }
    line("summary", summary(outcome))
}

fn start(outcome: &Outcome) -> Value {
    let Header { architecture, events: _, plugin, profile, with, without, buffers: _, vcpus, caches: _ } =
        &outcome.header;
    let buffers = outcome.profile.buffers;
    json!({
        "schema": SCHEMA,
        "profile": outcome.profile.name,
        "chunk": buffers.chunk,
        "lookahead": buffers.lookahead,
        "prefetch": buffers.prefetch,
        "trace": buffers.trace,
        "speculation": buffers.speculation,
        "caches": caches(outcome),
        "arch": architecture,
        "vcpus": vcpus,
        "recorded": { "plugin": plugin, "profile": profile, "with": with, "without": without },
    })
}

/// The caches that do not see stores, as the recording is judged; null if there are none.
fn caches(outcome: &Outcome) -> Value {
    outcome.profile.incoherent_caches().map_or(Value::Null, |caches| {
        json!({
            "clean": caches.needs != Needs::Invalidate,
            "data_line": caches.data_line,
            "instruction_line": caches.instruction_line,
        })
    })
}

fn hazard(outcome: &Outcome, site: &Site) -> Value {
    let hazard = &site.hazard;
    let last_sync = hazard.last_sync.map(|sync| {
        let event = sync.event.map_or("reset", |event| outcome.arch.event_name(event));
        json!({ "event": event, "pc": sync.pc.map(|pc| pc.to_string()), "seq": sync.seq.0 })
    });
    let candidate = |candidate: &Candidate| {
        json!({
            "bytes": hex(&candidate.bytes, ""),
            "text": disassemble(outcome.arch, &candidate.bytes, hazard.linear.0),
            "versions": candidate.versions.iter().map(|seq| seq.0).collect::<Vec<_>>(),
            "kind": candidate.kind.map(|kind| kind.name()),
            "exempt": candidate.exempt,
        })
    };
    json!({
        "kind": hazard.kind.name(),
        "rule": rule(hazard.kind, outcome),
        "vcpu": hazard.vcpu.0,
        "pc": hazard.linear.to_string(),
        "paddr": hazard.phys.to_string(),
        "len": hazard.memory.len(),
        "memory": hex(&hazard.memory, ""),
        "memory_text": disassemble(outcome.arch, &hazard.memory, hazard.linear.0),
        "candidates": hazard.candidates.iter().map(candidate).collect::<Vec<_>>(),
        "writes": hazard.writes.iter().map(write).collect::<Vec<_>>(),
        "remapped": hazard.remapped.map(|seq| seq.0),
        "last_sync": last_sync,
        "epoch": hazard.epoch.0,
        "seq": site.seq.0,
        "count": site.count,
    })
}

fn write(write: &Store) -> Value {
    json!({
        "seq": write.seq.0,
        "vcpu": write.vcpu.map(|vcpu| vcpu.0),
        "pc": write.pc.map(|pc| pc.to_string()),
        "linear": write.linear.map(|linear| linear.to_string()),
        "paddr": write.phys.to_string(),
        "old": write.old.as_ref().map(|old| hex(old, "")),
        "new": hex(&write.new, ""),
    })
}

fn difference(difference: &Difference) -> Value {
    let (what, model, recorded) = match &difference.what {
        What::Missing { model } => ("missing", Some(model), None),
        What::Extra { recorded } => ("extra", None, Some(recorded)),
        What::Other { model, recorded } => ("other", Some(model), Some(recorded)),
    };
    json!({ "what": what, "record": difference.record, "seq": difference.seq.0, "model": model.map(verdict), "recorded": recorded.map(verdict) })
}

fn verdict(record: &Record) -> Value {
    let Record::Verdict { vcpu, linear, kind, memory, candidates, writes } = record else { return Value::Null };
    json!({
        "kind": kind.name(),
        "vcpu": vcpu.0,
        "pc": linear.to_string(),
        "memory": hex(memory, ""),
        "candidates": candidates.iter().map(|bytes| hex(bytes, "")).collect::<Vec<_>>(),
        "writes": writes,
    })
}

fn summary(outcome: &Outcome) -> Value {
    let stats = &outcome.stats;
    let hazards: BTreeMap<_, _> =
        outcome.sites.by_kind().into_iter().map(|(kind, count)| (kind.name(), count)).collect();
    let check = outcome.agreement.map(|agreement| {
        json!({
            "passed": outcome.proven(),
            "agreed": agreement.agreed,
            "silent": agreement.silent(),
            "missing": agreement.missing,
            "extra": agreement.extra,
            "other": agreement.other,
            "emulator": agreement.emulator,
            "not_compared": agreement.not_compared,
        })
    });
    let (dropped, error) = match &outcome.end {
        End::Whole(totals) => (Some(totals.dropped), None),
        End::Early(error) => (None, Some(error.to_string())),
    };
    json!({
        "hazards": hazards,
        "exempt": stats.exempt,
        "serializing": serializing(outcome).into_iter().collect::<BTreeMap<_, _>>(),
        "records": outcome.read.records,
        "recorded_hazards": outcome.read.hazards,
        "events": outcome.last.0,
        "executions": stats.fetches,
        "stores": stats.stores,
        "epochs": stats.epochs,
        "refused": outcome.refused.total,
        "dropped": dropped,
        "error": error,
        "complete": outcome.complete(),
        "check": check,
    })
}
