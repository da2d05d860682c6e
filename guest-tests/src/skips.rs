//! The skips that a test run may have: the committed list `expected-skips.txt`, with a reason for each. Any other skip
//! is a failure.

use crate::glob::matches_any;

/// The committed list.
const COMMITTED: &str = include_str!("../expected-skips.txt");

/// What a check without a kernel is skipped on.
pub const NO_KERNEL: &str = "-";

/// A line `skipped: NAME on KERNEL: WHY`, by which a program or script says what it skipped.
const PREFIX: &str = "skipped: ";

/// One skip that may be.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Expected {
    /// A glob over names of rows or checks.
    name: String,
    /// A glob over names of kernels, or [`NO_KERNEL`].
    on: String,
    /// Why.
    reason: String,
}

/// All skips that may be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExpectedSkips(Vec<Expected>);

/// A skip, as it was told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Skip<'a> {
    /// The row or check.
    pub name: &'a str,
    /// The kernel's name, or [`NO_KERNEL`].
    pub on: &'a str,
    /// What was missing.
    pub why: &'a str,
}

impl ExpectedSkips {
    /// Reads a list.
    ///
    /// # Errors
    /// A line is no `NAME ON REASON`, or its name would match everything: in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let expected = |line: &str| {
            let (name, rest) = line.split_once(char::is_whitespace)?;
            let (on, reason) = rest.trim_start().split_once(char::is_whitespace)?;
            // A filter of several globs, or of everything, is no list with a reason each.
            let narrow = |glob: &str| !glob.contains([',', '!']);
            let named = name.chars().any(|c| c.is_ascii_alphabetic());
            (narrow(name) && narrow(on) && named).then(|| Expected {
                name: name.into(),
                on: on.into(),
                reason: reason.trim().into(),
            })
        };
        lines
            .map(|line| expected(line).ok_or_else(|| format!("not NAME ON REASON: {line}")))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The committed list.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn committed() -> Result<Self, String> {
        Self::parse(COMMITTED)
    }

    /// Why this may be skipped; none if it may not.
    #[must_use]
    pub fn reason(&self, name: &str, on: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|row| matches_any(&row.name, name) && matches_any(&row.on, on))
            .map(|row| row.reason.as_str())
    }
}

impl<'a> Skip<'a> {
    /// Reads a line.
    #[must_use]
    pub fn parse(line: &'a str) -> Option<Self> {
        let (name, rest) = line.strip_prefix(PREFIX)?.split_once(" on ")?;
        let (on, why) = rest.split_once(": ")?;
        Some(Self { name, on, why })
    }
}

impl std::fmt::Display for Skip<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{PREFIX}{} on {}: {}", self.name, self.on, self.why.replace(['\n', '\r'], " "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::x86::TABLE;

    #[test]
    fn the_committed_list_names_what_there_is() {
        let list = ExpectedSkips::committed().unwrap();
        let checks = ["counts/another-rustc", "plugin/kvm"];
        for row in &list.0 {
            assert!(row.reason.split_whitespace().count() > 4, "{}: what is the reason?", row.name);
            let rows =
                TABLE.iter().map(|row| row.name).chain(checks).filter(|name| matches_any(&row.name, name)).count();
            assert!((1..=4).contains(&rows), "{} matches {rows} rows", row.name);
        }
    }

    #[test]
    fn only_what_is_listed_may_be_skipped() {
        let list =
            ExpectedSkips::parse("# nothing\n\nkernel/pre*  6.1   it knows one model\ncounts/rustc - another one\n")
                .unwrap();
        assert_eq!(list.reason("kernel/preempt", "6.1"), Some("it knows one model"));
        assert_eq!(list.reason("kernel/preempt", "6.12"), None);
        assert_eq!(list.reason("kernel/kprobe", "6.1"), None);
        assert_eq!(list.reason("counts/rustc", NO_KERNEL), Some("another one"));
    }

    #[test]
    fn a_list_without_reasons_or_for_everything_is_refused() {
        for bad in [
            "kernel/preempt",
            "kernel/preempt 6.1",
            "* * everything",
            "a,b - both",
            "!a - all but this",
            "*/* 6.1 all of them",
        ] {
            assert!(ExpectedSkips::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn lines_read_back() {
        let skip = Skip { name: "kernel/preempt", on: "6.1", why: "this kernel knows: none" };
        assert_eq!(Skip::parse(&skip.to_string()), Some(skip));
        for other in ["", "skipped: 3", "ok 1 - a # SKIP b", "skipped: a on b"] {
            assert_eq!(Skip::parse(other), None, "{other}");
        }
    }
}
