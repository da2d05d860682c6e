//! One history for each kind of hazard and for each rule that is easier to read than to state.

use icsan_model::addr::{Linear, Phys, Seq, Vcpu};
use icsan_model::arch::exemption::Exemption;
use icsan_model::arch::maintenance::Caches;
use icsan_model::arch::profile::{Buffers, Profile, Text};
use icsan_model::arch::sync_event::{SyncEventId, SyncEventSet};
use icsan_model::event::{Event, Store};
use icsan_model::machine::model::Model;
use icsan_model::memory::PAGE;
use icsan_model::testing::strategies::{self, BREAKPOINT, Toy};
use icsan_model::verdict::hazard::{Hazard, Verdict};
use icsan_model::verdict::kind::Kind;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use std::collections::BTreeMap;

const IRET: u8 = 0;
const CPUID: u8 = 1;

fn profile(exemptions: &'static [Exemption], buffers: Buffers) -> Profile {
    let serializing = SyncEventSet::EMPTY.with(SyncEventId(IRET));
    Profile {
        name: "example",
        note: "",
        serializing,
        exemptions,
        buffers,
        snoop: false,
        caches: Caches::Coherent,
        only_at: &[],
        text: Text::All,
    }
}

/// Two vCPUs. Page 0x1000 is seen at 0x1000 and at 0x5000; its first 16 bytes are instructions of five bytes (and one).
struct Example(Model);

impl Example {
    fn new(profile: Profile) -> Self {
        let mut example = Self(Model::new(profile, Toy, 2).expect("a sound profile"));
        example.store(None, 0x1000, &[4, 0, 0, 0, 0, 4, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0]);
        for vcpu in 0..2 {
            for linear in [0x1000, 0x5000] {
                example.map(vcpu, linear, Some(0x1000));
            }
        }
        example
    }

    fn apply(&mut self, event: &Event) -> Verdict {
        self.0.apply(event).expect("possible")
    }

    fn map(&mut self, vcpu: u16, linear: u64, phys: Option<u64>) {
        self.apply(&Event::Remap { vcpu: Vcpu(vcpu), linear: Linear(linear), phys: phys.map(Phys) });
    }

    /// `writer`: who, through which page.
    fn store(&mut self, writer: Option<(u16, u64)>, phys: u64, bytes: &[u8]) -> Seq {
        let linear = writer.map(|(_, page)| Linear(page + phys % PAGE));
        let vcpu = writer.map(|(vcpu, _)| Vcpu(vcpu));
        self.apply(&Event::Store(Store {
            vcpu,
            pc: linear.map(|_| Linear(0x9000)),
            linear,
            phys: Phys(phys),
            bytes: bytes.to_vec(),
        }))
        .seq
    }

    fn fetch(&mut self, vcpu: u16, linear: u64, len: u8) -> Option<Hazard> {
        self.apply(&Event::Fetch { vcpu: Vcpu(vcpu), linear: Linear(linear), len }).hazard.map(|hazard| *hazard)
    }

    fn kind(&mut self, vcpu: u16, linear: u64, len: u8) -> Option<Kind> {
        self.fetch(vcpu, linear, len).map(|hazard| hazard.kind)
    }

    fn sync(&mut self, vcpu: u16, event: u8) {
        self.apply(&Event::Sync { vcpu: Vcpu(vcpu), event: SyncEventId(event), pc: Linear(0x9100) });
    }

    fn branch(&mut self, vcpu: u16) {
        self.apply(&Event::Branch { vcpu: Vcpu(vcpu) });
    }
}

fn example() -> Example {
    Example::new(profile(&[], Buffers::DEFAULT))
}

