//! The format: what is written is read, and old files stay readable.

mod common;

use common::{file, header, read, records};
use icsan_model::addr::{Linear, Phys, Seq, Vcpu};
use icsan_model::arch::maintenance::{Accesses, CacheType, Domain, Maintenance, Needs};
use icsan_model::arch::sync_event::SyncEventId;
use icsan_model::arch::x86::X86_64;
use icsan_model::event::{Event, Store};
use icsan_model::machine::model::Model;
use icsan_model::testing::strategies::{self, Toy, VCPUS};
use icsan_model::verdict::candidates::Candidate;
use icsan_model::verdict::hazard::Hazard;
use icsan_model::verdict::kind::Kind;
use icsan_recording::{BLOCK, BufferKeys, Header, MAX_RECORD, Reader, Record, RecordingError, Totals, Writer};
use proptest::prelude::*;
use std::io::{self, Write};

proptest! {
    #[test]
    fn what_is_written_is_read(records in records(), each in 1..20usize) {
        let (back, end) = read(&file(&records, each));
        prop_assert!(end.is_none(), "{end:?}");
        prop_assert_eq!(back, records);
    }

    #[test]
    fn push_answers_the_places_that_the_model_gives(ops in strategies::history(60)) {
        let profile = *X86_64.default_profile();
        let mut model = Model::new(profile, Toy, usize::from(VCPUS)).unwrap();
        let mut writer = Writer::new(Vec::new(), &header()).unwrap();
        for event in strategies::events(&ops) {
            let seq = model.apply(&event).unwrap().seq;
            // A fetch as a run, to see that it counts for as many.
            let record = match event {
                Event::Fetch { vcpu, linear, len } => Record::Run { vcpu, linear, lengths: [len].into() },
                event => Record::Event(event),
            };
            prop_assert_eq!(writer.push(record).unwrap(), seq);
        }
        prop_assert_eq!(writer.last(), model.last());
    }
}

#[test]
fn a_run_takes_a_place_for_each_instruction_and_a_verdict_none() {
    let mut writer = Writer::new(Vec::new(), &header()).unwrap();
    let verdict = |linear| Record::Verdict {
        vcpu: Vcpu(0),
        linear: Linear(linear),
        kind: Kind::Smc,
        memory: vec![1],
        candidates: vec![vec![2]],
        writes: vec![],
    };
    let run = |lengths: &[u8]| Record::Run { vcpu: Vcpu(0), linear: Linear(0), lengths: lengths.into() };
    assert_eq!(writer.push(run(&[])).unwrap(), Seq(0));
    assert_eq!(writer.push(Record::Event(Event::Branch { vcpu: Vcpu(0) })).unwrap(), Seq(1));
    assert_eq!(writer.push(run(&[1, 2, 3])).unwrap(), Seq(4));
    assert_eq!(writer.push(verdict(1)).unwrap(), Seq(4));
    assert_eq!(writer.push(Record::Event(Event::Reset { vcpu: Vcpu(0) })).unwrap(), Seq(5));
    writer.dropped(2);
    let totals = Totals { records: 5, hazards: 1, dropped: 2 };
    assert_eq!(writer.totals(), totals);
    let file = writer.finish().unwrap();
    let mut reader = Reader::new(&file[..]).unwrap();
    assert_eq!(reader.by_ref().filter(Result::is_ok).count(), 5);
    assert_eq!(reader.totals(), Some(totals));
}

#[test]
fn the_header_is_read_as_it_was_written() {
    let buffers = BufferKeys { chunk: 64, lookahead: 32, prefetch: Some(0), trace: None, speculation: true };
    let header = Header { profile: "fred".to_owned(), without: vec!["iret".to_owned()], buffers, ..header() };
    let file = Writer::new(Vec::new(), &header).unwrap().finish().unwrap();
    assert_eq!(*Reader::new(&file[..]).unwrap().header(), header);
    let profile = X86_64.default_profile().buffers;
    assert_eq!(BufferKeys::from(header.buffers.apply(profile)), buffers);
    assert_eq!(header.buffers.apply(profile).own_store_at_branch, profile.own_store_at_branch);
}

