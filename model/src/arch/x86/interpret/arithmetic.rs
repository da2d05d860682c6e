//! Sums, differences and bits: the result and the flags.

use super::flags::{AF, ARITHMETIC, CF, OF, flag_if, of_result};
use super::operand::Size;
use super::operation::{Binary, Carry, Unary};

/// The result and the whole new RFLAGS.
type Outcome = (u64, u64);

fn with(flags: u64, arithmetic: u64) -> u64 {
    flags & !ARITHMETIC | arithmetic
}

/// `left + right + carry`.
fn sum(size: Size, left: u64, right: u64, carry: u64) -> Outcome {
    let wide = u128::from(left) + u128::from(right) + u128::from(carry);
    let result = size.truncate(wide as u64);
    // The carry into each bit is where the result differs from the carryless sum; signs overflow if both operands had
    // the one that the result has not.
    let overflow = (left ^ result) & (right ^ result) & size.sign() != 0;
    let bits = flag_if(CF, wide >> size.bits() != 0)
        | flag_if(AF, (left ^ right ^ result) & 0x10 != 0)
        | flag_if(OF, overflow);
    (result, bits | of_result(size, result))
}

/// `left - right - borrow`.
fn difference(size: Size, left: u64, right: u64, borrow: u64) -> Outcome {
    let result = size.truncate(left.wrapping_sub(right).wrapping_sub(borrow));
    let overflow = (left ^ right) & (left ^ result) & size.sign() != 0;
    let borrowed = u128::from(left) < u128::from(right) + u128::from(borrow);
    let bits = flag_if(CF, borrowed) | flag_if(AF, (left ^ right ^ result) & 0x10 != 0) | flag_if(OF, overflow);
    (result, bits | of_result(size, result))
}

/// A bitwise result clears CF and OF. The manuals leave AF open; CPUs that we know of and QEMU clear it as well.
fn bitwise(size: Size, result: u64) -> Outcome {
    (result, of_result(size, result))
}

impl Binary {
    /// The result and the whole new RFLAGS. The operands have no bits beyond the size.
    pub fn apply(self, size: Size, left: u64, right: u64, flags: u64) -> Outcome {
        let (result, arithmetic) = match self {
            Self::Add => sum(size, left, right, 0),
            Self::Adc => sum(size, left, right, flags & CF),
            Self::Sub => difference(size, left, right, 0),
            Self::Sbb => difference(size, left, right, flags & CF),
            Self::And => bitwise(size, left & right),
            Self::Or => bitwise(size, left | right),
            Self::Xor => bitwise(size, left ^ right),
        };
        (result, with(flags, arithmetic))
    }
}

impl Unary {
    /// The result and the whole new RFLAGS, or none if they stay. The operand has no bits beyond the size.
    pub fn apply(self, size: Size, value: u64, flags: u64) -> (u64, Option<u64>) {
        let keeping_carry = |(result, arithmetic): Outcome| (result, Some(with(flags, arithmetic & !CF | flags & CF)));
        match self {
            Self::Inc => keeping_carry(sum(size, value, 1, 0)),
            Self::Dec => keeping_carry(difference(size, value, 1, 0)),
            Self::Neg => {
                let (result, arithmetic) = difference(size, 0, value, 0);
                (result, Some(with(flags, arithmetic)))
            }
            Self::Not => (size.truncate(!value), None),
        }
    }
}

impl Carry {
    /// The whole new RFLAGS.
    pub fn apply(self, flags: u64) -> u64 {
        match self {
            Self::Clear => flags & !CF,
            Self::Set => flags | CF,
            Self::Complement => flags ^ CF,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::flags::{PF, SF, ZF};
    use super::*;

    #[test]
    fn carries_and_borrows_at_every_size() {
        for size in [Size::Byte, Size::Word, Size::Dword, Size::Qword] {
            let max = size.truncate(u64::MAX);
            assert_eq!(Binary::Add.apply(size, max, 1, 0), (0, CF | PF | AF | ZF));
            assert_eq!(Binary::Adc.apply(size, max, max, CF), (max, CF | PF | AF | SF));
            assert_eq!(Binary::Sub.apply(size, 0, 1, 0), (max, CF | PF | AF | SF));
            assert_eq!(Binary::Sbb.apply(size, 0, max, CF), (0, CF | PF | AF | ZF));
            assert_eq!(
                Binary::Add.apply(size, size.sign() - 1, 1, 0),
                (size.sign(), AF | SF | OF | of_result(size, size.sign()))
            );
            assert_eq!(
                Unary::Neg.apply(size, size.sign(), 0),
                (size.sign(), Some(CF | OF | of_result(size, size.sign())))
            );
        }
    }

    #[test]
    fn bits_beyond_arithmetic_stay() {
        let others = 0x0020_0602;
        assert_eq!(Binary::Xor.apply(Size::Dword, 5, 5, others | ARITHMETIC), (0, others | ZF | PF));
        assert_eq!(Unary::Inc.apply(Size::Byte, 0xff, others | CF), (0, Some(others | CF | ZF | PF | AF)));
        assert_eq!(Unary::Not.apply(Size::Byte, 0x0f, others), (0xf0, None));
    }
}
