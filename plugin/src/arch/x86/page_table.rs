//! Which page table a value of CR3 names.

/// The part of CR3 that is an address: the rest is PCID and flags (SDM vol. 3A, "Use of CR3 with 4-Level Paging").
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// The bit by which page-table isolation tells the user's half of a pair of tables from the kernel's; the pair is 8
/// KiB, aligned (arch/x86/entry/calling.h, `PTI_USER_PGTABLE_BIT`).
pub const USER_HALF: u64 = 1 << 12;

/// The physical address of the page table that CR3 names.
#[must_use]
pub const fn of_cr3(cr3: u64) -> u64 {
    cr3 & ADDRESS
}

#[cfg(test)]
mod tests {
    use super::{USER_HALF, of_cr3};

    #[test]
    fn the_flags_of_cr3_are_no_part_of_the_table() {
        assert_eq!(of_cr3(0x8000_0000_008c_9803), 0x8c_9000);
        assert_eq!(of_cr3(0x8c_8000) ^ USER_HALF, of_cr3(0x8c_9000));
    }
}
