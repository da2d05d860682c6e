//! 32-bit programs on AArch64, which are not decoded: that is said, counted, and makes the report incomplete.

use crate::lab::{Lab, Qemu};
use crate::machine::{Guest, Machine, SOON};

/// Where the guest is loaded: its vectors. Each powers the machine off.
const ORIGIN: u64 = 0x4010_0000;
/// Where it begins, and where its program does.
const START: usize = 0x800;
const PROGRAM: usize = 0x1000;

/// `mov x0, #0x8; movk x0, #0x8400, lsl #16; hvc #0`: PSCI's SYSTEM_OFF.
const POWER_OFF: [u32; 3] = [0xd280_0100, 0xf2b0_8000, 0xd400_0002];

/// SPSR_EL1 of a program, and the program: it sets a register and calls its kernel.
struct Mode {
    state: u32,
    program: [u32; 2],
}

/// `mov r0, #1; svc #0` in user mode of A32.
const A32: Mode = Mode { state: 0x10, program: [0xe3a0_0001, 0xef00_0000] };
/// `mov w0, #1; svc #0` at EL0.
const A64: Mode = Mode { state: 0, program: [0x5280_0020, 0xd400_0001] };

fn boot(lab: &Lab, qemu: &Qemu, mode: &Mode, keys: &str) -> Guest {
    let mut words = Vec::new();
    for _ in 0..16 {
        words.extend(POWER_OFF);
        words.resize(words.len().next_multiple_of(32), 0);
    }
    assert_eq!(words.len(), START / 4);
    // x0 = ORIGIN; msr vbar_el1, x0; x1 = ORIGIN + PROGRAM; x0 = the state.
    words.extend([0xd280_0000, 0xf2a8_0200, 0xd518_c000, 0xd282_0001, 0xf2a8_0201, 0xd280_0000 | mode.state << 5]);
    // msr spsr_el1, x0; msr elr_el1, x1; eret.
    words.extend([0xd518_4000, 0xd518_4021, 0xd69f_03e0]);
    words.resize(PROGRAM / 4, 0);
    words.extend(mode.program);
    let machine = Machine::virt(lab, qemu, "cortex-a72").report().keys(keys);
    machine.words(&words, ORIGIN, ORIGIN + START as u64).launch()
}

#[test]
fn code_of_32_bits_makes_the_report_incomplete() {
    let lab = Lab::open();
    for qemu in &lab.arm {
        for (mode, narrow) in [(&A32, true), (&A64, false)] {
            let mut guest = boot(&lab, qemu, mode, "exitcode=7");
            // What was not judged is no success.
            assert_eq!(
                guest.exit_code(SOON),
                if narrow { 125 } else { 0 },
                "QEMU {}\n{}",
                qemu.version,
                guest.outputs()
            );
            let report = guest.report();
            let summary = report.summary();
            let context = format!("QEMU {}\n{}", qemu.version, guest.outputs());
            assert_eq!(
                (summary["complete"] == false, summary["dropped"].as_u64() > Some(0)),
                (narrow, narrow),
                "{context}"
            );
            assert_eq!(summary["dropped_by"]["modes"].as_u64() > Some(0), narrow, "{context}");
            let told = guest.stderr().matches("incomplete from here on: the guest runs 32-bit code").count();
            assert_eq!(told, usize::from(narrow), "{context}");
            assert_eq!((report.events("exception-return"), report.events("exception-entry")), (1, 1), "{context}");
        }
    }
}
