//! What instructions do, apart from how they are encoded.

use super::operand::{Place, Size, Slot, Source};

/// A condition of Jcc, SETcc and CMOVcc, by its number in encodings: even ones are plain, each odd one is the negation
/// of the one before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Condition(pub u8);

/// Arithmetic of two operands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Binary {
    /// Sum.
    Add,
    /// Sum with carry.
    Adc,
    /// Difference.
    Sub,
    /// Difference with borrow.
    Sbb,
    /// Both.
    And,
    /// Either.
    Or,
    /// One but not both.
    Xor,
}

/// Arithmetic of one operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unary {
    /// One more. CF stays.
    Inc,
    /// One less. CF stays.
    Dec,
    /// Negation.
    Neg,
    /// Complement. All flags stay.
    Not,
}

/// How a value becomes wider.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extend {
    /// It does not, or by zeros.
    Zero,
    /// By the sign that it has at this size.
    Sign(Size),
}

/// What to do with CF.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Carry {
    /// CLC.
    Clear,
    /// STC.
    Set,
    /// CMC.
    Complement,
}

/// What an instruction does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// Nothing.
    Nothing,
    /// INT3.
    Breakpoint,
    /// UD2, and whatever is no instruction.
    Undefined,
    /// JMP.
    Jump(Source),
    /// CALL.
    Call(Source),
    /// RET, which frees so many bytes more.
    Return(u16),
    /// Jcc.
    Branch(Condition, u64),
    /// JRCXZ and JECXZ.
    BranchIfZero(Slot, u64),
    /// MOV, MOVZX, MOVSX, MOVSXD, LEA.
    Move(Place, Source, Extend),
    /// CMOVcc.
    MoveIf(Condition, Slot, Source),
    /// SETcc.
    Set(Condition, Place),
    /// XCHG of registers.
    Exchange(Slot, Slot),
    /// PUSH.
    Push(Size, Source),
    /// POP. The new stack pointer comes first, and loses to what is popped into it.
    Pop(Size, Place),
    /// ADD, ADC, SUB, SBB, AND, OR, XOR; without a place, CMP and TEST.
    Binary(Binary, Size, Option<Place>, Source, Source),
    /// INC, DEC, NEG, NOT.
    Unary(Unary, Size, Place, Source),
    /// CLC, STC, CMC.
    Carry(Carry),
}
