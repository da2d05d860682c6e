//! The laws of the model, on random histories. Each test's name states one.

use icsan_model::addr::{Seq, Vcpu};
use icsan_model::arch::profile::{Buffers, Profile};
use icsan_model::arch::sync_event::{SyncEventId, SyncEventSet};
use icsan_model::event::{Event, Store};
use icsan_model::machine::model::Model;
use icsan_model::memory::PAGE;
use icsan_model::testing::strategies::{self, EVENTS, Toy, VCPUS};
use icsan_model::verdict::candidates::Candidates;
use icsan_model::verdict::hazard::{Hazard, Verdict};
use icsan_model::verdict::kind::Kind;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// One execution: what could have been executed, and the verdict.
struct Executed {
    vcpu: Vcpu,
    candidates: Candidates,
    verdict: Verdict,
}

impl Executed {
    fn others(&self) -> BTreeSet<&[u8]> {
        self.candidates.others().iter().map(|candidate| &*candidate.bytes).collect()
    }

    fn kind(&self) -> Option<Kind> {
        self.verdict.hazard.as_ref().map(|hazard| hazard.kind)
    }
}

fn model(profile: Profile) -> Model {
    Model::new(profile, Toy, usize::from(VCPUS)).expect("a sound profile")
}

/// One entry for each event, empty unless it is an execution.
fn run(profile: Profile, events: &[Event]) -> Vec<Option<Executed>> {
    let mut model = model(profile);
    let step = |event: &Event| {
        let asked = match event {
            Event::Fetch { vcpu, linear, len } => {
                Some((*vcpu, model.candidates(*vcpu, *linear, *len).expect("possible")))
            }
            _ => None,
        };
        let verdict = model.apply(event).expect("possible");
        asked.map(|(vcpu, candidates)| Executed { vcpu, candidates, verdict })
    };
    events.iter().map(step).collect()
}

fn both(events: &[Event], a: Profile, b: Profile) -> impl Iterator<Item = (Executed, Executed)> {
    run(a, events).into_iter().flatten().zip(run(b, events).into_iter().flatten())
}

fn with_buffers(profile: Profile, change: impl FnOnce(&mut Buffers)) -> Profile {
    let mut buffers = profile.buffers;
    change(&mut buffers);
    Profile { buffers, ..profile }
}

/// A hazard without what tells one history from another: sequence numbers and the epoch.
fn without_times(hazard: &Hazard) -> impl PartialEq + std::fmt::Debug + use<> {
    let candidates: BTreeSet<_> =
        hazard.candidates.iter().map(|candidate| (candidate.bytes.clone(), candidate.kind, candidate.exempt)).collect();
    let writes: Vec<_> =
        hazard.writes.iter().map(|write| (write.vcpu, write.phys, write.old.clone(), write.new.clone())).collect();
    (hazard.kind, hazard.linear, hazard.phys, hazard.memory.clone(), candidates, writes)
}

const LEN: usize = 60;

