//! An architecture as data: its event table, its profiles, its vendors, where its manuals state the rules.
//!
//! The core of the model knows no architecture. Each is a folder beside this file, with its own tables;
//! [`crate::arch::registry`] finds one by its name.

use crate::arch::decode::Decode;
use crate::arch::profile::Profile;
use crate::arch::rule::{RuleSource, RuleSources};
use crate::arch::sync_event::{SyncEvent, SyncEventId};
use crate::verdict::kind::Kind;

/// Everything that the model needs to know of an instruction set.
#[derive(Clone, Copy, Debug)]
pub struct Architecture {
    /// QEMU's name of the target.
    pub name: &'static str,
    /// Whose manuals the claims of an event row quote, in the order of the claims.
    pub vendors: &'static [&'static str],
    /// The event table: at most [`crate::arch::sync_event::SyncEventSet::CAPACITY`] rows.
    pub events: &'static [SyncEvent],
    /// The profiles by name, the default first.
    pub profiles: &'static [Profile],
    /// The longest instruction, in bytes.
    pub max_instruction: usize,
    /// How long instructions are. `None` where this build has no decoder of the instruction set.
    pub decoder: Option<&'static dyn Decode>,
    /// Where the manuals state the rule behind each kind of hazard. A kind that is missing breaks no rule of theirs.
    pub rules: &'static [RuleSources],
}

impl Architecture {
    /// Where the rule behind a kind of hazard is stated: the place to print.
    #[must_use]
    pub fn source(&self, kind: Kind) -> Option<&'static RuleSource> {
        self.rules.iter().find(|row| row.kind == kind)?.sources.first()
    }

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
