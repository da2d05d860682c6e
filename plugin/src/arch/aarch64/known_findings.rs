//! The known findings of Linux on AArch64 (docs/findings.md).

use crate::arch::known_finding::{Instruction, KnownFinding};
use icsan_model::verdict::kind::Kind;

/// `mov x9, x30`, the first instruction of a function that can be traced, and `nop`, which the compiler leaves there.
const MOV_X9_LR: &[Instruction] = &[Instruction::Is(&[0xe9, 0x03, 0x1e, 0xaa])];
const NOP: Instruction = Instruction::Is(&[0x1f, 0x20, 0x03, 0xd5]);

const WHAT: &str = "ftrace patches a function that its own patcher uses before it maintains the caches";
const PAGE: &str = "docs/findings.md#ftrace-patches-what-its-patcher-executes-next-linux-61-612-and-73-arm64-at-boot";

/// The function that is patched and executed.
const fn traced(executes: &'static str) -> KnownFinding {
    KnownFinding {
        // The first step that is missing; where no clean is needed, that is the barrier behind the store.
        kinds: &[Kind::Unclean, Kind::Incomplete],
        executes,
        stores: Some(("copy_to_kernel_nofault", "ftrace_init_nop")),
        memory: MOV_X9_LR,
        instead: NOP,
        what: WHAT,
        page: PAGE,
    }
}

/// All of them. Seen at every boot on a CPU that needs maintenance, on both QEMUs: the first one in 6.1, 6.12 and 7.3,
/// the other one in 7.3.
pub static KNOWN: &[KnownFinding] = &[traced("__set_fixmap"), traced("_raw_spin_unlock_irqrestore")];
