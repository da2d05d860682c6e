//! The kinds of hazards: which rule is broken.

use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::fmt;

/// What happened. The numbers are those that recordings hold; the order is [`Kind::WORST_FIRST`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A candidate mixes versions that never stood in memory together.
    Torn,
    /// The commit is past, and a candidate is older than it.
    Stale,
    /// Own store through another linear address, with no serializing event since.
    Alias,
    /// Own store, with neither a taken branch nor a serializing event since.
    Smc,
    /// Another CPU's store, or one that no CPU was seen to make, with no serializing event since.
    Unserialized,
    /// Not the guest's fault: the emulator ran what memory has not held for a while. The model never says this; a
    /// plugin does.
    Emulator,
    /// Never brought in during this epoch, but it could have been.
    Speculative,
    /// No execution: a patch was taken for done (or its next step was begun), and the protocol had not made every CPU
    /// serialize since the last store. Worse than what executions show but for [`Kind::Torn`] and [`Kind::Stale`]. The
    /// model never says this; a plugin does.
    Unsynced,
    /// The hardware asks for maintenance, and the line was not cleaned after the store.
    Unclean,
    /// The store is clean, and the line was not invalidated after that.
    Uninvalidated,
    /// Clean and invalidate were both done, but a barrier of a wide enough domain is missing between or behind them;
    /// or, where no clean is needed, the store itself was not complete.
    Incomplete,
    /// All maintenance is done, and the executor has not synchronized since: it may have fetched the old bytes before.
    Unsynchronized,
}

impl Kind {
    /// Every kind, in the order of their numbers.
    pub const ALL: [Self; 12] = [
        Self::Torn,
        Self::Stale,
        Self::Alias,
        Self::Smc,
        Self::Unserialized,
        Self::Emulator,
        Self::Speculative,
        Self::Unsynced,
        Self::Unclean,
        Self::Uninvalidated,
        Self::Incomplete,
        Self::Unsynchronized,
    ];

    /// Every kind: what an execution shows first, worst first; what a commit shows is last.
    pub const WORST_FIRST: [Self; 12] = [
        Self::Torn,
        Self::Stale,
        Self::Unclean,
        Self::Uninvalidated,
        Self::Incomplete,
        Self::Unsynchronized,
        Self::Alias,
        Self::Smc,
        Self::Unserialized,
        Self::Emulator,
        Self::Speculative,
        Self::Unsynced,
    ];

    /// Its place in [`Kind::WORST_FIRST`], by number.
    const RANKS: [u8; 12] = {
        let (mut ranks, mut place) = ([0; 12], 0);
        while place < 12 {
            ranks[Self::WORST_FIRST[place] as usize] = place as u8;
            place += 1;
        }
        ranks
    };

    /// The stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Torn => "torn",
            Self::Stale => "stale",
            Self::Alias => "alias",
            Self::Smc => "smc",
            Self::Unserialized => "unserialized",
            Self::Emulator => "emulator",
            Self::Speculative => "speculative",
            Self::Unsynced => "unsynced",
            Self::Unclean => "unclean",
            Self::Uninvalidated => "uninvalidated",
            Self::Incomplete => "incomplete",
            Self::Unsynchronized => "unsynchronized",
        }
    }

    /// The kind of that name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl Ord for Kind {
    fn cmp(&self, other: &Self) -> Ordering {
        Self::RANKS[*self as usize].cmp(&Self::RANKS[*other as usize])
    }
}

impl PartialOrd for Kind {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
