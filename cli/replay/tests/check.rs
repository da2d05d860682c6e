//! The check passes on what the plain model recorded, and fails on everything that is not that.

mod common;

use common::{file, header, record};
use icsan_model::addr::{Linear, Phys, Seq, Vcpu};
use icsan_model::arch::profile::Buffers;
use icsan_model::arch::sync_event::SyncEventId;
use icsan_model::arch::x86::X86_64;
use icsan_model::arch::x86::length::X86Length;
use icsan_model::event::{Event, Store};
use icsan_model::machine::model::Model;
use icsan_model::testing::strategies;
use icsan_model::verdict::kind::Kind;
use icsan_recording::{Header, Reader, Record, RecordingError, Writer};
use icsan_replay::check::What;
use icsan_replay::session::{self, End, Outcome};
use icsan_replay::settings::Settings;
use proptest::prelude::*;
use proptest::sample::Index;

fn any_header() -> impl Strategy<Value = Header> {
    // A recording names no places, so that no profile that goes by them has one.
    let profiles: Vec<_> = X86_64.profiles.iter().filter(|profile| profile.only_at.is_empty()).collect();
    (0..profiles.len(), strategies::buffers()).prop_map(move |(profile, buffers): (usize, Buffers)| Header {
        profile: profiles[profile].name.to_owned(),
        buffers: buffers.into(),
        ..header()
    })
}

fn check(file: &[u8]) -> Outcome {
    session::run(Reader::new(file).unwrap(), &Settings::default(), true, 100).unwrap()
}

/// Two vCPUs; 0 patches, unseen by 1, what 1 has executed in this epoch. The last executions are hazards.
fn patched() -> Vec<Event> {
    let phys = Phys(0x5000);
    let linear = Linear(0x40_0000);
    let fetch = |at, len| Event::Fetch { vcpu: Vcpu(1), linear: linear.offset(at), len };
    let store = |phys, bytes: &[u8]| {
        Event::Store(Store {
            vcpu: Some(Vcpu(0)),
            pc: Some(Linear(7)),
            linear: Some(Linear(9)),
            phys,
            bytes: bytes.to_vec(),
        })
    };
    vec![
        Event::Store(Store { vcpu: None, pc: None, linear: None, phys, bytes: [0x90; 64].to_vec() }),
        Event::Remap { vcpu: Vcpu(1), linear, phys: Some(phys) },
        fetch(0, 1),
        fetch(1, 1),
        fetch(2, 1),
        Event::Branch { vcpu: Vcpu(1) },
        store(phys, &[0x66, 0x90]),
        fetch(0, 2),
        fetch(2, 1),
        Event::Branch { vcpu: Vcpu(1) },
        store(phys.offset(2), &[0x91]),
        fetch(2, 1),
    ]
}

fn is_verdict(record: &Record) -> bool {
    matches!(record, Record::Verdict { .. })
}

/// The places of the verdicts.
fn verdicts(records: &[Record]) -> Vec<usize> {
    (0..records.len()).filter(|index| is_verdict(&records[*index])).collect()
}

fn counts(outcome: &Outcome) -> (u64, u64, u64) {
    let agreement = outcome.agreement.unwrap();
    (agreement.missing, agreement.extra, agreement.other)
}

