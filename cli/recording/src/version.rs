//! The version of the format.

/// The one that is written, and the latest that is read. All before are read as well:
///
/// 1. The first.
/// 2. Maintenance, barriers, and the guest's caches, in records and in the header ([`crate::Header::caches`]).
pub const VERSION: u32 = 2;

/// The last one whose header does not have the guest's caches.
pub(crate) const WITHOUT_CACHES: u32 = 1;