/// If this fails, the format has changed: raise `VERSION`.
#[test]
fn the_bytes_of_each_variant_are_pinned() {
    let vcpu = Vcpu(1);
    let (pc, linear, phys) = (Some(Linear(2)), Some(Linear(3)), Phys(4));
    let event = Record::Event;
    let cases: Vec<(Record, &[u8])> = vec![
        (event(Event::Remap { vcpu, linear: Linear(0x1000), phys: Some(phys) }), &[0, 0, 1, 251, 0, 16, 1, 4]),
        (event(Event::Contents { phys, bytes: vec![5, 6] }), &[0, 1, 4, 2, 5, 6]),
        (
            event(Event::Store(Store { vcpu: Some(vcpu), pc, linear, phys, bytes: vec![5] })),
            &[0, 2, 1, 1, 1, 2, 1, 3, 4, 1, 5],
        ),
        (event(Event::Attribute { store: Seq(7), vcpu, pc, linear: None }), &[0, 3, 7, 1, 1, 2, 0]),
        (event(Event::Fetch { vcpu, linear: Linear(3), len: 4 }), &[0, 4, 1, 3, 4]),
        (event(Event::Branch { vcpu }), &[0, 5, 1]),
        (event(Event::Sync { vcpu, event: SyncEventId(9), pc: Linear(2) }), &[0, 6, 1, 9, 2]),
        (event(Event::Commit { stores: vec![Seq(8), Seq(9)] }), &[0, 7, 2, 8, 9]),
        (event(Event::Reset { vcpu }), &[0, 8, 1]),
        (event(Event::Maintain { vcpu, operation: Maintenance::Clean(phys) }), &[0, 9, 1, 0, 4]),
        (event(Event::Maintain { vcpu, operation: Maintenance::Invalidate(phys) }), &[0, 9, 1, 1, 4]),
        (event(Event::Maintain { vcpu, operation: Maintenance::InvalidateAll }), &[0, 9, 1, 2]),
        (event(Event::Maintain { vcpu, operation: Maintenance::InvalidateOwn }), &[0, 9, 1, 3]),
        (event(Event::Maintain { vcpu, operation: Maintenance::FetchFence }), &[0, 9, 1, 4]),
        (event(Event::Barrier { vcpu, domain: Domain::Inner, accesses: Accesses::Stores }), &[0, 10, 1, 1, 1]),
        (event(Event::Barrier { vcpu, domain: Domain::System, accesses: Accesses::All }), &[0, 10, 1, 3, 2]),
        (event(Event::Caches { vcpu, on: true }), &[0, 11, 1, 1]),
        (
            Record::Run { vcpu, linear: Linear(u64::MAX), lengths: [1, 15].into() },
            &[1, 1, 253, 255, 255, 255, 255, 255, 255, 255, 255, 2, 1, 15],
        ),
        (
            Record::Verdict {
                vcpu,
                linear: Linear(3),
                kind: Kind::Stale,
                memory: vec![5],
                candidates: vec![vec![6, 7]],
                writes: vec![8],
            },
            &[2, 1, 3, 1, 1, 5, 1, 2, 6, 7, 1, 8],
        ),
    ];
    for (record, expected) in &cases {
        let empty = file(&[], 1).len();
        let file = file(std::slice::from_ref(record), 1);
        // The file with one block more: its head, the number of its records, the record.
        let (head, end) = (17, 17 + 3);
        assert_eq!(file[empty - end + head..file.len() - end], [&[1], *expected].concat(), "{record:?}");
    }
    assert_eq!(Kind::ALL.map(|kind| kind as u8), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
}

/// A block, as the format has it.
fn block(kind: u8, number: u32, payload: &[u8]) -> Vec<u8> {
    let mut block = vec![kind];
    for field in [number, payload.len() as u32, crc32fast::hash(payload)] {
        block.extend_from_slice(&field.to_le_bytes());
    }
    block.extend_from_slice(&crc32fast::hash(&block).to_le_bytes());
    [&block[..], payload].concat()
}

/// Version 1: its header has no caches, its records are those of today.
#[test]
fn recordings_of_the_first_version_are_read() {
    let (preamble, head) = (12, 17);
    let today = file(&[Record::Event(Event::Branch { vcpu: Vcpu(1) })], 1);
    let header_len = u32::from_le_bytes(today[preamble + 5..preamble + 9].try_into().unwrap()) as usize;
    let payload = &today[preamble + head..preamble + head + header_len];
    assert_eq!(payload.last(), Some(&0), "it has no caches, and they are last");
    let first =
        [&b"ICSANREC\x01\0\0\0"[..], &block(1, 0, &payload[..header_len - 1]), &today[preamble + head + header_len..]]
            .concat();
    assert_eq!(*Reader::new(&first[..]).unwrap().header(), header());
    let (records, end) = read(&first);
    assert!(end.is_none() && records == [Record::Event(Event::Branch { vcpu: Vcpu(1) })], "{end:?}");
    // What is no header of that version is not taken for one.
    let wrong = [&first[..8], &[2, 0, 0, 0], &first[12..]].concat();
    assert!(matches!(Reader::new(&wrong[..]), Err(RecordingError::Corrupt { .. })));
}

#[test]
fn the_guests_caches_are_read_as_they_were_written() {
    let caches = CacheType { needs: Needs::Invalidate, data_line: 32, instruction_line: 128 };
    let header = Header { caches: Some(caches), ..header() };
    let file = Writer::new(Vec::new(), &header).unwrap().finish().unwrap();
    assert_eq!(*Reader::new(&file[..]).unwrap().header(), header);
}

#[test]
fn blocks_have_about_their_size_and_keep_verdicts_with_their_record() {
    /// Counts the calls and their bytes.
    struct Calls<'a>(&'a mut Vec<usize>);
    impl Write for Calls<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.push(bytes.len());
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut calls = Vec::new();
    let mut writer = Writer::new(Calls(&mut calls), &header()).unwrap();
    let run = Record::Run { vcpu: Vcpu(0), linear: Linear(0), lengths: vec![3; 1000].into() };
    let verdict = Record::Verdict {
        vcpu: Vcpu(0),
        linear: Linear(0),
        kind: Kind::Smc,
        memory: vec![1],
        candidates: vec![vec![2; 2000]],
        writes: vec![],
    };
    for _ in 0..300 {
        writer.push(run.clone()).unwrap();
        writer.push(verdict.clone()).unwrap();
    }
    writer.finish().unwrap();
    let blocks = &calls[1..calls.len() - 1];
    assert!(blocks.len() > 10);
    // 1006 bytes a run, 2011 a verdict: whole pairs only.
    assert!(blocks.iter().all(|block| (*block - 17) / 3017 * 3017 + 17 + 1 == *block), "{blocks:?}");
    assert!(blocks[..blocks.len() - 1].iter().all(|block| (BLOCK..BLOCK + 5000).contains(block)), "{blocks:?}");
}

