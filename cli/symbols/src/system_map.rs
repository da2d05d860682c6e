//! `System.map`: the output of `nm -n vmlinux`, one `ADDRESS TYPE NAME` a line.
//!
//! `/proc/kallsyms` has the same lines with an optional module column, so its parser
//! ([`crate::kallsyms_text`]) starts from the lines that are taken apart here.

use crate::error::SymbolError;

/// One line, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// The address.
    pub addr: u64,
    /// The type letter of `nm`.
    pub kind: char,
    /// The symbol.
    pub name: &'a str,
    /// The module, without its brackets (only in `/proc/kallsyms`).
    pub module: Option<&'a str>,
}

/// How many bytes from the start are looked at to tell whether this is a list of symbols.
const PROBE: usize = 4096;

/// Debian's packages ship one line instead of a `System.map`; this is in it.
const STUB: &[u8] = b"The real System.map is in the";

/// Is this Debian's `System.map`, which has no symbols?
#[must_use]
pub fn is_stub(bytes: &[u8]) -> bool {
    let head = bytes.get(..bytes.len().min(PROBE)).unwrap_or_default();
    head.windows(STUB.len()).any(|window| window == STUB)
}

/// Does this start like a `System.map` or a copy of `/proc/kallsyms`?
#[must_use]
pub fn is_symbol_list(bytes: &[u8]) -> bool {
    let head = bytes.get(..bytes.len().min(PROBE)).unwrap_or_default();
    let first = head.split(|&b| b == b'\n').find(|line| !is_blank(line));
    first.is_some_and(|line| parse_line(line).is_some())
}

/// The lines of a list, with their numbers; blank ones are left out.
///
/// # Errors
/// The iterator yields [`SymbolError::BadLine`] for a line of another form, and
/// [`SymbolError::Truncated`] if that is the last line and its end is missing.
pub fn lines(bytes: &[u8]) -> impl Iterator<Item = Result<Line<'_>, SymbolError>> {
    let unfinished = bytes.last().is_some_and(|&b| b != b'\n');
    let mut rest = bytes.split(|&b| b == b'\n').enumerate().peekable();
    std::iter::from_fn(move || {
        loop {
            let (index, line) = rest.next()?;
            if is_blank(line) {
                continue;
            }
            let last = rest.peek().is_none();
            return Some(parse_line(line).ok_or(if last && unfinished {
                SymbolError::Truncated { what: "its last line" }
            } else {
                SymbolError::BadLine { line: index + 1 }
            }));
        }
    })
}

fn is_blank(line: &[u8]) -> bool {
    line.iter().all(u8::is_ascii_whitespace)
}

/// Takes apart `ADDRESS TYPE NAME` or `ADDRESS TYPE NAME\t[MODULE]`.
fn parse_line(line: &[u8]) -> Option<Line<'_>> {
    let mut words = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    let (addr, kind, name) = (words.next()?, words.next()?, words.next()?);
    let module = match words.next() {
        Some(word) => Some(word.strip_prefix('[')?.strip_suffix(']')?),
        None => None,
    };
    let mut letters = kind.chars();
    let kind = letters.next()?;
    let whole = words.next().is_none() && letters.next().is_none();
    let digits = addr.bytes().all(|b| b.is_ascii_hexdigit());
    if !whole || !digits || !(kind.is_ascii_alphabetic() || kind == '?') {
        return None;
    }
    Some(Line { addr: u64::from_str_radix(addr, 16).ok()?, kind, name, module })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_lines_apart() {
        let line = |text| parse_line(str::as_bytes(text));
        assert_eq!(
            line("ffffffff81000000 T _text"),
            Some(Line { addr: 0xffff_ffff_8100_0000, kind: 'T', name: "_text", module: None })
        );
        assert_eq!(line("ffffffffc0000000 t f\t[ext4]").and_then(|l| l.module), Some("ext4"));
        for bad in [
            "",
            "T _text",
            "ffffffff81000000 T",
            "+fff T x",
            "fffffffffffffffff T x",
            "0 TT x",
            "0 1 x",
            "0 T x y",
            "0 T x [m] z",
        ] {
            assert_eq!(line(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn says_which_line_is_bad() {
        let found: Vec<_> = lines(b"0 T a\n\n0 T\n0 T").collect();
        assert!(found[0].is_ok());
        assert!(matches!(found[1], Err(SymbolError::BadLine { line: 3 })));
        assert!(matches!(found[2], Err(SymbolError::Truncated { .. })));
        assert_eq!(found.len(), 3);
    }
}
