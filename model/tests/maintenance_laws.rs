//! The laws of instruction caches that do not see stores, on random histories. Each test's name states one.

use icsan_model::addr::{Phys, Seq, Vcpu};
use icsan_model::arch::maintenance::{CacheType, Caches, Needs};
use icsan_model::arch::profile::Profile;
use icsan_model::event::Event;
use icsan_model::fetch::instruction_cache::InstructionCache;
use icsan_model::machine::model::Model;
use icsan_model::memory::Memory;
use icsan_model::testing::strategies::{self, BARRIERS, Guest, MAINTENANCE, Op, PAGES, Toy, VCPUS};
use icsan_model::verdict::candidates::Candidates;
use icsan_model::verdict::hazard::{Verdict, Write};
use icsan_model::verdict::kind::Kind;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// An execution: what could have been executed, and the verdict.
type Executed = (Candidates, Verdict);

fn model(profile: Profile) -> Model {
    Model::new(profile, Toy, usize::from(VCPUS)).expect("a sound profile")
}

fn step(model: &mut Model, event: &Event) -> Option<Executed> {
    let candidates = match event {
        Event::Fetch { vcpu, linear, len } => Some(model.candidates(*vcpu, *linear, *len).expect("possible")),
        _ => None,
    };
    let verdict = model.apply(event).expect("possible");
    candidates.map(|candidates| (candidates, verdict))
}

fn run(profile: Profile, events: &[Event]) -> Vec<Executed> {
    let mut model = model(profile);
    events.iter().filter_map(|event| step(&mut model, event)).collect()
}

fn bytes(candidates: &Candidates) -> BTreeSet<&[u8]> {
    candidates.others().iter().map(|candidate| &*candidate.bytes).collect()
}

fn needing(profile: Profile, needs: Needs) -> Profile {
    let caches = match profile.caches {
        Caches::Maintained(caches) => Caches::Maintained(CacheType { needs, ..caches }),
        Caches::Coherent => Caches::Coherent,
    };
    Profile { caches, ..profile }
}

/// Every store is followed at once by all that its lines need.
fn published(ops: &[Op]) -> Vec<Event> {
    let (mut guest, mut events) = Guest::new();
    let publish = |store: &Event| -> Vec<Op> {
        let Event::Store(store) = store else { return Vec::new() };
        let by = store.vcpu.map_or(0, |vcpu| vcpu.0);
        let page = PAGES.iter().position(|page| store.phys.align_down(4096) == *page).expect("one of them") as u8;
        let at = (0..40u8).filter(|byte| {
            let phys = PAGES[usize::from(page)].offset(strategies::code(0, *byte).0 % 4096);
            (store.phys.0..store.phys.0 + store.bytes.len() as u64).contains(&phys.0)
        });
        let at: Vec<u8> = at.collect();
        let each = |which: u8| at.iter().map(move |at| Op::Maintain(by, which, page, *at)).collect::<Vec<_>>();
        [each(0), vec![Op::Barrier(by, 0)], each(1), vec![Op::Barrier(by, 0)]].concat()
    };
    let setting_up: Vec<Event> = events.clone();
    for store in &setting_up {
        events.extend(publish(store).iter().filter_map(|op| guest.step(op)));
    }
    for op in ops {
        let Some(event) = guest.step(op) else { continue };
        let steps = publish(&event);
        events.push(event);
        events.extend(steps.iter().filter_map(|op| guest.step(op)));
    }
    events
}

/// Memory and caches alone, after these events.
fn caches(kind: CacheType, events: &[Event]) -> (InstructionCache, Memory) {
    let (mut cache, mut memory) = (InstructionCache::new(Some(kind), usize::from(VCPUS)), Memory::default());
    for (seq, event) in (1..).map(Seq).zip(events) {
        match event {
            Event::Store(store) => {
                memory.store(seq, store.clone());
                cache.store(seq, store);
            }
            Event::Maintain { vcpu, operation } => drop(cache.maintain(seq, *vcpu, *operation, &memory)),
            Event::Barrier { vcpu, domain, accesses } => drop(cache.barrier(seq, *vcpu, *domain, *accesses)),
            Event::Caches { vcpu, on } => cache.caches(*vcpu, *on),
            _ => {}
        }
    }
    (cache, memory)
}

