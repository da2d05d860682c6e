//! Which profile the user chose, and what the user changed of it.

use crate::arch::architecture::Architecture;
use crate::arch::profile::{Profile, ProfileError};
use crate::arch::sync_event::SyncEventId;

impl Profile {
    /// Looks a profile up and applies `with` and `without`, in that order.
    ///
    /// # Errors
    /// Unknown names of profiles and events.
    pub fn select(
        arch: &Architecture,
        name: Option<&str>,
        with: &[String],
        without: &[String],
    ) -> Result<Self, ProfileError> {
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
