//! What an IRET returns from: said in the report, and taken from what serializes by `without=iret@SYMBOL`, on a boot
//! sector that looks like a kernel's interrupt entries.
//!
//! Its functions are changed through another linear address; then an interrupt comes, and then they run again. The IRET
//! at its end is all that serializes.

use crate::lab::{Lab, Qemu};
use crate::long_sector::{ORIGIN, assemble_sector, go_high, say_it_is_through, switch_off, write_sector};
use crate::machine::{Guest, Machine, SOON};
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use serde_json::Value;
use std::path::Path;

/// Where the sector's memory is mapped for the kernel, beside where it is.
const HIGH: u64 = 0xffff_ffff_8000_0000;
/// The interrupt table, and the functions, by distance from [`HIGH`].
const GATES: i32 = 0x6000;
const FUNCTIONS: u64 = 0x9000;

/// `mov $0x1111,%eax; ret`.
const FUNCTION: u64 = 0x0000_c300_0011_11b8;

/// An interrupt: its vector, its entry, and where that is in the sector.
struct Interrupt {
    vector: u8,
    entry: &'static str,
    at: u64,
}

const fn interrupt(vector: u8, entry: &'static str, at: u64) -> Interrupt {
    Interrupt { vector, entry, at }
}

/// Two that return by the frame that they came by, and one that moves it, as the kernel's does.
const INTERRUPTS: [Interrupt; 3] = [
    interrupt(0x20, "asm_sysvec_apic_timer_interrupt", 0x1c0),
    interrupt(0x21, "asm_sysvec_reschedule_ipi", 0x1c8),
    interrupt(3, "asm_exc_int3", 0x1d0),
];

impl Interrupt {
    /// The function that runs before it and after it.
    fn function(&self) -> u64 {
        FUNCTIONS + u64::from(self.vector) * 0x40
    }
}

fn write_disk(path: &Path) {
    write_sector(path, &assemble().expect("it can be assembled"));
}

fn assemble() -> Result<Vec<u8>, IcedError> {
    let mut sector = assemble_sector(&[], long_mode)?;
    for interrupt in &INTERRUPTS {
        assert!(sector.len() as u64 <= interrupt.at, "{:#x} bytes", sector.len());
        sector.resize(interrupt.at as usize, 0);
        sector.extend(entry(interrupt.vector == 3)?);
    }
    Ok(sector)
}

/// The code of an entry. `moves`: it copies its frame, and the word below it, to six words further down, and returns by
/// that.
fn entry(moves: bool) -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(64)?;
    if moves {
        a.push(-1)?;
        for _ in 0..6 {
            a.push(qword_ptr(rsp + 5 * 8))?;
        }
        a.add(rsp, 8)?;
    }
    a.iretq()?;
    a.assemble(0)
}

fn long_mode(start: u64) -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(64)?;
    let mut change = a.create_label();
    go_high(&mut a, r14, HIGH)?;
    a.lea(rsp, qword_ptr(r14 + ORIGIN as i32))?;
    // The system-call entry, which tells where the kernel is: its sector's beginning.
    a.mov(ecx, 0xc000_0082u32)?;
    a.mov(eax, (HIGH + ORIGIN) as u32)?;
    a.or(edx, -1)?;
    a.wrmsr()?;
    // Gates: offset, code segment, present interrupt gate.
    a.or(ecx, -1)?;
    for interrupt in &INTERRUPTS {
        let handler = HIGH + ORIGIN + interrupt.at;
        let gate = GATES + 16 * i32::from(interrupt.vector);
        a.mov(dword_ptr(r14 + gate), 0x8_0000 | (handler & 0xffff) as i32)?;
        a.mov(dword_ptr(r14 + (gate + 4)), (handler & 0xffff_0000) as u32 as i32 | 0x8e00)?;
        a.mov(dword_ptr(r14 + (gate + 8)), ecx)?;
    }
    a.lea(rax, qword_ptr(r14 + GATES))?;
    // What LIDT takes: the limit, in the last two bytes of a word, and the address right above.
    a.push(rax)?;
    a.push(rax)?;
    a.mov(word_ptr(rsp + 6), 0xfff)?;
    a.lidt(ptr(rsp + 6))?;
    for interrupt in &INTERRUPTS {
        a.mov(edi, interrupt.function() as u32)?;
        a.call(change)?;
        if interrupt.vector == 3 {
            a.int3()?
        } else {
            a.int(u32::from(interrupt.vector))?
        }
        a.call(rbx)?;
    }
    say_it_is_through(&mut a)?;
    switch_off(&mut a)?;
    // Writes the function, serializes, runs it, and changes it through the low address.
    a.set_label(&mut change)?;
    a.lea(rbx, qword_ptr(r14 + rdi))?;
    a.mov(rax, FUNCTION)?;
    a.mov(qword_ptr(rbx), rax)?;
    a.xor(eax, eax)?;
    a.push(rbx)?;
    a.cpuid()?;
    a.pop(rbx)?;
    a.call(rbx)?;
    a.mov(dword_ptr(rdi + 1), 0x2222)?;
    a.ret()?;
    a.assemble(ORIGIN + start)
}

