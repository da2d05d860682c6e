//! A recording is whole however QEMU ends, and the plain model comes to every verdict in it and to no other.

use crate::boot_sector::{BootSector, DONE, Ending};
use crate::lab::{Lab, Qemu};
use crate::machine::{Guest, Machine, SOON};
use icsan_recording::{Reader, Totals};
use icsan_replay::check::Agreement;
use icsan_replay::session::{self, End};
use icsan_replay::settings::Settings;
use rustix::process::Signal;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

/// Boots the boot sector with a recording.
fn machine(lab: &Lab, qemu: &Qemu, ending: Ending, keys: &str) -> Machine {
    let machine = Machine::pc(lab, qemu).sector(&BootSector::new(ending)).report().keys(keys);
    let path = recording(&machine);
    machine.path_key("record", &path)
}

fn recording(machine: &Machine) -> std::path::PathBuf {
    machine.file("recording")
}

/// Replays a whole recording and compares every verdict.
pub fn check(path: &Path, outputs: &str) -> (Agreement, Totals) {
    let reader = Reader::new(BufReader::new(File::open(path).unwrap())).unwrap();
    let outcome = session::run(reader, &Settings::default(), true, 10).unwrap();
    assert_eq!(outcome.proven(), Some(true), "{:#?}\n{:#?}\n{outputs}", outcome.differences.list, outcome.refused.list);
    let End::Whole(totals) = outcome.end else { panic!("{:?}\n{outputs}", outcome.end) };
    (outcome.agreement.unwrap(), totals)
}

/// Checks the recording of a guest that ended.
fn prove(guest: &Guest) -> (Agreement, Totals) {
    let (agreement, totals) = check(&guest.file("recording"), &guest.outputs());
    assert!(agreement.executions > 10_000, "{agreement:?}\n{}", guest.outputs());
    (agreement, totals)
}

#[test]
fn the_model_agrees_with_every_verdict() {
    let lab = Lab::open();
    let cases = [
        "",
        "profile=sdm-strict",
        "profile=amd-apm",
        "profile=coherent",
        "without=iret+iret-to-self+cpuid",
        "chunk=4",
        "chunk=4096",
        "speculation=on",
        "speculation=on,without=iret+iret-to-self+cpuid+lgdt+lidt",
    ];
    for qemu in &lab.qemus {
        for keys in cases {
            let mut guest = machine(&lab, qemu, Ending::PowerOff, keys).launch();
            assert_eq!(guest.exit_code(SOON), 0, "QEMU {}, `{keys}`\n{}", qemu.version, guest.outputs());
            let (agreement, totals) = prove(&guest);
            let report = guest.report();
            // With speculation the firmware's own changes make more mixes than are looked at.
            assert!(report.summary()["complete"] == true || keys.contains("speculation"), "{}", guest.outputs());
            let found: u64 = report.hazards.iter().map(|hazard| hazard["count"].as_u64().unwrap()).sum();
            assert_eq!((agreement.agreed, totals.hazards), (found, found), "`{keys}`\n{}", guest.outputs());
            assert!(
                found > 0 || ["profile=amd-apm", "profile=coherent"].contains(&keys),
                "`{keys}`\n{}",
                guest.outputs()
            );
        }
    }
}

/// So often the site of [`there_and_back`] is executed.
const ROUNDS: u8 = 6;

/// A guest that changes an instruction right before it, there and back, and executes it: with the same bytes each time,
/// in one epoch.
fn there_and_back() -> BootSector {
    // cli; xor %ax,%ax; mov %ax,%ds; mov %ax,%ss; mov $0x7c00,%sp; mov $ROUNDS,%si
    let mut code = vec![0xfa, 0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xd0, 0xbc, 0x00, 0x7c, 0xbe, ROUNDS, 0x00];
    // 0x7c0d: movl $0x22222222,0x7c21; movl $0x11111111,0x7c21
    code.extend([
        0x66, 0xc7, 0x06, 0x21, 0x7c, 0x22, 0x22, 0x22, 0x22, 0x66, 0xc7, 0x06, 0x21, 0x7c, 0x11, 0x11, 0x11, 0x11,
    ]);
    // 0x7c1f: mov $0x11111111,%eax; dec %si; jne 0x7c0d
    code.extend([0x66, 0xb8, 0x11, 0x11, 0x11, 0x11, 0x4e, 0x75, 0xe5]);
    BootSector::of(code, Ending::PowerOff)
}

