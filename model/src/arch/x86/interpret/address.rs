//! Where memory operands are.

use super::operand::{Size, Slot};
use super::{Access, NotCarriedOut, Registers};
use iced_x86::{Instruction, Register};

/// Is it a linear address that a CPU with four-level paging accepts? Bits 47 to 63 are all alike.
#[must_use]
pub fn canonical(linear: u64) -> bool {
    matches!(linear >> 47, 0 | 0x1_ffff)
}

/// `linear` itself, if it is canonical.
pub fn checked(linear: u64) -> Result<u64, NotCarriedOut> {
    if canonical(linear) { Ok(linear) } else { Err(NotCarriedOut::NonCanonical(linear)) }
}

/// The access of this size at this place, if it is canonical from end to end. One that wraps around to address 0 counts
/// as not.
pub fn access(linear: u64, size: Size) -> Result<Access, NotCarriedOut> {
    let last = linear.checked_add(u64::from(size.bytes()) - 1).ok_or(NotCarriedOut::NonCanonical(linear))?;
    checked(linear)?;
    checked(last)?;
    Ok(Access { linear, len: size.bytes() })
}

/// The effective address of the memory operand, and the linear one: only FS and GS make a difference between them.
pub fn of_memory(instruction: &Instruction, registers: &Registers) -> (u64, u64) {
    let operand = (0..instruction.op_count())
        .find(|operand| instruction.op_kind(*operand) == iced_x86::OpKind::Memory)
        .unwrap_or(0);
    let mut base = 0;
    let linear = instruction.virtual_address(operand, 0, |register, _, _| {
        Some(match register {
            Register::FS => {
                base = registers.fs_base;
                base
            }
            Register::GS => {
                base = registers.gs_base;
                base
            }
            // The decoder cuts 32-bit addresses off when all is added up.
            _ => Slot::of(register).map_or(0, |slot| slot.read(registers)),
        })
    });
    let linear = linear.unwrap_or(0);
    (linear.wrapping_sub(base), linear)
}
