//! Adds up what the steps of a test run say of themselves, so that nothing hides: an unlisted skip, a step that counted
//! nothing or ended badly without counting a failure, and too many boots that had to be repeated are failures.

use crate::skips::{ExpectedSkips, Skip};
use std::fmt;

/// The line that ends a step's log, before its exit status.
pub const ENDED: &str = "step ended with ";

/// So many repeated boots are no fault of a small run...
const REPEATED: usize = 2;
/// ...and one more in so many boots. Healthy kernels die of an outdated breakpoint under multi-threaded TCG once in
/// some dozens of boots (docs/emulator.md).
const ONE_IN: usize = 8;

/// What was counted.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// Checks that passed.
    pub passed: usize,
    /// Checks that failed, what should have been counted and was not included.
    pub failed: usize,
    /// Skips, all of them on the list.
    pub skipped: usize,
    /// Boots and their repetitions.
    pub boots: Boots,
    /// What was found wrong with the counting itself, in words.
    pub complaints: Vec<String>,
}

/// Boots of guests, and what was repeated of them since the emulator spoiled it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Boots {
    /// Boots that were asked for.
    pub asked: usize,
    /// Further boots, for kernels that died of an outdated breakpoint.
    pub repeated: usize,
    /// Further attempts at single scenarios.
    pub attempts: usize,
}

impl Boots {
    /// Reads the line that [`fmt::Display`] writes.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let mut numbers = line.strip_suffix(" scenarios repeated")?.split(", ");
        let mut number = |suffix: &str| numbers.next()?.strip_suffix(suffix)?.parse().ok();
        Some(Self { asked: number(" boots")?, repeated: number(" boots repeated")?, attempts: number("")? })
    }

    /// What is wrong with so many repetitions, if anything.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        let limit = REPEATED + self.asked / ONE_IN;
        (self.repeated > limit).then(|| {
            format!("{} of {} boots were repeated; more than {limit} are no chance", self.repeated, self.asked)
        })
    }
}

impl fmt::Display for Boots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} boots, {} boots repeated, {} scenarios repeated", self.asked, self.repeated, self.attempts)
    }
}

impl std::ops::AddAssign for Boots {
    fn add_assign(&mut self, other: Self) {
        self.asked += other.asked;
        self.repeated += other.repeated;
        self.attempts += other.attempts;
    }
}

/// `N passed, N failed, N skipped`.
fn counts(line: &str) -> Option<(usize, usize, usize)> {
    let mut parts = line.split(", ");
    let mut number = |word: &str| parts.next()?.strip_suffix(word)?.trim_end().parse().ok();
    let found = (number("passed")?, number("failed")?, number("skipped")?);
    parts.next().is_none().then_some(found)
}

/// A result line of cargo test; what it ignored counts as skipped.
fn cargo_counts(line: &str) -> Option<(usize, usize, usize)> {
    let (_, rest) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let number = |word: &str| rest.split("; ").find_map(|part| part.strip_suffix(word)?.trim_end().parse().ok());
    Some((number("passed")?, number("failed")?, number("ignored")?))
}

impl Tally {
    /// Reads the log of one step: its result lines, its skips by name, and how it ended.
    #[must_use]
    pub fn of_step(name: &str, log: &str, expected: &ExpectedSkips) -> Self {
        let mut tally = Self::default();
        let (mut named, mut status) = (0, None);
        for line in log.lines() {
            if let Some((passed, failed, skipped)) = counts(line).or_else(|| cargo_counts(line)) {
                tally.passed += passed;
                tally.failed += failed;
                tally.skipped += skipped;
            } else if let Some(boots) = Boots::parse(line) {
                tally.boots += boots;
            } else if let Some(skip) = Skip::parse(line) {
                named += 1;
                if expected.reason(skip.name, skip.on).is_none() {
                    tally.complain(1, format!("{name}: not on the list of expected skips: {skip}"));
                }
            } else if let Some(code) = line.strip_prefix(ENDED) {
                status = code.parse::<i32>().ok();
            }
        }
        if tally.skipped > named {
            tally.complain(
                tally.skipped - named,
                format!("{name}: {} skips, of which {named} are named", tally.skipped),
            );
        }
        if tally.passed + tally.failed + tally.skipped == 0 {
            tally.complain(1, format!("{name}: it counted nothing"));
        }
        match status {
            Some(0) => {}
            Some(code) if tally.failed == 0 => {
                tally.complain(1, format!("{name}: it ended with {code} and counted no failure"))
            }
            Some(_) => {}
            None => tally.complain(1, format!("{name}: it has no end")),
        }
        tally
    }

