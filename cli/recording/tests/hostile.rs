//! Files that no writer wrote: they end in an error of the right kind, never in a panic, and what was read before is
//! good.

mod common;

use common::{file, header, read, record, records};
use icsan_recording::{Reader, RecordingError, VERSION, Writer};
use proptest::prelude::*;

fn is_prefix<T: PartialEq>(part: &[T], whole: &[T]) -> bool {
    whole.starts_with(part)
}

proptest! {
    #[test]
    fn a_file_that_ends_early_was_cut_off(records in records(), each in 1..8usize, cut in any::<prop::sample::Index>()) {
        let file = file(&records, each);
        let (back, end) = read(&file[..cut.index(file.len())]);
        prop_assert!(matches!(end, Some(RecordingError::CutOff { records }) if records == back.len() as u64), "{:?}", end);
        prop_assert!(is_prefix(&back, &records));
    }

    #[test]
    fn a_changed_byte_is_corruption_and_never_a_cut(records in records(), each in 1..8usize, at in any::<prop::sample::Index>(), flip in 1..=255u8) {
        let mut file = file(&records, each);
        let at = at.index(file.len());
        file[at] ^= flip;
        let (back, end) = read(&file);
        let expected = match at {
            0..8 => matches!(end, Some(RecordingError::BadMagic)),
            8..12 => matches!(end, Some(RecordingError::NewerVersion { .. } | RecordingError::Corrupt { block: 0, .. })),
            _ => matches!(end, Some(RecordingError::Corrupt { .. })),
        };
        prop_assert!(expected, "{} {:?}", at, end);
        prop_assert!(is_prefix(&back, &records));
    }

    #[test]
    fn bytes_that_are_no_recording(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let (back, end) = read(&bytes);
        let refused = matches!(end, Some(RecordingError::BadMagic | RecordingError::CutOff { records: 0 }));
        prop_assert!(back.is_empty() && refused);
    }

    #[test]
    fn blocks_with_good_checksums_and_nonsense_in_them(
        kind in 0..5u8,
        number in 0..3u32,
        payload in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            // Bytes that count records, choose variants, and claim lengths.
            prop::collection::vec(prop_oneof![4 => 0..4u8, 1 => 248..=255u8], 0..60),
        ],
    ) {
        let mut file = Writer::new(Vec::new(), &header()).unwrap().finish().unwrap();
        file.truncate(file.len() - 20);
        file.extend(block(kind, number, &payload));
        let (_, end) = read(&file);
        prop_assert!(matches!(end, None | Some(RecordingError::Corrupt { .. } | RecordingError::CutOff { .. })), "{:?}", end);
    }

    #[test]
    fn a_header_of_nonsense(payload in prop::collection::vec(any::<u8>(), 0..100)) {
        let file = [&b"ICSANREC\x01\0\0\0"[..], &block(1, 0, &payload)].concat();
        let (_, end) = read(&file);
        prop_assert!(matches!(end, Some(RecordingError::Corrupt { block: 0, .. } | RecordingError::CutOff { .. })), "{:?}", end);
    }

    #[test]
    fn blocks_that_are_missing_doubled_or_swapped(records in prop::collection::vec(record(), 3..10), how in 0..3u8, at in any::<prop::sample::Index>()) {
        let file = file(&records, 1);
        let empty = Writer::new(Vec::new(), &header()).unwrap().finish().unwrap().len() - 20;
        let mut blocks = blocks(&file[empty..]);
        let at = at.index(records.len() - 1);
        match how {
            0 => drop(blocks.remove(at)),
            1 => blocks.insert(at, blocks[at].clone()),
            _ => blocks.swap(at, at + 1),
        }
        let (back, end) = read(&[&file[..empty], &blocks.concat()[..]].concat());
        prop_assert!(matches!(end, Some(RecordingError::Corrupt { .. })), "{:?}", end);
        prop_assert!(is_prefix(&back, &records) && back.len() <= at + 1);
    }
}

fn block(kind: u8, number: u32, payload: &[u8]) -> Vec<u8> {
    let mut block = vec![kind];
    for field in [number, payload.len() as u32, crc32fast::hash(payload)] {
        block.extend(field.to_le_bytes());
    }
    block.extend(crc32fast::hash(&block).to_le_bytes());
    block.extend(payload);
    block
}

fn blocks(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut blocks = Vec::new();
    while !bytes.is_empty() {
        let length = u32::from_le_bytes(bytes[5..9].try_into().unwrap()) as usize;
        let (block, rest) = bytes.split_at(17 + length);
        blocks.push(block.to_vec());
        bytes = rest;
    }
    blocks
}

#[test]
fn ends_that_lie() {
    let records = [
        icsan_recording::Record::Event(icsan_model::event::Event::Branch { vcpu: icsan_model::addr::Vcpu(0) }),
        icsan_recording::Record::Event(icsan_model::event::Event::Branch { vcpu: icsan_model::addr::Vcpu(1) }),
    ];
    let good = file(&records, 9);
    let body = &good[..good.len() - 20];
    let ending = |end: &[u8]| read(&[body, end].concat());
    assert!(ending(&block(3, 2, &[2, 0, 0])).1.is_none());
    for bad in [&[1, 0, 0][..], &[2, 1, 0], &[2, 0, 0, 0], &[2, 0]] {
        let (back, end) = ending(&block(3, 2, bad));
        assert!(back == records && matches!(end, Some(RecordingError::Corrupt { block: 2, .. })), "{bad:?}: {end:?}");
    }
    let (_, end) = ending(&[&block(3, 2, &[2, 0, 0])[..], &[0]].concat());
    assert!(matches!(&end, Some(RecordingError::Corrupt { what, .. }) if what.contains("follows the end")), "{end:?}");
}

#[test]
fn a_newer_version_is_named() {
    let mut file = file(&[], 1);
    file[8..12].copy_from_slice(&(VERSION + 1).to_le_bytes());
    let error = Reader::new(&file[..]).unwrap_err();
    assert!(matches!(error, RecordingError::NewerVersion { found } if found == VERSION + 1));
    assert!(error.to_string().contains("use a newer one"));
}

#[test]
fn a_block_that_claims_to_be_huge_costs_nothing() {
    let mut head = vec![2];
    for field in [1, u32::MAX, 0] {
        head.extend(field.to_le_bytes());
    }
    head.extend(crc32fast::hash(&head).to_le_bytes());
    let good = file(&[], 1);
    let (_, end) = read(&[&good[..good.len() - 20], &head].concat());
    assert!(matches!(&end, Some(RecordingError::Corrupt { block: 1, what }) if what.contains("longer")), "{end:?}");
}
