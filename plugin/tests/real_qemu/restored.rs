//! States that come from a snapshot or a file: no vCPU holds anything from before, and what happens after is judged as
//! ever.

use crate::boot_sector::{BootSector, Ending, KIND};
use crate::initramfs::{self, FLIPPED};
use crate::lab::{Lab, Qemu};
use crate::machine::{BOOT, Guest, Machine, SOON};
use crate::syscall_sector::{Program, SyscallSector};
use iced_x86::code_asm::*;
use iced_x86::{BlockEncoderOptions, IcedError};

/// A byte of the clock's memory that the guest looks at, and that the monitor sets.
const BYTE: i32 = 0x40;

/// 16-bit code, with interrupts off and without a serializing instruction: it changes a function over and over, and
/// calls it after a jump, which is legal; a full stop on the serial
/// port says that it does. Once the byte is set, it changes the very next instruction, which is not, and ends.
fn sector() -> BootSector {
    // `pads`: bytes before the site and before the function.
    let assemble = |function: i32, site: i32, pads: [usize; 2]| {
        let mut a = CodeAssembler::new(16)?;
        let (mut top, mut spin, mut bad, mut over) =
            (a.create_label(), a.create_label(), a.create_label(), a.create_label());
        let (mut at_function, mut at_site, mut end) = (a.create_label(), a.create_label(), a.create_label());
        a.cli()?;
        a.xor(ax, ax)?;
        a.mov(ds, ax)?;
        a.mov(ss, ax)?;
        a.mov(sp, 0x7c00)?;
        a.mov(si, 2)?;
        a.set_label(&mut top)?;
        a.call(at_function)?;
        a.add(dword_ptr((function + 2) as u64), 0x0101_0101)?;
        a.mov(dx, 0x3f8)?;
        a.mov(al, i32::from(b'.'))?;
        a.out(dx, al)?;
        a.mov(al, BYTE)?;
        a.out(0x70, al)?;
        a.in_(al, 0x71)?;
        a.cmp(al, 1)?;
        a.je(bad)?;
        a.mov(ecx, 200_000)?;
        a.set_label(&mut spin)?;
        a.dec(ecx)?;
        a.jne(spin)?;
        a.jmp(top)?;
        a.set_label(&mut bad)?;
        a.cmp(si, 1)?;
        a.jne(over)?;
        a.mov(dword_ptr((site + 2) as u64), 0x2222_2222)?;
        a.set_label(&mut over)?;
        a.nops_with_size(pads[0])?;
        a.set_label(&mut at_site)?;
        a.mov(eax, 0x1111_1111)?;
        a.dec(si)?;
        a.jne(bad)?;
        a.jmp(end)?;
        a.nops_with_size(pads[1])?;
        a.set_label(&mut at_function)?;
        a.mov(eax, 0)?;
        a.ret()?;
        a.set_label(&mut end)?;
        a.nop()?;
        let done = a.assemble_options(0x7c00, BlockEncoderOptions::RETURN_NEW_INSTRUCTION_OFFSETS)?;
        let address = |label| done.label_ip(label).map(|ip| ip as i32);
        Ok::<_, IcedError>((address(&at_function)?, address(&at_site)?, done.inner.code_buffer))
    };
    // Each is to lie at the beginning of a chunk.
    let to_chunk = |at: i32| 16 - at.rem_euclid(16) as usize;
    let (_, site, _) = assemble(0x7c40, 0x7c40, [16, 16]).unwrap();
    let before_site = 16 + to_chunk(site);
    let (function, _, _) = assemble(0x7c40, 0x7c40, [before_site, 16]).unwrap();
    let pads = [before_site, 16 + to_chunk(function)];
    let (function, site, _) = assemble(0x7c40, 0x7c40, pads).unwrap();
    let (same, again, code) = assemble(function, site, pads).unwrap();
    assert_eq!((same, again, function % 16, site % 16), (function, site, 0, 0));
    BootSector::of(code, Ending::PowerOff)
}

/// The machine, whose disk can keep snapshots.
fn machine(lab: &Lab, qemu: &Qemu) -> Machine {
    let machine = Machine::pc(lab, qemu);
    let disk = machine.file("disk");
    sector().write_disk(&disk);
    let drive = format!("file={},format=raw,snapshot=on", disk.display());
    machine.arguments(&["-drive", &drive]).report()
}

