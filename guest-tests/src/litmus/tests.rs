//! The model's side by itself.

use super::compare::Difference;
use super::explore::{allowed, explore};
use super::outcome::{Counts, End, Outcome};
use super::{Action, Litmus, Step, TABLE, by_name};
use icsan_model::arch::x86::X86_64;
use std::collections::BTreeSet;

fn texts(name: &str) -> Vec<String> {
    allowed(by_name(name).unwrap()).unwrap().outcomes.iter().map(Outcome::to_string).collect()
}

#[test]
fn known_sets() {
    assert_eq!(texts("alias-one"), ["0x1,0x1", "0x1,0x2"]);
    assert_eq!(
        texts("alias-two"),
        ["0x1,0x1,0x1", "0x1,0x1,0x2", "0x1,0x1,0x3", "0x1,0x2,0x1", "0x1,0x2,0x2", "0x1,0x2,0x3"]
    );
    assert_eq!(texts("alias-cpuid"), ["0x1,0x2"]);
    let torn = ["0x1010101,0x1010101", "0x1010101,0x1010202", "0x1010101,0x2020101", "0x1010101,0x2020202"];
    assert_eq!(texts("torn-chunks"), torn);
    assert_eq!(texts("cross-torn"), torn);
    assert_eq!(texts("torn-pages"), torn);
    assert_eq!(texts("torn-twice").len(), 9);
    assert_eq!(texts("jump-split"), ["0x41,0x1", "0x41,0x2", "0x41,0x3", "0x41,0x41"]);
    assert_eq!(texts("neighbour"), ["0x7,0x1", "0x7,0x2"]);
    assert_eq!(texts("stranger"), ["0x7,0x2"]);
    assert_eq!(texts("own-branch"), ["0x1010101,0x2020202"]);
    assert_eq!(texts("own-straight"), ["0x1,0x2", "0x1,0x3", "0x2,0x2", "0x2,0x3"]);
    assert_eq!(texts("own-jump"), ["0x2,0x3"]);
    assert_eq!(texts("own-alias-jump"), texts("own-alias-straight"));
    assert_eq!(texts("cross-cpuid"), ["0x1,0x2"]);
    assert_eq!(texts("cross-own"), ["0x1,0x1,0x2,0x1", "0x1,0x1,0x2,0x2"]);
    assert_eq!(texts("cross-poke-bare"), ["0x1010101,0x1010101", "0x1010101,0x2020202", "0x1010101,trap@0x10"]);
    assert_eq!(texts("compare"), ["0x10,0x10", "0x10,0x11", "0x10,0x14", "0x10,0x15"]);
    assert_eq!(texts("flags"), ["0x15,0x15"]);
    assert_eq!(texts("flags-kept"), ["0x11,0x11", "0x11,0x12"]);
    assert_eq!(texts("store-by-old"), ["0x1,0x0,0x0,0x1", "0x1,0x0,0x0,0x5", "0x1,0x0,0x0,0x6"]);
}

#[test]
fn every_test_is_worked_out_and_nothing_is_left_out() {
    let names: BTreeSet<_> = TABLE.iter().map(|test| test.name).collect();
    assert_eq!(names.len(), TABLE.len());
    for test in TABLE {
        let allowed = allowed(test).unwrap();
        assert!(!allowed.outcomes.is_empty(), "{}", test.name);
        assert_eq!(allowed.not_carried_out, BTreeSet::new(), "{}", test.name);
    }
}

#[test]
fn a_coherent_cpu_has_one_outcome() {
    for test in TABLE {
        let coherent = explore(test, *X86_64.profile("coherent").unwrap()).unwrap();
        assert_eq!(coherent.outcomes.len(), 1, "{}", test.name);
        assert!(coherent.outcomes.is_subset(&allowed(test).unwrap().outcomes), "{}", test.name);
    }
}

#[test]
fn an_extra_and_a_missing_outcome_are_found() {
    let allowed = allowed(by_name("alias-one").unwrap()).unwrap();
    let mut seen: Counts = allowed.outcomes.iter().map(|outcome| (outcome.clone(), 1)).collect();
    assert!(Difference::of(&allowed, &seen).is_equal());
    let extra = Outcome(vec![End::Returned(1), End::Returned(3)]);
    seen.insert(extra.clone(), 1);
    let difference = Difference::of(&allowed, &seen);
    assert!(!difference.is_subset() && difference.extra == BTreeSet::from([extra]));
    seen.pop_last();
    seen.pop_last();
    let difference = Difference::of(&allowed, &seen);
    assert!(difference.is_subset() && !difference.is_equal() && difference.missing.len() == 1);
}

#[test]
fn a_test_that_breaks_the_rules_is_refused() {
    let execute = |entry| [Step { cpu: 0, action: Action::Execute(entry, 0) }];
    let refused = |code: &'static [(usize, &'static [u8])], steps: [Step; 1]| {
        let steps: &'static [Step] = Box::leak(Box::new(steps));
        allowed(&Litmus { name: "bad", what: "", pages: 1, code, steps }).unwrap_err()
    };
    assert!(refused(&[(0, &[0xeb, 0xfe])], execute(0)).contains("instructions"));
    assert!(refused(&[(0, &[0x06])], execute(0)).contains("no instruction"));
    assert!(refused(&[(0, &[0x88, 0x00])], execute(0)).contains("neither code nor stack"));
    assert!(refused(&[(0, &[0x0f, 0xa2])], execute(0)).contains("memory's instruction"));
}
