//! How many changes a round makes.
//!
//! A timer interrupt, 250 times a second, serializes the executor and rightly hides a change that it falls into: the
//! more probably, the longer the change takes. So a change that was made and seen well within a tick counts as tight, a
//! slower one for as much less as it says less, and a round goes on until it had enough of them; or until its time is
//! over, on a host that gives its CPUs to others for longer than a tick.
//!
//! Where the plugin has old instructions executed (`icsan.inject=1`), what the executor ran is the result: a wrong
//! version is counted, and does not spoil the attempt. The emulator's own staleness is repaired then. A round of a bad
//! scenario makes a number of changes, and more only if ticks hide too many of them.

use crate::outcome::{Outcome, wrong};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// The time from one timer interrupt to the next, with 250 of them a second (Debian's kernels).
const TICK: Duration = Duration::from_millis(4);

/// A change that takes no longer, from before the executor runs the old version until it was seen to run the new one,
/// is tight: one in five is hidden.
const TIGHT: Duration = Duration::from_micros(800);

/// For how many tight changes one stands that took so long, at most for one. With a tick every [`TICK`], it is hidden
/// with the probability `took / TICK`. So many tight ones are all hidden as probably as it is.
fn tightness(took: Duration) -> f64 {
    let hidden = |time: Duration| (time.as_secs_f64() / TICK.as_secs_f64()).ln();
    (hidden(took) / hidden(TIGHT)).clamp(0.0, 1.0)
}

/// As many tight changes make a round. (On an idle host QEMU 10.0 runs an outdated block after nearly each change of
/// `cross/jmp5-bytes`, which is then no evidence: of rounds of 16 tight changes one in forty had nothing else, with an
/// older plugin as well.)
const ENOUGH: u32 = 32;

/// With fewer than this, a round of a bad scenario says nothing.
const TOO_FEW: u32 = 4;

/// When a round of a bad scenario ends, whatever it had. (Versions repeat after 255 changes, but neighbours never are
/// equal.)
const CHANGES: u32 = 1000;

/// The same for a good one.
pub const FEWER_CHANGES: u32 = 60;

/// How long a round of a bad scenario may go on.
pub const PATIENT: Duration = Duration::from_secs(12);

/// How long a round of a good scenario may go on: what did not happen needs less waiting for.
const BRIEF: Duration = Duration::from_millis(1200);

/// Under injection, the fewest changes of a round of a bad scenario.
pub const INJECTED_CHANGES: u32 = 60;

/// So many of them must have failed, or else so many must say something, because they failed or were tight. A tick
/// hides the rest on a busy host.
const FAILED: u32 = 15;
const TELLING: u32 = 60;

/// Or until it took as long as this.
pub const INJECTED_LIMIT: Duration = Duration::from_secs(6);

/// Under injection, a round of a good one: that nothing fails must have been tried often.
const INJECTED_GOOD: (u32, Duration) = (1000, Duration::from_secs(10));

static INJECT: AtomicBool = AtomicBool::new(false);

/// From now on old instructions are executed on purpose.
pub fn set_injected() {
    INJECT.store(true, Relaxed);
}

/// Are old instructions executed on purpose?
pub fn injected() -> bool {
    INJECT.load(Relaxed)
}

/// The kernel ran old code where no CPU may run it: the emulator's fault, but under injection the guest's, or ICSAN's.
pub fn outdated(why: String) -> Outcome {
    if injected() { Outcome::Failed(why) } else { Outcome::Spoiled(why) }
}

/// Counts the changes of a round.
#[derive(Debug)]
pub struct Pace {
    limit: Duration,
    most: u32,
    /// Is it over with enough tight changes, and worth nothing with too few?
    tight_ones: bool,
    /// Must each change be seen?
    judged: bool,
    injected: bool,
    start: Instant,
    change: Instant,
    changes: u32,
    /// As many tight changes tell as much as these.
    tight: f64,
    seen: u32,
    /// The first thing that was not as it should be.
    wrong: Option<String>,
}

impl Pace {
    /// For a scenario that is bad, whatever the profile. Nothing is demanded of what the executor runs.
    pub fn of_bad() -> Self {
        Self::new((CHANGES, PATIENT), (CHANGES, INJECTED_LIMIT), true, false, injected())
    }

    /// For a scenario that is good, and paced as a bad one is: so that both do the same.
    pub fn of_judged() -> Self {
        Self::new((CHANGES, PATIENT), INJECTED_GOOD, true, true, injected())
    }

    /// For a scenario that is good.
    pub fn of_good() -> Self {
        Self::new((FEWER_CHANGES, BRIEF), INJECTED_GOOD, false, true, injected())
    }

    /// For a good one that takes its time for each change.
    pub fn of_few(changes: u32) -> Self {
        Self::new((changes, PATIENT), INJECTED_GOOD, false, true, injected())
    }

    /// A round of so many changes, or of so much time, and the same under injection. Are there to be tight ones, and
    /// must each change be seen?
    pub fn new(
        plain: (u32, Duration),
        under_injection: (u32, Duration),
        tight_ones: bool,
        judged: bool,
        injected: bool,
    ) -> Self {
        let now = Instant::now();
        let (most, limit) = if injected { under_injection } else { plain };
        Self {
            limit,
            most,
            tight_ones,
            judged,
            injected,
            start: now,
            change: now,
            changes: 0,
            tight: 0.0,
            seen: 0,
            wrong: None,
        }
    }

    /// The number of the next change, from 1, before the executor runs the old version; none if the round is over.
    pub fn next(&mut self) -> Option<u32> {
        let now = Instant::now();
        if self.has_enough() || self.changes >= self.most || now - self.start > self.limit {
            return None;
        }
        self.change = now;
        self.changes += 1;
        Some(self.changes)
    }

