//! What is printed: text for people, or JSON Lines for programs. Addresses in JSON are strings `0x…`, bytes hex
//! strings, as in the plugin's report.

mod json;
mod text;

use crate::session::Outcome;
use icsan_model::arch::architecture::Architecture;
use icsan_model::arch::x86::X86_64;
use std::io::{self, Write};

/// Prints everything that a replay found, at most `limit` hazards.
///
/// # Errors
/// Those of the output.
pub fn print(output: &mut impl Write, outcome: &Outcome, limit: usize, json: bool) -> io::Result<()> {
    if json { json::print(output, outcome, limit) } else { output.write_all(text::text(outcome, limit).as_bytes()) }
}

fn hex(bytes: &[u8], between: &str) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(between)
}

/// The events that serialized, by name.
fn serializing(outcome: &Outcome) -> Vec<(&'static str, u64)> {
    outcome.stats.serializing.iter().map(|(event, count)| (outcome.arch.event_name(*event), *count)).collect()
}

/// The rule that hazards of this kind break.
fn rule(kind: icsan_model::verdict::kind::Kind, outcome: &Outcome) -> String {
    let rule = icsan_model::arch::rule::rule(kind);
    match outcome.arch.source(kind) {
        Some(source) => format!("{}: {}", source.section, rule.text),
        None => rule.text.to_owned(),
    }
}

/// The instruction in AT&T syntax, in the mode in which it is as long as that; `(bad)` if it is none. Of other
/// architectures its word.
fn disassemble(arch: &Architecture, bytes: &[u8], at: u64) -> String {
    if arch.name != X86_64.name {
        let digits: String = bytes.iter().rev().map(|byte| format!("{byte:02x}")).collect();
        return format!(".inst 0x{digits}");
    }
    use iced_x86::{Decoder, DecoderOptions, Formatter, GasFormatter};
    let instructions = [64, 32, 16].map(|bits| Decoder::with_ip(bits, bytes, at, DecoderOptions::NONE).decode());
    let Some(instruction) =
        instructions.iter().find(|instruction| !instruction.is_invalid() && instruction.len() == bytes.len())
    else {
        return "(bad)".to_owned();
    };
    let mut text = String::new();
    let mut formatter = GasFormatter::new();
    formatter.options_mut().set_uppercase_hex(false);
    formatter.format(instruction, &mut text);
    text
}
