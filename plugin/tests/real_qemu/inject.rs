//! `inject=` and `serialize=emulate`: what the guest observes, and that it is exact.

use crate::lab::{Lab, Qemu};
use crate::long_sector::{Counted, ROUNDS, Serializing, write_disk};
use crate::machine::{Guest, Machine, SOON};
use std::fmt::Write;

/// One vCPU, with a clock that counts instructions.
const EXACT: &[&str] = &["-accel", "tcg", "-icount", "shift=0", "-smp", "1"];
const PLAIN: &[&str] = &["-accel", "tcg", "-smp", "1"];

fn boot(lab: &Lab, qemu: &Qemu, cpus: &[&str], serializing: Serializing, keys: &str) -> Guest {
    let machine = Machine::pc_with(lab, qemu, cpus).report().keys(keys);
    let disk = machine.file("disk");
    write_disk(&disk, serializing);
    machine.arguments(&["-drive", &format!("file={},format=raw", disk.display())]).launch()
}

/// Boots it to its end.
fn counts(lab: &Lab, qemu: &Qemu, cpus: &[&str], serializing: Serializing, keys: &str) -> (Counted, Guest) {
    let mut guest = boot(lab, qemu, cpus, serializing, keys);
    assert_eq!(guest.exit_code(SOON), 0, "QEMU {}, `{keys}`\n{}", qemu.version, guest.outputs());
    let counted =
        Counted::read(&guest.serial()).unwrap_or_else(|| panic!("it said nothing, `{keys}`\n{}", guest.outputs()));
    (counted, guest)
}

/// The QEMU that lets plugins change the program counter.
fn able(lab: &Lab) -> &Qemu {
    lab.qemus.iter().find(|qemu| qemu.api >= 6).unwrap()
}

const RIGHT: Counted = Counted { stale: 0, after: 0, flags: 0 };

#[test]
fn without_it_the_guest_is_right() {
    let lab = Lab::open();
    for qemu in &lab.qemus {
        let (counted, guest) = counts(&lab, qemu, PLAIN, Serializing::Cpuid, "inject=off");
        assert_eq!(counted, RIGHT, "{}", guest.outputs());
        assert!(guest.report().summary().get("injected").is_none(), "{}", guest.outputs());
    }
}

#[test]
fn stale_is_stale_until_the_guest_serializes_and_nothing_else_changes() {
    let lab = Lab::open();
    for cpus in [PLAIN, EXACT] {
        let (counted, guest) = counts(&lab, able(&lab), cpus, Serializing::Cpuid, "inject=stale");
        assert_eq!(counted, Counted { stale: ROUNDS, ..RIGHT }, "{}", guest.outputs());
        let report = guest.report();
        let summary = &report.summary()["injected"];
        assert_eq!(
            (summary["executions"].as_u64(), summary["not_carried_out"].as_u64()),
            (Some(ROUNDS), Some(0)),
            "{}",
            guest.outputs()
        );
        let [hazard] = &report.hazards[..] else { panic!("{}", guest.outputs()) };
        assert_eq!((&hazard["kind"], &hazard["injected"]), (&"alias".into(), &true.into()), "{hazard}");
        assert_eq!(hazard["executed"], "b811110000", "{hazard}");
        assert_eq!(report.injections.len() as u64, ROUNDS, "each of other bytes\n{}", guest.outputs());
        for injection in &report.injections {
            assert_eq!((&injection["kind"], &injection["count"]), (&"alias".into(), &1.into()), "{injection}");
            let trail = &injection["trail"];
            assert_eq!(trail["ended_by"]["event"], "cpuid", "{injection}");
            assert!(!trail["blocks"].as_array().unwrap().is_empty(), "{injection}");
        }
    }
}

#[test]
fn without_a_torn_candidate_torn_does_nothing() {
    let lab = Lab::open();
    let (counted, guest) = counts(&lab, able(&lab), PLAIN, Serializing::Cpuid, "inject=torn");
    assert_eq!(counted, RIGHT, "{}", guest.outputs());
    assert_eq!(guest.report().summary()["injected"]["executions"], 0, "{}", guest.outputs());
}

/// All injections in their order: what was executed in place of what.
fn injections(guest: &Guest) -> String {
    guest.report().injections.iter().fold(String::new(), |mut text, injection| {
        writeln!(text, "{} for {}, {} times", injection["bytes"], injection["memory"], injection["count"]).unwrap();
        text
    })
}

#[test]
fn random_is_the_same_for_the_same_seed_and_about_as_often_as_it_is_told() {
    let lab = Lab::open();
    let run = |keys: &str| {
        let (counted, guest) = counts(&lab, able(&lab), EXACT, Serializing::Cpuid, keys);
        assert_eq!((counted.after, counted.flags), (0, 0), "`{keys}`\n{}", guest.outputs());
        (counted.stale, injections(&guest))
    };
    let first = run("inject=random:7:50");
    assert!((ROUNDS / 4..ROUNDS * 3 / 4).contains(&first.0), "{} of {ROUNDS}", first.0);
    assert_eq!(run("inject=random:7:50"), first);
    assert_ne!(run("inject=random:8:50").1, first.1);
    assert_eq!(run("inject=random:7:100").0, ROUNDS);
}

#[test]
fn serialize_is_carried_out_where_tcg_has_none() {
    let lab = Lab::open();
    let qemu = able(&lab);
    let (counted, guest) = counts(&lab, qemu, PLAIN, Serializing::Serialize, "serialize=emulate");
    assert_eq!(counted, RIGHT, "{}", guest.outputs());
    let report = guest.report();
    assert_eq!(report.events("serialize"), 2 * ROUNDS, "{}", guest.outputs());
    // And it ends what is stale.
    let (counted, guest) = counts(&lab, qemu, PLAIN, Serializing::Serialize, "serialize=emulate,inject=stale");
    assert_eq!(counted, Counted { stale: ROUNDS, ..RIGHT }, "{}", guest.outputs());
    // Without it: #UD, for which the guest has no handler, so that it resets, and ends.
    let mut guest = boot(&lab, qemu, PLAIN, Serializing::Serialize, "");
    guest.exit_code(SOON);
    assert_eq!(Counted::read(&guest.serial()), None, "{}", guest.outputs());
}
