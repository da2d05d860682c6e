//! Linux on x86-64: arch/x86.

use super::page_table::USER_HALF;
use super::registers::{GS_BASE, RAX, RBX, RCX, RDI, RDX, RSI, RSP};
use super::synchronizing::{EXPLICIT_SYNCS, SWITCHES_MAPPING};
use crate::arch::linux_abi::{LinuxAbi, OtherCalls, SwitchFunction, SystemCalls};
use icsan_model::addr::Linear;
use icsan_model::arch::sync_event::SyncEventSet;

/// See the module.
pub static LINUX: LinuxAbi = LinuxAbi {
    kernel: &icsan_symbols::linux::x86::LINUX,
    kernel_from: Linear(1 << 63),
    // System V ABI.
    arguments: &[RDI, RSI, RDX, RCX],
    link: None,
    stack: RSP,
    // arch/x86/kernel/process_64.c.
    switch: SwitchFunction { symbol: "__switch_to", previous: 0, next: 1 },
    current_task: &GS_BASE,
    system_calls: SystemCalls {
        // `syscall`.
        instruction: &[0x0f, 0x05],
        number: RAX,
        argument: RDI,
        result: RAX,
        membarrier: 324,
        // arch/x86/entry/syscalls/syscall_32.tbl.
        other: Some(OtherCalls { number: RAX, argument: RBX, membarrier: 375 }),
    },
    // INT3.
    breakpoint: &[0xcc],
    user_half: USER_HALF,
    switches_mapping: SWITCHES_MAPPING,
    explicit_syncs: EXPLICIT_SYNCS,
    // SYSRET does not.
    returns_sync: SyncEventSet::EMPTY,
};
