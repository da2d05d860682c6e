//! Since when a vCPU holds what it ran, where its moment falls between a store's place in the order and the next one's.

use icsan_model::addr::{Epoch, Linear, Phys, Seq, Vcpu};
use icsan_model::arch::maintenance::Caches;
use icsan_model::arch::profile::{Buffers, Profile, Text};
use icsan_model::arch::sync_event::SyncEventSet;
use icsan_model::detector::history::{Footprint, History, Place, Question};
use icsan_model::detector::light::CodeRun;
use icsan_model::event::Store;
use icsan_model::memory::PAGE;
use icsan_model::testing::strategies::Toy;

const CODE: u64 = 0x5000;
const A: u8 = 0x08;
const B: u8 = 0x10;

/// vCPU 0 ran A at that moment, and runs it again after another one stored B and then A again, at 6 and 7. Is that a
/// hazard?
fn is_hazard(since: u64) -> bool {
    let profile = Profile {
        name: "test",
        note: "",
        serializing: SyncEventSet::EMPTY,
        exemptions: &[],
        buffers: Buffers::DEFAULT,
        snoop: false,
        caches: Caches::Coherent,
        only_at: &[],
        text: Text::All,
    };
    let mut history = History::new(profile, Toy, 2);
    history.memory_mut().contents(Phys(CODE), &[A; PAGE as usize]);
    for (seq, byte) in [(6, B), (7, A)] {
        let store =
            Store { vcpu: Some(Vcpu(1)), pc: None, linear: Some(Linear(CODE)), phys: Phys(CODE), bytes: vec![byte] };
        history.store(Seq(seq), store, Epoch::default());
    }
    let run = CodeRun::new(Linear(CODE), &[A], &[1]);
    let place = Place { page: Linear(CODE), first: Phys(CODE), second: None };
    let footprints = [Footprint { run: &run, place, since: Seq(since) }];
    let question = Question {
        vcpu: Vcpu(0),
        run: &run,
        place,
        footprints: &footprints,
        last_sync: None,
        epoch: Epoch::default(),
        now: Seq(8),
    };
    history.judge(&question).iter().any(|judged| judged.verdict.hazard.is_some())
}

#[test]
fn who_found_a_after_b_was_stored_came_after_the_second_a() {
    assert!(is_hazard(5), "it ran A before, and may have brought B in");
    assert!(!is_hazard(6), "B had its place, but memory held A: that was the second one");
    assert!(!is_hazard(7));
}
