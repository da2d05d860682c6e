//! One A64 instruction carried out on registers that are given.
//!
//! It exists to run an *old* instruction in a guest, one that does not stand in memory any more, and so it knows what
//! patched kernels and programs are patched from and to: NOP, branches, breakpoints, moves of constants and registers,
//! addresses and literals, and sums with constants. What it does not know it says so of ([`NotCarriedOut`]), before
//! anything was done.
//!
//! It happens in two steps, because the caller owns the memory. [`plan`] decodes and says what must be read;
//! [`Plan::carry_out`] is given that and answers with all that changes. Nothing here reads or writes memory, fails
//! after the plan, or has anything to drop.
//!
//! # Deviations from DDI0487, by number
//! 1. *No branch target check* (FEAT_BTI): an instruction that an indirect branch leads to is carried out, even if its
//!    page is guarded and it is none that such a branch may lead to. [`BTYPE`] is 0 behind it, as behind any other.
//! 2. *A target is not checked.* The fault of an address that is not mapped comes from there.
//! 3. *A literal is little-endian*, and may be read wherever the caller can read it.

use super::word;

/// The condition flags of PSTATE: N, Z, C, V.
pub const NZCV: u64 = 0xf000_0000;
/// PSTATE.BTYPE: what kind of indirect branch led here.
pub const BTYPE: u64 = 3 << 10;
/// PSTATE.SS: an exception follows the next instruction.
pub const SS: u64 = 1 << 21;

const N: u64 = 1 << 31;
const Z: u64 = 1 << 30;
const C: u64 = 1 << 29;
const V: u64 = 1 << 28;

/// The number of XZR, or SP.
const ZR: u8 = 31;
/// The number of the link register.
const LR: u8 = 30;

/// What of a PE an instruction depends on, besides memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Registers {
    /// X0 to X30.
    pub general: [u64; 31],
    /// The stack pointer of the current exception level.
    pub sp: u64,
    /// The address of the instruction.
    pub pc: u64,
    /// PSTATE, in SPSR's layout.
    pub pstate: u64,
}

impl Registers {
    /// X0 to X30; 31 is XZR.
    fn or_zero(&self, number: u8) -> u64 {
        self.general.get(usize::from(number)).copied().unwrap_or(0)
    }

    /// X0 to X30; 31 is SP.
    fn or_sp(&self, number: u8) -> u64 {
        self.general.get(usize::from(number)).copied().unwrap_or(self.sp)
    }
}

/// A place in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    /// Its linear address.
    pub linear: u64,
    /// How many bytes: 4 or 8.
    pub len: u8,
}

/// What an instruction does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Operation {
    /// NOP; BTI; PRFM (literal).
    Nothing,
    /// B.
    Jump(u64),
    /// BL.
    Call(u64),
    /// RET.
    Return(u8),
    /// B.cond.
    Branch(u8, u64),
    /// CBZ, CBNZ: the register, its bits that count, whether it branches if they are 0; TBZ, TBNZ with one bit.
    BranchIf { register: u8, bits: u64, zero: bool, target: u64 },
    /// BRK.
    Breakpoint(u16),
    /// UDF.
    Undefined,
    /// MOVZ, MOVN, ADR, ADRP.
    Constant(u8, u64),
    /// MOVK: the register, its bits that stay, those that are set.
    Keep(u8, u64, u64),
    /// MOV of a register, and the bits that are moved.
    Move { to: u8, from: u8, bits: u64 },
    /// ADD, SUB of a constant: SUB is the sum of the complement and a carry.
    Sum { to: u8, from: u8, addend: u64, carry: bool, wide: bool, flags: bool },
    /// LDR and LDRSW (literal).
    Load { to: u8, signed: bool },
}

/// An instruction that can be carried out, and what it must read first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plan {
    /// What must be read, if anything.
    pub load: Option<Access>,
    operation: Operation,
}

/// All that an instruction changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Effects {
    /// The number of a register, X0 to X30, with its whole new value.
    pub general: Option<(u8, u64)>,
    /// The new stack pointer.
    pub sp: Option<u64>,
    /// The whole new PSTATE. Only the condition flags and [`BTYPE`] ever differ.
    pub pstate: u64,
    /// Where it goes on.
    pub next: Next,
}

/// Where it goes on after an instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// At this linear address.
    At(u64),
    /// With the exception of BRK, which has this constant. Its return address is the instruction's.
    Breakpoint(u16),
    /// With the exception of a word that is no instruction. Its return address is the instruction's.
    Undefined,
}

