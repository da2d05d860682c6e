//! The light detector against the plain model, on random histories: what it reports, the model reports, too.

use icsan_model::addr::{Linear, Vcpu};
use icsan_model::arch::exemption::Exemption;
use icsan_model::arch::maintenance::Caches;
use icsan_model::arch::profile::{Buffers, Profile, Text};
use icsan_model::detector::light::CodeRun;
use icsan_model::event::Event;
use icsan_model::machine::model::Model;
use icsan_model::testing::strategies::{self, BREAKPOINT, Guest, HALF, MIDDLE, Op, Toy, VCPUS};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::cell::Cell;

mod common;
use common::Trace;

const NONE: &[Exemption] = &[];
const INT3: &[Exemption] = &[Exemption::Breakpoint(&[BREAKPOINT])];

/// What both said of one execution.
struct Both {
    linear: Linear,
    light: usize,
    candidates: usize,
    hazard: bool,
}

/// Runs a history under both; the light detector sees only what a plugin without stores sees.
fn run(profile: Profile, ops: &[Op]) -> Vec<Both> {
    let (mut guest, setup) = Guest::new();
    let mut model = Model::new(profile, Toy, usize::from(VCPUS)).expect("a sound profile");
    for event in &setup {
        model.apply(event).expect("the set-up is possible");
    }
    let mut traces: Vec<Trace> = (0..VCPUS).map(|_| Trace::new(profile.exemptions)).collect();
    let mut found = Vec::new();
    for op in ops {
        let Some(event) = guest.step(op) else { continue };
        let asked = match &event {
            Event::Fetch { vcpu, linear, len } => Some((*vcpu, *linear, *len)),
            Event::Sync { vcpu, event, .. } => {
                if profile.serializes(*event) {
                    traces[usize::from(vcpu.0)].serialize();
                }
                None
            }
            Event::Reset { vcpu } => {
                traces[usize::from(vcpu.0)].serialize();
                None
            }
            _ => None,
        };
        let candidates =
            asked.map(|(vcpu, linear, len)| model.candidates(vcpu, linear, len).expect("possible").others().len());
        let verdict = model.apply(&event).expect("possible");
        if let (Some((vcpu, linear, len)), Some(candidates)) = (asked, candidates) {
            let light = execute(&mut traces, &guest, vcpu, linear, len);
            found.push(Both { linear, light, candidates, hazard: verdict.hazard.is_some() });
        }
    }
    found
}

fn execute(traces: &mut [Trace], guest: &Guest, vcpu: Vcpu, linear: Linear, len: u8) -> usize {
    let bytes: Vec<u8> =
        (0..u64::from(len)).map(|index| guest.read(vcpu, linear.offset(index)).expect("mapped")).collect();
    traces[usize::from(vcpu.0)].execute(&CodeRun::new(linear, &bytes, &[len])).conflicts.len()
}

/// Histories whose stores stay within the code that has been seen: the model drops a candidate that it knows only the
/// beginning of.
fn history() -> impl Strategy<Value = Vec<Op>> {
    strategies::history(60).prop_map(|mut ops| {
        // Nor does more become known of one page than of the others.
        ops.retain(|op| !matches!(op, Op::Contents(_)));
        for op in &mut ops {
            if let Op::Store(_, _, byte, bytes) | Op::Unseen(_, byte, bytes) = op {
                let end = if u64::from(*byte) < 2 * HALF { 2 * HALF } else { 2 * HALF + MIDDLE };
                bytes.truncate(end as usize - usize::from(*byte));
            }
        }
        ops
    })
}

fn profile(buffers: Buffers, exemptions: &'static [Exemption]) -> impl Strategy<Value = Profile> {
    strategies::event_set().prop_map(move |serializing| Profile {
        name: "toy",
        note: "",
        serializing,
        exemptions,
        buffers,
        snoop: false,
        caches: Caches::Coherent,
        only_at: &[],
        text: Text::All,
    })
}

/// So many histories that [`many`]'s count of conflicts is far beyond what it demands, whatever the seed: some 800.
fn config() -> Config {
    let cases = Config::default().cases.max(2048);
    Config { failure_persistence: None, cases, ..Config::default() }
}

/// Runs `check` on many histories, and makes sure that they had conflicts to judge.
fn many(strategy: impl Strategy<Value = (Profile, Vec<Op>)>, check: impl Fn(&Both) -> bool) {
    let conflicts = Cell::new(0usize);
    let executions = Cell::new(0usize);
    TestRunner::new(config())
        .run(&strategy, |(profile, ops)| {
            for both in run(profile, &ops) {
                executions.set(executions.get() + 1);
                conflicts.set(conflicts.get() + both.light);
                prop_assert!(
                    check(&both),
                    "at {}: light {}, model {} others, hazard {}",
                    both.linear,
                    both.light,
                    both.candidates,
                    both.hazard
                );
            }
            Ok(())
        })
        .unwrap();
    assert!(
        conflicts.get() > 100,
        "{} conflicts in {} executions: the histories are too tame to prove anything",
        conflicts.get(),
        executions.get()
    );
}

#[test]
fn every_conflict_is_a_hazard_of_the_model_if_own_stores_wait_for_serialization() {
    let buffers = Buffers { own_store_at_branch: false, ..Buffers::DEFAULT };
    let chunks = prop_oneof![Just(4), Just(8), Just(16)];
    let strategy =
        (chunks, history()).prop_flat_map(move |(chunk, ops)| (profile(Buffers { chunk, ..buffers }, NONE), Just(ops)));
    many(strategy, |both| both.light == 0 || both.hazard);
}

#[test]
fn every_conflict_is_a_hazard_of_the_model_if_only_others_store() {
    // The last vCPU writes and never executes.
    let writer = VCPUS - 1;
    let strategy = (profile(Buffers::DEFAULT, NONE), history()).prop_map(move |(profile, mut ops)| {
        ops.retain_mut(|op| match op {
            // Also the store that is found out later to be a vCPU's.
            Op::Store(vcpu, ..) | Op::Attribute(vcpu, ..) => {
                *vcpu = writer;
                true
            }
            Op::Fetch(vcpu, ..) => *vcpu != writer,
            _ => true,
        });
        (profile, ops)
    });
    many(strategy, |both| both.light == 0 || both.hazard);
}

#[test]
fn every_conflict_has_an_older_candidate_in_the_model_under_the_breakpoint_exemption() {
    let buffers = Buffers { own_store_at_branch: false, ..Buffers::DEFAULT };
    let strategy = (profile(buffers, INT3), history());
    many(strategy, |both| both.light == 0 || both.candidates > 0);
}

#[test]
fn an_exemption_never_adds_a_conflict() {
    let strategy = (profile(Buffers::DEFAULT, NONE), history());
    let compared = Cell::new(0usize);
    TestRunner::new(config())
        .run(&strategy, |(profile, ops)| {
            let strict = run(profile, &ops);
            for exemptions in strategies::EXEMPTIONS {
                for (lax, strict) in run(Profile { exemptions, ..profile }, &ops).iter().zip(&strict) {
                    compared.set(compared.get() + strict.light);
                    prop_assert!(lax.light <= strict.light);
                }
            }
            Ok(())
        })
        .unwrap();
    assert!(compared.get() > 100);
}
