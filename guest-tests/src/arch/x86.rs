//! x86-64.

use super::architecture::{Architecture, Cpu};
use crate::table::x86::{ISOLATED, TABLE};
use crate::verdict::x86::PROFILES;
use crate::zoo::x86::ZOO;

/// `nop dword ptr [rax+rax+0x4E534349]`: a NOP on every x86-64 CPU, whose displacement spells "ICSN". RAX holds the
/// value.
pub const MARKER: [u8; 8] = [0x0F, 0x1F, 0x84, 0x00, 0x49, 0x43, 0x53, 0x4E];

/// The data.
pub const ARCHITECTURE: Architecture = Architecture {
    name: "x86_64",
    board: "q35",
    plain: Cpu { name: "max", model: "max", mitigations: "mitigations=off", judged_as: &[] },
    others: &[],
    isolated: ISOLATED,
    // It is open to Meltdown. Returns stay RET, so that nothing else differs.
    open: Cpu { name: "IvyBridge", model: "IvyBridge", mitigations: "indirect_target_selection=off", judged_as: &[] },
    console: "ttyS0",
    // The kernel panics where its timer seems not to tick (arch/x86/kernel/apic/io_apic.c, `check_timer`).
    patience: "no_timer_check",
    breakpoint: "INT3",
    // "int3: 0000 [#1]", with "Oops: " before it since 6.10.
    death_of_breakpoint: "int3: 0000 [#",
    marker: &MARKER,
    profiles: &PROFILES,
    table: TABLE,
    zoo: &ZOO,
};
