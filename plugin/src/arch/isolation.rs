//! Page-table isolation: which two page tables belong to one process.

/// Does the kernel isolate its page tables from the user's? With isolation a process has two tables, and user mode runs
/// on the user's half only. Without, a process has one, of one page, and two neighbours are two processes.
///
/// It is possible as long as nothing is known against it: user mode ran on a table that is no user's half.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Isolation {
    /// The bit of a table's address that the user's half has and the kernel's has not; 0: there is no isolation.
    user_half: u64,
}

impl Isolation {
    /// Nothing is known against it, on a machine whose user's halves have this bit of their addresses; 0: Linux never
    /// gives a process two tables of which one address leads to the other.
    #[must_use]
    pub fn new(user_half: u64) -> Self {
        Self { user_half }
    }

    /// User mode runs on this table.
    pub fn sees_user_mode(&mut self, table: u64) {
        if table & self.user_half == 0 {
            self.user_half = 0;
        }
    }

    /// Is it the half of a pair that user mode runs on?
    #[must_use]
    pub fn is_user_half(self, table: u64) -> bool {
        table & self.user_half != 0
    }

    /// Are these the table of a process in user mode, and of the same one in the kernel?
    #[must_use]
    pub fn is_one_process(self, user: u64, kernel: u64) -> bool {
        user == kernel || self.is_user_half(user) && user ^ self.user_half == kernel
    }
}

#[cfg(test)]
mod tests {
    use super::Isolation;

    #[test]
    fn a_pair_is_one_process_unless_user_mode_ran_without_isolation() {
        let mut isolation = Isolation::new(1 << 12);
        assert!(isolation.is_one_process(0x8c_9000, 0x8c_8000) && isolation.is_one_process(0x8c_9000, 0x8c_9000));
        assert!(!isolation.is_one_process(0x8c_8000, 0x8c_9000), "user mode never runs on the kernel's half");
        assert!(!isolation.is_one_process(0x8c_9000, 0x8c_a000), "a pair is aligned");
        isolation.sees_user_mode(0x8c_9000);
        assert!(isolation.is_one_process(0x8c_9000, 0x8c_8000));
        isolation.sees_user_mode(0x6a_2000);
        assert!(!isolation.is_one_process(0x8c_9000, 0x8c_8000) && isolation.is_one_process(0x8c_9000, 0x8c_9000));
        isolation.sees_user_mode(0x8c_9000);
        assert_eq!(isolation, Isolation::new(0));
    }
}
