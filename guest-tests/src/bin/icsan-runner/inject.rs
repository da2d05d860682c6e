//! `--inject`: the plugin has old instructions executed, and what the guest saw of it is judged by the table.

use crate::guest_output::Round;
use icsan_guest_tests::observed::Observed;
use icsan_guest_tests::table::{Scenario, Visible};
use icsan_guest_tests::verdict::{Kind, Verdict};
use std::str::FromStr;

/// Of the changes of a bad scenario that say something one in so many must fail, at least: where a torn instruction is
/// asked for, every other change can do no harm. A change that was seen, and not soon, says nothing: a tick may have
/// hidden it.
const ONE_IN: u32 = 4;

/// What is executed instead: the value of the plugin's key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Inject {
    /// The oldest candidate, always.
    Stale,
    /// A torn one, wherever there is one.
    Torn,
    /// Any, now and then: the seed, and of how many of a hundred executions.
    Random(u64, u8),
}

impl FromStr for Inject {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let random = || {
            let (seed, percent) = text.strip_prefix("random:")?.split_once(':')?;
            let percent = percent.parse().ok().filter(|percent| (1..=100).contains(percent))?;
            Some(Self::Random(seed.parse().ok()?, percent))
        };
        match text {
            "stale" => Ok(Self::Stale),
            "torn" => Ok(Self::Torn),
            _ => random().ok_or_else(|| {
                "stale, torn, or random:SEED:PERCENT with a percentage from 1 to 100 is expected".into()
            }),
        }
    }
}

impl Inject {
    /// The plugin's keys. QEMU's own outdated blocks must be repaired, or they would look the same.
    pub fn keys(self) -> [String; 2] {
        let value = match self {
            Self::Stale => "stale".into(),
            Self::Torn => "torn".into(),
            Self::Random(seed, percent) => format!("random:{seed}:{percent}"),
        };
        [format!("inject={value}"), "emulator=repair".into()]
    }

    /// What is wrong with what the guest saw in a round.
    pub fn fault(self, row: &Scenario, verdict: Verdict, round: &Round) -> Option<String> {
        let failures = Failures::of(std::slice::from_ref(round));
        // Rows of the kernel's own patching see nothing of their changes, but that they worked.
        let none = || match round.observed {
            Some(_) if failures.any() => Some(format!("must not fail under injection, but: {failures}")),
            _ => None,
        };
        let enough = || match round.observed {
            None => Some("must fail under injection, but the guest does not say whether it does".into()),
            Some(_)
                if failures.died == 0
                    && (failures.changes == 0 || failures.changes * ONE_IN < failures.changes + failures.tight) =>
            {
                Some(format!(
                    "must fail under injection, after one in {ONE_IN} tight changes at least, but: {failures}, {} tight ones were seen",
                    failures.tight
                ))
            }
            Some(_) => None,
        };
        match (self, verdict, row.visible) {
            (_, Verdict::Unchecked(_), _) => None,
            (_, Verdict::Silent, _) => none(),
            (_, Verdict::Reported(_), Visible::Never(_)) => none(),
            (_, Verdict::Reported(_), Visible::Sometimes(_))
            | (Self::Stale, Verdict::Reported(_), Visible::OnlyTorn(_)) => None,
            (Self::Torn, Verdict::Reported(Kind::Torn), _) | (Self::Stale, Verdict::Reported(_), Visible::Always) => {
                enough()
            }
            (Self::Torn | Self::Random(..), Verdict::Reported(_), _) => None,
        }
    }
}

/// What went wrong for the guest to see, over some rounds of a scenario.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Failures {
    /// Changes after which the executor ran something else than what it should have run.
    pub changes: u32,
    /// Of so many.
    pub of: u32,
    /// Changes that were seen so soon that no tick can have helped.
    pub tight: u32,
    /// Rounds that ended with the death of the process.
    pub died: u32,
}

impl Failures {
    /// Adds them up.
    pub fn of<'a>(rounds: impl IntoIterator<Item = &'a Round>) -> Self {
        let mut sum = Self::default();
        for round in rounds {
            match &round.observed {
                Some(Observed::Changes { seen, of, tight }) => {
                    sum.of += of;
                    sum.tight += tight;
                    sum.changes += of.saturating_sub(*seen);
                }
                Some(Observed::Died(_)) => sum.died += 1,
                None => {}
            }
        }
        sum
    }

    fn any(self) -> bool {
        self.changes + self.died > 0
    }
}