#[test]
fn another_cpus_store_is_unserialized_until_the_executor_serializes() {
    let mut example = example();
    assert_eq!(example.kind(0, 0x1000, 5), None);
    example.sync(0, IRET);
    assert_eq!(example.kind(0, 0x1000, 5), None);
    let store = example.store(Some((1, 0x1000)), 0x1001, &[9]);
    example.branch(0);
    example.sync(0, CPUID);
    let hazard = example.fetch(0, 0x1000, 5).expect("a hazard");
    assert_eq!((hazard.kind, hazard.phys, hazard.epoch.0), (Kind::Unserialized, Phys(0x1000), 1));
    assert_eq!(hazard.memory, [4, 9, 0, 0, 0]);
    assert_eq!(hazard.candidates.iter().map(|candidate| &candidate.bytes[..]).collect::<Vec<_>>(), [[4, 0, 0, 0, 0]]);
    assert_eq!(hazard.writes.len(), 1);
    let write = &hazard.writes[0];
    assert_eq!(
        (write.seq, write.vcpu, write.pc, write.linear),
        (store, Some(Vcpu(1)), Some(Linear(0x9000)), Some(Linear(0x1001)))
    );
    assert_eq!((write.old.as_deref(), &write.new[..]), (Some(&[0][..]), &[9][..]));
    assert_eq!(hazard.last_sync.and_then(|sync| sync.event), Some(SyncEventId(IRET)));
    assert_eq!(example.kind(1, 0x1000, 5), None, "vCPU 1 brought it in after the store");
    example.sync(0, IRET);
    assert_eq!(example.kind(0, 0x1000, 5), None);
    assert_eq!(example.0.stats().hazards, BTreeMap::from([(Kind::Unserialized, 1)]));
    assert_eq!((example.0.stats().epochs, example.0.stats().fetches), (2, 5));
}

#[test]
fn a_chunk_is_brought_in_whole() {
    let mut example = example();
    example.fetch(0, 0x1000, 5);
    example.store(Some((1, 0x1000)), 0x1006, &[9]);
    assert_eq!(example.kind(0, 0x1005, 5), Some(Kind::Unserialized), "a neighbour in the same chunk");
}

#[test]
fn own_store_is_smc_until_a_taken_branch() {
    let mut example = example();
    example.fetch(0, 0x1000, 5);
    example.store(Some((0, 0x1000)), 0x1005, &[12]);
    assert_eq!(example.kind(0, 0x1005, 5), Some(Kind::Smc));
    example.branch(0);
    assert_eq!(example.kind(0, 0x1005, 5), None);

    let mut without = Example::new(profile(&[], Buffers { own_store_at_branch: false, ..Buffers::DEFAULT }));
    without.fetch(0, 0x1000, 5);
    without.store(Some((0, 0x1000)), 0x1005, &[12]);
    without.branch(0);
    assert_eq!(without.kind(0, 0x1005, 5), Some(Kind::Smc), "option 1 struck out");
    without.sync(0, IRET);
    assert_eq!(without.kind(0, 0x1005, 5), None);
}

#[test]
fn own_store_through_another_address_is_alias_until_it_serializes() {
    let mut example = example();
    example.fetch(0, 0x1000, 5);
    example.store(Some((0, 0x5000)), 0x1000, &[12]);
    example.branch(0);
    assert_eq!(example.kind(0, 0x1000, 5), Some(Kind::Alias));
    // Another CPU's store besides does not hide it.
    example.store(Some((1, 0x1000)), 0x1001, &[1]);
    assert_eq!(example.kind(0, 0x1000, 5), Some(Kind::Alias));
    example.sync(0, IRET);
    assert_eq!(example.kind(0, 0x1000, 5), None);
}

