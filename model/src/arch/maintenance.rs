//! How an instruction cache that does not see stores is kept right: what a guest does for it, and how much of that the
//! hardware asks for.
//!
//! A store must be *clean* (as far down as the instruction caches fill from), its line *invalidated* in them, and both
//! *complete*: a barrier of a wide enough domain says when. [`crate::fetch::instruction_cache`] is what it does.

use crate::addr::Phys;
use serde::{Deserialize, Serialize};

/// A maintenance instruction, with the physical address of any byte of the line that it names.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Maintenance {
    /// The line is cleaned to where instruction caches fill from.
    Clean(Phys),
    /// The line is invalidated in the instruction caches of every CPU of the domain.
    Invalidate(Phys),
    /// All lines are.
    InvalidateAll,
    /// All lines of the CPU's own instruction cache are.
    InvalidateOwn,
    /// The CPU's own fetches find what was stored before this, from now on, and no barrier is needed for that.
    FetchFence,
}

/// How far a barrier reaches. Each holds the ones before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Domain {
    /// The CPU itself.
    Own,
    /// The CPUs that run one operating system.
    Inner,
    /// Other observers, too.
    Outer,
    /// The full system.
    System,
}

impl Domain {
    /// Does it hold every CPU of the guest?
    #[must_use]
    pub fn holds_all(self) -> bool {
        self >= Self::Inner
    }
}

/// Which accesses a barrier waits for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Accesses {
    /// Loads: it completes neither stores nor maintenance.
    Loads,
    /// Stores, but no maintenance.
    Stores,
    /// Everything before it.
    All,
}

/// How much of it the hardware asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Needs {
    /// What the guest's cache type register says, which has to be looked up. Where nobody did, everything.
    Guest,
    /// Stores must be cleaned, and their lines invalidated.
    CleanAndInvalidate,
    /// Lines must be invalidated; a store needs no clean, but has to be complete.
    Invalidate,
    /// Nothing: every fetch finds what was stored before.
    Nothing,
}

/// A guest's instruction caches: what they need, and the lines that it is done by.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CacheType {
    /// What they need.
    pub needs: Needs,
    /// The line that a clean is good for, in bytes: a power of two.
    pub data_line: u64,
    /// The line that an invalidate is good for, in bytes: a power of two.
    pub instruction_line: u64,
}

impl CacheType {
    /// Lines of 64 bytes.
    #[must_use]
    pub const fn of(needs: Needs) -> Self {
        Self { needs, data_line: 64, instruction_line: 64 }
    }
}

/// Whether fetches see stores.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Caches {
    /// Every fetch finds what was stored before, by the architecture. A CPU that executes older code has fetched it
    /// before: what that breaks depends on whose store it was, and through which address.
    Coherent,
    /// The architecture asks for maintenance, this guest's hardware perhaps for less. Whose store it was makes no
    /// difference; which step was left out does.
    Maintained(CacheType),
}

impl Caches {
    /// The caches that do not see stores, if there are any.
    #[must_use]
    pub const fn incoherent(self) -> Option<CacheType> {
        match self {
            Self::Coherent | Self::Maintained(CacheType { needs: Needs::Nothing, .. }) => None,
            Self::Maintained(caches) => Some(caches),
        }
    }

    /// The same, where what the guest's cache type register says has been looked up: it counts where the profile goes
    /// by it, and its lines do in any case.
    #[must_use]
    pub const fn of_guest(self, guest: CacheType) -> Self {
        match self {
            Self::Coherent => Self::Coherent,
            Self::Maintained(CacheType { needs: Needs::Guest, .. }) => Self::Maintained(guest),
            Self::Maintained(CacheType { needs, .. }) => Self::Maintained(CacheType { needs, ..guest }),
        }
    }
}