/// Waits until the guest has changed its code again.
fn changes(guest: &mut Guest) {
    let before = guest.serial().len();
    guest.wait_until("changes", SOON * 2, |guest| guest.serial().len() > before + 1);
}

/// The monitor has the guest do what is not legal; the guest ends.
fn goes_wrong(guest: &mut Guest) {
    guest.monitor(&format!("o/b 0x70 {BYTE}"));
    guest.monitor("o/b 0x71 1");
    assert_eq!(guest.exit_code(SOON * 2), 0, "{}", guest.outputs());
}

#[test]
fn a_snapshot_that_is_restored_six_times_is_no_hazard() {
    let lab = Lab::open();
    for qemu in &lab.qemus {
        let mut guest = machine(&lab, qemu).launch();
        changes(&mut guest);
        guest.monitor("savevm a");
        for _ in 0..6 {
            changes(&mut guest);
            guest.monitor("loadvm a");
        }
        changes(&mut guest);
        assert!(!guest.stderr().contains("BUG"), "QEMU {}: {}", qemu.version, guest.outputs());
        goes_wrong(&mut guest);
        let report = guest.report();
        let kinds: Vec<_> = report.hazards.iter().map(|hazard| hazard["kind"].as_str().unwrap()).collect();
        assert_eq!(kinds, [KIND], "QEMU {}: what comes after is judged\n{}", qemu.version, guest.outputs());
        assert_eq!(
            (&report.summary()["restored"], &report.summary()["complete"]),
            (&6.into(), &true.into()),
            "{}",
            guest.outputs()
        );
        assert!(report.events("restored") >= 6, "{}", guest.outputs());
        assert_eq!(report.hazards[0]["last_sync"]["event"], "restored", "{}", guest.outputs());
    }
}

#[test]
fn a_guest_goes_on_where_it_migrated_to_and_where_it_came_from() {
    let lab = Lab::open();
    for qemu in &lab.qemus {
        let mut guest = machine(&lab, qemu).launch();
        changes(&mut guest);
        let file = guest.file("state");
        guest.monitor(&format!("migrate file:{}", file.display()));
        let mut there = machine(&lab, qemu).arguments(&["-incoming", &format!("file:{}", file.display())]).launch();
        changes(&mut there);
        guest.monitor("cont");
        changes(&mut guest);
        for guest in [&mut guest, &mut there] {
            assert!(!guest.stderr().contains("BUG"), "QEMU {}: {}", qemu.version, guest.outputs());
            goes_wrong(guest);
            let report = guest.report();
            assert_eq!(report.hazards.len(), 1, "QEMU {}\n{}", qemu.version, guest.outputs());
            assert_eq!(
                (&report.hazards[0]["kind"], &report.summary()["complete"]),
                (&KIND.into(), &true.into()),
                "{}",
                guest.outputs()
            );
        }
    }
}

/// A kernel tells where it is when it boots. Where a guest comes from elsewhere, whose programs go on, that was not
/// seen: it is said, counted, and makes the report incomplete, so that it proves nothing.
#[test]
fn a_kernel_that_came_from_elsewhere_has_no_names() {
    let lab = Lab::open();
    for qemu in &lab.qemus {
        let machine = || {
            let machine = Machine::pc(&lab, qemu).report().keys("exitcode=7");
            let (disk, map) = (machine.file("disk"), machine.file("System.map"));
            let sector = SyscallSector::new(Program::Calls);
            sector.write_disk(&disk);
            sector.write_symbols(&map);
            let drive = format!("file={},format=raw,snapshot=on", disk.display());
            machine.arguments(&["-drive", &drive]).path_key("symbols", &map)
        };
        let mut guest = machine().launch();
        changes(&mut guest);
        let file = guest.file("state");
        guest.monitor(&format!("migrate file:{}", file.display()));
        let mut there = machine().arguments(&["-incoming", &format!("file:{}", file.display())]).launch();
        changes(&mut there);
        for (guest, seen) in [(&mut guest, true), (&mut there, false)] {
            guest.monitor("quit");
            assert_eq!(guest.exit_code(SOON * 2), if seen { 0 } else { 125 }, "{}", guest.outputs());
            let (report, context) = (guest.report(), format!("QEMU {}\n{}", qemu.version, guest.outputs()));
            let summary = report.summary();
            assert_eq!((&summary["complete"], summary["kaslr"].is_string()), (&seen.into(), seen), "{context}");
            assert_eq!(summary["dropped_by"]["names"].as_u64().is_some_and(|names| names > 0), !seen, "{context}");
            let said = "incomplete from here on: programs run, and where the kernel is was not found out";
            assert_eq!(guest.stderr().matches(said).count(), usize::from(!seen), "at once, and once: {context}");
        }
    }
}

