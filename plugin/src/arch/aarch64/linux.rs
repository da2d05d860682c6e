//! Linux on AArch64: arch/arm64.

use super::registers::{GENERAL, SP, SP_EL0, X0, X8, X30};
use super::synchronizing::{EXPLICIT_SYNCS, RETURNS};
use crate::arch::linux_abi::{LinuxAbi, OtherCalls, SwitchFunction, SystemCalls};
use icsan_model::addr::Linear;
use icsan_model::arch::sync_event::SyncEventSet;

/// See the module.
pub static LINUX: LinuxAbi = LinuxAbi {
    kernel: &icsan_symbols::linux::aarch64::LINUX,
    // The addresses that TTBR1_EL1 translates.
    kernel_from: Linear(1 << 63),
    // Procedure Call Standard for the Arm 64-bit Architecture.
    arguments: &[X0, &GENERAL[1], &GENERAL[2], &GENERAL[3], &GENERAL[4], &GENERAL[5], &GENERAL[6], &GENERAL[7]],
    link: Some(X30),
    stack: &SP,
    // arch/arm64/kernel/process.c.
    switch: SwitchFunction { symbol: "__switch_to", previous: 0, next: 1 },
    // arch/arm64/include/asm/current.h.
    current_task: &SP_EL0,
    system_calls: SystemCalls {
        // `svc #0`.
        instruction: &[0x01, 0x00, 0x00, 0xd4],
        number: X8,
        argument: X0,
        result: X0,
        membarrier: 283,
        // Of 32-bit programs: R7 and R0; arch/arm64/include/asm/unistd32.h.
        other: Some(OtherCalls { number: &GENERAL[7], argument: X0, membarrier: 389 }),
    },
    // `brk #4`: BRK64_OPCODE_KPROBES (arch/arm64/include/asm/brk-imm.h).
    breakpoint: &[0x80, 0x00, 0x20, 0xd4],
    // A process has one table; the kernel's is another register's.
    user_half: 0,
    switches_mapping: SyncEventSet::EMPTY,
    explicit_syncs: EXPLICIT_SYNCS,
    returns_sync: RETURNS,
};
