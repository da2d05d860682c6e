//! Instructions as text, in the AT&T syntax that kernel developers read, with symbols.

use iced_x86::{Decoder, DecoderOptions, Formatter, GasFormatter, Instruction};
use icsan_symbols::Names;

/// The text of the instruction that `bytes` start with at the linear address `at`; `(bad)` if they are none.
///
/// The mode is not known when a report is made: 64-bit is tried first, and the one in which the instruction has the
/// length that QEMU decoded wins.
#[must_use]
pub fn disassemble(bytes: &[u8], at: u64, symbols: Names<'_>) -> String {
    let decoded = [64, 32, 16]
        .into_iter()
        .map(|bits| Decoder::with_ip(bits, bytes, at, DecoderOptions::NONE).decode())
        .find(|instruction| !instruction.is_invalid() && instruction.len() == bytes.len());
    let instruction = decoded.unwrap_or_else(|| Decoder::with_ip(64, bytes, at, DecoderOptions::NONE).decode());
    if instruction.is_invalid() {
        return "(bad)".to_owned();
    }
    let mut text = String::new();
    let mut formatter = GasFormatter::new();
    formatter.options_mut().set_uppercase_hex(false);
    formatter.format(&instruction, &mut text);
    if let Some(name) = branch_target(&instruction).and_then(|target| symbols.resolve(target)) {
        text.push_str(&format!(" <{name}>"));
    }
    text
}

/// How many of the bytes the first instruction takes, in the mode in which `like` is one whole instruction; all of them
/// if they are no instruction.
#[must_use]
pub fn first_instruction<'a>(bytes: &'a [u8], like: &[u8]) -> &'a [u8] {
    let decode = |bits, bytes| Decoder::new(bits, bytes, DecoderOptions::NONE).decode();
    let bits = [64, 32, 16].into_iter().find(|bits| {
        let instruction = decode(*bits, like);
        !instruction.is_invalid() && instruction.len() == like.len()
    });
    let instruction = decode(bits.unwrap_or(64), bytes);
    if instruction.is_invalid() { bytes } else { &bytes[..instruction.len()] }
}

fn branch_target(instruction: &Instruction) -> Option<u64> {
    let target = instruction.near_branch_target();
    (target != 0).then_some(target)
}