/// Did the guest's kernel die?
fn died(guest: &Guest) -> bool {
    guest.serial().contains("Kernel panic")
}

/// Waits until the kernel has changed its own code again, there and back. Answers whether it lives.
fn flips(guest: &mut Guest) -> bool {
    let flipped = |guest: &Guest| guest.serial().matches(FLIPPED).count();
    let before = flipped(guest);
    guest.wait_until("changes of the kernel's code", BOOT * 2, |guest| flipped(guest) > before + 2 || died(guest));
    !died(guest)
}

/// Debian's kernel, which flips a static key at full rate on two vCPUs, is a healthy one, wherever it is restored to.
#[test]
fn a_kernel_that_is_restored_six_times_is_no_hazard() {
    kernel_is_restored(&["loadvm a"], &[]);
}

/// QEMU 11.1 drops no translations then. What it goes on running of them is its own fault, and told apart; healthy
/// kernels die of it, with no plugin as well (docs/emulator.md).
#[test]
fn nor_is_one_that_was_stopped_before() {
    kernel_is_restored(&["stop", "loadvm a", "cont"], &["11.1"]);
}

/// `kills`: the QEMUs that may kill the kernel by it.
fn kernel_is_restored(by: &[&str], kills: &[&str]) {
    let lab = Lab::open();
    for qemu in &lab.qemus {
        let machine = Machine::pc(&lab, qemu).arguments(&["-m", "256"]).kernel(&lab.kernel_6_12, "loglevel=4");
        let machine = machine.path_key("symbols", &lab.kernel_6_12).keys("exitcode=7").report();
        let (disk, initramfs) = (machine.file("disk"), machine.file("initramfs"));
        std::fs::write(&disk, vec![0; 1 << 20]).unwrap();
        initramfs::write(&initramfs);
        // QEMU keeps what the guest writes to the disk, and snapshots, in a qcow2 file of its own.
        let drive = format!("file={},format=raw,snapshot=on", disk.display());
        let arguments = ["-drive", &drive, "-initrd", initramfs.to_str().unwrap()];
        let mut guest = machine.arguments(&arguments).launch();
        assert!(flips(&mut guest), "{}", guest.outputs());
        guest.monitor("savevm a");
        let mut restored = 0;
        while flips(&mut guest) && restored < 6 {
            by.iter().for_each(|command| guest.monitor(command));
            restored += 1;
        }
        if !died(&guest) {
            guest.monitor("quit");
        }
        assert_eq!(guest.exit_code(BOOT * 2), 0, "QEMU {}\n{}", qemu.version, guest.outputs());
        assert!(!guest.stderr().contains("BUG"), "QEMU {}: {}", qemu.version, guest.outputs());
        let (report, context) = (guest.report(), format!("QEMU {}\n{}", qemu.version, guest.outputs()));
        let summary = report.summary();
        assert!(restored == 6 && !died(&guest) || restored > 0 && kills.contains(&qemu.version), "{context}");
        // It may have died just before the last one.
        let told = summary["restored"].as_u64().unwrap();
        assert!(told == restored || died(&guest) && told + 1 == restored, "{context}");
        assert_eq!((&summary["complete"], &summary["known"]), (&true.into(), &1.into()), "{context}");
        let mut hazards = summary["hazards"].clone();
        hazards.as_object_mut().unwrap().remove("emulator");
        assert_eq!((hazards, summary["kaslr"].is_string()), (serde_json::json!({}), true), "{context}");
        assert!(summary["commits"].as_u64() > Some(20), "{context}");
    }
}
