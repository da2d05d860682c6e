//! What may be executed instead of what stands in memory, and which rule that breaks.

pub mod candidates;
pub mod execution;
pub mod hazard;
pub(crate) mod judge;
pub mod kind;
pub mod last_sync;
