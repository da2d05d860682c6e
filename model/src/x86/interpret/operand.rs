//! What instructions read and write: sizes, registers and parts of them.

use super::Registers;
use iced_x86::Register;

/// The size of an operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Size {
    /// 1 byte.
    Byte,
    /// 2 bytes.
    Word,
    /// 4 bytes.
    Dword,
    /// 8 bytes.
    Qword,
}

impl Size {
    /// The size of so many bytes.
    pub fn of(bytes: usize) -> Option<Self> {
        Some(match bytes {
            1 => Self::Byte,
            2 => Self::Word,
            4 => Self::Dword,
            8 => Self::Qword,
            _ => return None,
        })
    }

    /// How many bytes.
    pub fn bytes(self) -> u8 {
        match self {
            Self::Byte => 1,
            Self::Word => 2,
            Self::Dword => 4,
            Self::Qword => 8,
        }
    }

    /// How many bits.
    pub fn bits(self) -> u32 {
        u32::from(self.bytes()) * 8
    }

    /// `value` without the bits beyond this size.
    pub fn truncate(self, value: u64) -> u64 {
        value & (u64::MAX >> (64 - self.bits()))
    }

    /// The highest bit of this size.
    pub fn sign(self) -> u64 {
        1 << (self.bits() - 1)
    }

    /// `value` with its sign, at this size, in all bits above.
    pub fn sign_extend(self, value: u64) -> u64 {
        let beyond = 64 - self.bits();
        (((value << beyond) as i64) >> beyond) as u64
    }
}

/// A general register, or a part of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slot {
    /// Its number.
    pub number: u8,
    /// How much of it.
    pub size: Size,
    /// AH, CH, DH or BH: the second byte.
    pub high: bool,
}

impl Slot {
    /// RSP.
    pub const STACK_POINTER: Self = Self { number: 4, size: Size::Qword, high: false };
    /// RCX.
    pub const COUNT: Self = Self { number: 1, size: Size::Qword, high: false };

    /// The general register of this name. Segment, control, vector and other registers are none.
    pub fn of(register: Register) -> Option<Self> {
        let size = Size::of(register.size())?;
        let high = matches!(register, Register::AH | Register::CH | Register::DH | Register::BH);
        let number = register.is_gpr().then(|| register.full_register().number())?;
        Some(Self { number: number as u8, size, high })
    }

    /// What it holds.
    pub fn read(self, registers: &Registers) -> u64 {
        self.size.truncate(self.whole(registers) >> if self.high { 8 } else { 0 })
    }

    /// What the whole register holds.
    fn whole(self, registers: &Registers) -> u64 {
        registers.general[usize::from(self.number & 15)]
    }

    /// What the whole register holds after `value` was written to the slot, if it held `before`: 32 bits clear those
    /// above, fewer leave them alone.
    pub fn merge(self, before: u64, value: u64) -> u64 {
        let value = self.size.truncate(value);
        match (self.size, self.high) {
            (Size::Byte, true) => before & !0xff00 | value << 8,
            (Size::Byte, false) => before & !0xff | value,
            (Size::Word, _) => before & !0xffff | value,
            (Size::Dword | Size::Qword, _) => value,
        }
    }
}

/// What an instruction reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// A register.
    Register(Slot),
    /// A constant, among them effective addresses and branch targets.
    Constant(u64),
    /// What was loaded.
    Loaded,
}

/// What an instruction writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// A register.
    Register(Slot),
    /// What the plan stores to.
    Memory,
}
