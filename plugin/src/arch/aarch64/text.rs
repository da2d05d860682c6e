//! Instructions as text.

use super::synchronizing::word;
use icsan_symbols::Names;

/// The first instruction as text.
#[must_use]
pub fn disassemble(bytes: &[u8], _at: u64, _symbols: Names<'_>) -> String {
    word(first_instruction(bytes, &[])).map_or_else(|| "?".to_owned(), |word| format!(".inst {word:#010x}"))
}

/// The first instruction's bytes.
#[must_use]
pub fn first_instruction<'a>(bytes: &'a [u8], _like: &[u8]) -> &'a [u8] {
    bytes.get(..4).unwrap_or(bytes)
}
