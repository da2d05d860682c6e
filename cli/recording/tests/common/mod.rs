//! Random records, and recordings of them.

use icsan_model::addr::{Linear, Phys, Seq, Vcpu};
use icsan_model::arch::sync_event::SyncEventId;
use icsan_model::arch::x86::X86_64;
use icsan_model::event::{Event, Store};
use icsan_model::verdict::kind::Kind;
use icsan_recording::{Header, Reader, Record, RecordingError, Writer};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

fn linear() -> impl Strategy<Value = Linear> {
    prop_oneof![Just(0), Just(u64::MAX), 0..300u64, any::<u64>()].prop_map(Linear)
}

fn vcpu() -> impl Strategy<Value = Vcpu> {
    any::<u16>().prop_map(Vcpu)
}

fn phys() -> impl Strategy<Value = Phys> {
    any::<u64>().prop_map(Phys)
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..20)
}

/// Any event at all, impossible ones included: the format does not judge.
pub fn event() -> impl Strategy<Value = Event> {
    let seq = || any::<u64>().prop_map(Seq);
    prop_oneof![
        (vcpu(), linear(), option::of(phys())).prop_map(|(vcpu, linear, phys)| Event::Remap { vcpu, linear, phys }),
        (phys(), bytes()).prop_map(|(phys, bytes)| Event::Contents { phys, bytes }),
        (option::of(vcpu()), option::of(linear()), option::of(linear()), phys(), bytes())
            .prop_map(|(vcpu, pc, linear, phys, bytes)| Event::Store(Store { vcpu, pc, linear, phys, bytes })),
        (seq(), vcpu(), option::of(linear()), option::of(linear()))
            .prop_map(|(store, vcpu, pc, linear)| Event::Attribute { store, vcpu, pc, linear }),
        (vcpu(), linear(), any::<u8>()).prop_map(|(vcpu, linear, len)| Event::Fetch { vcpu, linear, len }),
        vcpu().prop_map(|vcpu| Event::Branch { vcpu }),
        (vcpu(), any::<u8>(), linear()).prop_map(|(vcpu, event, pc)| Event::Sync {
            vcpu,
            event: SyncEventId(event),
            pc
        }),
        vec(seq(), 0..5).prop_map(|stores| Event::Commit { stores }),
        vcpu().prop_map(|vcpu| Event::Reset { vcpu }),
    ]
}

/// Any record.
pub fn record() -> impl Strategy<Value = Record> {
    prop_oneof![
        4 => event().prop_map(Record::Event),
        2 => (vcpu(), linear(), vec(any::<u8>(), 0..40)).prop_map(|(vcpu, linear, lengths)| Record::Run { vcpu, linear, lengths: lengths.into() }),
        1 => (vcpu(), linear(), 0..Kind::ALL.len(), bytes(), vec(bytes(), 0..4), vec(any::<u64>(), 0..4)).prop_map(
            |(vcpu, linear, kind, memory, candidates, writes)| Record::Verdict { vcpu, linear, kind: Kind::ALL[kind], memory, candidates, writes }
        ),
    ]
}

pub fn records() -> impl Strategy<Value = Vec<Record>> {
    vec(record(), 0..60)
}

pub fn header() -> Header {
    Header { with: vec!["lfence".to_owned()], ..Header::new(&X86_64, "0.1.0", 2) }
}

/// The file, with a block after each `each` records as well.
pub fn file(records: &[Record], each: usize) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), &header()).unwrap();
    for (i, record) in records.iter().enumerate() {
        writer.push(record.clone()).unwrap();
        if i % each == each - 1 {
            writer.flush().unwrap();
        }
    }
    writer.finish().unwrap()
}

/// Everything that can be read, and how it ended.
pub fn read(file: &[u8]) -> (Vec<Record>, Option<RecordingError>) {
    let mut reader = match Reader::new(file) {
        Ok(reader) => reader,
        Err(error) => return (Vec::new(), Some(error)),
    };
    let (mut records, mut end) = (Vec::new(), None);
    for record in &mut reader {
        match record {
            Ok(record) => records.push(record),
            Err(error) => end = Some(error),
        }
    }
    assert!(reader.next().is_none(), "it is over after its end, and after an error");
    assert_eq!(reader.totals().is_some(), end.is_none());
    (records, end)
}
