//! QEMU's own stale blocks on AArch64: with hooks, and without them with `emulator=repair`, a processor that asks what
//! the other one changed, and synchronizes, executes what that wrote, each time.
//!
//! Without both QEMU executes what it translated before, in up to four of five rounds: so often that the test would
//! fail. That is not tested, since it may also happen in none.

use crate::lab::Lab;
use crate::machine::{BOOT, Machine, SOON};

/// Where the guest is loaded, and where its first processor begins.
const ORIGIN: u64 = 0x4010_0000;
/// Where the second processor begins, and where the site is: `mov w0, #0; ret`. The flag is 8 KiB behind it.
const SECOND: usize = 0x800;
const SITE: usize = 0x1000;

/// The first processor starts the second one, and changes the word at the site in 500 rounds.
#[rustfmt::skip]
const CHANGES: &[u32] = &[
    0xd280_0060, // mov x0, #0x3
    0xf2b8_8000, // movk x0, #0xc400, lsl #16
    0xd280_0021, // mov x1, #0x1
    0xd281_0002, // mov x2, #0x800
    0xf2a8_0202, // movk x2, #0x4010, lsl #16
    0xd400_0002, // hvc #0x0
    // The site, the flag, and the answer.
    0xd282_0002, // mov x2, #0x1000
    0xf2a8_0202, // movk x2, #0x4010, lsl #16
    0xd286_0003, // mov x3, #0x3000
    0xf2a8_0203, // movk x3, #0x4010, lsl #16
    0x9101_006b, // add x11, x3, #0x40
    0x5280_0025, // mov w5, #0x1
    // A round: the word with the round in it, all that it asks for, the flag; the answer.
    0x531b_68a1, // lsl w1, w5, #5
    0x72aa_5001, // movk w1, #0x5280, lsl #16
    0x2a05_1421, // orr w1, w1, w5, lsl #5
    0xb900_0041, // str w1, [x2]
    0xd50b_7b22, // dc cvau, x2
    0xd503_3b9f, // dsb ish
    0xd50b_7522, // ic ivau, x2
    0xd503_3b9f, // dsb ish
    0xd503_3fdf, // isb
    0x889f_fc65, // stlr w5, [x3]
    0x88df_fd66, // ldar w6, [x11]
    0x6b05_00df, // cmp w6, w5
    0x54ff_ffc1, // b.ne .-8
    0x1100_04a5, // add w5, w5, #0x1
    0x7107_d0bf, // cmp w5, #0x1f4
    0x54ff_fe29, // b.ls .-60
    // How many were wrong, in eight letters from A on.
    0xb940_8064, // ldr w4, [x3, #128]
    0xd280_0003, // mov x3, #0x0
    0xf2a1_2003, // movk x3, #0x900, lsl #16
    0x5280_0405, // mov w5, #0x20
    0x5100_10a5, // sub w5, w5, #0x4
    0x1ac5_2486, // lsr w6, w4, w5
    0x1200_0cc6, // and w6, w6, #0xf
    0x1101_04c6, // add w6, w6, #0x41
    0x3900_0066, // strb w6, [x3]
    0x35ff_ff65, // cbnz w5, .-20
    0xd280_0100, // mov x0, #0x8
    0xf2b0_8000, // movk x0, #0x8400, lsl #16
    0xd400_0002, // hvc #0x0
    0x1400_0000, // b .+0
];

/// The second processor executes the site over and over, and compares what that says with what the flag said before.
#[rustfmt::skip]
const EXECUTES: &[u32] = &[
    0xd282_0002, // mov x2, #0x1000
    0xf2a8_0202, // movk x2, #0x4010, lsl #16
    0xd286_0003, // mov x3, #0x3000
    0xf2a8_0203, // movk x3, #0x4010, lsl #16
    0x9101_006b, // add x11, x3, #0x40
    0x5280_0007, // mov w7, #0x0
    0x5280_0008, // mov w8, #0x0
    // What the flag says; ISB; what the site says.
    0x88df_fc64, // ldar w4, [x3]
    0xd503_3fdf, // isb
    0xd63f_0040, // blr x2
    0x6b07_009f, // cmp w4, w7
    0x54ff_ff80, // b.eq .-16
    0x2a04_03e7, // mov w7, w4
    0x6b04_001f, // cmp w0, w4
    0x1a88_0508, // cinc w8, w8, ne
    0xb900_8068, // str w8, [x3, #128]
    0x889f_fd64, // stlr w4, [x11]
    0x17ff_fff6, // b .-40
];

fn image() -> Vec<u32> {
    let mut words = CHANGES.to_vec();
    words.resize(SECOND / 4, 0);
    words.extend(EXECUTES);
    words.resize(SITE / 4, 0);
    words.extend([0x5280_0000, 0xd65f_03c0]);
    words
}

#[test]
fn what_was_changed_is_executed() {
    let lab = Lab::open();
    for qemu in &lab.arm {
        for cpu in ["cortex-a72", "max,pauth-impdef=on"] {
            for hooks in [true, false] {
                let keys = if hooks { "hooks=on" } else { "hooks=off,emulator=repair" };
                let machine = Machine::virt(&lab, qemu, cpu).arguments(&["-smp", "2"]).report().keys(keys);
                let mut guest = machine.words(&image(), ORIGIN, ORIGIN).launch();
                let context = format!("QEMU {}, {cpu}, {keys}", qemu.version);
                assert_eq!(guest.exit_code(SOON), 0, "{context}\n{}", guest.outputs());
                assert_eq!(guest.serial(), "AAAAAAAA", "{context}\n{}", guest.outputs());
                let report = guest.report();
                let summary = report.summary();
                if hooks {
                    assert_eq!(report.start["hooks"], "on", "{context}");
                    let again = summary["hooks"]["dropped_again"].as_u64();
                    assert!(again.is_some_and(|again| again > 0), "{context}\n{}", guest.outputs());
                } else {
                    assert!(summary["emulator"]["repaired"].as_u64().unwrap() > 0, "{context}\n{}", guest.outputs());
                    assert_eq!(summary["emulator"]["gave_up"], 0, "{context}\n{}", guest.outputs());
                }
                assert_eq!(summary["complete"], true, "{context}\n{}", guest.outputs());
            }
        }
    }
}

/// A kernel with two CPUs boots to the panic that it owes to its missing root file system, with blocks repaired on its
/// way.
#[test]
fn a_kernel_boots_with_repairs() {
    let lab = Lab::open();
    for qemu in &lab.arm {
        let machine = Machine::virt(&lab, qemu, "cortex-a72").arguments(&["-smp", "2"]).report();
        let mut guest = machine.kernel_of_arm(&lab.kernel_arm).keys("hooks=off,emulator=repair").launch();
        assert_eq!(guest.exit_code(BOOT), 0, "QEMU {}\n{}", qemu.version, guest.outputs());
        assert!(guest.serial().contains("VFS: Unable to mount root fs"), "QEMU {}\n{}", qemu.version, guest.outputs());
        let report = guest.report();
        assert!(report.summary()["emulator"]["repaired"].as_u64().unwrap() > 0, "{}", guest.outputs());
        assert_eq!(report.summary()["complete"], true, "QEMU {}\n{}", qemu.version, guest.outputs());
    }
}
