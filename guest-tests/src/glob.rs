//! Filters for scenario names: globs with `*`, several joined by commas; one that begins with `!` takes away what it
//! matches.

/// Does any of the comma-separated globs match the whole name, and none of those with `!`? A filter that only takes
/// away matches everything else, an empty one everything.
#[must_use]
pub fn matches_any(filter: &str, name: &str) -> bool {
    let is = |glob: &str| matches(glob.as_bytes(), name.as_bytes());
    let mut wanted = filter.split(',').filter(|glob| !glob.is_empty() && !glob.starts_with('!')).peekable();
    let taken_away = filter.split(',').filter_map(|glob| glob.strip_prefix('!')).any(is);
    !taken_away && (wanted.peek().is_none() || wanted.any(is))
}

fn matches(glob: &[u8], name: &[u8]) -> bool {
    match glob.split_first() {
        None => name.is_empty(),
        Some((b'*', rest)) => (0..=name.len()).any(|skip| matches(rest, &name[skip..])),
        Some((byte, rest)) => name.split_first().is_some_and(|(first, tail)| first == byte && matches(rest, tail)),
    }
}

#[cfg(test)]
mod tests {
    use super::matches_any;

    #[test]
    fn globs() {
        assert!(matches_any("", "cross/imm8"));
        assert!(matches_any("cross/*", "cross/imm8"));
        assert!(matches_any("own/*,*imm8", "cross/imm8"));
        assert!(!matches_any("cross/imm", "cross/imm8"));
        assert!(!matches_any("own/*", "cross/imm8"));
        assert!(matches_any("!own/*", "cross/imm8") && !matches_any("!own/*,!cross/*", "cross/imm8"));
        assert!(
            matches_any("cross/*,!*32", "cross/imm8")
                && !matches_any("cross/*,!*32", "cross/imm32")
                && !matches_any("cross/*,!*32", "own/jump")
        );
    }
}
