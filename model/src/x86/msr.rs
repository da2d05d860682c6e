//! The MSRs whose writes do not serialize, by Intel's footnotes.
//!
//! The footnote has grown: the older editions name two entries, the one of about 2024 seven. The table takes the
//! newest, since a write that is no longer promised to serialize must not be counted. A register that is not named
//! serializes, FS_BASE and GS_BASE among them.

/// Since which editions of the SDM an entry is in the footnote.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Edition {
    /// In the older editions already (2015 and before), and since.
    Older,
    /// Added by about 2024.
    Newer,
}

/// A range of MSR numbers, both ends included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MsrRange {
    /// First number.
    pub first: u32,
    /// Last number.
    pub last: u32,
    /// The register's name, or the group's.
    pub name: &'static str,
    /// When it came into the footnote.
    pub since: Edition,
}

const fn msrs(first: u32, last: u32, name: &'static str, since: Edition) -> MsrRange {
    MsrRange { first, last, name, since }
}

/// The footnoted MSRs, ascending. Source: SDM vol. 3A, "Serializing Instructions", and vol. 2D, WRMSR; the newer
/// entries were read in translation.
pub const NONSERIALIZING: &[MsrRange] = &[
    msrs(0x48, 0x48, "IA32_SPEC_CTRL", Edition::Newer),
    msrs(0x49, 0x49, "IA32_PRED_CMD", Edition::Newer),
    msrs(0x122, 0x122, "IA32_TSX_CTRL", Edition::Newer),
    msrs(0x6e0, 0x6e0, "IA32_TSC_DEADLINE", Edition::Older),
    msrs(0x6e1, 0x6e1, "IA32_PKRS", Edition::Newer),
    msrs(0x774, 0x774, "IA32_HWP_REQUEST", Edition::Newer),
    msrs(0x802, 0x83f, "x2APIC", Edition::Older),
];

/// Is `msr` one of the footnoted registers?
#[must_use]
pub fn is_nonserializing(msr: u32) -> bool {
    NONSERIALIZING.iter().any(|range| (range.first..=range.last).contains(&msr))
}