/// A segment that was executed in the epoch, and whose bytes changed since, is called for again: else the recording
/// would have an execution that the model judges and the plugin did not.
#[test]
fn what_changes_again_and_again_is_judged_each_time() {
    let lab = Lab::open();
    for qemu in lab.qemus.iter().filter(|qemu| qemu.physical) {
        let machine = Machine::pc(&lab, qemu).sector(&there_and_back()).report();
        let path = recording(&machine);
        let mut guest = machine.path_key("record", &path).launch();
        assert_eq!(guest.exit_code(SOON), 0, "QEMU {}\n{}", qemu.version, guest.outputs());
        prove(&guest);
        let report = guest.report();
        let site = report.hazards.iter().filter(|hazard| hazard["pc"] == "0x7c1f");
        let found: u64 = site.map(|hazard| hazard["count"].as_u64().unwrap()).sum();
        assert_eq!(found, u64::from(ROUNDS), "{}", guest.outputs());
    }
}

/// A way to end a QEMU that runs.
type EndIt = fn(&mut Guest);

#[test]
fn it_is_whole_however_qemu_ends() {
    let lab = Lab::open();
    let ways: [(&str, EndIt); 3] = [
        ("quit on the monitor", |guest| guest.monitor("quit")),
        ("SIGTERM", |guest| guest.signal(Signal::TERM)),
        ("SIGINT", |guest| guest.signal(Signal::INT)),
    ];
    for qemu in &lab.qemus {
        for (name, end) in ways {
            let mut guest = machine(&lab, qemu, Ending::Spin, "exitcode=7").launch();
            guest.wait_until("its end", SOON, |guest| guest.serial().contains(DONE));
            end(&mut guest);
            assert_eq!(guest.exit_code(SOON), 7, "QEMU {}, {name}\n{}", qemu.version, guest.outputs());
            prove(&guest);
        }
    }
}

/// A disk that is full: said once, and the report does not call itself complete. What is in the file is good.
#[test]
fn what_cannot_be_written_is_said() {
    let lab = Lab::open();
    let qemu = &lab.qemus[1];
    // The sizes are in blocks of 512 bytes.
    let mut guest = machine(&lab, qemu, Ending::PowerOff, "").after_shell("trap '' XFSZ; ulimit -f 300").launch();
    assert_eq!(guest.exit_code(SOON), 0, "{}", guest.outputs());
    assert_eq!(guest.stderr().matches("the recording ends here").count(), 1, "{}", guest.outputs());
    assert_eq!(guest.report().summary()["complete"], false, "{}", guest.outputs());
    let reader = Reader::new(File::open(guest.file("recording")).unwrap()).unwrap();
    let outcome = session::run(reader, &Settings::default(), true, 10).unwrap();
    assert_eq!((outcome.differences.total, outcome.refused.total), (0, 0), "{:#?}", outcome.differences.list);
    assert!(outcome.stats.stores > 0 && !outcome.complete(), "{}", guest.outputs());
}

#[test]
fn a_path_that_cannot_be_written_is_refused() {
    let lab = Lab::open();
    for qemu in &lab.qemus {
        for path in ["/nonexistent/recording", "/dev/full"] {
            let mut guest = Machine::pc(&lab, qemu).path_key("record", Path::new(path)).launch();
            assert_ne!(guest.exit_code(SOON), 0, "{}", guest.outputs());
            let words = format!("record={path}: cannot be written");
            assert!(guest.stderr().contains(&words), "{}", guest.outputs());
        }
    }
}
