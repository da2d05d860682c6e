//! Which stores of AArch64 are single-copy atomic.
//!
//! DDI0487 B2.2.1, "Requirements for single-copy atomicity": a store of up to 8 bytes that is aligned to its size; of a
//! pair each register; of a vector of 16 bytes each half, if it is aligned to 8. An exclusive pair and CASP are atomic
//! as a whole, and with FEAT_LSE2 whatever lies within 16 aligned bytes. A64 instructions are aligned words, so that
//! none of these three can make a difference to one; they are taken apart, which is the weaker.
//!
//! An access that is not aligned is one of single bytes, as without FEAT_LSE2: so is STR of an X register at 4 bytes
//! beyond a multiple of 8, though what it stores there are whole instructions. A pair of W registers may be told of as
//! one access of 8 bytes, and each is a word.

use super::store_kind::StoreKind;
use std::ops::Range;

/// The largest part, in bytes.
const LARGEST: u64 = 8;

/// What a pair that is told of as one access may be made of, in bytes.
const WORD: u64 = 4;

/// The parts of a store of this kind, of `len` bytes at a linear address, that each change at once, as offsets into it;
/// lowest address first.
pub fn parts(kind: StoreKind, linear: u64, len: u64) -> impl Iterator<Item = Range<usize>> {
    let whole = len.min(LARGEST);
    let part = if whole > 0 && linear.is_multiple_of(whole) {
        whole
    } else if kind == StoreKind::Pair && linear.is_multiple_of(WORD) {
        WORD
    } else {
        1
    };
    (0..len).step_by(part as usize).map(move |start| start as usize..(start + part).min(len) as usize)
}

#[cfg(test)]
mod tests {
    use super::{StoreKind, parts};

    #[test]
    fn what_is_aligned_changes_at_once_and_bytes_otherwise() {
        let of = |kind, linear, len| parts(kind, linear, len).collect::<Vec<_>>();
        let parts = |linear, len| of(StoreKind::Plain, linear, len);
        assert_eq!(parts(8, 8), vec![0..8; 1]);
        assert_eq!(parts(6, 2), vec![0..2; 1]);
        assert_eq!(parts(3, 1), vec![0..1; 1]);
        assert_eq!(parts(16, 16), [0..8, 8..16]);
        assert_eq!(parts(24, 16), [0..8, 8..16]);
        assert_eq!(parts(4, 8).len(), 8);
        assert_eq!(parts(4, 16).len(), 16);
        assert_eq!(of(StoreKind::Pair, 4, 8), [0..4, 4..8]);
        assert_eq!(of(StoreKind::Pair, 4092, 8), [0..4, 4..8]);
        assert_eq!(of(StoreKind::Pair, 2, 8).len(), 8);
        assert_eq!(parts(2, 4), [0..1, 1..2, 2..3, 3..4]);
        assert_eq!(parts(1, 2), [0..1, 1..2]);
        assert_eq!(parts(1, 16).len(), 16);
        assert_eq!(parts(u64::MAX, 2), [0..1, 1..2]);
        assert!(parts(0, 0).is_empty());
    }
}
