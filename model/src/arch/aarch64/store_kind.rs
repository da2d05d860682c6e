//! What an emulator that tells of an instruction's store can say of its value.
//!
//! QEMU's plugin API gives a value with each access ([`Access`]). Of most stores it is what was stored. It is not where
//! QEMU carries out the access by one atomic operation of the host: there it tells the *operand* as what was stored,
//! and what was there before as what was loaded. A compare-and-exchange tells the new value even if it was not stored;
//! and STXR is one, with what the load-exclusive had found. (accel/tcg/atomic_common.c.inc, `atomic_trace_rmw_post`;
//! target/arm/tcg/translate-a64.c, `gen_store_exclusive`.) None of them is taken at its word: [`StoreKind::results`]
//! lists what such a store may have left behind, and memory decides.
//!
//! Source of each row: DDI0487 C4.1.94, "Load/store exclusive", "Compare and swap", "Atomic memory operations"; which
//! operation TCG carries out was measured on QEMU 10.0 and 11.1, for each row (the words of the tests below). A STXR
//! that fails because the exclusive monitor is not at its address makes no access at all. Big-endian data
//! (SCTLR_EL1.EE, E0E) is not looked at: of it the register's value would be told.

use super::word;
use StoreKind::{Add, And, Compare, Extreme, Or, Pair, Plain, Xor};

/// What is told of an instruction's stores.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum StoreKind {
    /// What was stored.
    Plain,
    /// What was stored, by a pair of words that may be told of as one access.
    Pair,
    /// What was added to memory.
    Add,
    /// What memory was ANDed with. (Of LDCLR the complement of its operand.)
    And,
    /// What memory was ORed with.
    Or,
    /// What memory was XORed with.
    Xor,
    /// What was stored, if anything was: a compare-and-exchange.
    Compare,
    /// What was stored, if it was greater, or smaller, than what was there: LDSMAX and its kind.
    Extreme,
}

/// An access, as it is told of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    /// What was told as stored.
    pub stored: u128,
    /// What was told as loaded by the same instruction right before, if anything was.
    pub loaded: Option<u128>,
    /// How many bytes: 1, 2, 4, 8 or 16.
    pub len: u8,
    /// Was it one atomic operation of the host? If not, it was a load and a store, and of these the truth is told.
    pub atomic: bool,
}

impl StoreKind {
    /// All of them, by number.
    pub const ALL: [Self; 8] = [Plain, Pair, Add, And, Or, Xor, Compare, Extreme];

    /// Must what the same instruction loaded be known?
    #[must_use]
    pub const fn needs_load(self) -> bool {
        !matches!(self, Plain | Pair)
    }

    /// What memory may hold right after such an access, if nobody else stored there. Nothing: it stored nothing, or
    /// nothing new.
    pub fn results(self, access: Access) -> impl Iterator<Item = u128> {
        let Access { stored, loaded, len, atomic } = access;
        let mask = u128::MAX >> (128 - 8 * u32::from(len.clamp(1, 16)));
        let updated = |update: fn(u128, u128) -> u128| [loaded.map(|before| update(before, stored)), None];
        let results = match self {
            _ if !atomic => [Some(stored), None],
            Plain | Pair => [Some(stored), None],
            Add => updated(u128::wrapping_add),
            And => updated(|before, operand| before & operand),
            Or => updated(|before, operand| before | operand),
            Xor => updated(|before, operand| before ^ operand),
            // If what was to be stored was there already, it made no difference whether it was stored.
            Compare => [Some(stored).filter(|stored| loaded.is_some_and(|before| (before ^ stored) & mask != 0)), None],
            // One of the two is the greater one.
            Extreme => [loaded.map(|_| stored), loaded],
        };
        results.into_iter().flatten().map(move |value| value & mask)
    }
}

/// A word is of this kind if its bits under the mask (the second) are these (the first).
type Row = (u32, u32, StoreKind);

