//! The kallsyms tables that a kernel carries in its read-only data (`CONFIG_KALLSYMS=y`).
//!
//! There is no pointer to them and a stripped `vmlinux` does not name them, so they are found by
//! their structure. All are little-endian and aligned to 8 bytes (to 4 since 7.0), with zeros between:
//!
//! | table | contents |
//! | --- | --- |
//! | `token_table` | 256 zero-terminated strings, one for each byte value |
//! | `token_index` | 256 `u16`: where each of those strings starts |
//! | `names` | for each symbol a length and as many bytes, each standing for its token; the first letter is the type. Since 6.1 a length above 127 takes two bytes |
//! | `markers` | `u32`: where every 256th name starts |
//! | `num_syms` | `u32`, right before `names` |
//! | `offsets` | an `i32` for each symbol: its address, in one of three encodings |
//! | `relative_base` | the `u64` that some of the encodings count from; in a kernel that relocates itself it may be zero, and its value in a relocation ([`Image::pointer_at`]) |
//!
//! | kernel | order | `offsets` |
//! | --- | --- | --- |
//! | to 6.3 | offsets, relative_base, num_syms, names, markers, (seqs_of_names), token_table, token_index | per-CPU absolute |
//! | 6.4 to 6.14 | num_syms, names, markers, token_table, token_index, offsets, relative_base, (seqs_of_names) | per-CPU absolute |
//! | since 6.15 | as before | unsigned, from the base |
//! | since 7.0 | as before, without relative_base | relative to its own place |
//!
//! The versions are a guide to the reader only: the code tries every order with every encoding.
//!
//! # What makes a result believable
//! 1. The 256 indexes are exactly where the 256 tokens start, and all tokens are printable.
//! 2. `num_syms` names end where the markers start, and every marker is where a 256th name starts.
//! 3. Every name expands to a type letter and a printable name.
//! 4. The addresses ascend, as the tables are sorted.
//! 5. `relative_base`, where there is one, is in a loaded segment. `_text` or `_stext` is where the
//!    first segment in the kernel's half of the address space starts, or `_stext` where that architecture has it
//!    (without `CONFIG_KALLSYMS_ALL` nothing before it is a symbol). Nearly all functions are in segments of that half.
//!
//! An order and an encoding that do not belong to the kernel fail at 4 or 5.

mod addresses;
mod names;
mod tokens;

use crate::builder::Builder;
use crate::error::SymbolError;
use crate::exports;
use crate::linux::kernel::ONLINE_MASK;
use crate::table::{Origin, SymbolTable};
use crate::unpacked::Image;

/// How many token tables are tried. Nothing else in a kernel looks like one.
const MAX_TRIES: usize = 16;

/// Finds the tables and reads them.
///
/// # Errors
/// [`SymbolError::NoKallsyms`] with the first check that failed; [`SymbolError::TooLarge`].
pub fn extract(image: &Image<'_>, origin: Origin) -> Result<SymbolTable, SymbolError> {
    let mut reason = "no token table".to_owned();
    for tokens in tokens::find(image.bytes).take(MAX_TRIES) {
        match read(image, &tokens) {
            Ok(builder) => return Ok(builder.build(origin)),
            Err(Failure::Error(error)) => return Err(error),
            Err(Failure::Check(check)) => reason = check,
        }
    }
    Err(SymbolError::NoKallsyms { reason })
}

/// Why one set of tables was not taken.
enum Failure {
    /// A check failed; another set may do.
    Check(String),
    /// There is no point in going on.
    Error(SymbolError),
}

impl From<SymbolError> for Failure {
    fn from(error: SymbolError) -> Failure {
        Failure::Error(error)
    }
}

fn check(reason: impl Into<String>) -> Failure {
    Failure::Check(reason.into())
}

fn read(image: &Image<'_>, tokens: &tokens::Tokens<'_>) -> Result<Builder, Failure> {
    let names = names::find(image.bytes, tokens).ok_or_else(|| check("no list of names that fits its markers"))?;
    let symbols = names.expand(tokens).ok_or_else(|| check("a name that does not expand"))?;
    let addresses = addresses::find(image, tokens, &names, &symbols)
        .ok_or_else(|| check("no addresses that ascend and put _text into the kernel"))?;
    let mut builder = Builder::default();
    let mut has_mask = false;
    for (symbol, addr) in symbols.iter().zip(addresses) {
        has_mask |= symbols.name(symbol) == ONLINE_MASK;
        builder.push(addr, 0, symbol.kind, symbols.name(symbol))?;
    }
    // Without CONFIG_KALLSYMS_ALL there are names of functions alone. Modules need that one as well.
    if !has_mask && let Some(addr) = exports::address_of(image, ONLINE_MASK) {
        builder.push(addr, 0, 'D', ONLINE_MASK)?;
    }
    Ok(builder)
}

/// Reads the little-endian `u32` at an offset.
fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    let four = bytes.get(offset..)?.first_chunk()?;
    Some(u32::from_le_bytes(*four))
}

/// Every table starts at a multiple of this.
const ALIGN: usize = 4;

/// The next multiple of 8, to which older kernels align their tables.
fn align_8(offset: usize) -> usize {
    offset.saturating_add(7) & !7
}