    fn complain(&mut self, failures: usize, complaint: String) {
        self.failed += failures;
        self.complaints.push(complaint);
    }

    /// Adds another step's.
    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.boots += other.boots;
        self.complaints.extend(other.complaints);
    }

    /// Judges the repetitions, once all steps are there.
    pub fn close(&mut self) {
        if let Some(fault) = self.boots.fault() {
            self.complain(1, fault);
        }
    }

    /// Did all go well?
    #[must_use]
    pub fn good(&self) -> bool {
        self.failed == 0 && self.passed > 0
    }
}

/// The complaints, the boots, and as the last line the counts.
impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.complaints.iter().try_for_each(|complaint| writeln!(f, "{complaint}"))?;
        writeln!(f, "{}", self.boots)?;
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list() -> ExpectedSkips {
        ExpectedSkips::parse("kernel/preempt 6.1 it knows one model only\n").unwrap()
    }

    fn step(log: &str) -> Tally {
        Tally::of_step("step", log, &list())
    }

    #[test]
    fn result_lines_of_both_kinds_add_up() {
        let log = "running 3 tests\ntest result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.1s\n\
                   test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out\n\
                   a test, 9 passed, 9 failed, 9 skipped\n\
                   7 boots, 1 boots repeated, 2 scenarios repeated\n10 passed, 1 failed, 0 skipped\nstep ended with 1\n";
        let tally = step(log);
        assert_eq!((tally.passed, tally.failed, tally.skipped), (14, 3, 0));
        assert_eq!(tally.boots, Boots { asked: 7, repeated: 1, attempts: 2 });
        assert!(tally.complaints.is_empty() && !tally.good());
        assert!(tally.to_string().ends_with("\n14 passed, 3 failed, 0 skipped"));
    }

    #[test]
    fn an_expected_skip_is_counted_and_another_one_fails() {
        let good = step("skipped: kernel/preempt on 6.1: only one\n5 passed, 0 failed, 1 skipped\nstep ended with 0\n");
        assert_eq!((good.passed, good.failed, good.skipped, good.good()), (5, 0, 1, true));
        let elsewhere =
            step("skipped: kernel/preempt on 6.12: only one\n5 passed, 0 failed, 1 skipped\nstep ended with 0\n");
        assert_eq!((elsewhere.failed, elsewhere.good()), (1, false));
        // The name of one skip is no licence for two, and a test that cargo ignored has none.
        let two = step("skipped: kernel/preempt on 6.1: only one\n5 passed, 0 failed, 2 skipped\nstep ended with 0\n");
        assert_eq!((two.failed, two.complaints.len()), (1, 1));
        assert!(!step("test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured\nstep ended with 0\n").good());
    }

    #[test]
    fn a_step_that_says_nothing_or_ends_badly_fails() {
        assert!(!step("step ended with 0\n").good());
        assert!(!step("5 passed, 0 failed, 0 skipped\n").good());
        let died = step("5 passed, 0 failed, 0 skipped\nstep ended with 101\n");
        assert_eq!((died.failed, died.complaints.len()), (1, 1));
        let failed = step("5 passed, 2 failed, 0 skipped\nstep ended with 1\n");
        assert_eq!((failed.failed, failed.complaints.len()), (2, 0));
    }

    #[test]
    fn repeated_boots_have_a_limit() {
        let boots = |asked, repeated| Boots { asked, repeated, attempts: 40 };
        for (asked, repeated, good) in [(1, 2, true), (1, 3, false), (16, 4, true), (16, 5, false)] {
            assert_eq!(boots(asked, repeated).fault().is_none(), good, "{repeated} of {asked}");
            let mut tally = Tally { passed: 9, boots: boots(asked, repeated), ..Tally::default() };
            tally.close();
            assert_eq!(tally.good(), good);
        }
        assert_eq!(Boots::parse(&boots(16, 4).to_string()), Some(boots(16, 4)));
        assert_eq!(Boots::parse("16 boots"), None);
    }

    #[test]
    fn steps_add_up() {
        let mut sum = Tally::default();
        assert!(!sum.good(), "nothing passed");
        sum.add(step("5 passed, 0 failed, 0 skipped\nstep ended with 0\n"));
        sum.add(step(
            "2 boots, 2 boots repeated, 1 scenarios repeated\n5 passed, 0 failed, 0 skipped\nstep ended with 0\n",
        ));
        sum.close();
        assert_eq!(sum.to_string(), "2 boots, 2 boots repeated, 1 scenarios repeated\n10 passed, 0 failed, 0 skipped");
        sum.add(step(""));
        assert_eq!((sum.failed, sum.complaints.len()), (2, 2));
    }
}
