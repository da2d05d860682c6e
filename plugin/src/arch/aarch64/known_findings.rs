//! The hazards of unmodified arm64 kernels that are explained (docs/findings.md).

use crate::arch::known_finding::KnownFinding;

/// The rows.
pub const KNOWN: &[KnownFinding] = &[];
