//! A recorder that judges by the plain model, as a recorder that is right must.

use icsan_model::arch::x86::X86_64;
use icsan_model::event::Event;
use icsan_model::testing::strategies;
use icsan_recording::{Header, Record, Writer};
use icsan_replay::replay::Replay;
use icsan_replay::settings::Settings;

pub fn header() -> Header {
    Header::new(&X86_64, "test", strategies::VCPUS)
}

/// The records of these events: fetches in line joined to runs, the model's verdicts behind them.
pub fn record(header: &Header, events: &[Event]) -> Vec<Record> {
    let mut joined: Vec<Record> = Vec::new();
    for event in events {
        match (event, joined.last_mut()) {
            (Event::Fetch { vcpu, linear, len }, Some(Record::Run { vcpu: same, linear: start, lengths }))
                if vcpu == same && start.offset(lengths.iter().map(|len| u64::from(*len)).sum()) == *linear =>
            {
                *lengths = lengths.iter().copied().chain([*len]).collect();
            }
            // Some stay single fetches.
            (Event::Fetch { vcpu, linear, len }, _) if linear.0 % 3 != 0 => {
                joined.push(Record::Run { vcpu: *vcpu, linear: *linear, lengths: [*len].into() });
            }
            (event, _) => joined.push(Record::Event(event.clone())),
        }
    }
    let (arch, model) = Settings::default().model(header).unwrap();
    let mut replay = Replay::new(model, arch, header).forget_every(1);
    let mut records = Vec::new();
    for record in joined {
        let mut verdicts = Vec::new();
        replay.feed(
            &record,
            |executed| verdicts.extend(executed.verdict.hazard.as_deref().map(Record::verdict)),
            |refused| panic!("{refused:?}"),
        );
        records.push(record);
        records.extend(verdicts);
    }
    records
}

pub fn file(header: &Header, records: &[Record]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), header).unwrap();
    for record in records {
        writer.push(record.clone()).unwrap();
    }
    writer.finish().unwrap()
}