/// Why an instruction was not carried out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotCarriedOut {
    /// There are fewer bytes than an instruction has.
    #[error("the instruction is cut off")]
    Truncated,
    /// It is an instruction that this interpreter does not know, or none.
    #[error("{0:#010x} is not known to the interpreter")]
    Unsupported(u32),
    /// PSTATE.SS is set: an exception would follow the instruction.
    #[error("the guest is single-stepping")]
    SingleStep,
}

/// Some bits of a word.
fn field(word: u32, low: u32, bits: u32) -> u32 {
    word >> low & ((1 << bits) - 1)
}

/// The same, with a sign, as a distance in units of so many bytes.
fn distance(word: u32, low: u32, bits: u32, unit: i64) -> i64 {
    let above = 32 - bits;
    i64::from((field(word, low, bits) << above) as i32 >> above) * unit
}

/// Decodes the instruction that `bytes` begin with, and finds out what it must read. Bytes behind it do not matter.
///
/// # Errors
/// It cannot be carried out, or not by us.
pub fn plan(bytes: &[u8], registers: &Registers) -> Result<Plan, NotCarriedOut> {
    let word = word(bytes).ok_or(NotCarriedOut::Truncated)?;
    if registers.pstate & SS != 0 {
        return Err(NotCarriedOut::SingleStep);
    }
    let pc = registers.pc;
    if word & 0xbf00_0000 == 0x1800_0000 || word & 0xff00_0000 == 0x9800_0000 {
        // LDR W, LDR X; LDRSW.
        let (to, wide, signed) = (word as u8 & 0x1f, field(word, 30, 1) != 0, field(word, 31, 1) != 0);
        let linear = pc.wrapping_add_signed(distance(word, 5, 19, 4));
        let load = Some(Access { linear, len: if wide { 8 } else { 4 } });
        return Ok(Plan { load, operation: Operation::Load { to, signed } });
    }
    let operation = operation(word, pc).ok_or(NotCarriedOut::Unsupported(word))?;
    Ok(Plan { load: None, operation })
}

/// What it does, at that address. `None`: nobody here knows, or it is LDR.
fn operation(word: u32, pc: u64) -> Option<Operation> {
    let is = |value: u32, mask: u32| word & mask == value;
    let (rd, rn) = (field(word, 0, 5) as u8, field(word, 5, 5) as u8);
    // The instructions with two sizes have it in the highest bit.
    let wide = field(word, 31, 1) != 0;
    let all = if wide { u64::MAX } else { u64::from(u32::MAX) };
    let to = |distance: i64| pc.wrapping_add_signed(distance);
    // NOP, BTI, PRFM (literal).
    Some(if is(0xd503_201f, u32::MAX) || is(0xd503_241f, 0xffff_ff3f) || is(0xd800_0000, 0xff00_0000) {
        Operation::Nothing
    } else if is(0x1400_0000, 0xfc00_0000) {
        Operation::Jump(to(distance(word, 0, 26, 4)))
    } else if is(0x9400_0000, 0xfc00_0000) {
        Operation::Call(to(distance(word, 0, 26, 4)))
    } else if is(0xd65f_0000, 0xffff_fc1f) {
        Operation::Return(rn)
    } else if is(0x5400_0000, 0xff00_0010) {
        Operation::Branch(field(word, 0, 4) as u8, to(distance(word, 5, 19, 4)))
    } else if is(0x3400_0000, 0x7e00_0000) {
        let (zero, target) = (field(word, 24, 1) == 0, to(distance(word, 5, 19, 4)));
        Operation::BranchIf { register: rd, bits: all, zero, target }
    } else if is(0x3600_0000, 0x7e00_0000) {
        let bits = 1 << (field(word, 31, 1) << 5 | field(word, 19, 5));
        let (zero, target) = (field(word, 24, 1) == 0, to(distance(word, 5, 14, 4)));
        Operation::BranchIf { register: rd, bits, zero, target }
    } else if is(0xd420_0000, 0xffe0_001f) {
        Operation::Breakpoint(field(word, 5, 16) as u16)
    } else if is(0, 0xffff_0000) {
        Operation::Undefined
    } else if is(0x1280_0000, 0x1f80_0000) {
        // Of W registers only the lower half has room for the constant.
        let shift = field(word, 21, 2) * 16;
        let constant = u64::from(field(word, 5, 16)) << shift;
        match field(word, 29, 2) {
            _ if !wide && shift >= 32 => return None,
            0 => Operation::Constant(rd, !constant & all),
            2 => Operation::Constant(rd, constant),
            3 => Operation::Keep(rd, !(0xffff << shift) & all, constant),
            _ => return None,
        }
    } else if is(0x1000_0000, 0x1f00_0000) {
        // The lowest two bits of the distance lie apart.
        let low = i64::from(field(word, 29, 2));
        let far = distance(word, 5, 19, 4) + low;
        Operation::Constant(rd, if wide { (pc & !0xfff).wrapping_add_signed(far << 12) } else { to(far) })
    } else if is(0x1100_0000, 0x1f80_0000) {
        let constant = u64::from(field(word, 10, 12)) << (12 * field(word, 22, 1));
        let (subtract, flags) = (field(word, 30, 1) != 0, field(word, 29, 1) != 0);
        let addend = if subtract { !constant } else { constant };
        Operation::Sum { to: rd, from: rn, addend, carry: subtract, wide, flags }
    } else if is(0x2a00_03e0, 0x7fe0_ffe0) {
        Operation::Move { to: rd, from: field(word, 16, 5) as u8, bits: all }
    } else {
        return None;
    })
}

