//! What came of one attempt at a scenario, and how a child process tells its parent.

use std::io;

/// What came of one attempt.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It ran to its end; `seen` of `patches` changes were observed in time, `tight` of them well within a tick.
    Done {
        /// Changes made.
        patches: u32,
        /// Changes that the executor was seen to run.
        seen: u32,
        /// Changes that no tick can have hidden.
        tight: u32,
        /// Under injection, what was wrong about the first change that was not seen.
        wrong: Option<String>,
    },
    /// Under injection, the process died: of what, in words.
    Died(String),
    /// The kernel did what it was asked for, and this proves it.
    Proven(String),
    /// Old code ran where no CPU may run it: the emulator's fault, try again.
    Spoiled(String),
    /// The guest lacks something.
    Skipped(String),
    /// It could not be carried out.
    Failed(String),
}

/// What a scenario returns: errors of system calls are failures.
pub type Attempt = io::Result<Outcome>;

impl Outcome {
    /// One line for the parent.
    pub fn to_line(&self) -> String {
        match self {
            Self::Done { patches, seen, tight, wrong } => {
                format!("done {patches} {seen} {tight} {}", wrong.as_deref().unwrap_or_default())
            }
            Self::Died(how) => format!("died {how}"),
            Self::Proven(how) => format!("proven {how}"),
            Self::Spoiled(why) => format!("spoiled {why}"),
            Self::Skipped(why) => format!("skipped {why}"),
            Self::Failed(why) => format!("failed {why}"),
        }
    }

    /// Reads such a line.
    pub fn from_line(line: &str) -> Option<Self> {
        let (word, rest) = line.trim_end().split_once(' ')?;
        match word {
            "done" => {
                let mut words = rest.splitn(4, ' ');
                let mut number = || words.next()?.parse().ok();
                let (patches, seen, tight) = (number()?, number()?, number()?);
                let wrong = words.next().filter(|why| !why.is_empty()).map(str::to_owned);
                Some(Self::Done { patches, seen, tight, wrong })
            }
            "died" => Some(Self::Died(rest.to_owned())),
            "proven" => Some(Self::Proven(rest.to_owned())),
            "spoiled" => Some(Self::Spoiled(rest.to_owned())),
            "skipped" => Some(Self::Skipped(rest.to_owned())),
            "failed" => Some(Self::Failed(rest.to_owned())),
            _ => None,
        }
    }
}

/// Says that code returned something else than it should.
pub fn wrong(expected: u64, got: u64) -> String {
    format!("{got:#x} instead of {expected:#x}")
}

#[cfg(test)]
mod tests {
    use super::Outcome;

    #[test]
    fn lines_read_back() {
        for outcome in [
            Outcome::Done { patches: 40, seen: 40, tight: 12, wrong: None },
            Outcome::Done { patches: 40, seen: 39, tight: 12, wrong: Some("patch 3: 0x1 instead of 0x2".into()) },
            Outcome::Died("killed by signal 4".into()),
            Outcome::Proven("12 places of the kernel's text changed".into()),
            Outcome::Spoiled("patch 3: 0x1 instead of 0x2".into()),
            Outcome::Skipped("no tracefs".into()),
            Outcome::Failed("it broke".into()),
        ] {
            assert_eq!(Outcome::from_line(&outcome.to_line()), Some(outcome));
        }
        assert_eq!(Outcome::from_line(""), None);
        assert_eq!(Outcome::from_line("done 4 4"), None);
    }
}
