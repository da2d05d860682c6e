//! Hazards that are true findings outside of all scenarios: firmware and kernels that rely on more than the profile
//! grants. Counted, not failed.

use crate::report::Hazard;
use icsan_guest_tests::glob::matches_any;
use icsan_guest_tests::verdict::x86::{FRED, SDM_STRICT};
use icsan_guest_tests::verdict::{Kind, Mode, Profile};

/// One finding that is understood.
#[derive(Clone, Copy, Debug)]
pub struct Explained {
    /// Under which profiles.
    pub profiles: &'static [Profile],
    /// In which modes.
    pub modes: &'static [Mode],
    /// Of which kinds.
    pub kinds: &'static [Kind],
    /// Where: a glob over the symbol, offset and all; empty if the place has no symbol.
    pub symbol: &'static str,
    /// Between which addresses, the second not included.
    pub pc: (u64, u64),
    /// Only if one side is INT3.
    pub breakpoint: bool,
    /// Why it is true, and whose it is.
    pub why: &'static str,
}

/// All of them.
pub const EXPLAINED: &[Explained] = &[
    Explained {
        profiles: &[FRED],
        modes: &[Mode::Light],
        kinds: &[Kind::Unserialized],
        symbol: "",
        // Where QEMU loads the kernel's real-mode part.
        pc: (0x10000, 0x20000),
        breakpoint: false,
        why: "intcall() of the kernel's real-mode part stores the number into its INT instruction and jumps: legal, but the light mode sees no store; \
              the other profiles count the IRET of the BIOS",
    },
    Explained {
        profiles: &[SDM_STRICT],
        modes: &[Mode::Light, Mode::Full],
        kinds: &[Kind::Unserialized],
        symbol: "*",
        pc: (0xffff_8000_0000_0000, u64::MAX),
        breakpoint: true,
        why: "the kernel flips jump labels of its own while it boots (sched_clock_cpu was seen): this profile has no INT3 exemption, so a CPU that meets \
              the breakpoint in the epoch of the old bytes breaks its rule",
    },
];

/// Looks up why a hazard is true: ICSAN itself may know, or it is one of ours.
#[must_use]
pub fn explain(hazard: &Hazard, mode: Mode, profile: Profile) -> Option<&str> {
    if let Some(page) = &hazard.known {
        return Some(page);
    }
    EXPLAINED
        .iter()
        .find(|row| {
            let place = match &hazard.symbol {
                Some(symbol) => !row.symbol.is_empty() && matches_any(row.symbol, symbol),
                None => row.symbol.is_empty(),
            };
            place
                && (hazard.breakpoint || !row.breakpoint)
                && row.kinds.contains(&hazard.kind)
                && row.modes.contains(&mode)
                && row.profiles.contains(&profile)
                && (row.pc.0..row.pc.1).contains(&hazard.pc)
        })
        .map(|row| row.why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use icsan_guest_tests::marker::Marker;
    use icsan_guest_tests::verdict::x86::LINUX_X86;

    #[test]
    fn by_symbol_and_by_address() {
        let hazard = |pc, symbol: Option<&str>| Hazard {
            kind: Kind::Unserialized,
            vcpu: 0,
            pc,
            symbol: symbol.map(str::to_owned),
            marker: Marker::OUTSIDE,
            count: 1,
            known: None,
            breakpoint: false,
            writers: Vec::new(),
            stores: Vec::new(),
            protocol: None,
        };
        let mut kernel = hazard(0xffff_ffff_8100_0000, Some("memcpy_orig+0xf3/0x130"));
        assert!(explain(&kernel, Mode::Light, LINUX_X86).is_none(), "by its place alone it is not");
        kernel.known = Some("docs/findings.md#memcpy_orig".into());
        assert_eq!(explain(&kernel, Mode::Light, LINUX_X86), Some("docs/findings.md#memcpy_orig"));
        assert!(explain(&hazard(0x102fe, None), Mode::Light, FRED).is_some());
        assert!(explain(&hazard(0x102fe, None), Mode::Full, FRED).is_none());
        assert!(explain(&hazard(0x102fe, Some("main+0x1/0x2")), Mode::Light, FRED).is_none());
        assert!(explain(&hazard(0xffff_ffff_8100_0000, Some("schedule+0x1/0x9")), Mode::Light, LINUX_X86).is_none());
    }
}
