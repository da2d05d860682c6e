//! The known findings of Linux on x86-64 (docs/findings.md).

use crate::arch::known_finding::{Instruction, KnownFinding};
use icsan_model::addr::Linear;
use icsan_model::verdict::kind::Kind;

/// What `apply_returns()` makes of a return: `ret`, or, on a CPU that needs it, a jump to the thunk that mitigates
/// indirect target selection (arch/x86/kernel/cpu/bugs.c, `its_select_mitigation()`).
const RETURNS: &[Instruction] = &[Instruction::Is(&[0xc3]), Instruction::JumpTo("its_return_thunk")];

/// `jmp rel32`.
const JMP: u8 = 0xe9;
const JMP_LEN: usize = 5;

const MEMCPY: &str = "memcpy() patches its own return while apply_returns() patches all returns";
const MEMCPY_PAGE: &str = "docs/findings.md#memcpy_orig-patches-its-own-return-linux-61-612-and-73-x86-64-at-boot";

/// All of them.
pub static KNOWN: &[KnownFinding] = &[
    // Seen at every boot of 6.1, 6.12 and 7.3, on both QEMUs.
    KnownFinding {
        kinds: &[Kind::Smc],
        executes: "memcpy_orig",
        stores: Some(("memcpy_orig", "apply_returns")),
        memory: RETURNS,
        instead: Instruction::JumpTo("__x86_return_thunk"),
        what: MEMCPY,
        page: MEMCPY_PAGE,
    },
    // The same without the store side.
    KnownFinding {
        kinds: &[Kind::Unserialized],
        executes: "memcpy_orig",
        stores: None,
        memory: RETURNS,
        instead: Instruction::JumpTo("__x86_return_thunk"),
        what: MEMCPY,
        page: MEMCPY_PAGE,
    },
];

/// Where a `jmp rel32` leads to, if the instruction at that address is one.
#[must_use]
pub fn jump_target(bytes: &[u8], at: Linear) -> Option<u64> {
    let displacement = bytes.strip_prefix(&[JMP])?.try_into().ok().map(i32::from_le_bytes)?;
    Some(at.0.wrapping_add(JMP_LEN as u64).wrapping_add(displacement as i64 as u64))
}