    fn failed(&self) -> u32 {
        self.changes - self.seen
    }

    /// Whole ones.
    fn tight(&self) -> u32 {
        self.tight as u32
    }

    fn has_enough(&self) -> bool {
        match (self.injected, self.judged) {
            (false, _) => self.tight_ones && self.tight() >= ENOUGH,
            (true, true) => false,
            (true, false) => {
                self.changes >= INJECTED_CHANGES && (self.failed() >= FAILED || self.failed() + self.tight() >= TELLING)
            }
        }
    }

    /// The change is over: the executor ran what returns `got`, and should have run what returns `expected`. Answers
    /// with the end of the attempt if it must not go on: the emulator is at fault.
    #[must_use]
    pub fn ran(&mut self, expected: u64, got: u64) -> Option<Outcome> {
        self.saw(got == expected, || wrong(expected, got))
    }

    /// The same, with other words for what is wrong.
    #[must_use]
    pub fn saw(&mut self, seen: bool, wrong: impl FnOnce() -> String) -> Option<Outcome> {
        if seen {
            self.seen += 1;
            self.tight += tightness(self.change.elapsed());
            return None;
        }
        let wrong = format!("patch {}: {}", self.changes, wrong());
        if self.judged && !self.injected {
            return Some(Outcome::Spoiled(wrong));
        }
        self.wrong.get_or_insert(wrong);
        None
    }

    /// The end of the round.
    pub fn outcome(&self) -> Outcome {
        // What failed was hidden by no tick, however long it took.
        let telling = if self.injected { self.tight() + self.failed() } else { self.tight() };
        if self.tight_ones && telling < TOO_FEW && !(self.injected && self.judged) {
            return Outcome::Spoiled(format!(
                "the host is too busy: {} changes tell as little as {telling} well within a tick",
                self.changes
            ));
        }
        let wrong = self.wrong.clone().filter(|_| self.injected);
        Outcome::Done { patches: self.changes, seen: self.seen, tight: self.tight(), wrong }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(judged: bool, injected: bool, results: &[u64]) -> (u32, Outcome) {
        let mut pace = Pace::new((5, PATIENT), (3, PATIENT), false, judged, injected);
        let mut results = results.iter().cycle();
        while let Some(n) = pace.next() {
            if let Some(outcome) = pace.ran(7, *results.next().unwrap()) {
                return (n, outcome);
            }
        }
        (pace.changes, pace.outcome())
    }

    #[test]
    fn a_wrong_result_spoils_a_judged_round_but_under_injection_it_is_counted() {
        assert_eq!(round(true, false, &[7, 6]), (2, Outcome::Spoiled("patch 2: 0x6 instead of 0x7".into())));
        let Outcome::Done { patches: 5, seen: 3, wrong: None, .. } = round(false, false, &[7, 6]).1 else { panic!() };
        for judged in [false, true] {
            let (changes, outcome) = round(judged, true, &[7, 6]);
            assert_eq!(changes, 3);
            let Outcome::Done { patches: 3, seen: 2, wrong: Some(why), .. } = outcome else { panic!("{outcome:?}") };
            assert_eq!(why, "patch 2: 0x6 instead of 0x7");
        }
    }

    #[test]
    fn under_injection_a_bad_round_goes_on_until_it_says_something() {
        let changes = |seen: fn(u32) -> bool, quick: bool| {
            let mut pace = Pace::new((CHANGES, PATIENT), (CHANGES, PATIENT), true, false, true);
            while let Some(n) = pace.next() {
                pace.change = if quick { Instant::now() } else { pace.start - TICK };
                assert_eq!(pace.saw(seen(n), String::new), None);
            }
            pace.changes
        };
        assert_eq!(changes(|_| false, true), INJECTED_CHANGES);
        assert_eq!(changes(|_| true, true), TELLING);
        assert_eq!(changes(|n| n % 10 != 0, false), 10 * FAILED);
        assert_eq!(changes(|_| true, false), CHANGES);
    }

    #[test]
    fn a_slower_change_stands_for_less_than_a_tight_one() {
        assert_eq!([0, 400, 800].map(|micros| tightness(Duration::from_micros(micros))), [1.0; 3]);
        assert_eq!([4000, 9000].map(|micros| tightness(Duration::from_micros(micros))), [0.0; 2]);
        // Twice a half is a quarter; a tight one is hidden in one case of five.
        let half = tightness(Duration::from_millis(2));
        assert!((0.2f64.powf(half) - 0.5).abs() < 1e-9 && (0.2f64.powf(2.0 * half) - 0.25).abs() < 1e-9);
        let mut pace = Pace::new((CHANGES, PATIENT), (CHANGES, PATIENT), true, false, false);
        while pace.next().is_some() {
            pace.change = Instant::now() - TICK / 2;
            let _ = pace.saw(true, String::new);
        }
        assert!((74..90).contains(&pace.changes), "{}", pace.changes);
    }

    #[test]
    fn a_busy_host_spoils_a_round_that_says_nothing() {
        let spoiled = |injected, judged, wrong: u32| {
            let mut pace = Pace::new((9, PATIENT), (9, PATIENT), true, judged, injected);
            while let Some(n) = pace.next() {
                pace.change = pace.start - TICK;
                let _ = pace.saw(n > wrong, String::new);
            }
            matches!(pace.outcome(), Outcome::Spoiled(_))
        };
        assert!(spoiled(false, false, 0) && spoiled(false, false, TOO_FEW));
        assert!(spoiled(true, false, TOO_FEW - 1) && !spoiled(true, false, TOO_FEW));
        assert!(!spoiled(true, true, 0));
    }
}