/// Is no floor of the first lower than the second's, at any moment?
fn no_lower(first: &InstructionCache, second: &InstructionCache, moments: u64) -> bool {
    let bytes = || PAGES.iter().flat_map(|page| (0..40).map(|at| page.offset(strategies::code(0, at).0 % 4096)));
    let bytes: BTreeSet<Phys> = bytes().collect();
    (0..VCPUS).map(Vcpu).all(|cpu| {
        bytes.iter().all(|phys| {
            (0..=moments).map(Seq).all(|moment| first.floor(cpu, *phys, moment) >= second.floor(cpu, *phys, moment))
        })
    })
}

fn idle() -> Event {
    Event::Commit { stores: Vec::new() }
}

/// A maintenance instruction or a barrier.
fn a_step() -> impl Strategy<Value = Op> {
    let maintain = (0..VCPUS, 0..MAINTENANCE.len() as u8, 0..3u8, 0..40u8);
    prop_oneof![
        maintain.prop_map(|(vcpu, which, page, at)| Op::Maintain(vcpu, which, page, at)),
        (0..VCPUS, 0..BARRIERS.len() as u8).prop_map(|(vcpu, which)| Op::Barrier(vcpu, which)),
    ]
}

/// The same history with one step more, and with something in its place that does nothing.
fn with_and_without(ops: &[Op], at: usize, step: &Op) -> (Vec<Event>, Vec<Event>) {
    let (mut guest, mut with) = Guest::new();
    let mut without = with.clone();
    for (index, op) in ops.iter().enumerate() {
        if index == at % ops.len() {
            with.extend(guest.step(step));
            without.push(idle());
        }
        if let Some(event) = guest.step(op) {
            with.push(event.clone());
            without.push(event);
        }
    }
    (with, without)
}

const LEN: usize = 30;

