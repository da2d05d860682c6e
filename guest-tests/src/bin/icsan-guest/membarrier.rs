//! `handover/` and `membarrier/`: what stands between the store and the execution.

use crate::hand_over::{HandOver, hand_over, nothing};
use crate::outcome::{Attempt, Outcome};
use crate::shape::Kind;
use crate::sys::{Membarrier, membarrier};
use icsan_guest_tests::code::fences;
use std::io;

const SHAPE: Kind = Kind::PLAIN;

/// A flag only.
pub fn no_sync() -> Attempt {
    hand_over(SHAPE, HandOver { writer: nothing, executor: || {}, serializes: false })
}

/// All that orders memory.
pub fn fences_only() -> Attempt {
    hand_over(SHAPE, HandOver { writer: nothing, executor: fences, serializes: false })
}

/// The writer's `membarrier(PRIVATE_EXPEDITED_SYNC_CORE)`.
pub fn sync_core() -> io::Result<()> {
    membarrier(Membarrier::SyncCore)
}

/// Registered SYNC_CORE.
pub fn registered() -> Attempt {
    membarrier(Membarrier::RegisterSyncCore)?;
    hand_over(SHAPE, HandOver { writer: sync_core, executor: || {}, serializes: true })
}

/// Registered SYNC_CORE, for the first time and again, while the executor runs: the writer's first change does it.
pub fn registered_late() -> Attempt {
    let late = || {
        membarrier(Membarrier::RegisterSyncCore)?;
        sync_core()
    };
    hand_over(SHAPE, HandOver { writer: late, executor: || {}, serializes: true })
}

/// Registered PRIVATE_EXPEDITED. That its IPI serializes is a side effect that a CPU of today has, so the outcome is
/// judged.
pub fn plain() -> Attempt {
    membarrier(Membarrier::RegisterPrivateExpedited)?;
    hand_over(
        SHAPE,
        HandOver { writer: || membarrier(Membarrier::PrivateExpedited), executor: || {}, serializes: true },
    )
}

/// SYNC_CORE that this process has not registered for.
pub fn unregistered() -> Attempt {
    match sync_core() {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {}
        Err(error) => return Err(error),
        Ok(()) => return Ok(Outcome::Failed("SYNC_CORE worked without registration".into())),
    }
    let ignored = || {
        let _ = sync_core();
        Ok(())
    };
    hand_over(SHAPE, HandOver { writer: ignored, executor: || {}, serializes: false })
}
