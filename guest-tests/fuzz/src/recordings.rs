//! Recordings: files as they come, and files whose checksums are right.

use icsan_model::arch::architecture::Architecture;
use icsan_model::arch::registry;
use icsan_recording::{Header, Reader, Record, RecordingError, Writer};
use icsan_replay::session;
use icsan_replay::settings::Settings;

/// A bound for the lists of an outcome.
const KEEP: usize = 16;

/// A file.
pub fn file(bytes: &[u8]) {
    let Ok(mut reader) = Reader::new(bytes) else { return };
    let (mut records, mut failed) = (0u64, None);
    for record in &mut reader {
        assert!(failed.is_none(), "a record after an error");
        match record {
            Ok(_) => records += 1,
            Err(error) => failed = Some(error),
        }
    }
    assert_eq!(reader.totals().is_some(), failed.is_none(), "an end without totals, or totals without an end");
    if let Some(RecordingError::CutOff { records: told }) = failed {
        assert_eq!(told, records);
    }
    let again = Reader::new(bytes).unwrap_or_else(|error| panic!("it could be read before: {error}"));
    if let Ok(outcome) = session::run(again, &Settings::default(), true, KEEP) {
        assert_eq!(
            outcome.complete(),
            outcome.complete() && reader.totals().is_some(),
            "complete, although it has no end"
        );
    }
}

/// A payload of records, in a file that is whole otherwise, of each architecture.
pub fn records(bytes: &[u8]) {
    registry::ALL.iter().for_each(|architecture| records_of(architecture, bytes));
}

fn records_of(architecture: &Architecture, bytes: &[u8]) {
    // The block that ends a file without records, in bytes.
    const END: usize = 20;
    let header = Header::new(architecture, "0.1.0", 2);
    let whole = Writer::new(Vec::new(), &header).and_then(Writer::finish).unwrap_or_else(|error| panic!("{error}"));
    let mut file = whole[..whole.len() - END].to_vec();
    file.extend(block(2, 1, bytes));
    self::file(&file);
    // What can be read is written again, and read as the same.
    let Ok(reader) = Reader::new(&file[..]) else { return };
    let records: Vec<Record> = reader.map_while(Result::ok).collect();
    let mut writer = Writer::new(Vec::new(), &header).unwrap_or_else(|error| panic!("{error}"));
    if records.iter().any(|record| writer.push(record.clone()).is_err()) {
        return;
    }
    let file = writer.finish().unwrap_or_else(|error| panic!("{error}"));
    let back = Reader::new(&file[..]).unwrap_or_else(|error| panic!("{error}")).collect::<Result<Vec<_>, _>>();
    assert_eq!(back.unwrap_or_else(|error| panic!("{error}")), records);
}

/// A block with good checksums: kind, number, payload.
fn block(kind: u8, number: u32, payload: &[u8]) -> Vec<u8> {
    let mut block = vec![kind];
    for field in [number, payload.len() as u32, crc32fast::hash(payload)] {
        block.extend(field.to_le_bytes());
    }
    block.extend(crc32fast::hash(&block).to_le_bytes());
    block.extend(payload);
    block
}
