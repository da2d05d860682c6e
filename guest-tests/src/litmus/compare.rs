//! Sets of outcomes against each other.

use super::explore::Allowed;
use super::outcome::{Counts, Outcome};
use std::collections::BTreeSet;

/// How what was seen differs from what is allowed.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Difference {
    /// Seen and not allowed: unsound.
    pub extra: BTreeSet<Outcome>,
    /// Allowed and not seen: incomplete, where it had to be seen.
    pub missing: BTreeSet<Outcome>,
}

impl Difference {
    /// Compares.
    #[must_use]
    pub fn of(allowed: &Allowed, seen: &Counts) -> Self {
        Self {
            extra: seen.keys().filter(|outcome| !allowed.outcomes.contains(*outcome)).cloned().collect(),
            missing: allowed.outcomes.iter().filter(|outcome| !seen.contains_key(*outcome)).cloned().collect(),
        }
    }

    /// Is what was seen allowed?
    #[must_use]
    pub fn is_subset(&self) -> bool {
        self.extra.is_empty()
    }

    /// Is it all that is allowed, too?
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.is_subset() && self.missing.is_empty()
    }
}
