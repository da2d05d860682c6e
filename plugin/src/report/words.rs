//! Phrases that several parts of the text have in common.

use super::Report;
use super::evidence::Evidence;
use super::hex::hex;
use crate::arch::caller::Caller;
use crate::patching::{Asker, Context, Missing, Step, TaskName};
use icsan_symbols::Names;
use std::fmt::Write;

/// Candidates, stores, and groups of several hazards, that are listed in the text.
pub(super) const SHOWN: usize = 12;

/// An address, by its symbol if it has one.
pub(super) fn name(symbols: Names<'_>, address: u64) -> String {
    symbols.resolve(address).map_or_else(|| format!("{address:#x}"), |resolved| resolved.to_string())
}

/// What people call the one that was asked.
pub(super) fn asker_name(symbols: Names<'_>, asker: Asker) -> String {
    match asker {
        Asker::Function(entry) => {
            symbols.resolve(entry.0).map_or_else(|| hex(entry.0), |resolved| resolved.name.to_owned())
        }
        Asker::Membarrier => "membarrier(SYNC_CORE)".to_owned(),
    }
}

pub(super) fn step(step: Step) -> &'static str {
    match step {
        Step::Breakpoint => "the breakpoint",
        Step::Tail => "the tail",
        Step::FirstByte => "the first byte",
    }
}

/// Where a serialization is missing, in words.
#[must_use]
pub fn missing(missing: Missing) -> String {
    match missing {
        Missing::AtTheEnd => "after the last store".to_owned(),
        Missing::Between(before, after) => format!("between {} and {}", step(before), step(after)),
    }
}

/// The task, and its callers as the kernel writes them: `?` before what is a guess.
pub(super) fn whereabouts(
    text: &mut String,
    report: &Report<'_>,
    context: &Context,
    chain: &[Caller],
    name: &impl Fn(u64) -> String,
) {
    let called = &report.platform.facts().words;
    let mut words = Vec::new();
    if let Some(TaskName { pid, comm }) = &context.task {
        words.push(format!("task {comm}/{pid}"));
    }
    words.extend(context.privilege.map(|level| format!("{} {level}", called.privilege)));
    words.extend(context.space.map(|space| format!("{} {space:#x}", called.space)));
    if !words.is_empty() {
        let _ = writeln!(text, "  {}", words.join(", "));
    }
    for caller in chain {
        let _ = writeln!(text, "  {}{}", if caller.sure { "" } else { "? " }, name(caller.address));
    }
}

pub(super) fn writes(text: &mut String, report: &Report<'_>, evidence: &Evidence, name: &impl Fn(u64) -> String) {
    let Some(writes) = &evidence.writes else {
        let why = if report.config.writers {
            "it is not known where this code is in physical memory"
        } else {
            "stores are not watched (writers=off)"
        };
        let _ = writeln!(text, "writer unknown: {why}");
        return;
    };
    if writes.is_empty() {
        let _ = writeln!(
            text,
            "{}",
            if evidence.moved {
                "nobody wrote: the page is mapped to other memory than when it was fetched"
            } else {
                "writer unknown: what separates the candidates from memory is not remembered any more"
            }
        );
    }
    let mut last = None;
    let first = writes.len().saturating_sub(SHOWN);
    if first > 0 {
        let _ = writeln!(text, "{first} older stores are left out: they are in report=");
    }
    let writers = evidence.writers.iter().map(Option::as_ref).chain(std::iter::repeat(None));
    for (write, writer) in writes.iter().zip(writers).skip(first) {
        let by = (write.vcpu, write.pc);
        if last != Some(by) {
            last = Some(by);
            let _ = match (write.vcpu, write.pc) {
                (Some(vcpu), Some(pc)) => {
                    let through = write.linear.map(|linear| format!(" through {linear}")).unwrap_or_default();
                    let _ = writeln!(text, "written by vCPU {vcpu} at {}{through}:", name(pc.0));
                    if let Some(writer) = writer {
                        if let Some(function) = writer.function {
                            let _ = writeln!(text, "  on behalf of {}", name(function.0));
                        }
                        whereabouts(text, report, &writer.context, &writer.chain, name);
                    }
                    Ok(())
                }
                _ => writeln!(
                    text,
                    "writer unknown: the change was found in memory, and no store of a vCPU explains it:"
                ),
            };
        }
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
        let old = write.old.as_deref().map_or_else(|| "?".to_owned(), hex);
        let bytes = if write.new.len() == 1 { "byte" } else { "bytes" };
        let _ = writeln!(
            text,
            "  seq {}  {old} -> {} ({} {bytes} at phys {})",
            write.seq,
            hex(&write.new),
            write.new.len(),
            write.phys
        );
    }
}
