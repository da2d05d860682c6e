//! However QEMU ends, the report is whole; and when it cannot be, what was found so far is there, or a line says what
//! is missing.

use crate::boot_sector::{BootSector, DONE, Ending};
use crate::lab::Lab;
use crate::machine::{BOOT, Guest, Machine, SOON};
use crate::report::Report;
use rustix::process::Signal;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::Command;

/// How many hazards the boot sector has in the default profile.
const HAZARDS: usize = 2;

fn assert_whole(guest: &Guest) {
    let report = guest.report();
    assert_eq!(report.hazards.len(), HAZARDS, "{}", guest.outputs());
    assert_eq!(report.summary()["complete"], true, "{}", guest.outputs());
    assert!(report.summary()["guest_panic"].is_null(), "{}", guest.outputs());
    assert_ne!(report.summary()["blocks"], 0, "{}", guest.outputs());
    assert!(guest.stderr().contains("icsan: hazards (distinct sites): smc 1, torn 1;"), "{}", guest.outputs());
}

/// Ends of the guest's own making.
#[test]
fn the_guest_ends_it() {
    let lab = Lab::open();
    for qemu in &lab.qemus {
        for ending in [Ending::PowerOff, Ending::Reset] {
            let mut guest = Machine::pc(&lab, qemu).sector(&BootSector::new(ending)).report().launch();
            assert_eq!(guest.exit_code(SOON), 0, "QEMU {}, {ending:?}\n{}", qemu.version, guest.outputs());
            assert_whole(&guest);
        }
    }
}

/// A way to end a QEMU that runs.
type End = fn(&mut Guest);

/// Ends from outside, while a vCPU runs.
#[test]
fn the_user_ends_it() {
    let lab = Lab::open();
    let ways: [(&str, End); 4] = [
        ("quit on the monitor", |guest| guest.monitor("quit")),
        ("SIGTERM", |guest| guest.signal(Signal::TERM)),
        ("SIGINT", |guest| guest.signal(Signal::INT)),
        ("SIGHUP", |guest| guest.signal(Signal::HUP)),
    ];
    for qemu in &lab.qemus {
        for (name, end) in ways {
            let mut guest = Machine::pc(&lab, qemu).sector(&BootSector::new(Ending::Spin)).report().launch();
            guest.wait_for_hazards(HAZARDS, SOON);
            end(&mut guest);
            assert_eq!(guest.exit_code(SOON), 0, "QEMU {}, {name}\n{}", qemu.version, guest.outputs());
            assert_whole(&guest);
        }
    }
}

/// A reset that the machine survives is no end, and what is found again counts as found again. (The last argument takes
/// `-no-reboot` back.)
#[test]
fn a_reset_goes_on() {
    let lab = Lab::open();
    for qemu in &lab.qemus {
        let machine = Machine::pc(&lab, qemu).sector(&BootSector::new(Ending::Spin)).report();
        let mut guest = machine.arguments(&["-action", "reboot=reset"]).launch();
        for boots in 1..=2 {
            guest.wait_until("the end of the boot sector", SOON, |guest| guest.serial().matches(DONE).count() == boots);
            guest.monitor(if boots == 1 { "system_reset" } else { "quit" });
        }
        assert_eq!(guest.exit_code(SOON), 0, "{}", guest.outputs());
        assert_whole(&guest);
        assert!(guest.report().hazards.iter().all(|hazard| hazard["count"] == 2), "{}", guest.outputs());
    }
}

/// A stopped machine (as at a gdb breakpoint, or after `stop`) can be left, too.
#[test]
fn a_stopped_machine_ends() {
    let lab = Lab::open();
    for qemu in &lab.qemus {
        let mut guest = Machine::pc(&lab, qemu).sector(&BootSector::new(Ending::Spin)).report().launch();
        guest.wait_for_hazards(HAZARDS, SOON);
        guest.monitor("stop");
        guest.signal(Signal::TERM);
        assert_eq!(guest.exit_code(SOON), 0, "{}", guest.outputs());
        assert_whole(&guest);
    }
}

/// Nothing can be done at SIGKILL: what was found is in the file, and its last line is no summary.
#[test]
fn killed() {
    let lab = Lab::open();
    for qemu in &lab.qemus {
        let mut guest = Machine::pc(&lab, qemu).sector(&BootSector::new(Ending::Spin)).report().launch();
        guest.wait_for_hazards(HAZARDS, SOON);
        guest.signal(Signal::KILL);
        guest.killed(SOON);
        let report = Report::read(&guest.report_text());
        assert_eq!((report.hazards.len(), report.summary), (HAZARDS, None));
    }
}

