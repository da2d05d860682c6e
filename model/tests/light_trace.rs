//! The light detector on histories written by hand; random ones are in `light_laws.rs`.

use icsan_model::addr::Linear;
use icsan_model::arch::exemption::Exemption;
use icsan_model::detector::light::{CodeRun, Conflict, Origin, candidates};

mod common;
use common::Trace;

const JMP: [u8; 5] = [0xe9, 0x10, 0x20, 0x30, 0x00];
const NOP5: [u8; 5] = [0x0f, 0x1f, 0x44, 0x00, 0x00];
const INT3: [u8; 1] = [0xcc];
const LINUX: &[Exemption] = &[Exemption::Breakpoint(&INT3)];

fn one(linear: u64, bytes: &[u8]) -> CodeRun {
    CodeRun::new(Linear(linear), bytes, &[bytes.len() as u8])
}

#[test]
fn same_bytes_are_no_conflict() {
    let mut trace = Trace::new(&[]);
    for _ in 0..3 {
        assert!(trace.execute(&one(0x1000, &JMP)).conflicts.is_empty());
    }
}

#[test]
fn other_bytes_in_the_same_epoch_are_a_conflict_and_in_the_next_are_not() {
    for linear in [0x1000, 0x100d] {
        let mut trace = Trace::new(&[]);
        trace.execute(&one(linear, &JMP));
        let found = trace.execute(&one(linear, &NOP5)).conflicts;
        assert_eq!(found, [Conflict { linear: Linear(linear), memory: NOP5.to_vec(), older: vec![JMP.to_vec()] }]);
        trace.serialize();
        assert!(trace.execute(&one(linear, &JMP)).conflicts.is_empty());
    }
}

#[test]
fn a_shorter_instruction_shows_the_whole_older_one() {
    let mut trace = Trace::new(&[]);
    trace.execute(&one(0x1003, &JMP));
    let found = trace.execute(&one(0x1003, &[0xc3])).conflicts;
    assert_eq!(found, [Conflict { linear: Linear(0x1003), memory: vec![0xc3], older: vec![JMP.to_vec()] }]);
}

#[test]
fn only_the_instruction_that_differs_is_named() {
    let mut trace = Trace::new(&[]);
    let run = |middle: u8| CodeRun::new(Linear(0x100e), &[0x90, 0xb8, middle, 0, 0, 0, 0x90], &[1, 5, 1]);
    trace.execute(&run(1));
    let found = trace.execute(&run(2)).conflicts;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].linear, Linear(0x100f));
    assert_eq!(found[0].memory, [0xb8, 2, 0, 0, 0]);
}

#[test]
fn a_breakpoint_is_exempt_but_does_not_hide_the_old_instruction() {
    let mut trace = Trace::new(LINUX);
    trace.execute(&one(0x1000, &JMP));
    let breakpoint = trace.execute(&one(0x1000, &INT3));
    assert_eq!((breakpoint.conflicts.len(), breakpoint.exempt), (0, 1));
    let after = trace.execute(&one(0x1000, &NOP5));
    assert_eq!(after.conflicts.len(), 1, "JMP and NOP5 in one epoch");
    assert_eq!(after.conflicts[0].older, [JMP.to_vec()]);
    assert_eq!(after.exempt, 1, "the breakpoint itself");

    let mut synced = Trace::new(LINUX);
    synced.execute(&one(0x1000, &JMP));
    synced.serialize();
    assert_eq!(synced.execute(&one(0x1000, &INT3)).exempt, 0);
    assert!(synced.execute(&one(0x1000, &NOP5)).conflicts.is_empty());
}

#[test]
fn a_breakpoint_byte_inside_another_instruction_is_not_exempt() {
    let mut trace = Trace::new(LINUX);
    trace.execute(&one(0x1000, &[0xb8, 0xcc, 0, 0, 0]));
    // The new code has an instruction where the old one had an immediate byte 0xcc.
    let found = trace.execute(&CodeRun::new(Linear(0x1000), &[0xb8, 0x90, 0, 0, 0], &[5]));
    assert_eq!((found.conflicts.len(), found.exempt), (1, 0));
    let inside = trace.execute(&one(0x1001, &[0x90, 0x00]));
    assert_eq!((inside.conflicts.len(), inside.exempt), (1, 0));
}

#[test]
fn an_aligned_block_is_exempt_and_a_straddling_one_is_not() {
    const AMD: &[Exemption] = &[Exemption::AlignedStore(8)];
    for (linear, conflicts) in [(0x1000, 0), (0x1003, 0), (0x1004, 1)] {
        let mut trace = Trace::new(AMD);
        trace.execute(&one(linear, &[0xb8, 1, 1, 1, 1]));
        let found = trace.execute(&one(linear, &[0xb8, 2, 2, 2, 2]));
        assert_eq!(found.conflicts.len(), conflicts, "{linear:#x}");
    }
}

#[test]
fn candidates_mix_chunks_only_where_the_instruction_straddles_them() {
    let conflict = Conflict { linear: Linear(0x100e), memory: NOP5.to_vec(), older: vec![JMP.to_vec()] };
    let of = |chunk| {
        candidates(&conflict, chunk)
            .into_iter()
            .map(|candidate| (candidate.origin, candidate.bytes))
            .collect::<Vec<_>>()
    };
    let wide = of(64);
    assert_eq!(wide, [(Origin::Memory, NOP5.to_vec()), (Origin::Earlier, JMP.to_vec())]);
    let narrow = of(16);
    assert_eq!(narrow.len(), 4);
    assert!(narrow.contains(&(Origin::Mix, vec![0xe9, 0x10, 0x44, 0x00, 0x00])));
    assert!(narrow.contains(&(Origin::Mix, vec![0x0f, 0x1f, 0x20, 0x30, 0x00])));
}

#[test]
fn runs_contradict_only_where_both_have_bytes() {
    let long = CodeRun::new(Linear(0x1000), &[1, 2, 3, 4, 5, 6], &[6]);
    for (linear, bytes, expected) in [
        (0x1000, &[1u8, 2][..], false),
        (0x1000, &[1, 3], true),
        (0x0ffe, &[9, 9, 1], false),
        (0x0ffe, &[9, 9, 2], true),
        (0x1005, &[6, 9, 9], false),
        (0x1005, &[7], true),
        (0x1006, &[7], false),
        (0x0ff0, &[7], false),
    ] {
        let other = one(linear, bytes);
        assert_eq!(long.contradicts(&other), expected, "{linear:#x} {bytes:?}");
        assert_eq!(other.contradicts(&long), expected, "{linear:#x} {bytes:?}, the other way");
    }
}

#[test]
fn lengths_that_do_not_fit_are_ignored() {
    assert_eq!(CodeRun::new(Linear(0), &[1, 2, 3], &[1, 9, 1]).bytes(), [1]);
    assert_eq!(CodeRun::new(Linear(0), &[1, 2, 3], &[1, 0, 1]).bytes(), [1]);
    assert_eq!(CodeRun::new(Linear(u64::MAX), &[1, 2], &[2]).instructions().count(), 1);
    let instructions: [&[u8]; 3] = [&[1], &[2, 3], &[4]];
    assert_eq!(CodeRun::of(Linear(7), instructions.into_iter()), CodeRun::new(Linear(7), &[1, 2, 3, 4], &[1, 2, 1]));
    let mut trace = Trace::new(&[]);
    trace.execute(&CodeRun::new(Linear(u64::MAX), &[1, 2], &[2]));
    assert_eq!(trace.execute(&CodeRun::new(Linear(u64::MAX), &[1, 3], &[2])).conflicts.len(), 1);
}