#[test]
fn after_the_commit_an_older_version_is_stale_although_it_was_exempt() {
    let mut example = Example::new(profile(&[Exemption::AlignedStore(8)], Buffers::DEFAULT));
    example.fetch(0, 0x1000, 5);
    let store = example.store(Some((1, 0x1000)), 0x1000, &[12, 1]);
    let verdict = example.apply(&Event::Fetch { vcpu: Vcpu(0), linear: Linear(0x1000), len: 5 });
    assert_eq!((verdict.hazard, verdict.exempt), (None, 1));
    example.apply(&Event::Commit { stores: vec![store] });
    assert_eq!(example.kind(0, 0x1000, 5), Some(Kind::Stale));
    assert_eq!(example.kind(1, 0x1000, 5), None);
    // The next patch runs, the first one stays committed.
    example.store(Some((1, 0x1000)), 0x1000, &[20, 2]);
    assert_eq!(example.kind(0, 0x1000, 5), Some(Kind::Stale));
    assert_eq!(example.0.stats().exempt, 2, "the committed version of the first patch is exempt against the second");
}

#[test]
fn an_aligned_store_is_exempt_alone_and_aligned_only() {
    let amd = profile(&[Exemption::AlignedStore(8)], Buffers::DEFAULT);
    let kind = |stores: &[(u64, &[u8])]| {
        let mut example = Example::new(amd);
        example.fetch(0, 0x1005, 5);
        for (phys, bytes) in stores {
            example.store(Some((1, 0x1000)), *phys, bytes);
        }
        example.kind(0, 0x1005, 5)
    };
    assert_eq!(kind(&[(0x1005, &[12, 1, 1])]), None);
    assert_eq!(kind(&[(0x1005, &[12, 1, 1, 1])]), Some(Kind::Unserialized), "it crosses the quadword");
    assert_eq!(kind(&[(0x1005, &[12]), (0x1006, &[1])]), Some(Kind::Unserialized), "two stores");
}

#[test]
fn an_instruction_in_two_chunks_tears_into_what_never_stood_in_memory() {
    let mut example = Example::new(profile(&[], Buffers { chunk: 8, ..Buffers::DEFAULT }));
    example.fetch(0, 0x1005, 5);
    example.store(Some((1, 0x1000)), 0x1005, &[12, 1, 1, 1, 1]);
    let hazard = example.fetch(0, 0x1005, 5).expect("a hazard");
    assert_eq!(hazard.kind, Kind::Torn);
    let shown: Vec<_> = hazard.candidates.iter().map(|candidate| (&candidate.bytes[..], candidate.whole)).collect();
    assert_eq!(
        shown,
        [(&[4, 0, 0, 0, 0][..], true), (&[4, 0, 0, 1, 1], false), (&[12, 1, 1, 0, 0], false)],
        "oldest first"
    );
    assert_eq!(hazard.candidates[1].versions, [1, 1, 1, 7, 7].map(Seq));
}

#[test]
fn code_mapped_where_nothing_was_cannot_be_stale() {
    let mut example = Example::new(profile(&[], Buffers { speculation: true, lookahead: 4096, ..Buffers::DEFAULT }));
    example.fetch(0, 0x1000, 5);
    example.store(None, 0x2000, &[4, 7, 7, 7, 7, 0]);
    example.map(0, 0x2000, Some(0x2000));
    assert_eq!(example.kind(0, 0x2000, 5), None);
    // Mapped over something else, it can.
    example.map(0, 0x2000, Some(0x1000));
    let hazard = example.fetch(0, 0x2000, 5).expect("a hazard");
    assert_eq!((hazard.kind, hazard.writes.len(), hazard.remapped.is_some()), (Kind::Unserialized, 0, true));
}

/// Only the middle one of three chunks was held.
#[test]
fn a_hazard_by_remapping_names_the_remapping() {
    let mut example = Example::new(profile(&[], Buffers { chunk: 4, ..Buffers::DEFAULT }));
    example.store(None, 0x1000, &[0, 0, 0, 5, 0, 0, 0, 0, 0]);
    example.store(None, 0x3000, &[0, 0, 0, 5, 6, 0, 0, 0, 0]);
    example.fetch(0, 0x1004, 1);
    example.map(0, 0x1000, Some(0x3000));
    let hazard = example.fetch(0, 0x1003, 6).expect("a hazard");
    assert!(hazard.writes.is_empty() && hazard.remapped == Some(example.0.last()).map(|seq| Seq(seq.0 - 1)));
}