proptest! {
    #[test]
    fn with_every_store_maintained_at_once_there_is_no_layer(
        profile in strategies::maintained_profile(),
        ops in strategies::history(LEN),
    ) {
        // What a branch makes visible, it does before the maintenance is done: no architecture has both.
        let mut profile = profile;
        profile.buffers.own_store_at_branch = false;
        // And pages stay where they are: what came in before a page moved may have stood together, byte for byte, with
        // what the other place held then, so that it is not torn.
        let ops: Vec<Op> = ops.into_iter().filter(|op| !matches!(op, Op::Remap(..))).collect();
        let events = published(&ops);
        let layered = run(profile, &events);
        let plain = run(needing(profile, Needs::Nothing), &events);
        prop_assert_eq!(layered, plain);
    }

    #[test]
    fn hardware_that_needs_nothing_is_the_machine_without_the_layer(
        profile in strategies::maintained_profile(),
        ops in strategies::maintained_history(LEN),
    ) {
        let events = strategies::events(&ops);
        let nothing = run(needing(profile, Needs::Nothing), &events);
        let coherent = run(Profile { caches: Caches::Coherent, ..profile }, &events);
        for ((nothing, verdict), (coherent, plain)) in nothing.iter().zip(&coherent) {
            prop_assert_eq!(bytes(nothing), bytes(coherent));
            let kind = |verdict: &Verdict| verdict.hazard.as_ref().map(|hazard| hazard.kind);
            // Whose store it was makes no difference.
            let same = match kind(plain) {
                Some(Kind::Alias | Kind::Smc | Kind::Unserialized) => Some(Kind::Unsynchronized),
                other => other,
            };
            prop_assert_eq!(kind(verdict), same);
        }
    }

    #[test]
    fn one_step_more_never_adds_a_candidate(
        profile in strategies::maintained_profile(),
        ops in strategies::maintained_history(LEN).prop_filter("something", |ops| !ops.is_empty()),
        at in any::<usize>(),
        step in a_step(),
    ) {
        // Bytes of one instruction whose stores complete apart come in apart as well, so a step more can change what
        // they are together; where stores are cleaned by line, they cannot.
        let ops: Vec<Op> = ops.into_iter().filter(|op| !matches!(op, Op::Caches(..))).collect();
        prop_assume!(!ops.is_empty());
        let profile = needing(profile, Needs::CleanAndInvalidate);
        let (with, without) = with_and_without(&ops, at, &step);
        for ((with, _), (without, _)) in run(profile, &with).iter().zip(&run(profile, &without)) {
            prop_assert!(bytes(with).is_subset(&bytes(without)), "{with:?} {without:?}");
        }
    }

    #[test]
    fn one_step_more_never_lowers_a_floor(
        kind in strategies::cache_type(),
        ops in strategies::maintained_history(LEN).prop_filter("something", |ops| !ops.is_empty()),
        at in any::<usize>(),
        step in a_step(),
    ) {
        let (with, without) = with_and_without(&ops, at, &step);
        let moments = with.len() as u64;
        prop_assert!(no_lower(&caches(kind, &with).0, &caches(kind, &without).0, moments));
    }

    #[test]
    fn hardware_that_needs_less_never_has_a_lower_floor(
        kind in strategies::cache_type(),
        ops in strategies::maintained_history(LEN),
    ) {
        let events = strategies::events(&ops);
        let of = |needs| caches(CacheType { needs, ..kind }, &events).0;
        prop_assert!(no_lower(&of(Needs::Invalidate), &of(Needs::CleanAndInvalidate), events.len() as u64));
        prop_assert!(no_lower(&of(Needs::Guest), &of(Needs::CleanAndInvalidate), events.len() as u64));
    }

    #[test]
    fn what_is_settled_is_what_every_later_fetch_finds(
        kind in strategies::cache_type(),
        ops in strategies::maintained_history(LEN),
    ) {
        let events = strategies::events(&ops);
        let (cache, memory) = caches(kind, &events);
        for page in PAGES {
            for at in 0..40 {
                let phys = page.offset(strategies::code(0, at).0 % 4096);
                let (settled, last) = (cache.settled(phys, 1, &memory), memory.last_change(phys, 1));
                let finds = |moment: u64| (0..VCPUS).all(|cpu| cache.floor(Vcpu(cpu), phys, Seq(moment)) >= last);
                let first = (0..=events.len() as u64).find(|moment| finds(*moment));
                prop_assert_eq!(Some(settled).filter(|settled| settled.0 <= events.len() as u64), first.map(Seq));
            }
        }
    }

    #[test]
    fn forgetting_changes_no_verdict(
        profile in strategies::maintained_profile(),
        ops in strategies::maintained_history(LEN),
        every in 1usize..9,
    ) {
        let (mut model, mut forgetful) = (model(profile), model(profile));
        for (i, event) in strategies::events(&ops).iter().enumerate() {
            let (mut known, forgotten) = (model.apply(event), forgetful.apply(event));
            // What stood beside the candidate's bytes before a store is told as long as it is remembered.
            let writes = |verdict: &mut Result<Verdict, _>| {
                let hazard = verdict.as_mut().ok().and_then(|verdict| verdict.hazard.as_mut());
                hazard.map(|hazard| std::mem::take(&mut hazard.writes))
            };
            let mut lesser = forgotten.clone();
            if let (Some(known), Some(lesser)) = (writes(&mut known), writes(&mut lesser)) {
                prop_assert_eq!(known.len(), lesser.len());
                for (known, lesser) in known.into_iter().zip(lesser) {
                    let old = known.old.clone().filter(|_| lesser.old.is_some());
                    prop_assert_eq!(Write { old, ..known }, lesser);
                }
            }
            prop_assert_eq!(known, lesser);
            if i % every == 0 {
                forgetful.forget();
            }
        }
        prop_assert!(forgetful.memory().versions() <= model.memory().versions());
    }

    #[test]
    fn with_every_store_snooped_there_is_no_hazard(
        profile in strategies::maintained_profile(),
        ops in strategies::maintained_history(LEN),
    ) {
        let profile = Profile { snoop: true, ..profile };
        prop_assert!(run(profile, &strategies::events(&ops)).iter().all(|(_, verdict)| verdict.hazard.is_none()));
    }
}
