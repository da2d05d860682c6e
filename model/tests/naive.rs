//! The model and the brute-force oracle say the same, candidate for candidate, on random histories.

use icsan_model::arch::profile::Profile;
use icsan_model::event::Event;
use icsan_model::machine::model::Model;
use icsan_model::testing::naive::{self, Answer, Naive};
use icsan_model::testing::strategies::{self, Guest, Op, Toy, VCPUS};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};

/// The oracle with the guest that it watches.
#[derive(Clone, Debug)]
struct Reference {
    guest: Guest,
    naive: Naive,
    /// The events so far that the system under test has not met: first those that set the guest up.
    latest: Vec<(Event, Option<Answer>)>,
}

impl Reference {
    fn new(profile: Profile) -> Self {
        let (guest, events) = Guest::new();
        let mut naive = Naive::new(profile, Toy);
        let latest = events.into_iter().map(|event| (event.clone(), naive.apply(&event))).collect();
        Self { guest, naive, latest }
    }
}

impl ReferenceStateMachine for Reference {
    type State = Self;
    type Transition = Op;

    fn init_state() -> BoxedStrategy<Self> {
        strategies::profile().prop_map(Self::new).boxed()
    }

    fn transitions(_: &Self) -> BoxedStrategy<Op> {
        strategies::op().boxed()
    }

    fn apply(mut state: Self, op: &Op) -> Self {
        let event = state.guest.step(op);
        state.latest = event.into_iter().map(|event| (event.clone(), state.naive.apply(&event))).collect();
        state
    }

    fn preconditions(state: &Self, op: &Op) -> bool {
        state.guest.clone().step(op).is_some()
    }
}

struct Tested(Model);

impl StateMachineTest for Tested {
    type SystemUnderTest = Self;
    type Reference = Reference;

    fn init_test(state: &Reference) -> Self {
        let mut tested = Self(Model::new(*state.naive.profile(), Toy, usize::from(VCPUS)).expect("a sound profile"));
        state.latest.iter().for_each(|(event, answer)| naive::compare(&mut tested.0, event, answer.as_ref()));
        tested
    }

    fn apply(mut tested: Self, state: &Reference, _: Op) -> Self {
        state.latest.iter().for_each(|(event, answer)| naive::compare(&mut tested.0, event, answer.as_ref()));
        tested
    }
}

/// With instruction caches that do not see stores, and maintenance.
#[test]
fn the_model_agrees_with_the_naive_oracle_on_maintenance() {
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    let drawn = (strategies::maintained_profile(), strategies::maintained_history(30));
    let mut runner = TestRunner::new(config);
    let result = runner.run(&drawn, |(profile, ops)| {
        let mut model = Model::new(profile, Toy, usize::from(VCPUS)).expect("a sound profile");
        let mut naive = Naive::new(profile, Toy);
        for event in strategies::events(&ops) {
            let answer = naive.apply(&event);
            naive::compare(&mut model, &event, answer.as_ref());
        }
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}

prop_state_machine! {
    #[test]
    fn the_model_agrees_with_the_naive_oracle(sequential 1..80 => Tested);
}
