//! `widen=`: writers that wait, in a guest of two CPUs whose first one changes what the second one runs.

use crate::lab::{Lab, Qemu};
use crate::machine::{Guest, Machine, SOON};
use serde_json::Value;

/// How often the code is changed: the number in `mov $10,%edi`.
const CHANGES: u64 = 10;

/// 16-bit code for 0x7c00. The first CPU starts the second one through its x2APIC; ten times it waits until that one has run `target` a hundred times more, and then
/// changes its immediate; then it switches the machine off.
const DUET: &[&[u8]] = &[
    &[0xfa, 0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xd0, 0xbc, 0x00, 0x7c], // cli; xor %ax,%ax; mov %ax,%ds; mov %ax,%ss; mov $0x7c00,%sp
    &[0xc6, 0x06, 0x00, 0x80, 0xea],                               // 0x8000: ljmp 0:second
    &[0xc7, 0x06, 0x01, 0x80, 0x70, 0x7c],
    &[0xc7, 0x06, 0x03, 0x80, 0x00, 0x00],
    &[0x66, 0xb9, 0x1b, 0x00, 0x00, 0x00, 0x0f, 0x32, 0x80, 0xcc, 0x0c, 0x0f, 0x30], // IA32_APIC_BASE: x2APIC mode on
    &[0x66, 0xb9, 0x30, 0x08, 0x00, 0x00, 0x66, 0x31, 0xd2], // mov $0x830,%ecx; xor %edx,%edx: the interrupt command
    &[0x66, 0xb8, 0x00, 0x45, 0x0c, 0x00, 0x0f, 0x30],       // INIT to all others
    &[0xb0, 0x08, 0xb4, 0x46, 0x0f, 0x30],                   // start them at 0x8000
    &[0x66, 0xbf, 0x0a, 0x00, 0x00, 0x00],                   // mov $10,%edi
    &[0x8b, 0x1e, 0x00, 0x90],                               // next: mov count,%bx
    &[0x8b, 0x16, 0x00, 0x90, 0x29, 0xda, 0x83, 0xfa, 0x64, 0x72, 0xf5], // until mov count,%dx; sub %bx,%dx; cmp $100,%dx; jae
    &[0x66, 0x89, 0x3e, 0x82, 0x7c],                         // mov %edi,target+2
    &[0x4f, 0x75, 0xe9],                                     // dec %di; jne next
    &[0xba, 0x04, 0x06, 0xb8, 0x00, 0x20, 0xef, 0xeb, 0xfe], // mov $0x604,%dx; mov $0x2000,%ax; out %ax,(%dx); jmp .
    &[0; 11],                                                // up to 0x7c70
    &[0x31, 0xc0, 0x8e, 0xd8, 0xeb, 0x0a],                   // second: xor %ax,%ax; mov %ax,%ds; jmp target
    &[0; 10],                                                // up to 0x7c80
    &[0x66, 0xb8, 0x11, 0x11, 0x11, 0x11],                   // target: mov $0x11111111,%eax
    &[0xff, 0x06, 0x00, 0x90, 0xeb, 0xf4],                   // incw count (at 0x9000); jmp target
];

/// Runs it with these keys and more arguments of QEMU's.
fn run(lab: &Lab, qemu: &Qemu, keys: &str, more: &[&str]) -> (Guest, Value) {
    let machine = Machine::pc(lab, qemu);
    let disk = machine.file("disk");
    let mut bytes = DUET.concat();
    assert_eq!(bytes.len(), 0x8c, "`second` and `target` lie where the code says");
    bytes.resize(1 << 20, 0);
    bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
    std::fs::write(&disk, bytes).unwrap();
    let drive = format!("file={},format=raw", disk.display());
    let mut guest = machine.arguments(&["-drive", &drive]).arguments(more).report().keys(keys).launch();
    assert_eq!(guest.exit_code(SOON), 0, "QEMU {}, `{keys}`\n{}", qemu.version, guest.outputs());
    let summary = guest.report().summary().clone();
    assert_eq!(summary["complete"], true, "QEMU {}, `{keys}`\n{}", qemu.version, guest.outputs());
    (guest, summary)
}

#[test]
fn writers_wait_and_the_summary_says_so() {
    let lab = Lab::open();
    for qemu in &lab.qemus {
        let (guest, summary) = run(&lab, qemu, "widen=1000", &[]);
        let widened = |field: &str| summary["widened"][field].as_u64().unwrap_or_else(|| panic!("no {field}: {summary}"));
        let (waits, microseconds, bound) = (widened("waits"), widened("microseconds"), widened("bound"));
        assert!(waits + widened("spared") >= CHANGES && waits > 0, "{summary}");
        assert!(bound <= waits && microseconds > 0 && microseconds >= 1000 * bound, "{summary}");
        let line = format!("icsan: widen: {waits} stores waited");
        assert!(guest.stderr().contains(&line), "{line}\n{}", guest.outputs());

        // However few or many blocks: a wait ends at the bound.
        let (_, summary) = run(&lab, qemu, "widen=4294967295:7", &[]);
        assert_eq!(summary["widened"]["bound"], summary["widened"]["waits"], "{summary}");
    }
}

/// What QEMU makes of the guest's first block: the same without the key and with `off`, more with it on.
#[test]
fn off_costs_nothing() {
    let lab = Lab::open();
    for qemu in &lab.qemus {
        let operations = |keys| {
            let (guest, summary) = run(&lab, qemu, keys, &["-d", "op", "-D", "ops", "-dfilter", "0x7c00..0x7dff"]);
            let log = std::fs::read_to_string(guest.file("ops")).unwrap();
            let first = log.split("OP:\n").nth(1).unwrap_or_else(|| panic!("no operations: {log}"));
            // Their names: operands hold addresses of the host's.
            let names = first.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect::<Vec<_>>();
            (names, summary["widened"].clone(), guest.stderr().contains("icsan: widen"))
        };
        let (usual, off, on) = (operations(""), operations("widen=off"), operations("widen=1000"));
        assert!(!usual.0.is_empty() && usual == off, "QEMU {}: {usual:?}\n{off:?}", qemu.version);
        assert_eq!((&usual.1, usual.2), (&Value::Null, false), "QEMU {}", qemu.version);
        assert!(on.0.len() > usual.0.len() && !on.1.is_null() && on.2, "QEMU {}: {on:?}\n{usual:?}", qemu.version);
    }
}
