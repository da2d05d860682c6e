//! Where code is in physical memory: above 4 GiB, in plugged memory, behind a page end; and what is said where it
//! cannot be told.

use crate::high_sector::{CASES, write_disk};
use crate::lab::{Lab, Qemu};
use crate::machine::{Guest, Machine, SOON};

/// Machines with memory at physical 4 GiB.
const MACHINES: &[(&str, &[&str])] = &[
    ("q35, 2 GiB below", &["-machine", "q35", "-m", "3G"]),
    ("pc, 3 GiB below", &["-machine", "pc", "-m", "4G"]),
    ("1 GiB below", &["-machine", "q35,max-ram-below-4g=1G", "-m", "2G"]),
    (
        "plugged memory",
        &[
            "-m",
            "512M,slots=1,maxmem=8G",
            "-object",
            "memory-backend-ram,id=more,size=1G",
            "-device",
            "pc-dimm,memdev=more,addr=0x100000000",
        ],
    ),
];

fn boot(lab: &Lab, qemu: &Qemu, machine: &[&str], keys: &str, commands: &'static str) -> Guest {
    let described = Machine::pc(lab, qemu).arguments(machine).report().keys(keys).after_shell(commands);
    let disk = described.file("disk");
    write_disk(&disk);
    let mut guest = described.arguments(&["-drive", &format!("file={},format=raw", disk.display())]).launch();
    assert_eq!(guest.exit_code(SOON), 0, "{}", guest.outputs());
    assert!(guest.serial().ends_with('.'), "{}", guest.outputs());
    guest
}

/// Every bad case is reported where it is, and no other, on both QEMUs and whether or not their outdated blocks are
/// repaired.
#[test]
fn code_above_4_gib_is_judged_as_any_other() {
    let lab = Lab::open();
    for qemu in &lab.qemus {
        for (name, machine) in MACHINES {
            for keys in ["", "hooks=off", "hooks=off,emulator=repair"] {
                let guest = boot(&lab, qemu, machine, keys, ":");
                let context = format!("QEMU {}, {name}, `{keys}`\n{}", qemu.version, guest.outputs());
                let report = guest.report();
                let found: Vec<_> = report
                    .hazards
                    .iter()
                    .map(|hazard| ["kind", "pc", "paddr"].map(|key| hazard[key].as_str().unwrap()))
                    .collect();
                let bad: Vec<_> = CASES.iter().filter(|case| case.is_bad()).collect();
                let expected: Vec<_> = bad
                    .iter()
                    .map(|case| (format!("{:#x}", case.linear()), format!("{:#x}", case.physical())))
                    .collect();
                let expected: Vec<_> = expected.iter().map(|(linear, physical)| ["alias", linear, physical]).collect();
                assert_eq!(found, expected, "{context}");
                for hazard in &report.hazards {
                    assert_eq!(hazard["writes"][0]["vcpu"], 0, "{context}");
                }
                let summary = report.summary();
                assert_eq!((&summary["complete"], &summary["dropped"]), (&true.into(), &0.into()), "{context}");
            }
        }
    }
}

/// QEMU 11.1 without what it exports: a block is only translated again where stores proved that it can be, and the rest
/// is said and counted.
#[test]
fn what_cannot_be_repaired_is_said() {
    let lab = Lab::open();
    let qemu = lab.qemus.iter().find(|qemu| qemu.physical).unwrap();
    let guest = boot(&lab, qemu, MACHINES[0].1, "emulator=repair", "export ICSAN_WITHOUT_EXPORTS=1");
    let (report, context) = (guest.report(), guest.outputs());
    let (summary, given_up) = (report.summary(), &report.summary()["emulator"]["gave_up"]);
    // Firmware and sector do not store anything between two pages of code above 4 GiB.
    assert!(given_up.as_u64().is_some_and(|blocks| blocks > 0), "{context}");
    assert!(
        summary["emulator"]["repaired"].as_u64().is_some_and(|blocks| blocks > 0),
        "below 4 GiB they do\n{context}"
    );
    assert_eq!((&summary["dropped_by"]["repair"], &summary["complete"]), (given_up, &false.into()), "{context}");
    assert!(guest.stderr().contains("incomplete from here on: a block that may be outdated"), "{context}");
}

/// A QEMU that tells neither by its API nor by what it exports: said at once, counted, and nothing is invented.
#[test]
fn what_has_no_place_is_said_to_have_none() {
    let lab = Lab::open();
    for qemu in &lab.qemus {
        let guest = boot(&lab, qemu, MACHINES[0].1, "", "export ICSAN_WITHOUT_EXPORTS=1");
        let (report, context) = (guest.report(), guest.outputs());
        let unknown = report.summary()["dropped_by"]["places"].as_u64();
        if qemu.physical {
            assert_eq!((unknown, &report.summary()["complete"]), (None, &true.into()), "its API tells\n{context}");
            continue;
        }
        assert!(unknown.is_some_and(|blocks| blocks > 1000), "{context}");
        assert_eq!(report.summary()["complete"], false, "{context}");
        let said = guest
            .stderr()
            .lines()
            .position(|line| line.contains("incomplete from here on: this QEMU does not tell where"));
        assert!(said.is_some_and(|line| line < 3), "before anything is found\n{context}");
        for hazard in &report.hazards {
            assert_eq!(
                (&hazard["kind"], &hazard["writes"]),
                (&"unserialized".into(), &serde_json::json!([])),
                "{context}"
            );
        }
    }
}
