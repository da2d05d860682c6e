//! A recording of an AArch64 guest is judged by its own architecture, and by the guest's caches.

mod common;

use common::{file, record};
use icsan_model::addr::{Linear, Phys, Vcpu};
use icsan_model::arch::aarch64::{AARCH64, events};
use icsan_model::arch::maintenance::{Accesses, CacheType, Domain, Maintenance, Needs};
use icsan_model::event::{Event, Store};
use icsan_model::verdict::kind::Kind;
use icsan_recording::{Header, Reader};
use icsan_replay::report::print;
use icsan_replay::session::{Outcome, run};
use icsan_replay::settings::Settings;

const CODE: u64 = 0x4000_0000;
const MOVZ_1: u32 = 0xd280_0020;
const MOVZ_2: u32 = 0xd280_0040;

/// vCPU 0 runs an instruction, vCPU 1 changes it and cleans and invalidates the line, or not; vCPU 0 synchronizes, and
/// runs it again.
fn guest(maintenance: bool) -> Vec<Event> {
    let (executor, writer) = (Vcpu(0), Vcpu(1));
    let mut events: Vec<Event> = [executor, writer]
        .into_iter()
        .map(|vcpu| Event::Remap { vcpu, linear: Linear(CODE), phys: Some(Phys(CODE)) })
        .collect();
    let fetch = Event::Fetch { vcpu: executor, linear: Linear(CODE), len: 4 };
    let barrier = Event::Barrier { vcpu: writer, domain: Domain::Inner, accesses: Accesses::All };
    let maintain = |operation| Event::Maintain { vcpu: writer, operation };
    events.push(Event::Contents { phys: Phys(CODE), bytes: MOVZ_1.to_le_bytes().to_vec() });
    events.push(fetch.clone());
    events.push(Event::Store(Store {
        vcpu: Some(writer),
        pc: Some(Linear(0x8000)),
        linear: Some(Linear(CODE)),
        phys: Phys(CODE),
        bytes: MOVZ_2.to_le_bytes().to_vec(),
    }));
    if maintenance {
        events.extend([
            maintain(Maintenance::Clean(Phys(CODE))),
            barrier.clone(),
            maintain(Maintenance::Invalidate(Phys(CODE))),
            barrier,
        ]);
    }
    events.push(Event::Sync { vcpu: executor, event: events::ISB, pc: Linear(0x9000) });
    events.push(fetch);
    events
}

fn header(needs: Needs) -> Header {
    let vcpus = common::header().vcpus;
    Header { caches: Some(CacheType::of(needs)), ..Header::new(&AARCH64, "test", vcpus) }
}

fn replay(needs: Needs, maintenance: bool, settings: &Settings) -> Outcome {
    let header = header(needs);
    let file = file(&header, &record(&header, &guest(maintenance)));
    run(Reader::new(&file[..]).unwrap(), settings, false, 10).unwrap()
}

fn kinds(outcome: &Outcome) -> Vec<Kind> {
    assert!(outcome.complete());
    outcome.sites.list().iter().map(|site| site.hazard.kind).collect()
}

#[test]
fn the_guests_caches_decide_what_is_missing() {
    let own = Settings::default();
    assert_eq!(kinds(&replay(Needs::CleanAndInvalidate, false, &own)), [Kind::Unclean]);
    assert_eq!(kinds(&replay(Needs::CleanAndInvalidate, true, &own)), []);
    assert_eq!(kinds(&replay(Needs::Invalidate, false, &own)), [Kind::Incomplete]);
    assert_eq!(kinds(&replay(Needs::Nothing, false, &own)), []);
    let profile = |name: &str| Settings { profile: Some(name.to_owned()), ..Settings::default() };
    assert_eq!(kinds(&replay(Needs::Nothing, false, &profile("arm64-base"))), [Kind::Unclean]);
    assert_eq!(kinds(&replay(Needs::CleanAndInvalidate, false, &profile("arm64-idc-dic"))), []);
    let without_isb = Settings { without: vec!["isb".to_owned()], ..Settings::default() };
    assert_eq!(kinds(&replay(Needs::CleanAndInvalidate, true, &without_isb)), [Kind::Unsynchronized]);
    assert_eq!(kinds(&replay(Needs::Nothing, true, &without_isb)), [Kind::Unsynchronized]);
}

#[test]
fn a_report_names_the_manual_and_shows_words() {
    let outcome = replay(Needs::CleanAndInvalidate, false, &Settings::default());
    let text = |json| {
        let mut text = Vec::new();
        print(&mut text, &outcome, 10, json).unwrap();
        String::from_utf8(text).unwrap()
    };
    let shown = text(false);
    for part in ["BUG: ICSAN: unclean in 0x40000000", ".inst 0xd2800040", ".inst 0xd2800020", "rule: DDI0487 B2.7.4.2"]
    {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert!(text(true).contains(r#""caches":{"clean":true,"data_line":64,"instruction_line":64}"#));
}

#[test]
fn lines_that_cannot_be_are_refused() {
    let header =
        Header { caches: Some(CacheType { data_line: 48, ..CacheType::of(Needs::Guest) }), ..header(Needs::Guest) };
    let error = Settings::default().model(&header).unwrap_err().to_string();
    assert!(error.contains("a cache line of 48 bytes"), "{error}");
}
