//! What a round came to, and the lines in which the guest says so.
//!
//! `litmus NAME ROUNDS OUTCOME=COUNT …`: an outcome is its ends joined by commas, an end a value or what happened `@`
//! which offset.

use std::collections::BTreeMap;
use std::fmt;

/// What one call came to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum End {
    /// It returned this.
    Returned(u64),
    /// It executed a breakpoint; the offset behind it, into the code.
    Trap(u64),
    /// It executed what is no instruction, at this offset.
    Undefined(u64),
    /// It touched what it must not, at this offset. Never allowed.
    Fault(u64),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Returned(value) => write!(f, "{value:#x}"),
            Self::Trap(at) => write!(f, "trap@{at:#x}"),
            Self::Undefined(at) => write!(f, "ud@{at:#x}"),
            Self::Fault(at) => write!(f, "fault@{at:#x}"),
        }
    }
}

impl End {
    fn parse(text: &str) -> Option<Self> {
        let number = |text: &str| u64::from_str_radix(text.strip_prefix("0x")?, 16).ok();
        match text.split_once('@') {
            None => number(text).map(Self::Returned),
            Some(("trap", at)) => number(at).map(Self::Trap),
            Some(("ud", at)) => number(at).map(Self::Undefined),
            Some(("fault", at)) => number(at).map(Self::Fault),
            Some(_) => None,
        }
    }
}

/// What the calls of a round came to, in their order.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Outcome(pub Vec<End>);

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().enumerate().try_for_each(|(i, end)| write!(f, "{}{end}", if i == 0 { "" } else { "," }))
    }
}

impl Outcome {
    /// Reads one back.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        text.split(',').map(End::parse).collect::<Option<_>>().map(Self)
    }
}

/// How often each outcome came.
pub type Counts = BTreeMap<Outcome, u64>;

/// The line for one test.
#[must_use]
pub fn line(name: &str, counts: &Counts) -> String {
    let mut line = format!("litmus {name} {}", counts.values().sum::<u64>());
    counts.iter().for_each(|(outcome, count)| line.push_str(&format!(" {outcome}={count}")));
    line
}

/// Reads a line back: name and counts. `None`: it is another line, or cut off.
#[must_use]
pub fn parse_line(line: &str) -> Option<(&str, Counts)> {
    let mut words = line.strip_prefix("litmus ")?.split_whitespace();
    let (name, rounds) = (words.next()?, words.next()?.parse::<u64>().ok()?);
    let read = |word: &str| {
        let (outcome, count) = word.split_once('=')?;
        Some((Outcome::parse(outcome)?, count.parse().ok()?))
    };
    let counts = words.map(read).collect::<Option<Counts>>()?;
    (counts.values().sum::<u64>() == rounds).then_some((name, counts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_read_back() {
        let one = Outcome(vec![End::Returned(1), End::Trap(17), End::Undefined(0), End::Fault(0xfff)]);
        let counts = Counts::from([(one, 3), (Outcome(vec![End::Returned(u64::MAX)]), 1997)]);
        let text = line("name", &counts);
        assert_eq!(parse_line(&text), Some(("name", counts)));
        assert_eq!(parse_line(text.strip_suffix('7').unwrap()), None, "cut off");
        assert_eq!(parse_line("ok 1 - other"), None);
    }
}
