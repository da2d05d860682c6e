//! Would the CPU let this access through? A walk through the guest's page tables (SDM vol. 3, "Paging").
//!
//! What the plugin API reads and writes by linear address goes through the page tables, too, but past their
//! permissions: a store would end up in a page that is shared until it is written to. So an injected instruction is
//! only carried out where the CPU would neither fault nor have to set a bit in a table.

use super::PAGE;
use icsan_model::arch::x86::interpret::Access;
use thiserror::Error;

/// What paging depends on, besides memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Paging {
    /// CR0.
    pub cr0: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// RFLAGS.
    pub flags: u64,
    /// Is it code of privilege level 3 that accesses?
    pub user: bool,
}

const CR0_WP: u64 = 1 << 16;
const CR4_LA57: u64 = 1 << 12;
const CR4_SMAP: u64 = 1 << 21;
const CR4_PKE: u64 = 1 << 22;
const CR4_PKS: u64 = 1 << 24;
const FLAGS_AC: u64 = 1 << 18;

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
/// The protection key of a leaf entry.
const KEY: u64 = 0xf << 59;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Why an access is not carried out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum NotAllowed {
    /// A table or the page is not present.
    #[error("it accesses a page that is not present")]
    NotPresent,
    /// A store to a page that is read-only, shared until it is written to perhaps.
    #[error("it stores to a page that is read-only")]
    ReadOnly,
    /// User code and a kernel's page, or the other way round where that is forbidden.
    #[error("it accesses a page of another privilege level")]
    Privilege,
    /// The page has a protection key other than 0. The register that says what that means is not looked at; key 0 is
    /// taken to allow everything, as Linux has it.
    #[error("it accesses a page with a protection key")]
    Keys,
    /// The CPU would have to set an accessed or dirty bit.
    #[error("it is the first access to a page")]
    First,
}

impl Paging {
    /// Does the CPU let the access through, and change nothing in the page tables? `read` reads eight bytes at a
    /// physical address.
    ///
    /// # Errors
    /// Why not.
    pub fn allows(&self, access: Access, write: bool, read: impl Fn(u64) -> Option<u64>) -> Result<(), NotAllowed> {
        let last = access.linear.wrapping_add(u64::from(access.len) - 1);
        self.allows_byte(access.linear, write, &read)?;
        if last / PAGE != access.linear / PAGE { self.allows_byte(last, write, &read) } else { Ok(()) }
    }