proptest! {
    #[test]
    fn the_same_events_give_the_same_verdicts(profile in strategies::profile(), ops in strategies::history(LEN)) {
        let events = strategies::events(&ops);
        for (a, b) in both(&events, profile, profile) {
            prop_assert_eq!(a.verdict, b.verdict);
            prop_assert_eq!(a.candidates, b.candidates);
        }
    }

    #[test]
    fn an_unbounded_buffer_has_every_candidate_of_a_bounded_one(profile in strategies::profile(), ops in strategies::history(LEN)) {
        let unbounded = with_buffers(profile, |buffers| (buffers.prefetch, buffers.trace) = (None, None));
        for (unbounded, bounded) in both(&strategies::events(&ops), unbounded, profile) {
            prop_assert!(unbounded.others().is_superset(&bounded.others()));
        }
    }

    #[test]
    fn a_longer_lookahead_only_adds_candidates(profile in strategies::profile(), more in 1u32..20, ops in strategies::history(LEN)) {
        let profile = with_buffers(profile, |buffers| buffers.prefetch = None);
        let longer = with_buffers(profile, |buffers| buffers.lookahead += more);
        for (longer, shorter) in both(&strategies::events(&ops), longer, profile) {
            prop_assert!(longer.others().is_superset(&shorter.others()));
        }
    }

    /// Only whether there is one: smaller chunks mix more. An own store makes the whole of a larger chunk visible, so
    /// that rule is off here.
    #[test]
    fn a_larger_chunk_hides_no_difference(profile in strategies::profile(), ops in strategies::history(LEN)) {
        let profile = with_buffers(profile, |buffers| {
            (buffers.prefetch, buffers.trace, buffers.own_store_at_branch, buffers.chunk) = (None, None, false, buffers.chunk.min(8));
        });
        let profile = Profile { snoop: false, ..profile };
        let larger = with_buffers(profile, |buffers| buffers.chunk *= 2);
        // Unknown bytes are no candidates, and a larger chunk reaches more of them. So all that is reached is known
        // here.
        let around = strategies::PAGES.into_iter();
        let zeros = |phys| Event::Store(Store { vcpu: None, pc: None, linear: None, phys, bytes: vec![0; PAGE as usize] });
        let events = strategies::events(&ops).into_iter().filter(|event| !matches!(event, Event::Commit { .. } | Event::Attribute { .. }));
        let events: Vec<_> = around.map(zeros).chain(events).collect();
        for (larger, smaller) in both(&events, larger, profile) {
            prop_assert!(smaller.others().is_empty() || !larger.others().is_empty());
        }
    }

    #[test]
    fn speculation_only_adds_speculative_candidates(profile in strategies::profile(), ops in strategies::history(LEN)) {
        let on = with_buffers(profile, |buffers| buffers.speculation = true);
        let off = with_buffers(profile, |buffers| buffers.speculation = false);
        for (on, off) in both(&strategies::events(&ops), on, off) {
            let kept: Vec<_> = on.candidates.others().iter().filter(|candidate| !candidate.speculative).cloned().collect();
            prop_assert_eq!(&kept[..], off.candidates.others());
            match off.kind() {
                Some(kind) => prop_assert_eq!(on.kind(), Some(kind)),
                None => prop_assert!(matches!(on.kind(), None | Some(Kind::Speculative))),
            }
        }
    }

    #[test]
    fn serializing_leaves_one_candidate(profile in strategies::profile(), ops in strategies::history(LEN), event in 0..EVENTS) {
        let serializing = profile.serializing.with(SyncEventId(event));
        let mut model = model(Profile { serializing, ..profile });
        for event_ in strategies::events(&ops) {
            if let Event::Fetch { vcpu, linear, len } = event_ {
                for serialize in [Event::Sync { vcpu, event: SyncEventId(event), pc: linear }, Event::Reset { vcpu }] {
                    let mut model = model.clone();
                    model.apply(&serialize).expect("possible");
                    prop_assert_eq!(model.candidates(vcpu, linear, len).expect("possible").list.len(), 1);
                }
            }
            model.apply(&event_).expect("possible");
        }
    }

    /// The specification allows torn ones; here every execution is at one moment (deviation 3), so there are none
    /// either.
    #[test]
    fn snooping_leaves_no_hazard(profile in strategies::profile(), ops in strategies::history(LEN)) {
        for executed in run(Profile { snoop: true, ..profile }, &strategies::events(&ops)).into_iter().flatten() {
            prop_assert!(executed.others().is_empty());
            prop_assert_eq!(executed.verdict.hazard, None);
        }
    }

    /// Nothing held, nothing stale: the other end of the bounds.
    #[test]
    fn buffers_that_hold_nothing_have_no_hazard(profile in strategies::profile(), ops in strategies::history(LEN)) {
        let nothing = with_buffers(profile, |buffers| (buffers.prefetch, buffers.trace, buffers.speculation) = (Some(0), Some(0), false));
        prop_assert!(run(nothing, &strategies::events(&ops)).iter().flatten().all(|executed| executed.others().is_empty()));
    }

    #[test]
    fn a_stronger_event_set_adds_no_candidate(profile in strategies::profile(), more in strategies::event_set(), ops in strategies::history(LEN)) {
        // Epochs cut the buffers' contents, so under a bound they also shift what is dropped.
        let profile = with_buffers(profile, |buffers| (buffers.prefetch, buffers.trace) = (None, None));
        let stronger: SyncEventSet = profile.serializing.iter().chain(more.iter()).collect();
        for (stronger, weaker) in both(&strategies::events(&ops), Profile { serializing: stronger, ..profile }, profile) {
            prop_assert!(stronger.others().is_subset(&weaker.others()));
        }
    }

    /// Without exemptions. With them there is one exception: `tests/examples.rs`, `a_stronger_event_set_can_...`.
    #[test]
    fn a_stronger_event_set_adds_no_hazard(profile in strategies::profile(), more in strategies::event_set(), ops in strategies::history(LEN)) {
        let profile = Profile { exemptions: &[], ..with_buffers(profile, |buffers| (buffers.prefetch, buffers.trace) = (None, None)) };
        let stronger: SyncEventSet = profile.serializing.iter().chain(more.iter()).collect();
        for (stronger, weaker) in both(&strategies::events(&ops), Profile { serializing: stronger, ..profile }, profile) {
            prop_assert!(stronger.kind().is_none() || weaker.kind().is_some());
        }
    }

    #[test]
    fn another_vcpus_executions_change_no_verdict(profile in strategies::profile(), ops in strategies::history(LEN), watched in 0..VCPUS) {
        let watched = Vcpu(watched);
        let events = strategies::events(&ops);
        // The others' executions, branches and syncs are replaced by something that does nothing, so that times stay
        // the same.
        let idle = Event::Commit { stores: Vec::new() };
        let alone: Vec<_> = events
            .iter()
            .map(|event| match event {
                Event::Fetch { vcpu, .. } | Event::Branch { vcpu } | Event::Sync { vcpu, .. } | Event::Reset { vcpu } if *vcpu != watched => &idle,
                other => other,
            })
            .cloned()
            .collect();
        for (executed, alone) in run(profile, &events).into_iter().zip(run(profile, &alone)) {
            if let Some(executed) = executed.filter(|executed| executed.vcpu == watched) {
                prop_assert_eq!(Some(executed.verdict), alone.map(|alone| alone.verdict));
            }
        }
    }

    #[test]
    fn an_event_that_does_nothing_changes_no_verdict(profile in strategies::profile(), ops in strategies::history(LEN)) {
        let events = strategies::events(&ops);
        let idle = Event::Commit { stores: Vec::new() };
        // Commits name stores by their places, which shift.
        let events: Vec<_> = events.into_iter().filter(|event| !matches!(event, Event::Commit { .. } | Event::Attribute { .. })).collect();
        let padded: Vec<_> = events.iter().flat_map(|event| [idle.clone(), event.clone()]).collect();
        let padded = run(profile, &padded).into_iter().flatten();
        for (executed, padded) in run(profile, &events).into_iter().flatten().zip(padded) {
            let shown = |executed: &Executed| executed.verdict.hazard.as_ref().map(|hazard| without_times(hazard));
            prop_assert_eq!(shown(&executed), shown(&padded));
        }
    }

    #[test]
    fn forgetting_changes_no_verdict(profile in strategies::profile(), ops in strategies::history(LEN), every in 1usize..9) {
        let (mut model, mut forgetful) = (model(profile), model(profile));
        for (i, event) in strategies::events(&ops).iter().enumerate() {
            prop_assert_eq!(model.apply(event), forgetful.apply(event));
            if i % every == 0 {
                forgetful.forget();
            }
        }
        prop_assert!(forgetful.memory().versions() <= model.memory().versions());
    }

    #[test]
    fn a_refused_event_changes_nothing(profile in strategies::profile(), ops in strategies::history(20), bad in 0usize..8) {
        use icsan_model::addr::{Linear, Phys};
        let mut model = model(profile);
        let events = strategies::events(&ops);
        for event in &events {
            model.apply(event).expect("possible");
        }
        let vcpu = Vcpu(0);
        let store = |phys, len| Event::Store(Store { vcpu: None, pc: None, linear: None, phys: Phys(phys), bytes: vec![0; len] });
        let bad = [
            Event::Branch { vcpu: Vcpu(VCPUS) },
            store(0, 0),
            store(4090, 7),
            Event::Fetch { vcpu, linear: strategies::code(0, 0), len: 0 },
            Event::Fetch { vcpu, linear: strategies::code(0, 0), len: 7 },
            Event::Fetch { vcpu, linear: Linear(u64::MAX - 1), len: 3 },
            Event::Commit { stores: vec![Seq(1), Seq(events.len() as u64 + 1)] },
            Event::Remap { vcpu, linear: Linear(8), phys: None },
        ][bad].clone();
        let before = format!("{model:?}");
        prop_assert!(model.apply(&bad).is_err());
        prop_assert_eq!(before, format!("{model:?}"));
    }

    #[test]
    fn nothing_is_committed_unless_it_is_said(profile in strategies::profile(), ops in strategies::history(LEN)) {
        let events: Vec<_> = strategies::events(&ops).into_iter().filter(|event| !matches!(event, Event::Commit { .. } | Event::Attribute { .. })).collect();
        prop_assert!(run(profile, &events).iter().flatten().all(|executed| executed.kind() != Some(Kind::Stale)));
    }

    /// A commit never makes a verdict milder, and never makes a difference where there was none.
    #[test]
    fn a_commit_only_sharpens(profile in strategies::profile(), ops in strategies::history(LEN)) {
        let events = strategies::events(&ops);
        let idle = Event::Commit { stores: Vec::new() };
        let uncommitted: Vec<_> =
            events.iter().map(|event| if matches!(event, Event::Commit { .. }) { &idle } else { event }).cloned().collect();
        for (with, without) in run(profile, &events).into_iter().flatten().zip(run(profile, &uncommitted).into_iter().flatten()) {
            prop_assert_eq!(with.others(), without.others());
            prop_assert!(without.kind().is_none_or(|without| with.kind().is_some_and(|with| with <= without)));
        }
    }

    #[test]
    fn candidates_are_in_order(profile in strategies::profile(), ops in strategies::history(LEN)) {
        for executed in run(profile, &strategies::events(&ops)).into_iter().flatten() {
            let others = executed.candidates.others();
            prop_assert!(others.is_sorted_by_key(|candidate| (candidate.speculative, candidate.versions.iter().max().copied())));
            prop_assert_eq!(executed.others().len(), others.len(), "no candidate twice");
            prop_assert!(!executed.others().contains(&*executed.candidates.memory().bytes));
        }
    }
}
