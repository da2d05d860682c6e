//! The version of the format.

/// The one that is written, and the latest that is read.
pub const VERSION: u32 = 1;
