//! The token table and its index: what each byte of a compressed name stands for.

use super::ALIGN;

/// The longest token table that is considered; real ones take about 1 KiB.
const MAX_TABLE: usize = 16 << 10;
/// How many places with a plausible index are looked at closely.
const MAX_CANDIDATES: usize = 4096;
/// Size of the index.
const INDEX: usize = 256 * 2;

/// The tokens, and where they stand.
#[derive(Debug)]
pub(super) struct Tokens<'a> {
    /// The token of each byte value.
    pub tokens: Vec<&'a str>,
    /// Where the token table starts.
    pub start: usize,
    /// Where the index behind it ends.
    pub end: usize,
}

/// All token tables, by ascending place.
///
/// An index starts with 0 and ascends. In a stretch of ascending numbers only the first can be 0,
/// so this looks at each byte of the file a bounded number of times.
pub(super) fn find(bytes: &[u8]) -> impl Iterator<Item = Tokens<'_>> {
    // Nearly all of a file of some 50 MB is left at the first look.
    (0..)
        .step_by(ALIGN)
        .zip(bytes.as_chunks::<ALIGN>().0)
        .filter(|(_, four)| four.starts_with(&[0, 0]) && **four != [0; ALIGN])
        .filter_map(|(at, _)| Some((at, index_at(bytes, at)?)))
        .take(MAX_CANDIDATES)
        .filter_map(|(at, index)| tokens_before(bytes, at, &index))
}

/// The 256 ascending numbers at a place, from 0.
fn index_at(bytes: &[u8], at: usize) -> Option<Vec<usize>> {
    let raw = bytes.get(at..at.checked_add(INDEX)?)?;
    let number = |pair: &[u8]| pair.first_chunk().map_or(0, |b| u16::from_le_bytes(*b));
    let mut previous = None;
    for pair in raw.chunks_exact(2) {
        let next = number(pair);
        if previous.is_some_and(|p| next <= p) || usize::from(next) > MAX_TABLE {
            return None;
        }
        previous = Some(next);
    }
    Some(raw.chunks_exact(2).map(|pair| usize::from(number(pair))).collect())
}

/// The token table that ends before its index. Its last token is never empty, since the kernel's
/// build assigns tokens from 255 downwards; so its end, and with the index its start, are certain.
fn tokens_before<'a>(bytes: &'a [u8], at: usize, index: &[usize]) -> Option<Tokens<'a>> {
    let before = bytes.get(at.checked_sub(MAX_TABLE.min(at))?..at)?;
    let base = at - before.len();
    let last_byte = before.iter().rposition(|&b| b != 0)?;
    let last_token = before.get(..last_byte)?.iter().rposition(|&b| b == 0)? + 1;
    let start = (base + last_token).checked_sub(*index.last()?)?;
    let end = base + last_byte + 2;
    if start % ALIGN != 0 || !(end..end + 8).contains(&at) {
        return None;
    }
    let table = bytes.get(start..end)?;
    let tokens: Vec<&str> = table
        .strip_suffix(&[0])?
        .split(|&b| b == 0)
        .map(|token| std::str::from_utf8(token).ok())
        .collect::<Option<_>>()?;
    let mut offset = 0;
    for (token, &indexed) in tokens.iter().zip(index) {
        if indexed != offset || !token.bytes().all(|b| b.is_ascii_graphic()) {
            return None;
        }
        offset += token.len() + 1;
    }
    (tokens.len() == 256).then_some(Tokens { tokens, start, end: at + INDEX })
}
