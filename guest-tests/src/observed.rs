//! What a guest saw of its own changes: a part of the comment line before a result.
//!
//! ```text
//! # cross/imm8: 12 of 60 changes seen, 3 tight, 41 ms, emulator: 0
//! # cross/jmp5: died: killed by signal 4
//! ```

use std::fmt;

/// What came of the changes of a round.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Observed {
    /// So many of them were seen: after the others the executor ran something else than what it should have run.
    Changes {
        /// Changes after which it was right.
        seen: u32,
        /// All of them.
        of: u32,
        /// Those that were seen so soon that no tick can have helped.
        tight: u32,
    },
    /// The process died. Of what, in words.
    Died(String),
}

impl fmt::Display for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changes { seen, of, tight } => write!(f, "{seen} of {of} changes seen, {tight} tight"),
            Self::Died(how) => write!(f, "died: {how}"),
        }
    }
}

impl Observed {
    /// Reads a comment on the scenario `name`. `None`: it is about something else.
    #[must_use]
    pub fn parse(name: &str, comment: &str) -> Option<Self> {
        let text = comment.strip_prefix(name)?.strip_prefix(": ")?;
        if let Some(how) = text.strip_prefix("died: ") {
            return Some(Self::Died(how.to_owned()));
        }
        let (counts, rest) = text.split_once(" changes seen, ")?;
        let (seen, of) = counts.split_once(" of ")?;
        let (tight, _) = rest.split_once(" tight")?;
        Some(Self::Changes { seen: seen.parse().ok()?, of: of.parse().ok()?, tight: tight.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::Observed;

    #[test]
    fn comments_read_back() {
        for observed in [Observed::Changes { seen: 12, of: 60, tight: 3 }, Observed::Died("killed by signal 4".into())]
        {
            assert_eq!(Observed::parse("cross/imm8", &format!("cross/imm8: {observed}")), Some(observed));
        }
        let rest =
            "cross/imm8: 12 of 60 changes seen, 3 tight, 41 ms, emulator: 0, first wrong: patch 1: 0x1 instead of 0x2";
        assert_eq!(Observed::parse("cross/imm8", rest), Some(Observed::Changes { seen: 12, of: 60, tight: 3 }));
        assert_eq!(Observed::parse("cross/imm", rest), None);
        assert_eq!(
            Observed::parse("kernel/ftrace", "kernel/ftrace: 12 places of the kernel's text changed, 3 times, 40 ms"),
            None
        );
        assert_eq!(Observed::parse("own/jump", "own/jump: it broke"), None);
    }
}
