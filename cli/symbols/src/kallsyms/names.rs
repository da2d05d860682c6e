//! The compressed names, their number and their markers.

use std::ops::Range;

use super::{ALIGN, tokens::Tokens, u32_at};
use crate::table::MAX_SYMBOLS;

/// How far before the token table the markers are looked for: between them may be
/// `seqs_of_names`, 3 bytes a symbol.
const MAX_DISTANCE: usize = 16 << 20;
/// How many places with plausible markers are looked at closely. The right one is the nearest or
/// nearly so.
const MAX_CANDIDATES: usize = 4096;
/// A marker stands before every so many names.
const GROUP: usize = 256;
/// The longest compressed name: its length takes two bytes of 7 bits at most, and the kernel's
/// limit for names is 512.
const MAX_PACKED: usize = 512;
/// The longest name with its type letter; the kernel's limit is 512.
const MAX_EXPANDED: usize = 1024;

/// Where the names are.
#[derive(Debug)]
pub(super) struct Names<'a> {
    /// The names alone, each behind its length.
    packed: &'a [u8],
    /// How many there are.
    pub count: usize,
    /// Where `num_syms` stands.
    pub num_syms: usize,
}

/// All names, expanded.
#[derive(Debug, Default)]
pub(super) struct Symbols {
    text: String,
    list: Vec<Expanded>,
}

/// One of [`Symbols`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Expanded {
    start: usize,
    end: usize,
    /// The type letter.
    pub kind: char,
}

impl Symbols {
    /// All of them, in the kernel's order.
    pub fn iter(&self) -> impl Iterator<Item = &Expanded> {
        self.list.iter()
    }

    /// The name of one of them.
    pub fn name(&self, symbol: &Expanded) -> &str {
        self.text.get(symbol.start..symbol.end).unwrap_or_default()
    }
}

/// Finds the names that belong to a token table.
pub(super) fn find<'a>(bytes: &'a [u8], tokens: &Tokens<'_>) -> Option<Names<'a>> {
    let lowest = tokens.start.saturating_sub(MAX_DISTANCE);
    (lowest..tokens.start)
        .rev()
        .filter(|at| at % ALIGN == 0)
        .filter_map(|at| Some((at, markers_at(bytes, at, tokens.start)?)))
        .take(MAX_CANDIDATES)
        .find_map(|(at, markers)| names_before(bytes, at, &markers))
}

/// The longest run of plausible markers at a place: 0, then one for each 256 names. There are at
/// least two, or this could be anything.
fn markers_at(bytes: &[u8], at: usize, limit: usize) -> Option<Vec<usize>> {
    if u32_at(bytes, at)? != 0 {
        return None;
    }
    let mut markers = vec![0];
    let mut previous = 0;
    for place in (at + 4..limit).step_by(4) {
        let marker = u32_at(bytes, place)? as usize;
        let group = marker.wrapping_sub(previous);
        if !(2 * GROUP..=(MAX_PACKED + 2) * GROUP).contains(&group) {
            break;
        }
        markers.push(marker);
        previous = marker;
    }
    (markers.len() >= 2).then_some(markers)
}

/// The names that end where these markers start. `num_syms` before them has to go with the number
/// of markers; what follows the markers may look like one more, so that one less is tried, too.
fn names_before<'a>(bytes: &'a [u8], at: usize, markers: &[usize]) -> Option<Names<'a>> {
    [markers.len(), markers.len() - 1].into_iter().find_map(|length| {
        let markers = markers.get(..length)?;
        let last = *markers.last()?;
        let highest = at.checked_sub(last)? / ALIGN * ALIGN;
        let lowest = highest.saturating_sub((MAX_PACKED + 2) * GROUP + 8);
        (lowest..=highest).rev().step_by(ALIGN).find_map(|start| {
            // num_syms is a u32 right before, padded to 8 bytes in older kernels.
            let mut num_syms = [8, 4].into_iter().filter_map(|size| start.checked_sub(size));
            num_syms.find_map(|num_syms| names_at(bytes, num_syms, start..at, markers))
        })
    })
}

/// The names at a place, if they fit everything around them.
fn names_at<'a>(bytes: &'a [u8], num_syms: usize, place: Range<usize>, markers: &[usize]) -> Option<Names<'a>> {
    let count = u32_at(bytes, num_syms)? as usize;
    let padding = bytes.get(num_syms + 4..place.start)?;
    if count.div_ceil(GROUP) != markers.len() || count > MAX_SYMBOLS || padding.iter().any(|&b| b != 0) {
        return None;
    }
    let packed = bytes.get(place)?;
    let mut rest = packed;
    for index in 0..count {
        if index % GROUP == 0 && markers.get(index / GROUP) != Some(&(packed.len() - rest.len())) {
            return None;
        }
        rest = split_name(rest)?.1;
    }
    let padded = rest.len() < 8 && rest.iter().all(|&b| b == 0);
    padded.then_some(Names { packed: packed.get(..packed.len() - rest.len())?, count, num_syms })
}

/// One compressed name and what follows it.
fn split_name(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&first, rest) = bytes.split_first()?;
    let (length, rest) = if first & 0x80 == 0 {
        (usize::from(first), rest)
    } else {
        let (&second, rest) = rest.split_first()?;
        (usize::from(first & 0x7f) | usize::from(second) << 7, rest)
    };
    if length == 0 || length > MAX_PACKED {
        return None;
    }
    rest.split_at_checked(length)
}

impl Names<'_> {
    /// Expands all names; none if one of them is no name.
    pub fn expand(&self, tokens: &Tokens<'_>) -> Option<Symbols> {
        let mut symbols = Symbols::default();
        symbols.list.reserve(self.count);
        let mut rest = self.packed;
        while !rest.is_empty() {
            let (packed, behind) = split_name(rest)?;
            rest = behind;
            let start = symbols.text.len();
            for &byte in packed {
                symbols.text.push_str(tokens.tokens.get(usize::from(byte))?);
                if symbols.text.len() - start > MAX_EXPANDED {
                    return None;
                }
            }
            let expanded = symbols.text.get(start..)?;
            let kind = expanded.chars().next()?;
            if expanded.len() < 2 || !(kind.is_ascii_alphabetic() || kind == '?') {
                return None;
            }
            symbols.list.push(Expanded { start: start + 1, end: symbols.text.len(), kind });
        }
        (symbols.list.len() == self.count).then_some(symbols)
    }
}