proptest! {
    #[test]
    fn the_models_own_verdicts_pass(header in any_header(), ops in strategies::history(80)) {
        let records = record(&header, &strategies::events(&ops));
        let outcome = check(&file(&header, &records));
        let agreement = outcome.agreement.unwrap();
        prop_assert_eq!(outcome.proven(), Some(true), "{:?}", outcome.differences);
        prop_assert_eq!(agreement.agreed, verdicts(&records).len() as u64);
        prop_assert_eq!(agreement.executions, outcome.stats.fetches);
        prop_assert_eq!(agreement.agreed + agreement.silent(), agreement.executions);
        prop_assert_eq!(outcome.sites.list().iter().map(|site| site.count).sum::<u64>(), agreement.agreed);
    }

    /// The recording is another one in some way; the check must see it and say in which way.
    #[test]
    fn every_doctored_verdict_is_found(header in any_header(), ops in strategies::history(80), at in any::<Index>(), how in 0..8usize) {
        let mut records = record(&header, &strategies::events(&ops));
        let places = verdicts(&records);
        prop_assume!(!places.is_empty());
        let at = places[at.index(places.len())];
        let expected = match how {
            0 => {
                records.remove(at);
                (1, 0, 0)
            }
            1 => {
                records.insert(at, records[at].clone());
                (0, 1, 0)
            }
            // It comes after the next event, and so judges something else, if anything.
            2 => {
                let verdict = records.remove(at);
                let next = records[at..].iter().position(|record| !is_verdict(record));
                prop_assume!(next.is_some());
                records.insert(at + next.unwrap(), Record::Event(Event::Branch { vcpu: Vcpu(0) }));
                records.insert(at + next.unwrap() + 1, verdict);
                (1, 1, 0)
            }
            _ => {
                let Record::Verdict { vcpu, linear, kind, memory, candidates, writes } = &mut records[at] else { unreachable!() };
                match how {
                    3 => *kind = Kind::ALL[(*kind as usize + 1) % Kind::ALL.len()],
                    4 => memory.push(0),
                    5 => drop(candidates.pop()),
                    6 => writes.push(u64::MAX),
                    _ => {
                        *vcpu = Vcpu(vcpu.0 + 1);
                        *linear = linear.offset(1);
                    }
                }
                if how == 7 { (1, 1, 0) } else { (0, 0, 1) }
            }
        };
        let outcome = check(&file(&header, &records));
        prop_assert_eq!(outcome.proven(), Some(false));
        // A branch that was put in changes what follows; the rest changes nothing else.
        if how != 2 {
            prop_assert_eq!(counts(&outcome), expected);
            prop_assert_eq!(outcome.differences.total, expected.0 + expected.1 + expected.2);
        }
    }

    #[test]
    fn a_verdict_on_a_silent_execution_is_found(ops in strategies::history(80), at in any::<Index>()) {
        let header = header();
        let mut records = record(&header, &strategies::events(&ops));
        let silent: Vec<usize> = (0..records.len())
            .filter(|at| matches!(records[*at], Record::Event(Event::Fetch { .. })) && !records.get(at + 1).is_some_and(is_verdict))
            .collect();
        prop_assume!(!silent.is_empty());
        let at = silent[at.index(silent.len())];
        let Record::Event(Event::Fetch { vcpu, linear, .. }) = records[at] else { unreachable!() };
        let invented = |kind| Record::Verdict { vcpu, linear, kind, memory: vec![0], candidates: vec![vec![1]], writes: vec![] };
        records.insert(at + 1, invented(Kind::Unserialized));
        let outcome = check(&file(&header, &records));
        prop_assert_eq!((outcome.proven(), counts(&outcome)), (Some(false), (0, 1, 0)));
        prop_assert_eq!(outcome.differences.list[0].record, at as u64 + 1);
        // The model cannot know what QEMU ran: that is no difference.
        records[at + 1] = invented(Kind::Emulator);
        let outcome = check(&file(&header, &records));
        prop_assert_eq!((outcome.proven(), counts(&outcome)), (Some(true), (0, 0, 0)));
        prop_assert_eq!(outcome.agreement.unwrap().emulator, 1);
    }

    #[test]
    fn forgetting_and_joining_to_runs_change_no_verdict(ops in strategies::history(80)) {
        let events = strategies::events(&ops);
        let header = header();
        let mut model = Model::new(*X86_64.default_profile(), X86Length, usize::from(header.vcpus)).unwrap();
        let direct: Vec<Record> = events.iter().filter_map(|event| model.apply(event).unwrap().hazard.as_deref().map(Record::verdict)).collect();
        let recorded: Vec<Record> = record(&header, &events).into_iter().filter(is_verdict).collect();
        prop_assert_eq!(direct, recorded);
    }
}