/// A kernel that panics reboots, and `-no-reboot` makes that an end; in the meantime vCPUs are stopped, and timers
/// tick.
#[test]
fn a_kernel_panics() {
    let lab = Lab::open();
    for qemu in &lab.qemus {
        let mut guest = Machine::pc(&lab, qemu)
            .kernel(&lab.kernel_6_1, "")
            .path_key("symbols", &lab.kernel_6_1)
            .keys("exitcode=3")
            .report()
            .launch();
        assert_eq!(guest.exit_code(BOOT), 0, "a healthy kernel, whatever it comes to: {}", guest.outputs());
        assert!(guest.serial().contains("Kernel panic - not syncing: VFS"), "{}", guest.outputs());
        let report = guest.report();
        let summary = report.summary();
        assert_eq!(
            (&summary["complete"], summary["guest_panic"]["vcpu"].is_u64()),
            (&true.into(), true),
            "{}",
            guest.outputs()
        );
        assert_eq!(
            guest.stderr().matches("icsan: the guest's kernel panicked, on vCPU").count(),
            2,
            "at once, and at the end: {}",
            guest.outputs()
        );
        crate::symbols::assert_boot_hazard(&guest, &report);
        crate::symbols::assert_offset_as_printed(&guest, &report);
    }
}

/// An earlier, longer report at the same place leaves nothing behind.
#[test]
fn the_report_replaces_an_older_one() {
    let lab = Lab::open();
    for qemu in &lab.qemus {
        let machine = Machine::pc(&lab, qemu).sector(&BootSector::new(Ending::PowerOff)).report();
        std::fs::write(machine.report_path(), "{\"type\":\"old\"}\n".repeat(10_000)).unwrap();
        let mut guest = machine.launch();
        assert_eq!(guest.exit_code(SOON), 0, "{}", guest.outputs());
        assert_whole(&guest);
    }
}

fn fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn a_report_into_a_fifo() {
    let lab = Lab::open();
    for qemu in &lab.qemus {
        let machine = Machine::pc(&lab, qemu).sector(&BootSector::new(Ending::PowerOff));
        let path = machine.file("fifo");
        fifo(&path);
        let reader = std::thread::spawn({
            let path = path.clone();
            move || {
                let mut text = String::new();
                std::fs::File::open(path).unwrap().read_to_string(&mut text).map(|_| text)
            }
        });
        let mut guest = machine.path_key("report", &path).after_shell(READER_IS_THERE).launch();
        assert_eq!(guest.exit_code(SOON), 0, "{}", guest.outputs());
        let report = Report::whole(&reader.join().unwrap().unwrap());
        assert_eq!((report.hazards.len(), &report.summary()["complete"]), (HAZARDS, &true.into()));
    }
}

/// Time for the reader's thread to be waiting in its open.
const READER_IS_THERE: &str = "sleep 0.3";

#[test]
fn the_fifo_loses_its_reader() {
    let lab = Lab::open();
    for qemu in &lab.qemus {
        let machine = Machine::pc(&lab, qemu).sector(&BootSector::new(Ending::PowerOff));
        let path = machine.file("fifo");
        fifo(&path);
        let reader = std::thread::spawn({
            let path = path.clone();
            // The first line comes when QEMU starts, the rest when it ends.
            move || {
                let mut line = String::new();
                BufReader::new(std::fs::File::open(path).unwrap()).read_line(&mut line).unwrap();
                line
            }
        });
        let mut guest = machine.path_key("report", &path).after_shell(READER_IS_THERE).launch();
        assert_eq!(guest.exit_code(SOON), 0, "{}", guest.outputs());
        assert!(reader.join().unwrap().starts_with("{\"type\":\"start\""));
        assert!(guest.stderr().contains("/fifo: Broken pipe"), "{}", guest.outputs());
    }
}

/// Output that cannot be written any more is said once, and is no reason to disturb the guest: a file takes two
/// kilobytes and no more (the limit of the process stands for a full disk).
#[test]
fn a_full_disk() {
    let lab = Lab::open();
    for qemu in &lab.qemus {
        let machine = Machine::pc(&lab, qemu).sector(&BootSector::new(Ending::PowerOff)).report();
        // Without the hazards a report would be clean, and the file is not whole.
        let mut guest = machine
            .keys("exitcode=7,suppress=all")
            .after_shell("trap '' XFSZ; echo 'kind:* all' >all; ulimit -f 4")
            .launch();
        assert_eq!(guest.exit_code(SOON), 125, "{}", guest.outputs());
        let stderr = guest.stderr();
        assert_eq!(stderr.matches("icsan: report=").count(), 1, "{}", guest.outputs());
        assert!(stderr.contains("the report file is not complete"), "{}", guest.outputs());
        assert!(
            stderr.contains("icsan: hazards (distinct sites): none; suppressed 2;"),
            "the text is there all the same\n{}",
            guest.outputs()
        );
    }
}
