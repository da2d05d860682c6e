//! What the instruction alone does not tell: which row an IRET, a WRMSR or a MOV to CR3 is, by values at run time.
//!
//! Pure functions; the plugin reads the registers and the stack before the instruction and calls them.

use super::{events, msr as msrs};
use crate::addr::Linear;
use crate::sync_event::SyncEventId;

/// Which IRET is it: to itself (the next instruction at the same privilege level, as Linux's `sync_core()` does), or
/// any other?
///
/// `pc` and `len` are the IRET's, `target_rip` is what it takes from the stack, `same_cpl` whether the RPL of the code
/// segment from the stack is the current privilege level. The next address wraps as the address space does.
#[must_use]
pub fn iret(pc: Linear, len: u8, target_rip: u64, same_cpl: bool) -> SyncEventId {
    if same_cpl && pc.offset(u64::from(len)).0 == target_rip { events::IRET_TO_SELF } else { events::IRET }
}

/// Which WRMSR is it, by the register number in ECX?
#[must_use]
pub fn wrmsr(msr: u32) -> SyncEventId {
    if msrs::is_nonserializing(msr) { events::WRMSR_NONSERIALIZING } else { events::WRMSR }
}

/// Bit 12 of CR3 chooses between the kernel's and the user's half of a pair of page tables under page-table isolation.
const PTI_TABLE: u64 = 1 << 12;
/// Bit 11 chooses between their PCIDs.
const PTI_PCID: u64 = 1 << 11;
/// "Do not flush" of a new value under PCID; never reads back as 1.
const NOFLUSH: u64 = 1 << 63;

/// Which MOV to CR3 is it, by the value before and the value written?
///
/// The switch of page-table isolation comes first, with or without "do not flush". It is recognised as Linux does it:
/// the tables lie side by side, so the values differ in bit 12, and else at most in bits 11 (PCID) and 63. Without
/// page-table isolation two processes can have page tables side by side by chance, and a switch between them is then
/// taken for one; only a profile that treats the two rows unlike each other notices (`pti-blind`), and it is meant for
/// guests that have page-table isolation on.
#[must_use]
pub fn mov_cr3(old: u64, new: u64) -> SyncEventId {
    let changed = old ^ new;
    if changed & PTI_TABLE != 0 && changed & !(PTI_TABLE | PTI_PCID | NOFLUSH) == 0 {
        events::MOV_CR3_PTI
    } else if new & NOFLUSH != 0 {
        events::MOV_CR3_NOFLUSH
    } else {
        events::MOV_CR3
    }
}
