//! Serializing events, and the events that are commonly mistaken for them, as rows of a table.
//!
//! The table of an architecture is data ([`crate::arch::architecture::Architecture::events`]); a row says what each
//! vendor's manual says of the event, where, and how sure we are of it. Which rows empty a vCPU's buffers is the choice
//! of a [`crate::arch::profile::Profile`], never of this table.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Index of a row in the event table of an architecture.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SyncEventId(pub u8);

impl fmt::Debug for SyncEventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SyncEventId({})", self.0)
    }
}

/// What a manual says: does the event serialize the instruction stream?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Word {
    /// The manual lists it as serializing.
    Yes,
    /// The manual says that it does not, or gives a complete list that lacks it.
    No,
    /// No statement was found.
    Unstated,
}

/// How a claim came to us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sure {
    /// The primary text, or a faithful reproduction of it, was read.
    Confirmed,
    /// A paraphrase of the primary text, by another author, was read.
    Secondary,
    /// From memory; plausible, not checked.
    Memory,
    /// Our own inference.
    Inferred,
}

/// One authority's word on one event.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// Does it serialize?
    pub word: Word,
    /// How sure we are that the authority says so.
    pub sure: Sure,
    /// Where it stands: manual, section by title (numbers move between editions).
    pub source: &'static str,
}

/// One row: an event that a vCPU can meet.
#[derive(Clone, Copy, Debug)]
pub struct SyncEvent {
    /// Stable name, as used by `with=`, `without=` and in reports: lower case, words joined by `-`.
    pub name: &'static str,
    /// How it is recognised: encoding, and what must be looked up at run time.
    pub encoding: &'static str,
    /// The word of each vendor, in the order of [`crate::arch::architecture::Architecture::vendors`].
    pub claims: &'static [Claim],
    /// What a reader should know besides: exceptions, emulation, surprises.
    pub note: &'static str,
}

/// Makes the event table of an architecture, `EVENTS`; a constant for the id of each row; and `SEEN`, the rows' `Seen`,
/// which is the architecture's own. A row has the claim of each vendor in brackets.
macro_rules! event_table {
    ($($id:ident, $name:literal, $seen:ident, $encoding:literal,
        $([$word:ident $sure:ident $source:expr]),+,
        $note:literal;)*) => {
        #[repr(u8)]
        #[allow(non_camel_case_types, clippy::upper_case_acronyms)]
        enum Row { $($id),* }

        $(
            #[doc = concat!("`", $name, "`: ", $encoding, ".")]
            pub const $id: SyncEventId = SyncEventId(Row::$id as u8);
        )*

        /// The rows, in the order of their ids.
        pub const EVENTS: &[SyncEvent] = &[$(SyncEvent {
            name: $name,
            encoding: $encoding,
            claims: &[$(Claim { word: Word::$word, sure: Sure::$sure, source: $source }),+],
            note: $note,
        }),*];

        const SEEN: &[Seen] = &[$(Seen::$seen),*];
    };
}
pub(crate) use event_table;

/// A set of events of one architecture.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct SyncEventSet(u128);

impl SyncEventSet {
    /// The empty set.
    pub const EMPTY: Self = Self(0);

    /// How many rows a table can have.
    pub const CAPACITY: usize = 128;

    /// The set with `event` added. An id that no table can have is ignored.
    #[must_use]
    pub const fn with(self, event: SyncEventId) -> Self {
        Self(self.0 | Self::bit(event))
    }

    /// The set with `event` taken away.
    #[must_use]
    pub const fn without(self, event: SyncEventId) -> Self {
        Self(self.0 & !Self::bit(event))
    }

    const fn bit(event: SyncEventId) -> u128 {
        if (event.0 as usize) < Self::CAPACITY { 1 << event.0 } else { 0 }
    }

    /// Is `event` in the set?
    #[must_use]
    pub const fn contains(self, event: SyncEventId) -> bool {
        self.0 & Self::bit(event) != 0
    }

    /// Is every event of this set in `other`?
    #[must_use]
    pub const fn is_subset(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    /// The members, in the order of the table.
    pub fn iter(self) -> impl Iterator<Item = SyncEventId> {
        (0..Self::CAPACITY as u8).map(SyncEventId).filter(move |event| self.contains(*event))
    }
}

impl FromIterator<SyncEventId> for SyncEventSet {
    fn from_iter<I: IntoIterator<Item = SyncEventId>>(events: I) -> Self {
        events.into_iter().fold(Self::EMPTY, Self::with)
    }
}

impl fmt::Debug for SyncEventSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}
