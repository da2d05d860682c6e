//! AArch64.

use super::architecture::{Architecture, Cpu};
use crate::table::aarch64::TABLE;
use crate::verdict::aarch64::{ARM64_STRICT, ARM64_STRICT_COHERENT, LINUX_ARM64, LINUX_ARM64_COHERENT, PROFILES};
use crate::zoo::aarch64::ZOO;

/// `movk xzr, #0x4943`, which has no effect and which no compiler makes; the operand spells "CI". X0 holds the value.
pub const MARKER: [u8; 4] = 0xF289_287F_u32.to_le_bytes();

/// Its CTR_EL0 says that instruction caches need every step of maintenance.
const PLAIN: Cpu = Cpu { name: "cortex-a72", model: "cortex-a72", mitigations: "mitigations=off", judged_as: &[] };

/// Its CTR_EL0 says that they need none.
const MAX: Cpu = Cpu {
    name: "max",
    // QEMU's own algorithm in place of the architecture's, which takes most of the time otherwise.
    model: "max,pauth-impdef=on",
    judged_as: &[(LINUX_ARM64, LINUX_ARM64_COHERENT), (ARM64_STRICT, ARM64_STRICT_COHERENT)],
    ..PLAIN
};

/// The data.
pub const ARCHITECTURE: Architecture = Architecture {
    name: "aarch64",
    board: "virt",
    plain: PLAIN,
    others: &[MAX],
    isolated: "kpti=on",
    open: Cpu { mitigations: "", ..PLAIN },
    console: "ttyAMA0",
    patience: "",
    breakpoint: "BRK",
    // arch/arm64/kernel/debug-monitors.c and arch/arm64/mm/fault.c: nobody claims the instruction's number.
    death_of_breakpoint: "Internal error: BRK handler",
    marker: &MARKER,
    profiles: &PROFILES,
    table: TABLE,
    zoo: &ZOO,
};
