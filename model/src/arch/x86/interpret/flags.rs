//! The arithmetic bits of RFLAGS, and the conditions that are made of them.

use super::operand::Size;
use super::operation::Condition;

/// Carry.
pub const CF: u64 = 1 << 0;
/// Even parity of the lowest byte.
pub const PF: u64 = 1 << 2;
/// Carry out of the lowest four bits.
pub const AF: u64 = 1 << 4;
/// Zero.
pub const ZF: u64 = 1 << 6;
/// Sign.
pub const SF: u64 = 1 << 7;
/// Trap after each instruction.
pub const TF: u64 = 1 << 8;
/// Signed overflow.
pub const OF: u64 = 1 << 11;

/// All that arithmetic sets.
pub const ARITHMETIC: u64 = CF | PF | AF | ZF | SF | OF;

/// `flag` if it holds.
pub fn flag_if(flag: u64, holds: bool) -> u64 {
    if holds { flag } else { 0 }
}

/// ZF, SF and PF of a result of this size.
pub fn of_result(size: Size, result: u64) -> u64 {
    flag_if(ZF, size.truncate(result) == 0)
        | flag_if(SF, result & size.sign() != 0)
        | flag_if(PF, (result as u8).count_ones().is_multiple_of(2))
}

impl Condition {
    /// Does it hold?
    pub fn holds(self, flags: u64) -> bool {
        let is = |flag: u64| flags & flag != 0;
        let less = is(SF) != is(OF);
        let plain = match self.0 >> 1 & 7 {
            0 => is(OF),
            1 => is(CF),
            2 => is(ZF),
            3 => is(CF) || is(ZF),
            4 => is(SF),
            5 => is(PF),
            6 => less,
            _ => less || is(ZF),
        };
        plain != (self.0 & 1 != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_odd_condition_negates_the_one_before() {
        for flags in 0..=ARITHMETIC {
            for number in (0..16).step_by(2) {
                assert_ne!(Condition(number).holds(flags), Condition(number + 1).holds(flags), "{number} {flags:#x}");
            }
        }
    }

    #[test]
    fn signed_comparisons() {
        let [less, not_less, less_or_equal, greater] = [12, 13, 14, 15].map(Condition);
        assert!(less.holds(SF) && less.holds(OF) && !less.holds(SF | OF));
        assert!(not_less.holds(ZF) && less_or_equal.holds(ZF) && !greater.holds(ZF) && greater.holds(SF | OF));
    }
}
