//! The instructions that may be changed into each other while another CPU executes them, without synchronization: each
//! execution is then of the old or of the new one, freely chosen until the executor synchronizes.
//!
//! Source: DDI0487 B2.2.5, "Concurrent modification and execution of instructions", as a comment of Arm's in herd
//! (AArch64Arch_herd.ml, 2023) lists it. The issue of 2018 has eight of them: B, BL, BRK, HVC, ISB, NOP, SMC, SVC.
//!
//! Where both are conditional branches, the manual lets an executor take the old condition with the new target, or the
//! new one with the old. Each such mix is itself an instruction of the list, so it is covered as well.

use crate::arch::exemption::WordPattern;

const fn row(value: u32, mask: u32) -> WordPattern {
    WordPattern { mask, value }
}

/// The thirteen.
pub const CMODX: &[WordPattern] = &[
    // B, BL.
    row(0x1400_0000, 0xfc00_0000),
    row(0x9400_0000, 0xfc00_0000),
    // B.cond; BC.cond is another instruction, and not in the list.
    row(0x5400_0000, 0xff00_0010),
    // CBZ, CBNZ, TBZ, TBNZ.
    row(0x3400_0000, 0x7f00_0000),
    row(0x3500_0000, 0x7f00_0000),
    row(0x3600_0000, 0x7f00_0000),
    row(0x3700_0000, 0x7f00_0000),
    // SVC, HVC, SMC, BRK.
    row(0xd400_0001, 0xffe0_001f),
    row(0xd400_0002, 0xffe0_001f),
    row(0xd400_0003, 0xffe0_001f),
    row(0xd420_0000, 0xffe0_001f),
    // ISB, whatever its option.
    row(0xd503_30df, 0xffff_f0ff),
    // NOP. YIELD, WFE and the other hints are not in the list.
    row(0xd503_201f, 0xffff_ffff),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(word: u32) -> bool {
        CMODX.iter().any(|pattern| pattern.matches(word))
    }

    #[test]
    fn the_list_is_these_and_no_others() {
        // b, bl, b.eq, cbz w0, cbz x0, cbnz, tbz, tbnz, svc, hvc, smc, brk, isb, isb #0, nop.
        for word in [
            0x1400_0001,
            0x9400_0001,
            0x5400_0020,
            0x3400_0020,
            0xb400_0020,
            0x3500_0020,
            0x3600_0020,
            0xb708_0020,
            0xd400_0001,
            0xd400_0002,
            0xd400_0003,
            0xd420_0000,
            0xd503_3fdf,
            0xd503_30df,
            0xd503_201f,
        ] {
            assert!(listed(word), "{word:#x}");
        }
        // bc.eq, br, blr, ret, yield, wfe, mov x9, x30, movz, dsb, sb, hlt, udf, adr, eret, ldr literal.
        for word in [
            0x5400_0030,
            0xd61f_0000,
            0xd63f_0000,
            0xd65f_03c0,
            0xd503_203f,
            0xd503_205f,
            0xaa1e_03e9,
            0xd280_0020,
            0xd503_3f9f,
            0xd503_30ff,
            0xd440_0000,
            0,
            0x1000_0000,
            0xd69f_03e0,
            0x5800_0000,
        ] {
            assert!(!listed(word), "{word:#x}");
        }
        assert_eq!(CMODX.len(), 13);
    }

    #[test]
    fn mixes_of_conditional_branches_are_in_the_list() {
        // b.eq .+4 and b.ne .+8: each one's condition with the other's target.
        let (old, new) = (0x5400_0020u32, 0x5400_0041u32);
        for mix in [old & 0xf | new & !0xf, new & 0xf | old & !0xf] {
            assert!(listed(mix) && mix != old && mix != new);
        }
    }
}
