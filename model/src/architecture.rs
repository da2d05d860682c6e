//! An architecture as data: its event table, its profiles, its vendors.
//!
//! The core of the model knows no architecture. `x86/` holds the first one; another is another folder with another
//! table.

use crate::profile::Profile;
use crate::sync_event::{SyncEvent, SyncEventId};

/// Everything that the model needs to know of an instruction set.
#[derive(Clone, Copy, Debug)]
pub struct Architecture {
    /// QEMU's name of the target, such as `x86_64`.
    pub name: &'static str,
    /// Whose manuals the claims of an event row quote, in the order of the claims.
    pub vendors: &'static [&'static str],
    /// The event table: at most [`crate::sync_event::SyncEventSet::CAPACITY`] rows.
    pub events: &'static [SyncEvent],
    /// The profiles by name, the default first.
    pub profiles: &'static [Profile],
    /// The longest instruction, in bytes.
    pub max_instruction: usize,
}

impl Architecture {
    /// The row of an event. A foreign id (of a longer table) gives `None`.
    #[must_use]
    pub fn event(&self, id: SyncEventId) -> Option<&'static SyncEvent> {
        self.events.get(usize::from(id.0))
    }

    /// The name of an event, `?` for a foreign id.
    #[must_use]
    pub fn event_name(&self, id: SyncEventId) -> &'static str {
        self.event(id).map_or("?", |row| row.name)
    }

    /// The event of that name.
    #[must_use]
    pub fn event_by_name(&self, name: &str) -> Option<SyncEventId> {
        self.events.iter().position(|row| row.name == name).map(|index| SyncEventId(index as u8))
    }

    /// The profile that is used if the user names none.
    #[must_use]
    pub fn default_profile(&self) -> &'static Profile {
        &self.profiles[0]
    }

    /// The profile of that name.
    #[must_use]
    pub fn profile(&self, name: &str) -> Option<&'static Profile> {
        self.profiles.iter().find(|profile| profile.name == name)
    }
}