#[test]
fn what_no_reader_takes_is_not_written() {
    let mut writer = Writer::new(Vec::new(), &header()).unwrap();
    let run = |len| Record::Run { vcpu: Vcpu(0), linear: Linear(0), lengths: vec![1; len].into() };
    assert!(matches!(writer.push(run(MAX_RECORD)), Err(RecordingError::TooLarge { .. })));
    let largest = run(MAX_RECORD - 8);
    assert_eq!(
        writer.push(largest.clone()).unwrap(),
        Seq(MAX_RECORD as u64 - 8),
        "the one that was refused took no place"
    );
    assert_eq!(writer.push(largest.clone()).unwrap(), Seq(2 * (MAX_RECORD as u64 - 8)));
    let (back, end) = read(&writer.finish().unwrap());
    assert!(end.is_none(), "{end:?}");
    assert!(back == [largest.clone(), largest]);
    let header = Header { events: vec!["x".repeat(1 << 20); 3], ..header() };
    assert!(matches!(Writer::new(Vec::new(), &header), Err(RecordingError::TooLarge { .. })));
}

/// A disk that is full after so many bytes.
struct Disk<'a> {
    bytes: &'a mut Vec<u8>,
    room: usize,
}

impl Write for Disk<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.room - self.bytes.len();
        if room == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let count = bytes.len().min(room);
        self.bytes.extend_from_slice(&bytes[..count]);
        Ok(count)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn after_a_full_disk_the_file_is_readable_up_to_there() {
    let branch = Record::Event(Event::Branch { vcpu: Vcpu(0) });
    let mut bytes = Vec::new();
    let mut writer = Writer::new(Disk { bytes: &mut bytes, room: 200_000 }, &header()).unwrap();
    let failed = (0..200_000).find_map(|_| writer.push(branch.clone()).err());
    assert!(matches!(failed, Some(RecordingError::Io(_))), "{failed:?}");
    assert!(matches!(writer.push(branch.clone()), Err(RecordingError::Broken)));
    assert!(matches!(writer.flush(), Err(RecordingError::Broken)));
    assert!(matches!(writer.finish(), Err(RecordingError::Broken)));
    let (back, end) = read(&bytes);
    assert!(matches!(end, Some(RecordingError::CutOff { records }) if records == back.len() as u64), "{end:?}");
    assert!(back.len() > 40_000 && back.iter().all(|record| *record == branch));
}

#[test]
fn a_writer_that_is_dropped_leaves_everything_but_the_end() {
    let branch = Record::Event(Event::Branch { vcpu: Vcpu(0) });
    let mut file = Vec::new();
    let mut writer = Writer::new(&mut file, &header()).unwrap();
    writer.push(branch.clone()).unwrap();
    drop(writer);
    let (back, end) = read(&file);
    assert_eq!(back, [branch]);
    assert!(matches!(end, Some(RecordingError::CutOff { records: 1 })), "{end:?}");
}

#[test]
fn a_hazard_is_recorded_by_what_counts() {
    let candidate = |bytes: &[u8], exempt| Candidate {
        bytes: bytes.to_vec(),
        versions: vec![Seq(0); bytes.len()],
        whole: true,
        speculative: false,
        lacks_commit: false,
        kind: Some(Kind::Unserialized),
        exempt,
        separated_by: vec![Seq(4)],
    };
    let write = icsan_model::verdict::hazard::Write {
        seq: Seq(4),
        vcpu: None,
        pc: None,
        linear: None,
        phys: Phys(0),
        old: None,
        new: vec![9],
    };
    let hazard = Hazard {
        kind: Kind::Unserialized,
        vcpu: Vcpu(1),
        linear: Linear(16),
        phys: Phys(0),
        memory: vec![9],
        candidates: vec![candidate(&[3], false), candidate(&[0xcc], true), candidate(&[2, 1], false)],
        writes: vec![write],
        remapped: None,
        last_sync: None,
        epoch: Default::default(),
    };
    let (vcpu, linear, kind) = (Vcpu(1), Linear(16), Kind::Unserialized);
    let expected =
        Record::Verdict { vcpu, linear, kind, memory: vec![9], candidates: vec![vec![2, 1], vec![3]], writes: vec![4] };
    assert_eq!(Record::verdict(&hazard), expected);
}
