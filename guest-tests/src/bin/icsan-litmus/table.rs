//! The table at the end.

use crate::seen::Seen;
use icsan_guest_tests::litmus::compare::Difference;
use icsan_guest_tests::litmus::explore::Allowed;
use icsan_guest_tests::litmus::{Litmus, Outcome};
use std::collections::BTreeSet;
use std::fmt::Write;

/// Everything that was seen. `None`: not tried.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Runs {
    /// Under injection, all boots together.
    pub injected: Option<Seen>,
    /// Under QEMU without the plugin.
    pub plain: Option<Seen>,
    /// On this CPU.
    pub native: Option<Seen>,
}

/// One test: what the model says, and how each kind of run differs from it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    name: &'static str,
    allowed: Allowed,
    injected: Option<Compared>,
    plain: Option<Compared>,
    native: Option<Compared>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Compared {
    rounds: u64,
    seen: usize,
    difference: Difference,
}

impl Row {
    /// Compares. A run that does not name the test did not run it (too few CPUs).
    pub fn of(test: &'static Litmus, allowed: &Allowed, runs: &Runs) -> Self {
        let compared = |seen: &Option<Seen>| {
            let counts = seen.as_ref()?.get(test.name)?;
            Some(Compared {
                rounds: counts.values().sum(),
                seen: counts.len(),
                difference: Difference::of(allowed, counts),
            })
        };
        let Runs { injected, plain, native } = runs;
        let (injected, plain, native) = (compared(injected), compared(plain), compared(native));
        Self { name: test.name, allowed: allowed.clone(), injected, plain, native }
    }

    /// Has injection shown all that is allowed?
    pub fn is_complete(&self) -> bool {
        self.injected.as_ref().is_some_and(|compared| compared.difference.missing.is_empty())
    }

    /// What is wrong, in words. Injection must show the whole set and nothing else, all others a part of it.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut tell = |run: &str, what: &str, outcomes: &BTreeSet<Outcome>| {
            if !outcomes.is_empty() {
                let list: Vec<String> = outcomes.iter().map(Outcome::to_string).collect();
                faults.push(format!("{}: {run}: {what}: {}", self.name, list.join(" ")));
            }
        };
        for (run, compared) in [("injection", &self.injected), ("plain", &self.plain), ("native", &self.native)] {
            let Some(Compared { difference, .. }) = compared else { continue };
            tell(run, "NOT ALLOWED by the model", &difference.extra);
            // Outcomes behind a candidate that the interpreter refuses are not in the set, so all of it must be seen.
            if run == "injection" {
                tell(run, "NEVER SEEN", &difference.missing);
            }
        }
        faults
    }
}

/// All rows in words, the faults, and one line of counts.
pub fn text(rows: &[Row]) -> String {
    let mut text = format!(
        "{:20} {:>7} {:>8} {:>6} {:>8} {:>6} {:>6} {:>7}\n",
        "test", "allowed", "rounds", "seen", "missing", "extra", "plain", "native"
    );
    for row in rows {
        let _ = write!(text, "{:20} {:>7}", row.name, row.allowed.outcomes.len());
        match &row.injected {
            Some(Compared { rounds, seen, difference }) => {
                let _ = write!(
                    text,
                    " {rounds:>8} {seen:>6} {:>8} {:>6}",
                    difference.missing.len(),
                    difference.extra.len()
                );
            }
            None => _ = write!(text, " {:>8} {:>6} {:>8} {:>6}", "-", "-", "-", "-"),
        }
        for (compared, width) in [(&row.plain, 6), (&row.native, 7)] {
            let word = match compared {
                None => "-".to_owned(),
                Some(compared) if compared.difference.is_subset() => compared.seen.to_string(),
                Some(_) => "EXTRA".to_owned(),
            };
            let _ = write!(text, " {word:>width$}");
        }
        let _ = writeln!(text, "{}", if row.faults().is_empty() { "" } else { "  FAIL" });
        for refusal in &row.allowed.not_carried_out {
            let _ = writeln!(text, "    the interpreter does not carry out {refusal}");
        }
    }
    rows.iter().flat_map(Row::faults).for_each(|fault| _ = writeln!(text, "{fault}"));
    let outcomes: usize = rows.iter().map(|row| row.allowed.outcomes.len()).sum();
    let seen: usize = rows.iter().filter_map(|row| row.injected.as_ref()).map(|compared| compared.seen).sum();
    let wrong = rows.iter().filter(|row| !row.faults().is_empty()).count();
    let _ = writeln!(text, "{} tests, {outcomes} outcomes allowed, {seen} seen under injection", rows.len());
    let _ = writeln!(text, "{} passed, {wrong} failed, 0 skipped", rows.len() - wrong);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use icsan_guest_tests::litmus::outcome::Counts;
    use icsan_guest_tests::litmus::{End, by_name, explore};

    fn row(change: impl Fn(&mut Counts)) -> Row {
        let test = by_name("alias-one").unwrap();
        let allowed = explore::allowed(test).unwrap();
        let mut counts: Counts = allowed.outcomes.iter().map(|outcome| (outcome.clone(), 1)).collect();
        change(&mut counts);
        let seen = Seen::from([(test.name.to_owned(), counts)]);
        let native =
            Seen::from([(test.name.to_owned(), Counts::from([(allowed.outcomes.last().unwrap().clone(), 9)]))]);
        Row::of(test, &allowed, &Runs { injected: Some(seen), plain: None, native: Some(native) })
    }

    #[test]
    fn equal_sets_pass_and_a_subset_is_enough_natively() {
        let row = row(|_| ());
        assert!(row.is_complete() && row.faults().is_empty());
        assert!(text(&[row]).ends_with("\n1 passed, 0 failed, 0 skipped\n"));
    }

    #[test]
    fn an_extra_outcome_fails_and_so_does_a_missing_one() {
        let extra = row(|counts| _ = counts.insert(Outcome(vec![End::Fault(3)]), 1));
        assert!(extra.faults()[0].contains("NOT ALLOWED by the model: fault@0x3"), "{:?}", extra.faults());
        let missing = row(|counts| drop(counts.pop_first()));
        assert!(
            !missing.is_complete() && missing.faults()[0].contains("NEVER SEEN: 0x1,0x1"),
            "{:?}",
            missing.faults()
        );
        assert!(text(&[extra, missing]).ends_with("\n0 passed, 2 failed, 0 skipped\n"));
    }
}