fn boot(lab: &Lab, qemu: &Qemu, keys: &str) -> Guest {
    let described = Machine::pc(lab, qemu).report();
    let (disk, map) = (described.file("disk"), described.file("map"));
    write_disk(&disk);
    let line = |at: u64, name: &str| format!("{:016x} T {name}\n", HIGH + ORIGIN + at);
    let entries: String = INTERRUPTS.iter().map(|interrupt| line(interrupt.at, interrupt.entry)).collect();
    std::fs::write(
        &map,
        format!(
            "{}{}{entries}{}",
            line(0, "_stext"),
            line(0, "entry_SYSCALL_64"),
            line(0x1fe, "__text_poke") + &line(0x200, "_etext")
        ),
    )
    .unwrap();
    let drive = format!("file={},format=raw", disk.display());
    let mut guest = described.path_key("symbols", &map).keys(keys).arguments(&["-drive", &drive]).launch();
    assert_eq!(guest.exit_code(SOON), 0, "QEMU {}, `{keys}`\n{}", qemu.version, guest.outputs());
    assert!(guest.serial().ends_with('.'), "{}", guest.outputs());
    guest
}

/// The interrupts after which something was reported.
fn reported(guest: &Guest) -> Vec<&'static str> {
    let report = guest.report();
    let at = |pc: &Value| INTERRUPTS.iter().find(|interrupt| *pc == format!("{:#x}", HIGH + interrupt.function()));
    let of = |hazard: &Value| at(&hazard["pc"]).unwrap_or_else(|| panic!("elsewhere: {hazard}")).entry;
    report.hazards.iter().map(of).collect()
}

#[test]
fn what_hangs_on_one_interrupt_is_reported_without_that_one_only() {
    let lab = Lab::open();
    for qemu in &lab.qemus {
        let all = INTERRUPTS.map(|interrupt| interrupt.entry);
        for (keys, expected) in [
            ("", &[][..]),
            ("without=iret@asm_sysvec_apic_timer_interrupt", &all[..1]),
            ("without=iret@asm_sysvec_reschedule_ipi", &all[1..2]),
            ("without=iret@asm_exc_int3", &all[2..]),
            ("without=iret@asm_sysvec_*", &all[..2]),
            ("without=iret@asm_sysvec_*+iret@asm_exc_int3", &all[..]),
            ("without=iret", &all[..]),
            ("profile=no-luck", &all[..]),
        ] {
            let guest = boot(&lab, qemu, keys);
            assert_eq!(reported(&guest), expected, "QEMU {}, `{keys}`\n{}", qemu.version, guest.outputs());
            let report = guest.report();
            let summary = report.summary();
            assert_eq!((&summary["complete"], &summary["dropped"]), (&true.into(), &0.into()), "{}", guest.outputs());
            let refused = match keys {
                "profile=no-luck" => 0.into(),
                _ if keys.contains('@') => expected.len().into(),
                _ => Value::Null,
            };
            assert_eq!(summary["refused"], refused, "{}", guest.outputs());
        }
    }
}

#[test]
fn the_ledger_and_the_reports_name_what_was_returned_from() {
    let lab = Lab::open();
    for qemu in &lab.qemus {
        let guest = boot(&lab, qemu, "");
        let report = guest.report();
        let rows = report.summary()["reliance"].as_array().unwrap().iter().filter(|row| row["origin"].is_string());
        let mut found: Vec<_> =
            rows.map(|row| (row["origin"].as_str().unwrap(), row["event"].as_str().unwrap())).collect();
        found.sort_unstable();
        let mut expected = INTERRUPTS.map(|interrupt| (interrupt.entry, "iret"));
        expected.sort_unstable();
        assert_eq!(found, expected, "QEMU {}\n{}", qemu.version, guest.outputs());
        for interrupt in &INTERRUPTS {
            assert!(guest.stderr().contains(&format!("iret of {}\n", interrupt.entry)), "{}", guest.outputs());
        }
        // The one that counted last is named in the report of what came after another one.
        let guest = boot(&lab, qemu, "without=cpuid+iret@asm_sysvec_reschedule_ipi");
        let report = guest.report();
        let hazard =
            report.hazards.iter().find(|hazard| hazard["pc"] == format!("{:#x}", HIGH + INTERRUPTS[1].function()));
        let sync = &hazard.unwrap_or_else(|| panic!("no hazard\n{}", guest.outputs()))["last_sync"];
        assert_eq!((&sync["event"], &sync["origin"]), (&"iret".into(), &INTERRUPTS[0].entry.into()), "{sync}");
    }
}
