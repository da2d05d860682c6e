//! Rows of programs that are the same on any architecture: what is right is right everywhere.

use super::{Scenario, bad, good};
use crate::verdict::Verdicts;

pub(super) const SYNC_CORE: Scenario =
    good("membarrier/sync-core", "the writer calls membarrier(PRIVATE_EXPEDITED_SYNC_CORE), registered");
pub(super) const REGISTERED_LATE: Scenario =
    good("membarrier/registered-late", "the same, registered while the executor runs already");

/// Says what there is if the executor does not serialize.
pub(super) const fn unregistered(full: Verdicts) -> Scenario {
    bad(
        "membarrier/unregistered",
        "membarrier/sync-core",
        full,
        "the writer calls SYNC_CORE unregistered, gets EPERM and goes on",
    )
}

pub(super) const OTHER_VIEW: Scenario = good(
    "views/other",
    "stores through the address it executes from, then calls the code at another address for the first time",
)
.on_one_cpu();

pub(super) const FRESH: Scenario =
    good("mapping/fresh", "new code at an address where nothing was mapped before, handed to another thread");
pub(super) const MAP_FIXED: Scenario = good("mapping/map-fixed", "maps other code over code that another thread ran");

/// Says what there is if the executor does not serialize.
pub(super) const fn pwrite(full: Verdicts) -> Scenario {
    bad(
        "mapping/pwrite",
        "mapping/pwrite-sync-core",
        full,
        "changes code by pwrite() to the memfd that another thread executes from",
    )
}

pub(super) const PWRITE_SYNC_CORE: Scenario = good(
    "mapping/pwrite-sync-core",
    "the same with membarrier(PRIVATE_EXPEDITED_SYNC_CORE) before the other thread goes on",
);

pub(super) const FORK: Scenario =
    good("process/fork", "a child runs code that its parent ran and then changed through an alias").on_one_cpu();
pub(super) const EXEC: Scenario =
    good("process/exec", "a program changes its text, runs it, and executes itself anew").on_one_cpu();
pub(super) const MIGRATE: Scenario =
    good("process/migrate", "a thread goes to another CPU, changes its code there and comes back");
pub(super) const MIGRATE_REGISTERED: Scenario =
    good("process/migrate-registered", "the same, registered for SYNC_CORE: the scheduler serializes");

pub(super) const COMMITTED_BY_SYNC_CORE: Scenario = good(
    "commit/sync-core",
    "the writer calls membarrier(PRIVATE_EXPEDITED_SYNC_CORE), and its patch of two chunks is done",
);
