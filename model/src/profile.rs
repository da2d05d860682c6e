//! A profile: which events serialize, which differences are exempt, how large the buffers are, who snoops.
//!
//! Profiles are data of an [`Architecture`]; `with` and `without` change one by event names.

use crate::architecture::Architecture;
use crate::exemption::Exemption;
use crate::sync_event::{SyncEventId, SyncEventSet};
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
    pub const DEFAULT: Self = Self { chunk: 16, lookahead: 0, prefetch: None, trace: None, speculation: false, own_store_at_branch: true };
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
    /// Events of `serializing` that count at one place only. That is for whoever knows places by name: the model does
    /// not look at it.
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
    /// Looks a profile up and applies `with` and `without`, in that order.
    ///
    /// # Errors
    /// Unknown names of profiles and events.
    pub fn select(arch: &Architecture, name: Option<&str>, with: &[String], without: &[String]) -> Result<Self, ProfileError> {
        let mut profile = match name {
            None => *arch.default_profile(),
            Some(name) => *arch.profile(name).ok_or_else(|| ProfileError::UnknownProfile {
                name: name.to_owned(),
                known: arch.profiles.iter().map(|profile| profile.name).collect::<Vec<_>>().join(", "),
            })?,
        };
        for name in with {
            profile.serializing = profile.serializing.with(event(arch, name)?);
        }
        for name in without {
            profile.serializing = profile.serializing.without(event(arch, name)?);
        }
        Ok(profile)
    }

    /// Does the profile count `event` as serializing?
    #[must_use]
    pub const fn serializes(&self, event: SyncEventId) -> bool {
        self.serializing.contains(event)
    }

    /// Is it a matter of the event alone what serializes, and is all code judged? Only then the model itself can be
    /// asked.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.only_at.is_empty() && self.text == Text::All
    }
}

fn event(arch: &Architecture, name: &str) -> Result<SyncEventId, ProfileError> {
    arch.event_by_name(name).ok_or_else(|| ProfileError::UnknownEvent {
        name: name.to_owned(),
        near: arch
            .events
            .iter()
            .map(|row| (distance(row.name, name), row.name))
            .min()
            .filter(|(distance, _)| *distance <= name.len() / 3 + 1)
            .map(|(_, near)| near),
    })
}

/// Levenshtein's distance in bytes, for "did you mean".
fn distance(a: &str, b: &str) -> usize {
    let b = b.as_bytes();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let insert_or_delete = row[j].min(row[j + 1]) + 1;
            let replace = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = insert_or_delete.min(replace);
        }
    }
    row[b.len()]
}
