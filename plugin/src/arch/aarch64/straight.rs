//! Ways that execution takes without a branch.

use super::synchronizing::word;
use crate::arch::platform::InstructionAt;
use icsan_model::addr::Linear;

/// The target of a BL or B.
fn target(bytes: &[u8], link: u32, at: u64) -> Option<u64> {
    let word = word(bytes)?;
    let offset = i64::from((word << 6) as i32 >> 4);
    (word & 0xfc00_0000 == link).then(|| at.wrapping_add_signed(offset))
}

/// The target of a direct call that is right before `at`.
#[must_use]
pub fn call_before(bytes: &[u8], at: Linear) -> Option<u64> {
    target(bytes.last_chunk::<4>()?, 0x9400_0000, at.0.wrapping_sub(4))
}

/// Where the instruction jumps to, if it always does.
#[must_use]
pub fn jump_target(bytes: &[u8], at: Linear) -> Option<u64> {
    target(bytes, 0x1400_0000, at.0)
}

/// No branch of its own makes an own store visible on AArch64, so it is never asked.
#[must_use]
pub fn is_straight(from: Linear, to: Linear, _instruction: InstructionAt<'_>) -> bool {
    from == to
}