#[test]
fn a_cut_proves_nothing_and_invents_nothing() {
    let header = header();
    let records = record(&header, &patched());
    assert!(is_verdict(records.last().unwrap()));
    let whole = file(&header, &records);
    assert_eq!(check(&whole).proven(), Some(true));
    // Without its end block; then without its last verdict, which was flushed apart, too.
    let mut writer = Writer::new(Vec::new(), &header).unwrap();
    for record in &records[..records.len() - 1] {
        writer.push(record.clone()).unwrap();
    }
    let lost = writer.finish().unwrap();
    for (file, not_compared) in [(&whole[..whole.len() - 1], 0), (&lost[..lost.len() - 1], 1)] {
        let outcome = check(file);
        assert!(matches!(outcome.end, End::Early(RecordingError::CutOff { .. })));
        assert_eq!((outcome.proven(), outcome.differences.total, outcome.complete()), (Some(false), 0, false));
        assert_eq!(outcome.agreement.unwrap().not_compared, not_compared);
    }
    // With an end block, the missing verdict is a difference.
    let outcome = check(&lost);
    assert_eq!(counts(&outcome), (1, 0, 0));
    assert!(matches!(&outcome.differences.list[0].what, What::Missing { model } if model == records.last().unwrap()));
}

#[test]
fn a_refused_event_keeps_its_place_and_fails_the_check() {
    let header = header();
    let mut events = patched();
    let good = record(&header, &events);
    // Nothing is mapped there; and nobody knows such an event.
    let bad = [
        Event::Fetch { vcpu: Vcpu(0), linear: Linear(0), len: 1 },
        Event::Sync { vcpu: Vcpu(0), event: SyncEventId(255), pc: Linear(0) },
    ];
    let records: Vec<Record> = bad.into_iter().map(Record::Event).chain(good.iter().cloned()).collect();
    let outcome = check(&file(&header, &records));
    assert_eq!((outcome.refused.total, outcome.proven(), outcome.complete()), (2, Some(false), false));
    let seqs: Vec<_> = outcome.refused.list.iter().map(|(record, refused)| (*record, refused.seq)).collect();
    assert_eq!(seqs, [(1, Seq(1)), (2, Seq(2))]);
    assert_eq!(outcome.last, Seq(events.len() as u64 + 2));
    // A commit refers to the same store as before.
    events.push(Event::Commit { stores: vec![Seq(11)] });
    let Event::Fetch { .. } = events[11] else { unreachable!() };
    events.push(events[11].clone());
    let last = record(&header, &events).pop().unwrap();
    assert!(matches!(last, Record::Verdict { kind: Kind::Stale, .. }), "{last:?}");
}

#[test]
fn events_of_another_table_are_found_by_name() {
    let names: Vec<String> = ["future", "cpuid"].map(str::to_owned).into();
    let sync = |event| Event::Sync { vcpu: Vcpu(1), event: SyncEventId(event), pc: Linear(3) };
    let header = Header { events: names, ..header() };
    let run = |events: &[Event]| {
        let records: Vec<Record> = events.iter().cloned().map(Record::Event).collect();
        session::run(Reader::new(&file(&header, &records)[..]).unwrap(), &Settings::default(), false, 10).unwrap()
    };
    let mut events = patched();
    assert_eq!(run(&events).sites.list().len(), 2);
    events.insert(11, sync(1));
    events.insert(7, sync(1));
    let outcome = run(&events);
    assert_eq!((outcome.sites.list().len(), outcome.stats.epochs, outcome.proven()), (0, 2, None));
    let outcome = run(&[sync(0), sync(2)]);
    assert_eq!(outcome.refused.total, 2);
    assert!(outcome.refused.list[0].1.why.to_string().contains("`future`"));
}
