//! Which ways execution takes: without a branch, and by branches that are always taken.

use super::synchronizing::word;
use icsan_model::addr::Linear;

/// The length of every instruction, in bytes.
const WORD: u64 = 4;

/// How far straight-line code is followed, in bytes. A vCPU that stores further ahead than this without a branch is
/// taken to have branched.
const REACH: u64 = 1024;

/// Does execution get from the instruction at `from` to the one at `to` without any branch instruction in between?
/// `instruction` gives the bytes of the instruction that was translated at an address.
///
/// A conditional branch counts as taken: whether it was is not known. An interrupt in between is the caller's business.
/// No instruction comes back to itself without a branch.
#[must_use]
pub fn is_straight(from: Linear, to: Linear, instruction: impl Fn(Linear) -> Option<Vec<u8>>) -> bool {
    let distance = to.0.wrapping_sub(from.0);
    if !(WORD..=REACH).contains(&distance) || !distance.is_multiple_of(WORD) {
        return false;
    }
    (0..distance).step_by(WORD as usize).all(|offset| {
        let word = instruction(from.offset(offset)).and_then(|bytes| word(&bytes));
        word.is_some_and(|word| !may_branch(word))
    })
}

/// DDI0487 C4.1, "Branches, Exception Generating and System instructions": all of them but the system instructions, to
/// which hints and barriers belong. UDF, whose upper half is 0, always raises an exception.
fn may_branch(word: u32) -> bool {
    word & 0x1c00_0000 == 0x1400_0000 && word >> 24 != 0xd5 || word >> 16 == 0
}

/// The target of a direct call that ends with the last of these bytes and returns to `at`: a BL. A BLR has none that
/// shows.
#[must_use]
pub fn call_before(bytes: &[u8], at: Linear) -> Option<u64> {
    target(bytes.last_chunk::<{ WORD as usize }>()?, 0x9400_0000, at.0.wrapping_sub(WORD))
}

/// Where the instruction at that address jumps to, if it always does: a B.
#[must_use]
pub fn jump_target(bytes: &[u8], at: Linear) -> Option<u64> {
    target(bytes, 0x1400_0000, at.0)
}

/// The target of a B or a BL at `at`, whichever the opcode is of.
fn target(bytes: &[u8], opcode: u32, at: u64) -> Option<u64> {
    let word = word(bytes)?;
    // 26 bits, of words.
    let offset = i64::from((word << 6) as i32 >> 4);
    (word & 0xfc00_0000 == opcode).then(|| at.wrapping_add_signed(offset))
}

#[cfg(test)]
mod tests {
    use super::{REACH, call_before, is_straight, jump_target};
    use icsan_model::addr::Linear;

    fn straight(code: &[u32], from: u64, to: u64) -> bool {
        let at = |at: Linear| {
            let word = at.0.checked_sub(0x1000).and_then(|at| code.get(at as usize / 4));
            word.map(|word| word.to_le_bytes().to_vec())
        };
        is_straight(Linear(0x1000 + from), Linear(0x1000 + to), at)
    }

    #[test]
    fn only_what_lies_ahead_without_a_branch_is_straight() {
        // str x1, [x0]; nop; dsb ish; isb; mrs x2, ctr_el0; dc cvau, x1; cbz x0, .+8; add x0, x0, #1
        let code =
            [0xf900_0001, 0xd503_201f, 0xd503_3b9f, 0xd503_3fdf, 0xd53b_0022, 0xd50b_7b21, 0xb400_0040, 0x9100_0400];
        assert!(straight(&code, 0, 4) && straight(&code, 0, 24) && straight(&code, 28, 32));
        assert!(!straight(&code, 0, 28), "a conditional branch");
        assert!(!straight(&code, 4, 0) && !straight(&code, 0, 0), "backwards, and a loop");
        assert!(!straight(&code, 0, 6), "no instruction begins there");
        assert!(!straight(&code, 28, 36), "nothing is known of what lies there");
        let long = [0xd503_201f; 512];
        assert!(straight(&long, 0, REACH) && !straight(&long, 0, REACH + 4));
    }

    #[test]
    fn every_branch_and_exception_ends_straight_code() {
        // b, bl, b.eq, bc.eq, cbz, cbnz, tbz, tbnz, br, blr, ret, eret, retaa, svc, hvc, smc, brk, hlt, dcps1, udf,
        // cbgt.
        for word in [
            0x1400_0001,
            0x9400_0001,
            0x5400_0020,
            0x5400_0030,
            0x3400_0020,
            0xb500_0020,
            0x3600_0020,
            0xb708_0020,
            0xd61f_0000,
            0xd63f_0000,
            0xd65f_03c0,
            0xd69f_03e0,
            0xd65f_0bff,
            0xd400_0001,
            0xd400_0002,
            0xd400_0003,
            0xd420_0000,
            0xd440_0000,
            0xd4a0_0001,
            0x0000_0007,
            0x7400_0020,
        ] {
            assert!(!straight(&[word], 0, 4), "{word:08x}");
        }
    }

    #[test]
    fn a_call_is_what_bl_left() {
        let bl = [0x1f, 0x20, 0x03, 0xd5, 0x04, 0x00, 0x00, 0x94];
        assert_eq!(call_before(&bl, Linear(0x1008)), Some(0x1014));
        assert_eq!(call_before(&0x97ff_ffffu32.to_le_bytes(), Linear(0x1008)), Some(0x1000));
        // blr x0; b .+4; too little.
        assert_eq!(call_before(&0xd63f_0000u32.to_le_bytes(), Linear(0x1008)), None);
        assert_eq!(call_before(&0x1400_0001u32.to_le_bytes(), Linear(0x1008)), None);
        assert_eq!(call_before(&[0x94], Linear(0x1008)), None);
    }

    #[test]
    fn only_b_always_jumps() {
        const AT: u64 = 0xffff_8000_8001_0000;
        let target = |word: u32| jump_target(&word.to_le_bytes(), Linear(AT));
        assert_eq!((target(0x1400_0001), target(0x17ff_ffff)), (Some(AT + 4), Some(AT - 4)));
        assert_eq!((target(0x1600_0000), target(0x15ff_ffff)), (Some(AT - (1 << 27)), Some(AT + (1 << 27) - 4)));
        assert_eq!((target(0x9400_0001), target(0x5400_0020), target(0xd61f_0000)), (None, None, None));
        assert_eq!(jump_target(&[], Linear(AT)), None);
    }
}
