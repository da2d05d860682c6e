//! Linux's breakpoint protocol (`text_poke_bp()`, since v6.16 `smp_text_poke_batch_finish()`) in the model: breakpoint,
//! sync, tail, sync, first byte, sync.
//!
//! With its three syncs it is silent in every interleaving. Each sync that is left out is missed by some history, but
//! only where the instruction straddles fetch chunks, except for the last one, which is always missed. The middle one
//! is what H. P. Anvin believed unnecessary in 2010: in this model it is needed if the executor brings in the tail's
//! chunk by running the code behind the site, and is not needed where the site lies in one chunk.

use icsan_model::arch::exemption::Exemption;
use icsan_model::arch::maintenance::Caches;
use icsan_model::arch::profile::{Buffers, Profile, Text};
use icsan_model::arch::sync_event::{SyncEventId, SyncEventSet};
use icsan_model::event::Event;
use icsan_model::machine::model::Model;
use icsan_model::testing::strategies::{self, BREAKPOINT, Guest, HALF, Op, Toy, VCPUS};
use icsan_model::verdict::kind::Kind;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// Instructions of five bytes, as `nopl` and `jmp` are.
const OLD: [u8; 5] = [0x04, 1, 2, 3, 0];
const NEW: [u8; 5] = [0x0c, 5, 5, 5, 5];
const LEN: u8 = OLD.len() as u8;
/// The last site that fits.
const LAST: u8 = 2 * HALF as u8 - LEN;
/// The event that serializes, and one that does not.
const IRET: u8 = 0;
const SYSRET: u8 = 1;
const PATCHER: u16 = 0;

