//! The last serializing event of a vCPU, as a hazard tells of it.

use crate::addr::{Linear, Seq};
use crate::arch::sync_event::SyncEventId;
use serde::{Deserialize, Serialize};

/// What began a vCPU's epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LastSync {
    /// The event; `None` for a reset.
    pub event: Option<SyncEventId>,
    /// The instruction; `None` for a reset.
    pub pc: Option<Linear>,
    /// Its place in the order.
    pub seq: Seq,
}
