//! Suppressions: hazards that the user knows of and does not want to hear of.
//!
//! One pattern a line, with a reason: `symbol:GLOB REASON` or `kind:GLOB REASON`. A glob knows `*` and `?`. Empty lines
//! and lines that start with `#` are skipped.

use std::path::Path;
use thiserror::Error;

/// A longer file is none that a person wrote, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// The patterns of a suppression file.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Suppressions {
    patterns: Vec<Pattern>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Pattern {
    field: Field,
    glob: String,
    reason: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Field {
    Symbol,
    Kind,
}

/// Why a suppression file is refused.
#[derive(Debug, Error)]
#[allow(missing_docs)]
pub enum SuppressError {
    #[error("cannot be read: {0}")]
    Unreadable(#[from] std::io::Error),
    #[error("is no regular file of at most {MAX_FILE} bytes; give a text file")]
    NoFile,
    #[error("line {line}: `{text}` is neither `symbol:GLOB REASON` nor `kind:GLOB REASON`")]
    Malformed { line: usize, text: String },
    #[error("line {line}: say why `{pattern}` is suppressed, after a space")]
    NoReason { line: usize, pattern: String },
}

impl Suppressions {
    /// Reads a file.
    ///
    /// # Errors
    /// What [`SuppressError`] lists.
    pub fn load(path: &Path) -> Result<Self, SuppressError> {
        let file = std::fs::metadata(path)?;
        if !file.is_file() || file.len() > MAX_FILE {
            return Err(SuppressError::NoFile);
        }
        Self::parse(&String::from_utf8_lossy(&std::fs::read(path)?))
    }

    /// Parses the text of a file.
    ///
    /// # Errors
    /// The first line that is not a pattern with a reason.
    pub fn parse(text: &str) -> Result<Self, SuppressError> {
        let mut patterns = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line_text = line.trim();
            if line_text.is_empty() || line_text.starts_with('#') {
                continue;
            }
            let (pattern, reason) = line_text.split_once(char::is_whitespace).unwrap_or((line_text, ""));
            let malformed = || SuppressError::Malformed { line: index + 1, text: line_text.to_owned() };
            let (field, glob) = pattern.split_once(':').ok_or_else(malformed)?;
            let field = match field {
                "symbol" => Field::Symbol,
                "kind" => Field::Kind,
                _ => return Err(malformed()),
            };
            if glob.is_empty() {
                return Err(malformed());
            }
            if reason.trim().is_empty() {
                return Err(SuppressError::NoReason { line: index + 1, pattern: pattern.to_owned() });
            }
            patterns.push(Pattern { field, glob: glob.to_owned(), reason: reason.trim().to_owned() });
        }
        Ok(Self { patterns })
    }

    /// The reason why a hazard of that kind at that symbol (a bare name) is suppressed, if it is.
    #[must_use]
    pub fn reason(&self, kind: &str, symbol: Option<&str>) -> Option<&str> {
        self.patterns
            .iter()
            .find(|pattern| match pattern.field {
                Field::Kind => glob_matches(&pattern.glob, kind),
                Field::Symbol => symbol.is_some_and(|symbol| glob_matches(&pattern.glob, symbol)),
            })
            .map(|pattern| pattern.reason.as_str())
    }
}

/// `*` stands for any bytes, `?` for one.
fn glob_matches(glob: &str, text: &str) -> bool {
    let (glob, text) = (glob.as_bytes(), text.as_bytes());
    let (mut g, mut t) = (0, 0);
    // Where to go on when the text does not fit: after the last star, one byte further.
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        if g < glob.len() && glob[g] == b'*' {
            retry = Some((g + 1, t));
            g += 1;
        } else if g < glob.len() && (glob[g] == b'?' || glob[g] == text[t]) {
            g += 1;
            t += 1;
        } else if let Some((after_star, from)) = retry {
            retry = Some((after_star, from + 1));
            g = after_star;
            t = from + 1;
        } else {
            return false;
        }
    }
    glob[g..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::{SuppressError, Suppressions, glob_matches};

    #[test]
    fn globs() {
        for (glob, text, expected) in [
            ("foo", "foo", true),
            ("foo", "foobar", false),
            ("foo*", "foobar", true),
            ("*bar", "foobar", true),
            ("f?o*r", "foobar", true),
            ("f?o*z", "foobar", false),
            ("*o*b*", "foobar", true),
            ("", "", true),
            ("*", "", true),
        ] {
            assert_eq!(glob_matches(glob, text), expected, "{glob} {text}");
        }
    }

    #[test]
    fn a_pattern_needs_a_field_and_a_reason() {
        let parsed =
            Suppressions::parse("# known\n\nsymbol:text_poke* boot patches itself\nkind:smc my JIT\n").unwrap();
        assert_eq!(parsed.reason("stale", Some("text_poke_bp")), Some("boot patches itself"));
        assert_eq!(parsed.reason("smc", None), Some("my JIT"));
        assert_eq!(parsed.reason("stale", Some("foo")), None);
        assert!(matches!(Suppressions::parse("symbol:foo"), Err(SuppressError::NoReason { line: 1, .. })));
        assert!(matches!(Suppressions::parse("\nfoo bar"), Err(SuppressError::Malformed { line: 2, .. })));
        assert!(matches!(Suppressions::parse("color:foo bar"), Err(SuppressError::Malformed { .. })));
    }
}
