//! Injected executions as people and programs read them: what was executed instead of what, and what that led to.

use super::Report;
use super::hex::{hex, hex_bytes};
use crate::injection::{Injections, Record, Trail};
use icsan_symbols::Names;
use serde::Serialize;
use std::fmt::Write;

/// Places that are told of in the text, when something else is executed there for the first time; all is in the JSON
/// report.
pub const SHOWN: usize = 20;

/// Blocks of a trail that are in the text.
const BLOCKS_SHOWN: usize = 8;

/// Instructions that could not be carried out, in the text.
const REFUSALS_SHOWN: usize = 8;

/// One distinct injection: at this place, this in place of that.
#[derive(Serialize, Debug)]
#[allow(missing_docs)]
pub struct InjectionObject {
    pub injected: bool,
    pub vcpu: u16,
    pub pc: String,
    pub symbol: Option<String>,
    pub memory: String,
    pub memory_text: String,
    /// What was executed.
    pub bytes: String,
    pub text: String,
    /// What kind of hazard that is; `null`: an exemption of the profile covers it.
    pub kind: Option<&'static str>,
    pub count: u64,
    /// What the vCPU did after the first time, until it serialized. `null`: it was still on the trail of another one.
    pub trail: Option<TrailObject>,
    pub epoch: u64,
    pub marker: String,
}

/// See [`InjectionObject`].
#[derive(Serialize, Debug)]
#[allow(missing_docs)]
pub struct TrailObject {
    /// The blocks that it ran, in order.
    pub blocks: Vec<BlockObject>,
    /// How many more are left out.
    pub more: u64,
    /// The serializing event that ended it; `null`: QEMU ended first.
    pub ended_by: Option<EndObject>,
}

/// A block of a trail.
#[derive(Serialize, Debug)]
#[allow(missing_docs)]
pub struct BlockObject {
    pub pc: String,
    pub symbol: Option<String>,
}

/// What ended a trail.
#[derive(Serialize, Debug)]
#[allow(missing_docs)]
pub struct EndObject {
    pub event: &'static str,
    pub pc: String,
    pub symbol: Option<String>,
}

/// The numbers of the summary.
#[derive(Serialize, Debug)]
pub struct InjectionCounts {
    /// Executions of something else than what is in memory.
    pub executions: u64,
    /// Distinct ones, as far as they are listed.
    pub distinct: usize,
    /// Executions of other kinds, which are not listed since there were too many.
    pub unlisted: u64,
    /// Executions of memory's instruction although something else had been chosen, which could not be carried out.
    pub not_carried_out: u64,
    /// What could not be carried out.
    pub refused: Vec<RefusalObject>,
}

/// An instruction that could not be carried out.
#[derive(Serialize, Debug)]
#[allow(missing_docs)]
pub struct RefusalObject {
    pub bytes: String,
    pub text: String,
    pub why: String,
    pub count: u64,
}

fn symbol(names: Names<'_>, address: u64) -> Option<String> {
    names.resolve(address).map(|resolved| resolved.to_string())
}

fn name(names: Names<'_>, address: u64) -> String {
    symbol(names, address).unwrap_or_else(|| hex(address))
}

/// One of them, with the count as it stands.
#[must_use]
pub fn object(report: &Report<'_>, record: &Record) -> InjectionObject {
    let first = &record.first;
    let pc = first.linear.0;
    let names = report.config.symbols.names_of(first.boot);
    let text = |bytes: &[u8]| report.platform.text(bytes, pc, names);
    InjectionObject {
        injected: true,
        vcpu: first.vcpu.0,
        pc: hex(pc),
        symbol: symbol(names, pc),
        memory: hex_bytes(&first.memory),
        memory_text: text(&first.memory),
        bytes: hex_bytes(&first.chosen),
        text: text(&first.chosen),
        kind: first.kind.map(|kind| kind.name()),
        count: record.count,
        trail: (record.trail != Trail::default()).then(|| trail(report, names, &record.trail)),
        epoch: first.epoch.0,
        marker: hex(first.marker),
    }
}

fn trail(report: &Report<'_>, names: Names<'_>, trail: &Trail) -> TrailObject {
    TrailObject {
        blocks: trail
            .blocks
            .iter()
            .map(|block| BlockObject { pc: hex(block.0), symbol: symbol(names, block.0) })
            .collect(),
        more: trail.more,
        ended_by: trail.end.map(|end| EndObject {
            event: report.arch.event_name(end.event),
            pc: hex(end.pc.0),
            symbol: symbol(names, end.pc.0),
        }),
    }
}

/// The numbers.
#[must_use]
pub fn counts(report: &Report<'_>, known: &Injections) -> InjectionCounts {
    let refusal = |(refusal, count): (&crate::injection::Refusal, &u64)| RefusalObject {
        bytes: hex_bytes(&refusal.bytes),
        text: report.platform.text(&refusal.bytes, 0, report.config.symbols.names()),
        why: refusal.why.clone(),
        count: *count,
    };
    let mut refused: Vec<RefusalObject> = known.refused().iter().map(refusal).collect();
    refused.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.bytes.cmp(&b.bytes)));
    InjectionCounts {
        executions: known.total,
        distinct: known.records().len(),
        unlisted: known.unlisted,
        not_carried_out: known.not_carried_out,
        refused,
    }
}

/// One of them, for people.
#[must_use]
pub fn text(report: &Report<'_>, record: &Record) -> String {
    let first = &record.first;
    let pc = first.linear.0;
    let names = report.config.symbols.names_of(first.boot);
    let instruction = |bytes: &[u8]| report.platform.text(bytes, pc, names);
    let kind = first.kind.map_or("exempt", |kind| kind.name());
    let mut text = format!(
        "icsan: injected: vCPU {} executed `{}` ({kind}) in {}, where memory has `{}`\n",
        first.vcpu,
        instruction(&first.chosen),
        name(names, pc),
        instruction(&first.memory),
    );
    let Trail { blocks, more, end, .. } = &record.trail;
    let mut steps: Vec<String> = blocks.iter().take(BLOCKS_SHOWN).map(|block| name(names, block.0)).collect();
    let left_out = blocks.len().saturating_sub(BLOCKS_SHOWN) as u64 + more;
    if left_out > 0 {
        steps.push(format!("{left_out} more blocks"));
    }
    if let Some(end) = end {
        steps.push(format!("until {} in {}", report.arch.event_name(end.event), name(names, end.pc.0)));
    }
    if !steps.is_empty() {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "icsan:   and then: {}", steps.join(", "));
    }
    text
}

/// The lines of the summary.
#[must_use]
pub fn summary(report: &Report<'_>, known: &Injections) -> String {
    let counts = counts(report, known);
    let mut text = format!(
        "icsan: inject: {} executions of something else than what is in memory, {} distinct; {} more were chosen and not carried out\n",
        counts.executions, counts.distinct, counts.not_carried_out
    );
    if counts.unlisted > 0 {
        let _ = writeln!(
            text,
            "icsan:   {} of the executions were of further kinds, which are not listed",
            counts.unlisted
        );
    }
    for refusal in counts.refused.iter().take(REFUSALS_SHOWN) {
        let _ =
            writeln!(text, "icsan:   {} times `{}` ({}): {}", refusal.count, refusal.text, refusal.bytes, refusal.why);
    }
    if let Some(more) = counts.refused.len().checked_sub(REFUSALS_SHOWN).filter(|more| *more > 0) {
        let _ = writeln!(text, "icsan:   {more} more kinds: they are in report=");
    }
    text
}
