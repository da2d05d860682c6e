//! The pages of the block that a vCPU translates, as QEMU locked them.

use std::cell::Cell;

/// No page.
pub(super) const NONE: u64 = u64::MAX;

thread_local! {
    static LOCKED: Cell<[u64; 2]> = const { Cell::new([NONE; 2]) };
}

/// The vCPU whose thread this is begins a block at that address of QEMU's.
pub(super) fn begins(page0: u64) {
    LOCKED.set([page0, NONE]);
}

/// It goes on in the page of that address.
pub(super) fn goes_on(page1: u64) {
    LOCKED.set([LOCKED.get()[0], page1]);
}

/// An address in the page that the block begins in, and one in the next.
pub(super) fn get() -> [u64; 2] {
    LOCKED.get()
}
