//! Filters for scenario names: globs with `*`, several joined by commas.

/// Does any of the comma-separated globs match the whole name? An empty filter matches everything.
#[must_use]
pub fn matches_any(filter: &str, name: &str) -> bool {
    filter.is_empty() || filter.split(',').any(|glob| matches(glob.as_bytes(), name.as_bytes()))
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
    }
}