fn profile(chunk: u32) -> Profile {
    Profile {
        name: "toy-linux",
        note: "",
        serializing: SyncEventSet::EMPTY.with(SyncEventId(IRET)),
        exemptions: &[Exemption::Breakpoint(&[BREAKPOINT])],
        buffers: Buffers { chunk, ..Buffers::DEFAULT },
        snoop: false,
        caches: Caches::Coherent,
        only_at: &[],
        text: Text::All,
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// A store of the patch.
    Patch(Op),
    /// Anything else.
    Other(Op),
    /// The patch is done.
    Commit,
}

/// How a protocol is carried out.
#[derive(Clone, Copy, Debug)]
struct Protocol {
    site: u8,
    /// The view that the patcher writes through: 1 is the alias.
    view: u8,
    /// Bytes of the tail that one store writes.
    part: usize,
    syncs: [bool; 3],
}

impl Protocol {
    fn steps(self, from: [u8; 5], to: [u8; 5]) -> Vec<Step> {
        let mut steps = self.poke(0, &[BREAKPOINT]);
        steps.extend(self.sync(0));
        steps.extend(to[1..].chunks(self.part).enumerate().flat_map(|(i, part)| self.poke(1 + i * self.part, part)));
        steps.extend(self.sync(1));
        steps.extend(self.poke(0, &to[..1]));
        steps.extend(self.sync(2));
        steps.push(Step::Commit);
        assert_ne!(from, to);
        steps
    }

    /// Stores that do not cross the page.
    fn poke(self, at: usize, bytes: &[u8]) -> Vec<Step> {
        let at = self.site + at as u8;
        let room = usize::from((HALF as u8).saturating_sub(at));
        let (first, second) = bytes.split_at(if room == 0 { bytes.len() } else { room.min(bytes.len()) });
        let parts = [(at, first), (at + first.len() as u8, second)].into_iter().filter(|(_, bytes)| !bytes.is_empty());
        parts.map(|(at, bytes)| Step::Patch(Op::Store(PATCHER, self.view, at, bytes.to_vec()))).collect()
    }

    fn sync(self, which: usize) -> Vec<Step> {
        (0..VCPUS).filter(|_| self.syncs[which]).map(|vcpu| Step::Other(Op::Sync(vcpu, IRET))).collect()
    }

    fn straddles(self, chunk: u32) -> bool {
        let chunk_of = |at: u8| strategies::code(0, at).align_down(u64::from(chunk));
        chunk_of(self.site) != chunk_of(self.site + LEN - 1)
    }
}

/// The kinds of hazard met at the site.
fn run(profile: Profile, site: u8, steps: &[Step]) -> Vec<Kind> {
    let mut model = Model::new(profile, Toy, usize::from(VCPUS)).expect("a sound profile");
    let (mut guest, events) = Guest::new();
    for event in &events {
        model.apply(event).expect("possible");
    }
    let setup: Vec<_> = Protocol { site, view: 0, part: 5, syncs: [true; 3] }.poke(0, &OLD);
    let quiet = (0..VCPUS).map(|vcpu| Step::Other(Op::Sync(vcpu, IRET)));
    let mut patch = Vec::new();
    let mut kinds = Vec::new();
    for step in setup.into_iter().chain(quiet).chain([Step::Commit]).chain(steps.iter().cloned()) {
        let event = match &step {
            Step::Patch(op) | Step::Other(op) => guest.step(op),
            Step::Commit => Some(Event::Commit { stores: std::mem::take(&mut patch) }),
        };
        // The noise may ask for an instruction that goes on in unknown memory.
        let Some(event) = event else { continue };
        let verdict = model.apply(&event).expect("possible");
        if matches!(step, Step::Patch(_)) {
            patch.push(verdict.seq);
        }
        kinds.extend(
            verdict.hazard.filter(|hazard| hazard.linear == strategies::code(0, site)).map(|hazard| hazard.kind),
        );
    }
    kinds
}

/// Every way of placing up to `most` things that an executor does between the steps.
fn interleavings(steps: &[Step], actions: &[Op], most: usize) -> Vec<Vec<Step>> {
    let mut all = vec![steps.to_vec()];
    let mut shorter: Vec<(usize, Vec<Step>)> = vec![(0, steps.to_vec())];
    for _ in 0..most {
        let mut longer = Vec::new();
        for (from, steps) in &shorter {
            for at in *from..=steps.len() {
                for action in actions {
                    let mut steps = steps.clone();
                    steps.insert(at, Step::Other(action.clone()));
                    longer.push((at + 1, steps));
                }
            }
        }
        all.extend(longer.iter().map(|(_, steps)| steps.clone()));
        shorter = longer;
    }
    all
}

/// All kinds that some interleaving with one executor meets at the site.
fn search(protocol: Protocol, chunk: u32, most: usize) -> BTreeSet<Kind> {
    let executor = 1;
    // Execute the site; execute what is behind it (where the breakpoint's handler returns to); take a branch.
    let actions =
        [Op::Fetch(executor, 0, protocol.site), Op::Fetch(executor, 0, protocol.site + LEN), Op::Branch(executor)];
    let histories = interleavings(&protocol.steps(OLD, NEW), &actions[..if most > 2 { 2 } else { 3 }], most);
    histories.iter().flat_map(|steps| run(profile(chunk), protocol.site, steps)).collect()
}

const WHOLE: Protocol = Protocol { site: 6, view: 1, part: 4, syncs: [true; 3] };

fn without(sync: usize) -> Protocol {
    let mut protocol = WHOLE;
    protocol.syncs[sync] = false;
    protocol
}

#[test]
fn with_three_syncs_no_interleaving_of_one_executor_is_a_hazard() {
    assert_eq!(search(WHOLE, 8, 3), BTreeSet::new());
    for site in 0..LAST {
        for chunk in [4, 8, 16] {
            assert_eq!(
                search(Protocol { site, part: 1, ..WHOLE }, chunk, 1),
                BTreeSet::new(),
                "site {site}, chunk {chunk}"
            );
        }
    }
}

#[test]
fn without_the_first_sync_an_instruction_that_straddles_chunks_tears() {
    assert!(without(0).straddles(8));
    assert_eq!(search(without(0), 8, 2), BTreeSet::from([Kind::Torn]));
}

/// The middle sync is needed, if the executor runs the code behind the site while the breakpoint stands.
#[test]
fn without_the_middle_sync_an_instruction_that_straddles_chunks_tears() {
    assert_eq!(search(without(1), 8, 2), BTreeSet::from([Kind::Torn]));
}

/// What an executor of the site alone brings in during the breakpoint is the first byte's chunk. Then the last sync is
/// guard enough, as Anvin thought.
#[test]
fn the_middle_sync_guards_only_those_who_run_the_code_behind_the_site() {
    let site_only = [Op::Fetch(1, 0, WHOLE.site), Op::Branch(1)];
    for steps in interleavings(&without(1).steps(OLD, NEW), &site_only, 3) {
        assert_eq!(run(profile(8), WHOLE.site, &steps), []);
    }
    // A look-ahead brings the tail's chunk in as well.
    let ahead = Profile { buffers: Buffers { lookahead: 8, ..profile(8).buffers }, ..profile(8) };
    let torn = interleavings(&without(1).steps(OLD, NEW), &site_only[..1], 2)
        .iter()
        .any(|steps| !run(ahead, WHOLE.site, steps).is_empty());
    assert!(torn);
}

#[test]
fn without_the_last_sync_the_breakpoint_is_stale_after_the_commit() {
    for site in [0, 6] {
        assert_eq!(search(Protocol { site, ..without(2) }, 8, 2), BTreeSet::from([Kind::Stale]));
    }
}

#[test]
fn without_any_sync_the_old_instruction_is_stale_after_the_commit() {
    let kinds = search(Protocol { syncs: [false; 3], ..WHOLE }, 8, 2);
    assert!(kinds.contains(&Kind::Stale) && kinds.contains(&Kind::Torn));
}

/// Within one chunk the model cannot tear, so the last sync alone carries the protocol there.
#[test]
fn within_one_chunk_the_last_sync_is_enough_to_be_clean_after_the_commit() {
    let last_only = Protocol { site: 0, syncs: [false, false, true], ..WHOLE };
    assert!(!last_only.straddles(8));
    // Before the commit, the old whole instruction meets the new one with no breakpoint on either side.
    assert_eq!(search(last_only, 8, 2), BTreeSet::from([Kind::Unserialized]));
    for syncs in [[false, true, true], [true, false, true]] {
        assert_eq!(search(Protocol { syncs, ..last_only }, 8, 2), BTreeSet::new(), "one of the first two is enough");
    }
}

/// A patch in one atomic store, without a breakpoint: old and new whole instructions meet, and no exemption covers
/// that.
#[test]
fn one_store_without_a_protocol_is_unserialized() {
    let steps = [
        Step::Other(Op::Fetch(1, 0, 0)),
        Step::Patch(Op::Store(0, 0, 0, NEW.to_vec())),
        Step::Other(Op::Fetch(1, 0, 0)),
    ];
    assert_eq!(run(profile(8), 0, &steps), [Kind::Unserialized]);
    let amd = Profile { exemptions: &[Exemption::AlignedStore(8)], ..profile(8) };
    assert_eq!(run(amd, 0, &steps), []);
}

/// What goes on around the protocol: executions of the site and of its neighbours, on any vCPU, and stores to the
/// neighbours.
fn noise(site: u8) -> impl Strategy<Value = Op> + Clone {
    let vcpu = || 0..VCPUS;
    let outside = (0..2 * HALF as u8).prop_filter("outside of the site", move |at| *at < site || *at >= site + LEN);
    let store = (vcpu(), 0..2u8, outside.clone(), strategies::byte());
    prop_oneof![
        6 => vcpu().prop_map(move |vcpu| Op::Fetch(vcpu, 0, site)),
        3 => (vcpu(), outside).prop_map(|(vcpu, at)| Op::Fetch(vcpu, 0, at)),
        2 => vcpu().prop_map(Op::Branch),
        1 => (vcpu(), prop_oneof![Just(IRET), Just(SYSRET)]).prop_map(|(vcpu, event)| Op::Sync(vcpu, event)),
        2 => store.prop_map(|(vcpu, view, at, byte)| Op::Store(vcpu, view, at, vec![byte])),
        1 => vcpu().prop_map(Op::Reset),
    ]
}

/// A site, a chunk, and two patches of it, there and back, with noise anywhere between.
fn two_patches(syncs: [bool; 3]) -> impl Strategy<Value = (Profile, u8, Vec<Step>)> {
    (0..LAST).prop_flat_map(move |site| {
        let shape = (0..2u8, 1..=4usize, prop_oneof![Just(4u32), Just(8), Just(16)], strategies::buffers());
        let noise = proptest::collection::vec((any::<proptest::sample::Index>(), noise(site)), 0..60);
        (shape, noise).prop_map(move |((view, part, chunk, buffers), noise)| {
            let protocol = Protocol { site, view, part, syncs };
            let mut steps = protocol.steps(OLD, NEW);
            steps.extend(protocol.steps(NEW, OLD));
            for (index, op) in noise {
                steps.insert(index.index(steps.len() + 1), Step::Other(op));
            }
            (Profile { buffers: Buffers { chunk, ..buffers }, ..profile(chunk) }, site, steps)
        })
    })
}

proptest! {
    #[test]
    fn with_three_syncs_no_history_is_a_hazard((profile, site, steps) in two_patches([true; 3])) {
        prop_assert_eq!(run(profile, site, &steps), []);
    }
}