/// Two places with equal bytes are two versions: the later one is named.
#[test]
fn a_candidates_versions_are_of_the_place_that_it_was_read_from_last() {
    let mut example = example();
    let copy = example.store(None, 0x2000, &[4, 0, 0, 0, 0, 4, 0, 0]);
    example.fetch(0, 0x1000, 5);
    example.map(0, 0x1000, Some(0x2000));
    example.store(Some((1, 0x2000)), 0x2000, &[12]);
    let hazard = example.fetch(0, 0x1000, 5).expect("a hazard");
    assert_eq!(hazard.candidates[0].versions, [copy; 5]);
}

#[test]
fn a_lookahead_brings_nothing_in_from_an_unmapped_page() {
    let mut example = Example::new(profile(&[], Buffers { lookahead: 4096, ..Buffers::DEFAULT }));
    example.fetch(0, 0x1000, 5);
    example.store(None, 0x2000, &[4, 7, 7, 7, 7, 0]);
    example.map(0, 0x2000, Some(0x2000));
    example.store(Some((1, 0x2000)), 0x2000, &[12]);
    assert_eq!(example.kind(0, 0x2000, 5), None);
}

#[test]
fn what_was_never_brought_in_is_speculative_at_worst() {
    let mut example = Example::new(profile(&[], Buffers { speculation: true, ..Buffers::DEFAULT }));
    let store = example.store(Some((1, 0x1000)), 0x1000, &[12]);
    example.apply(&Event::Commit { stores: vec![store] });
    assert_eq!(example.kind(0, 0x1000, 5), Some(Kind::Speculative));
    example.sync(0, IRET);
    assert_eq!(example.kind(0, 0x1000, 5), None);
}

#[test]
fn a_trace_survives_a_branch_and_a_prefetch_does_not() {
    for (trace, prefetch, expected) in [(None, Some(0), true), (Some(0), None, false)] {
        let mut example = Example::new(profile(&[], Buffers { trace, prefetch, ..Buffers::DEFAULT }));
        example.fetch(0, 0x1000, 5);
        example.branch(0);
        example.store(Some((1, 0x1000)), 0x1000, &[12]);
        assert_eq!(example.kind(0, 0x1000, 5).is_some(), expected);
    }
}

/// What a run was decoded from is as old as what the prefetch buffer held.
#[test]
fn a_run_is_as_old_as_what_it_was_decoded_from() {
    let mut example = Example::new(profile(&[], Buffers { chunk: 8, lookahead: 8, ..Buffers::DEFAULT }));
    example.fetch(0, 0x1000, 5);
    example.store(Some((1, 0x1000)), 0x100a, &[12]);
    assert_eq!(example.kind(0, 0x100a, 5), Some(Kind::Unserialized), "read ahead before the store");
    example.branch(0);
    assert_eq!(example.kind(0, 0x100a, 5), Some(Kind::Unserialized), "perhaps executed so, and kept");
}

#[test]
fn a_bound_that_is_hit_is_said() {
    let mut example = Example::new(profile(&[], Buffers { chunk: 8, ..Buffers::DEFAULT }));
    example.fetch(0, 0x1005, 5);
    for byte in 1..=70 {
        example.store(Some((1, 0x1000)), 0x1006, &[byte]);
        example.store(Some((1, 0x1000)), 0x1009, &[byte]);
    }
    let verdict = example.apply(&Event::Fetch { vcpu: Vcpu(0), linear: Linear(0x1005), len: 5 });
    assert!(!verdict.complete && verdict.hazard.is_some());
    assert!(!example.0.stats().complete());
}