impl std::fmt::Display for Failures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { changes, of, died, tight: _ } = *self;
        match (of, died) {
            (0, 0) => Ok(()),
            (_, 0) => write!(f, "{changes}/{of} fail"),
            (0, _) => write!(f, "{died} died"),
            (..) => write!(f, "{changes}/{of} fail, {died} died"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest_output::Ending;
    use icsan_guest_tests::table::by_name;
    use icsan_guest_tests::table::x86::TABLE;

    fn round(observed: Option<Observed>) -> Round {
        Round { name: "cross/imm8".into(), round: 1, attempt: 1, ending: Ending::Ok, observed }
    }

    fn seen(seen: u32) -> Round {
        round(Some(Observed::Changes { seen, of: 60, tight: seen }))
    }

    const REPORTED: Verdict = Verdict::Reported(Kind::Unserialized);
    const TORN: Verdict = Verdict::Reported(Kind::Torn);

    fn fault(inject: Inject, verdict: Verdict, round: &Round) -> Option<String> {
        inject.fault(by_name(TABLE, "cross/imm8").unwrap(), verdict, round)
    }

    #[test]
    fn modes() {
        for text in ["stale", "torn", "random:7:50"] {
            let keys = text.parse::<Inject>().unwrap().keys();
            assert_eq!(keys, [format!("inject={text}"), "emulator=repair".into()]);
        }
        for bad in ["", "off", "random", "random:7", "random:7:0", "random:7:101", "random:x:5"] {
            assert!(bad.parse::<Inject>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_bad_row_without_failures_fails_the_check() {
        assert!(fault(Inject::Stale, REPORTED, &seen(60)).unwrap().contains("0/60"));
        assert!(fault(Inject::Stale, REPORTED, &seen(46)).unwrap().contains("14/60"));
        assert!(fault(Inject::Stale, REPORTED, &round(None)).is_some());
        for seen in [0, 1, 600] {
            let none = Observed::Changes { seen, of: seen, tight: 0 };
            assert!(fault(Inject::Stale, REPORTED, &round(Some(none))).is_some());
        }
    }

    #[test]
    fn a_bad_row_that_fails_or_dies_passes_it() {
        assert_eq!(fault(Inject::Stale, REPORTED, &seen(45)), None);
        let busy = Observed::Changes { seen: 600, of: 615, tight: 3 };
        assert_eq!(fault(Inject::Stale, REPORTED, &round(Some(busy))), None);
        assert_eq!(fault(Inject::Stale, REPORTED, &round(Some(Observed::Died("killed by signal 4".into())))), None);
    }

    #[test]
    fn a_good_row_with_a_failure_fails_it_in_every_mode() {
        for inject in [Inject::Stale, Inject::Torn, Inject::Random(1, 50)] {
            assert!(fault(inject, Verdict::Silent, &seen(59)).unwrap().contains("1/60"));
            assert!(
                fault(inject, Verdict::Silent, &round(Some(Observed::Died("killed by signal 11".into())))).is_some()
            );
            assert_eq!(fault(inject, Verdict::Silent, &seen(60)), None);
            assert_eq!(fault(inject, Verdict::Silent, &round(None)), None);
            assert_eq!(fault(inject, Verdict::Unchecked("depends"), &seen(0)), None);
        }
    }

    #[test]
    fn torn_asks_torn_rows_only_and_random_none() {
        assert_eq!(fault(Inject::Torn, REPORTED, &seen(60)), None);
        assert!(fault(Inject::Torn, TORN, &seen(60)).is_some());
        assert_eq!(fault(Inject::Torn, TORN, &seen(30)), None);
        assert_eq!(fault(Inject::Random(1, 50), TORN, &seen(60)), None);
    }

    #[test]
    fn the_table_says_what_cannot_be_seen() {
        let row = by_name(TABLE, "int3/no-first-sync").unwrap();
        assert!((0..=60).all(|count| Inject::Stale.fault(row, TORN, &seen(count)).is_none()));
        assert!(Inject::Torn.fault(row, TORN, &seen(60)).is_some());
        let never = Scenario { visible: Visible::Never("a reason"), ..*row };
        for inject in [Inject::Stale, Inject::Torn, Inject::Random(1, 50)] {
            assert!(inject.fault(&never, TORN, &seen(60)).is_none() && inject.fault(&never, TORN, &seen(0)).is_some());
        }
        let sometimes = Scenario { visible: Visible::Sometimes("a reason"), ..*row };
        assert!((0..=60).all(|count| Inject::Stale.fault(&sometimes, TORN, &seen(count)).is_none()));
    }

    #[test]
    fn failures_add_up() {
        let rounds = [seen(60), seen(50), round(Some(Observed::Died("killed by signal 4".into()))), round(None)];
        assert_eq!(Failures::of(&rounds).to_string(), "10/120 fail, 1 died");
        assert_eq!(Failures::of(&rounds[2..]).to_string(), "1 died");
        assert_eq!(Failures::of(&rounds[3..]).to_string(), "");
    }
}
