//! The kinds of hazards: which rule is broken.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What happened. What an execution shows comes first, worst first; what a commit shows is last, since recordings hold
/// the numbers of the others.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
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
    /// Somebody else's store, or one that nobody was seen to make, with no serializing event since.
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
}

impl Kind {
    /// Every kind, in the order of their numbers.
    pub const ALL: [Self; 8] = [
        Self::Torn,
        Self::Stale,
        Self::Alias,
        Self::Smc,
        Self::Unserialized,
        Self::Emulator,
        Self::Speculative,
        Self::Unsynced,
    ];

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
        }
    }

    /// The kind of that name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
