//! A fixed stream of events through the plain model and through the fast path's memory, for counting instructions:
//! `scripts/counts`.
//!
//! `event_stream draw|plain|fast N` runs N random histories, always the same ones; `draw` only draws them, to be
//! subtracted.

use icsan_model::addr::{Epoch, Phys, Seq};
use icsan_model::arch::profile::Profile;
use icsan_model::detector::history::{History, Holding};
use icsan_model::event::Event;
use icsan_model::machine::model::Model;
use icsan_model::testing::strategies::{self, Op, Toy, VCPUS};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use std::hint::black_box;
use std::process::ExitCode;

/// Steps of a history.
const LEN: usize = 200;

fn plain(profile: Profile, events: &[Event]) -> u64 {
    let mut model = Model::new(profile, Toy, usize::from(VCPUS)).expect("a sound profile");
    let mut hazards = 0;
    for (index, event) in events.iter().enumerate() {
        hazards += u64::from(model.apply(event).is_ok_and(|verdict| verdict.hazard.is_some()));
        if index % 32 == 0 {
            model.forget();
        }
    }
    hazards
}

/// Stores and forgetting only: what the plugin does most of.
fn fast(profile: Profile, events: &[Event]) -> u64 {
    let mut history = History::new(profile, Toy, usize::from(VCPUS));
    for (seq, event) in (1..).map(Seq).zip(events) {
        match event {
            Event::Store(store) => {
                let (phys, vcpu) = (store.phys, store.vcpu);
                history.store(seq, store.clone(), Epoch::default());
                history.forget_unheld(phys, Seq(seq.0.saturating_sub(64)), 4, |_, _| {
                    Holding::Since(Seq(seq.0.saturating_sub(16)))
                });
                black_box(vcpu.map(|vcpu| history.awaits_branch(vcpu, Epoch::default())));
            }
            Event::Contents { phys, bytes } => history.memory_mut().contents(*phys, bytes),
            Event::Branch { vcpu } => history.branch(*vcpu, Epoch::default()),
            _ => {}
        }
    }
    (0..64).map(|i| history.memory().changes(Phys(strategies::PAGES[0].0 + i), Seq(0)).count() as u64).sum()
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, what, count] = &arguments[..] else { return ExitCode::FAILURE };
    let run: fn(Profile, &[Event]) -> u64 = match what.as_str() {
        "draw" => |_, events| events.len() as u64,
        "plain" => plain,
        "fast" => fast,
        _ => return ExitCode::FAILURE,
    };
    let Ok(count) = count.parse::<u32>() else { return ExitCode::FAILURE };
    let mut runner = TestRunner::deterministic();
    let drawn = (strategies::profile(), proptest::collection::vec(strategies::op(), LEN));
    let mut sum = 0;
    for _ in 0..count {
        let Ok(tree) = drawn.new_tree(&mut runner) else { return ExitCode::FAILURE };
        let (profile, ops): (Profile, Vec<Op>) = tree.current();
        sum += run(profile, &strategies::events(&ops));
    }
    println!("{what}: {count} histories, {}", black_box(sum));
    ExitCode::SUCCESS
}