/// "Whole" is judged from the moment on at which the vCPU brought the first chunk in. So an old whole instruction that
/// was in memory before the last event, and of which the pieces come back one by one, is an exempt whole instruction
/// for a weaker event set, and torn for the stronger one.
#[test]
fn a_stronger_event_set_can_make_an_exempt_candidate_torn() {
    let breakpoint = Profile {
        buffers: Buffers { chunk: 8, ..Buffers::DEFAULT },
        ..profile(&[Exemption::Breakpoint(&[BREAKPOINT])], Buffers::DEFAULT)
    };
    let run = |profile| {
        let mut example = Example::new(profile);
        example.fetch(0, 0x1005, 5);
        example.store(Some((1, 0x1000)), 0x1005, &[BREAKPOINT]);
        example.store(Some((1, 0x1000)), 0x1008, &[1]);
        example.sync(0, CPUID);
        example.fetch(0, 0x1005, 1);
        example.fetch(0, 0x100a, 5);
        example.store(Some((1, 0x1000)), 0x1005, &[4]);
        example.store(Some((1, 0x1000)), 0x1005, &[BREAKPOINT]);
        example.store(Some((1, 0x1000)), 0x1008, &[0]);
        example.kind(0, 0x1005, 1)
    };
    assert_eq!(run(breakpoint), None);
    assert_eq!(
        run(Profile { serializing: breakpoint.serializing.with(SyncEventId(CPUID)), ..breakpoint }),
        Some(Kind::Torn)
    );
}

/// A long past costs nothing when nothing changed: this would take minutes otherwise.
#[test]
fn an_execution_does_not_walk_the_past() {
    let mut example = example();
    for i in 0..50_000u32 {
        example.store(Some((1, 0x1000)), 0x100f, &[i as u8]);
    }
    example.sync(0, IRET);
    for _ in 0..5_000 {
        assert_eq!(example.kind(0, 0x1000, 5), None);
    }
}

/// The random histories are worth something: they reach every kind, exemptions, remapped pages and bounded buffers that
/// dropped something.
#[test]
fn the_histories_reach_every_kind() {
    let mut runner = TestRunner::deterministic();
    let mut kinds = BTreeMap::<Kind, usize>::new();
    let (mut exempt, mut remapped, mut lost) = (0, 0, 0);
    let plain = || (strategies::profile(), strategies::history(80)).boxed();
    let maintained = || (strategies::maintained_profile(), strategies::maintained_history(40)).boxed();
    for drawn in std::iter::repeat_with(plain).take(300).chain(std::iter::repeat_with(maintained).take(300)) {
        let (profile, ops) = drawn.new_tree(&mut runner).expect("a history").current();
        let mut model = Model::new(profile, Toy, usize::from(strategies::VCPUS)).expect("a sound profile");
        let unbounded = Buffers { prefetch: None, trace: None, ..profile.buffers };
        let mut larger = Model::new(Profile { buffers: unbounded, ..profile }, Toy, usize::from(strategies::VCPUS))
            .expect("a sound profile");
        for event in strategies::events(&ops) {
            let verdict = model.apply(&event).expect("possible");
            let all = larger.apply(&event).expect("possible");
            lost += usize::from(all.hazard.is_some() && verdict.hazard.is_none());
            exempt += usize::from(verdict.exempt > 0);
            if let Some(hazard) = verdict.hazard {
                *kinds.entry(hazard.kind).or_default() += 1;
                remapped += usize::from(hazard.writes.is_empty());
            }
        }
    }
    println!("{kinds:?}, exempt {exempt}, remapped {remapped}, lost to bounds {lost}");
    for kind in Kind::ALL.into_iter().filter(|kind| ![Kind::Emulator, Kind::Unsynced].contains(kind)) {
        assert!(kinds.get(&kind).is_some_and(|count| *count >= 5), "{kind:?}: {kinds:?}");
    }
    assert!(exempt >= 5 && remapped >= 1 && lost >= 5);
}