    fn allows_byte(&self, linear: u64, write: bool, read: &impl Fn(u64) -> Option<u64>) -> Result<(), NotAllowed> {
        let levels: u32 = if self.cr4 & CR4_LA57 != 0 { 5 } else { 4 };
        let mut table = self.cr3 & ADDRESS;
        let (mut writable, mut user) = (true, true);
        for level in (0..levels).rev() {
            let index = linear >> (12 + 9 * level) & 511;
            let entry = read(table + index * 8).ok_or(NotAllowed::NotPresent)?;
            if entry & PRESENT == 0 {
                return Err(NotAllowed::NotPresent);
            }
            writable &= entry & WRITABLE != 0;
            user &= entry & USER != 0;
            let leaf = level == 0 || (level <= 2 && entry & LARGE != 0);
            if entry & ACCESSED == 0 || (leaf && write && entry & DIRTY == 0) {
                return Err(NotAllowed::First);
            }
            if leaf && entry & KEY != 0 && self.cr4 & (CR4_PKE | CR4_PKS) != 0 {
                return Err(NotAllowed::Keys);
            }
            if leaf {
                break;
            }
            table = entry & ADDRESS;
        }
        let forbidden = if self.user { !user } else { user && self.cr4 & CR4_SMAP != 0 && self.flags & FLAGS_AC == 0 };
        if forbidden {
            return Err(NotAllowed::Privilege);
        }
        if write && !writable && (self.user || self.cr0 & CR0_WP != 0) {
            return Err(NotAllowed::ReadOnly);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{
        ACCESSED, CR0_WP, CR4_LA57, CR4_PKE, CR4_SMAP, DIRTY, FLAGS_AC, LARGE, NotAllowed, PRESENT, Paging, USER,
        WRITABLE,
    };
    use icsan_model::arch::x86::interpret::Access;
    use std::collections::BTreeMap;

    const LINEAR: u64 = 0x0000_1234_5678_9ff8;
    const ALL: u64 = PRESENT | WRITABLE | USER | ACCESSED | DIRTY;

    /// Tables for `LINEAR` and the page behind it, four levels, with these bits in the entries of the last level.
    fn tables(bits: [u64; 2]) -> BTreeMap<u64, u64> {
        let mut memory = BTreeMap::new();
        let mut table = 0x1000;
        for level in [3, 2, 1] {
            memory.insert(table + (LINEAR >> (12 + 9 * level) & 511) * 8, (table + 0x1000) | ALL);
            table += 0x1000;
        }
        let index = LINEAR >> 12 & 511;
        memory.insert(table + index * 8, 0x9000 | bits[0]);
        memory.insert(table + (index + 1) * 8, 0xa000 | bits[1]);
        memory
    }

    fn paging(user: bool) -> Paging {
        Paging { cr0: CR0_WP, cr3: 0x1000 | 0x18, cr4: CR4_SMAP, flags: FLAGS_AC, user }
    }

    fn ask(paging: Paging, memory: &BTreeMap<u64, u64>, linear: u64, write: bool) -> Result<(), NotAllowed> {
        paging.allows(Access { linear, len: 8 }, write, |at| memory.get(&at).copied())
    }

    #[test]
    fn both_pages_of_an_access_are_looked_at() {
        let memory = tables([ALL, ALL & !PRESENT]);
        assert_eq!(ask(paging(true), &memory, LINEAR, true), Ok(()));
        assert_eq!(ask(paging(true), &memory, LINEAR + 1, true), Err(NotAllowed::NotPresent));
        assert_eq!(ask(paging(true), &memory, LINEAR + (1 << 39), false), Err(NotAllowed::NotPresent));
    }

    #[test]
    fn permissions() {
        for (bits, user, write, expected) in [
            (ALL & !WRITABLE, true, true, Err(NotAllowed::ReadOnly)),
            (ALL & !WRITABLE, true, false, Ok(())),
            (ALL & !WRITABLE, false, true, Err(NotAllowed::ReadOnly)),
            (ALL & !USER, true, false, Err(NotAllowed::Privilege)),
            (ALL & !USER, false, true, Ok(())),
            (ALL & !DIRTY, true, true, Err(NotAllowed::First)),
            (ALL & !DIRTY, true, false, Ok(())),
            (ALL & !ACCESSED, true, false, Err(NotAllowed::First)),
        ] {
            assert_eq!(ask(paging(user), &tables([bits, ALL]), LINEAR, write), expected, "{bits:#x} {user} {write}");
        }
    }

    #[test]
    fn control_registers() {
        let memory = tables([ALL & !WRITABLE, ALL]);
        let kernel = paging(false);
        assert_eq!(ask(Paging { cr0: 0, ..kernel }, &memory, LINEAR, true), Ok(()), "without CR0.WP the kernel may");
        assert_eq!(ask(Paging { flags: 0, ..kernel }, &memory, LINEAR, false), Err(NotAllowed::Privilege), "SMAP");
        assert_eq!(ask(Paging { cr4: CR4_PKE, ..kernel }, &memory, LINEAR, false), Ok(()), "key 0");
        assert_eq!(
            ask(Paging { cr4: CR4_PKE, ..kernel }, &tables([ALL | 1 << 60, ALL]), LINEAR, false),
            Err(NotAllowed::Keys)
        );
        assert_eq!(
            ask(Paging { cr4: CR4_LA57, ..kernel }, &memory, LINEAR, false),
            Err(NotAllowed::NotPresent),
            "another table"
        );
    }

    #[test]
    fn large_pages_end_the_walk() {
        let mut memory = tables([0, 0]);
        let table = 0x3000 + (LINEAR >> 21 & 511) * 8;
        memory.insert(table, 0x20_0000 | ALL | LARGE);
        assert_eq!(ask(paging(true), &memory, LINEAR, true), Ok(()));
    }
}
