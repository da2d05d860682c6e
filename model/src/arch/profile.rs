//! A profile: which events serialize, which differences are exempt, how large the buffers are, who snoops, and whether
//! fetches see stores.
//!
//! Profiles are data of an [`crate::arch::architecture::Architecture`]; `with` and `without` change one by event names.

use crate::arch::exemption::Exemption;
use crate::arch::maintenance::{CacheType, Caches};
use crate::arch::sync_event::{SyncEventId, SyncEventSet};
use thiserror::Error;

/// The sizes of a vCPU's buffers and the rules of filling them.
///
/// The manuals give no bounds, so unbounded (`None`) is the default and the sound choice: a bound can only make the
/// model miss.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Buffers {
    /// The aligned block that one instruction fetch brings in, in bytes: a power of two.
    pub chunk: u32,
    /// How far past an executed instruction the prefetcher reads, in bytes.
    pub lookahead: u32,
    /// Capacity of the prefetch buffer in bytes.
    pub prefetch: Option<u32>,
    /// Capacity of the trace buffer in runs.
    pub trace: Option<u32>,
    /// May a vCPU have brought in any mapped byte at any time?
    pub speculation: bool,
    /// Does a CPU's own store to the linear address it executes from become visible at its next taken branch (the SDM's
    /// "option 1")?
    pub own_store_at_branch: bool,
}

impl Buffers {
    /// 16-byte chunks, no look-ahead, no bounds, no speculation, own stores visible at the next taken branch.
    pub const DEFAULT: Self =
        Self { chunk: 16, lookahead: 0, prefetch: None, trace: None, speculation: false, own_store_at_branch: true };
}

/// An event that counts only where it is a step of something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OnlyAt {
    /// The event.
    pub event: SyncEventId,
    /// The function that it has to belong to.
    pub function: &'static str,
}

/// Which code is judged.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Text {
    /// All.
    #[default]
    All,
    /// The kernel's: the upper half of the address space.
    Kernel,
}

/// A named set of assumptions about the hardware.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Profile {
    /// Stable name.
    pub name: &'static str,
    /// One line for `--help` and the docs.
    pub note: &'static str,
    /// The events that empty a vCPU's buffers.
    pub serializing: SyncEventSet,
    /// The differences that are allowed.
    pub exemptions: &'static [Exemption],
    /// Buffer sizes and rules.
    pub buffers: Buffers,
    /// Does every store empty the matching buffer entries of every vCPU at once?
    pub snoop: bool,
    /// Do fetches see stores, and what has to be done if not?
    pub caches: Caches,
    /// Events of `serializing` that count at one place only. That is for a caller that knows places by name: the model
    /// does not look at it.
    pub only_at: &'static [OnlyAt],
    /// Which code is judged, likewise.
    pub text: Text,
}

/// What can be wrong with a profile on the command line.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ProfileError {
    /// No profile has that name.
    #[error("unknown profile `{name}`; known are: {known}")]
    UnknownProfile {
        /// What was asked for.
        name: String,
        /// All names, joined by commas.
        known: String,
    },
    /// No event has that name.
    #[error("unknown event `{name}`{}", near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default())]
    UnknownEvent {
        /// What was asked for.
        name: String,
        /// The event whose name is closest, if any is close.
        near: Option<&'static str>,
    },
}

impl Profile {
    /// Does the profile count `event` as serializing?
    #[must_use]
    pub const fn serializes(&self, event: SyncEventId) -> bool {
        self.serializing.contains(event)
    }

    /// The profile on a guest with such caches: they count where the profile goes by them.
    #[must_use]
    pub const fn on(self, guest: CacheType) -> Self {
        Self { caches: self.caches.of_guest(guest), ..self }
    }

    /// The instruction caches that do not see stores, if the profile has any. Where every store is snooped there are
    /// none.
    #[must_use]
    pub const fn incoherent_caches(&self) -> Option<CacheType> {
        if self.snoop { None } else { self.caches.incoherent() }
    }

    /// Is it a matter of the event alone what serializes, and is all code judged? Only then the model itself can be
    /// asked.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.only_at.is_empty() && self.text == Text::All
    }
}
