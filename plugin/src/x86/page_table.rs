//! Which page table a value of CR3 names, and which two of them belong to one process.

/// The part of CR3 that is an address: the rest is PCID and flags (SDM vol. 3A, "Use of CR3 with 4-Level Paging").
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// The bit by which page-table isolation tells the user's half of a pair of tables from the kernel's; the pair is 8
/// KiB, aligned (arch/x86/entry/calling.h,
/// `PTI_USER_PGTABLE_BIT`).
const USER_HALF: u64 = 1 << 12;

/// The physical address of the page table that CR3 names.
#[must_use]
pub const fn of_cr3(cr3: u64) -> u64 {
    cr3 & ADDRESS
}

/// Does the kernel isolate its page tables from the user's? With isolation a process has two tables, and user mode runs
/// on the user's half only. Without, a process has one, of one
/// page, and two neighbours are two processes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Isolation {
    /// Nothing is known against it.
    #[default]
    Possible,
    /// User mode ran on a table that is no user's half.
    Off,
}

impl Isolation {
    /// User mode runs on this table.
    pub fn sees_user_mode(&mut self, table: u64) {
        if table & USER_HALF == 0 {
            *self = Self::Off;
        }
    }

    /// Is it the half of a pair that user mode runs on?
    #[must_use]
    pub fn is_user_half(self, table: u64) -> bool {
        self == Self::Possible && table & USER_HALF != 0
    }

    /// Are these the table of a process in user mode, and of the same one in the kernel?
    #[must_use]
    pub fn is_one_process(self, user: u64, kernel: u64) -> bool {
        user == kernel || self.is_user_half(user) && user ^ USER_HALF == kernel
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_of_cr3_are_no_part_of_the_table() {
        assert_eq!(of_cr3(0x8000_0000_008c_9803), 0x8c_9000);
        assert_ne!(of_cr3(0x8c_8000), of_cr3(0x8c_9000));
    }

    #[test]
    fn a_pair_is_one_process_unless_user_mode_ran_without_isolation() {
        let mut isolation = Isolation::default();
        assert!(isolation.is_one_process(0x8c_9000, 0x8c_8000) && isolation.is_one_process(0x8c_9000, 0x8c_9000));
        assert!(!isolation.is_one_process(0x8c_8000, 0x8c_9000), "user mode never runs on the kernel's half");
        assert!(!isolation.is_one_process(0x8c_9000, 0x8c_a000), "a pair is aligned");
        isolation.sees_user_mode(0x8c_9000);
        assert!(isolation.is_one_process(0x8c_9000, 0x8c_8000));
        isolation.sees_user_mode(0x6a_2000);
        assert!(!isolation.is_one_process(0x8c_9000, 0x8c_8000) && isolation.is_one_process(0x8c_9000, 0x8c_9000));
        isolation.sees_user_mode(0x8c_9000);
        assert_eq!(isolation, Isolation::Off);
    }
}