/// What is not plain. No word is in two rows.
const ROWS: &[Row] = &[
    // STP and STNP of W and of S registers.
    (0x2800_0000, 0xfa40_0000, Pair),
    // STXR, STLXR; STXP, STLXP.
    (0x0800_0000, 0x3fe0_0000, Compare),
    (0x8820_0000, 0xbfe0_0000, Compare),
    // CASP; CAS.
    (0x0820_0000, 0xbfa0_0000, Compare),
    (0x08a0_0000, 0x3fa0_0000, Compare),
    // LDADD, LDCLR, LDEOR, LDSET, of any size and order; with XZR as the target they are STADD and so on. SWP is plain.
    (0x3820_0000, 0x3f20_fc00, Add),
    (0x3820_1000, 0x3f20_fc00, And),
    (0x3820_2000, 0x3f20_fc00, Xor),
    (0x3820_3000, 0x3f20_fc00, Or),
    // LDSMAX, LDSMIN, LDUMAX, LDUMIN.
    (0x3820_4000, 0x3f20_cc00, Extreme),
    // LDCLRP, LDSETP. SWPP is plain.
    (0x1920_1000, 0xff20_fc00, And),
    (0x1920_3000, 0xff20_fc00, Or),
];

/// The kind of the stores of the instruction of these bytes. What it says of one that stores nothing means nothing.
#[must_use]
pub fn store_kind(bytes: &[u8]) -> StoreKind {
    let kind = |word| ROWS.iter().find(|(value, mask, _)| word & mask == *value).map(|(.., kind)| *kind);
    word(bytes).and_then(kind).unwrap_or(Plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(kind: StoreKind, len: u8, loaded: u128, stored: u128, atomic: bool) -> Vec<u128> {
        kind.results(Access { stored, loaded: Some(loaded), len, atomic }).collect()
    }

    #[test]
    fn what_is_told_may_be_an_operand() {
        assert_eq!(results(Plain, 4, 0x11, 0x22, true), [0x22]);
        assert_eq!(results(Pair, 8, 0x11, 0x22, true), [0x22]);
        assert_eq!(results(Add, 4, 0x11, 2, true), [0x13]);
        assert_eq!(results(Add, 1, 0x01, 0xff, true), [0], "one less");
        assert_eq!(results(And, 2, 0x1234, 0xff, true), [0x34]);
        assert_eq!(results(Or, 8, 0x10, 0x02, true), [0x12]);
        assert_eq!(results(Xor, 2, 0x0ff0, 0xffff, true), [0xf00f]);
        assert_eq!(results(Extreme, 1, 0x05, 0xfb, true), [0xfb, 0x05]);
        for kind in StoreKind::ALL {
            assert_eq!(results(kind, 4, 0x11, 0x13, false), [0x13], "a load and a store tell the truth: {kind:?}");
            let untold = kind.results(Access { stored: 1, loaded: None, len: 4, atomic: true }).count();
            assert_eq!(untold, usize::from(!kind.needs_load()), "{kind:?}");
        }
    }

    #[test]
    fn a_compare_and_exchange_that_changes_nothing_is_no_store() {
        assert_eq!(results(Compare, 16, 0x11, 0x22, true), [0x22]);
        assert!(results(Compare, 8, 0x22, 0x22, true).is_empty());
        assert!(results(Compare, 1, 0x22, 0x7700_0022, true).is_empty(), "only its own bytes count");
    }

    #[test]
    fn pairs_of_words_are_told_from_pairs_of_more_and_from_loads() {
        // stp w10, w10, [x1, #4]; stnp w9, w10, [x1]; stp w9, w10, [x1], #8; stp w9, w10, [x1, #8]!; stp s0, s1, [x1].
        for word in [0x2900_a82au32, 0x2800_2829, 0x2881_2829, 0x2981_2829, 0x2d00_0420] {
            assert_eq!(store_kind(&word.to_le_bytes()), Pair, "{word:#x}");
        }
        // stp x10, x9, [x1]; ldp w9, w10, [x1]; stp q0, q0, [x1]; str x10, [x1, #4]; str w10, [x1].
        for word in [0xa900_242au32, 0x2940_2829, 0xad00_0020, 0xf800_402a, 0xb900_002a] {
            assert_eq!(store_kind(&word.to_le_bytes()), Plain, "{word:#x}");
        }
    }

    #[test]
    fn no_word_is_of_two_kinds() {
        for (place, (value, mask, _)) in ROWS.iter().enumerate() {
            assert_eq!(value & !mask, 0);
            for (other, other_mask, _) in &ROWS[..place] {
                let both = mask & other_mask;
                assert_ne!(value & both, other & both, "{value:#x} and {other:#x}");
            }
        }
    }
}