/// Does the condition of this number hold? Even ones are plain, each odd one is the negation of the one before; the
/// last one holds always, as the one before it.
fn holds(condition: u8, pstate: u64) -> bool {
    let is = |flag: u64| pstate & flag != 0;
    let plain = match condition >> 1 {
        0 => is(Z),
        1 => is(C),
        2 => is(N),
        3 => is(V),
        4 => is(C) && !is(Z),
        5 => is(N) == is(V),
        6 => is(N) == is(V) && !is(Z),
        _ => return true,
    };
    plain != (condition & 1 != 0)
}

/// A sum at a size, and its flags.
fn sum(left: u64, right: u64, carry: bool, wide: bool) -> (u64, u64) {
    let bits = if wide { 64 } else { 32 };
    let cut = |value: u64| value & u64::MAX >> (64 - bits);
    let sign = 1 << (bits - 1);
    let (left, right) = (cut(left), cut(right));
    let whole = u128::from(left) + u128::from(right) + u128::from(carry);
    let result = cut(whole as u64);
    let flag = |flag: u64, holds: bool| if holds { flag } else { 0 };
    let flags = flag(N, result & sign != 0)
        | flag(Z, result == 0)
        | flag(C, whole >> bits != 0)
        // Both operands have the sign that the result has not.
        | flag(V, (left ^ result) & (right ^ result) & sign != 0);
    (result, flags)
}

impl Plan {
    /// What the instruction does. `registers` are those of the plan; `loaded` is what stood at [`Plan::load`], and is
    /// not looked at if there is none.
    #[must_use]
    pub fn carry_out(&self, registers: &Registers, loaded: u64) -> Effects {
        let pc = registers.pc;
        let behind = pc.wrapping_add(4);
        let mut effects =
            Effects { general: None, sp: None, pstate: registers.pstate & !BTYPE, next: Next::At(behind) };
        // To XZR nothing is written.
        let written = |number: u8, value: u64| (number != ZR).then_some((number, value));
        match self.operation {
            Operation::Nothing => {}
            Operation::Jump(target) => effects.next = Next::At(target),
            Operation::Call(target) => {
                effects.general = written(LR, behind);
                effects.next = Next::At(target);
            }
            Operation::Return(register) => effects.next = Next::At(registers.or_zero(register)),
            Operation::Branch(condition, target) => {
                if holds(condition, registers.pstate) {
                    effects.next = Next::At(target);
                }
            }
            Operation::BranchIf { register, bits, zero, target } => {
                if (registers.or_zero(register) & bits == 0) == zero {
                    effects.next = Next::At(target);
                }
            }
            Operation::Breakpoint(constant) => {
                effects.pstate = registers.pstate;
                effects.next = Next::Breakpoint(constant);
            }
            Operation::Undefined => {
                effects.pstate = registers.pstate;
                effects.next = Next::Undefined;
            }
            Operation::Constant(register, value) => effects.general = written(register, value),
            Operation::Keep(register, kept, set) => {
                effects.general = written(register, registers.or_zero(register) & kept | set);
            }
            Operation::Move { to, from, bits } => effects.general = written(to, registers.or_zero(from) & bits),
            Operation::Sum { to, from, addend, carry, wide, flags } => {
                let (result, nzcv) = sum(registers.or_sp(from), addend, carry, wide);
                if flags {
                    effects.pstate = effects.pstate & !NZCV | nzcv;
                    effects.general = written(to, result);
                } else if to == ZR {
                    effects.sp = Some(result);
                } else {
                    effects.general = Some((to, result));
                }
            }
            Operation::Load { to, signed } => {
                let value = match self.load {
                    Some(Access { len: 8, .. }) => loaded,
                    _ if signed => i64::from(loaded as i32) as u64,
                    _ => u64::from(loaded as u32),
                };
                effects.general = written(to, value);
            }
        }
        effects
    }
}
