//! Where exceptions enter Linux on AArch64.
//!
//! VBAR_EL1 points to `vectors` (arch/arm64/kernel/entry.S), 16 slots of 128 bytes. Each only makes room on the stack
//! and branches to a label of its own, from the macro `entry_handler`: these are listed, in the order of the slots. The
//! CPU pushes nothing: where it returns to is in ELR_EL1.

use super::entries::KernelEntry;

const fn row(symbol: &'static str) -> KernelEntry {
    KernelEntry { symbol, pushed: 0, moves: 0, source: "entry.S: entry_handler" }
}

/// All of them: from EL1 with SP_EL0, from EL1, from 64-bit programs, from 32-bit programs.
pub(super) const ENTRIES: &[KernelEntry] = &[
    row("el1t_64_sync"),
    row("el1t_64_irq"),
    row("el1t_64_fiq"),
    row("el1t_64_error"),
    row("el1h_64_sync"),
    row("el1h_64_irq"),
    row("el1h_64_fiq"),
    row("el1h_64_error"),
    row("el0t_64_sync"),
    row("el0t_64_irq"),
    row("el0t_64_fiq"),
    row("el0t_64_error"),
    row("el0t_32_sync"),
    row("el0t_32_irq"),
    row("el0t_32_fiq"),
    row("el0t_32_error"),
];

/// The system calls of 32-bit programs: their SVC is another instruction, with the number in R7.
pub(super) const OTHER_CALLS: &[&str] = &["el0t_32_sync"];

/// The distance between two slots of `vectors`.
pub const SLOT: u64 = 0x80;

/// The label that the slot at this distance from `vectors` branches to.
#[must_use]
pub fn entry_at(distance: u64) -> Option<&'static KernelEntry> {
    ENTRIES.get(usize::try_from(distance / SLOT).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_in_the_order_of_the_architecture() {
        let of = |distance| entry_at(distance).map(|entry| entry.symbol);
        assert_eq!(of(0), Some("el1t_64_sync"));
        assert_eq!(of(0x280), Some("el1h_64_irq"));
        assert_eq!(of(0x47f), Some("el0t_64_sync"));
        assert_eq!(of(0x780), Some("el0t_32_error"));
        assert_eq!(of(0x800), None);
        assert_eq!(of(u64::MAX), None);
    }

    #[test]
    fn no_symbol_is_two_entries() {
        assert_eq!(ENTRIES.len(), 16);
        for (index, entry) in ENTRIES.iter().enumerate() {
            assert!(ENTRIES[..index].iter().all(|other| other.symbol != entry.symbol), "{}", entry.symbol);
        }
    }
}
