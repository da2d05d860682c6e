//! What happens when a bound on ICSAN's memory is reached.

use crate::boot_sector::{BootSector, Ending};
use crate::lab::Lab;
use crate::machine::{BOOT, Machine};

/// Slots on a machine that may have more than 16 vCPUs (plugin/src/qemu/scoreboard.rs).
const SLOTS: u64 = 1 << 18;

/// Functions of seven bytes that the guest writes, serializes, and calls once each; no two are the same. More than
/// there are slots.
const FUNCTIONS: u32 = 280_000;

/// 16-bit code with interrupts off: `mov $number,%eax; lret`, at one paragraph after the other from 64 to 512 KiB,
/// again and again. Stops for ever if a function answers with another number than its own.
fn fresh_code() -> BootSector {
    // cli; xor %ax,%ax; mov %ax,%ds; mov %ax,%ss; mov $0x7c00,%sp; xor %esi,%esi
    let mut code = vec![0xfa, 0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xd0, 0xbc, 0x00, 0x7c, 0x66, 0x31, 0xf6];
    let outer = code.len();
    code.extend([0xbd, 0x00, 0x10]); // mov $0x1000,%bp
    let inner = code.len();
    code.extend([0x8e, 0xc5]); // mov %bp,%es
    code.extend([0x26, 0xc7, 0x06, 0x00, 0x00, 0x66, 0xb8]); // movw $0xb866,%es:0
    code.extend([0x26, 0x66, 0x89, 0x36, 0x02, 0x00]); // mov %esi,%es:2
    code.extend([0x26, 0xc6, 0x06, 0x06, 0x00, 0xcb]); // movb $0xcb,%es:6
    code.extend([0x66, 0x31, 0xc0, 0x0f, 0xa2]); // xor %eax,%eax; cpuid
    let [low, high] = (0x7c00 + code.len() as u16 + 8).to_le_bytes();
    code.extend([0x0e, 0x68, low, high, 0x55, 0x6a, 0x00, 0xcb]); // push %cs; push $next; push %bp; push $0; lret
    code.extend([0x66, 0x39, 0xf0, 0x75, 0xfe]); // cmp %esi,%eax; jne .
    code.extend([0x66, 0x46, 0x45, 0x81, 0xfd, 0x00, 0x80]); // inc %esi; inc %bp; cmp $0x8000,%bp
    let back = |code: &[u8], to: usize| (to as i64 - code.len() as i64 - 2) as u8;
    code.extend([0x72, back(&code, inner)]); // jb inner
    code.extend([0x66, 0x81, 0xfe]); // cmp $FUNCTIONS,%esi
    code.extend(FUNCTIONS.to_le_bytes());
    code.extend([0x72, back(&code, outer)]); // jb outer
    BootSector::of(code, Ending::PowerOff)
}

/// Nothing is reported that did not happen, nothing breaks, and the report says that it is not whole and why.
#[test]
fn when_slots_run_out_the_report_says_so() {
    let lab = Lab::open();
    for qemu in &lab.qemus {
        for mode in ["writers=off", "writers=on"] {
            let cpus = ["-accel", "tcg,thread=multi", "-smp", "1,maxcpus=17"];
            let mut guest = Machine::pc_with(&lab, qemu, &cpus).sector(&fresh_code()).report().keys(mode).launch();
            assert_eq!(guest.exit_code(BOOT), 0, "{}", guest.outputs());
            let report = guest.report();
            let (summary, context) = (report.summary(), guest.outputs());
            assert_eq!(report.hazards.len(), 0, "{context}");
            assert_eq!(summary["complete"], false, "{context}");
            let dropped = summary["dropped_by"]["segments"].as_u64().unwrap_or_else(|| panic!("{context}"));
            assert!(dropped > 0 && summary["dropped"] == dropped, "{context}");
            assert_eq!(summary["memory"]["tables"]["segments"].as_u64(), Some(SLOTS), "{context}");
        }
    }
}

/// Addresses at which [`returns`] runs.
const ADDRESSES: u64 = 0x7000;

/// 16-bit code with interrupts off: runs `instruction`, which must be `lret` or `iret`, once at each paragraph from 64
/// to 512 KiB.
fn returns(instruction: u8) -> BootSector {
    const IRET: u8 = 0xcf;
    // cli; xor %ax,%ax; mov %ax,%ds; mov %ax,%ss; mov $0x7c00,%sp; mov $0x1000,%bp
    let mut code = vec![0xfa, 0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xd0, 0xbc, 0x00, 0x7c, 0xbd, 0x00, 0x10];
    let inner = code.len();
    code.extend([0x8e, 0xc5]); // mov %bp,%es
    code.extend([0x26, 0xc6, 0x06, 0x00, 0x00, instruction]); // movb $instruction,%es:0
    code.push(if instruction == IRET { 0x9c } else { 0x90 }); // pushf; or nop
    let [low, high] = (0x7c00 + code.len() as u16 + 8).to_le_bytes();
    code.extend([0x0e, 0x68, low, high, 0x55, 0x6a, 0x00, 0xcb]); // push %cs; push $next; push %bp; push $0; lret
    code.extend([0x45, 0x81, 0xfd, 0x00, 0x80]); // inc %bp; cmp $0x8000,%bp
    code.extend([0x72, (inner as i64 - code.len() as i64 - 2) as u8]); // jb inner
    BootSector::of(code, Ending::PowerOff)
}

/// An instruction that has a callback of its own costs no memory for each address that it ran at.
#[test]
fn nothing_is_kept_for_each_address_of_a_watched_instruction() {
    let lab = Lab::open();
    for qemu in &lab.qemus {
        let held = |instruction, irets: std::ops::Range<u64>| {
            let mut guest = Machine::pc(&lab, qemu).sector(&returns(instruction)).report().keys("writers=off").launch();
            assert_eq!(guest.exit_code(BOOT), 0, "{}", guest.outputs());
            let report = guest.report();
            assert!(irets.contains(&report.events("iret")), "{}", guest.outputs());
            assert!(report.summary()["memory"]["tables"]["segments"].as_u64() > Some(ADDRESSES), "{}", guest.outputs());
            report.summary()["memory"]["held"].as_u64().unwrap()
        };
        let (lret, iret) = (held(0xcb, 0..ADDRESSES), held(0xcf, ADDRESSES..2 * ADDRESSES));
        assert!(
            iret.saturating_sub(lret) < 16 * ADDRESSES,
            "QEMU {}: {lret} bytes without, {iret} bytes with callbacks",
            qemu.version
        );
    }
}
