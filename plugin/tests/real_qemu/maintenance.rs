//! AArch64: what a change of code needs, by the caches that the guest's CPU has; and that every exception is told of.

use crate::arm_code::{ORIGIN, ROUNDS, Round, START, write_image};
use crate::lab::{Lab, Qemu};
use crate::machine::{BOOT, Guest, Machine, SOON};
use crate::recording::check;
use std::collections::BTreeSet;

/// A CPU whose caches need everything (CTR_EL0.IDC and DIC are 0), and one whose need nothing.
const CPUS: [(&str, bool); 2] = [("cortex-a72", true), ("max,pauth-impdef=on", false)];

fn boot(lab: &Lab, qemu: &Qemu, cpu: &str, keys: &str, commands: &'static str) -> Guest {
    let described = Machine::virt(lab, qemu, cpu).report().keys(keys).after_shell(commands);
    let image = described.file("image");
    write_image(&image, ROUNDS, false);
    let (load, begin) = (
        format!("loader,file={},addr={ORIGIN:#x},force-raw=on", image.display()),
        format!("loader,addr={START:#x},cpu-num=0"),
    );
    let mut guest = described.arguments(&["-device", &load, "-device", &begin]).launch();
    assert_eq!(guest.exit_code(SOON), 0, "{}", guest.outputs());
    guest
}

/// Kind and place of each hazard, in the order of the report.
fn found(guest: &Guest) -> Vec<(String, String)> {
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    guest.report().hazards.iter().map(|hazard| (text(&hazard["kind"]), text(&hazard["pc"]))).collect()
}

fn expected(needs_maintenance: bool, strict: bool) -> Vec<(String, String)> {
    let kind = |round: &Round| if needs_maintenance { round.base } else { round.coherent };
    let reported = ROUNDS.iter().enumerate().filter(|(_, round)| strict || !round.listed);
    reported
        .filter_map(|(place, round)| Some((kind(round)?.to_owned(), format!("{:#x}", Round::site(place)))))
        .collect()
}

/// Each round with a step left out is reported for that step, and each complete one is not: by what the CPU's own
/// register says, and by what a profile says instead.
#[test]
fn every_step_that_is_left_out_has_its_kind() {
    let lab = Lab::open();
    for qemu in &lab.arm {
        for (cpu, needs) in CPUS {
            for (keys, needs, strict) in [
                ("", needs, false),
                ("hooks=off", needs, false),
                ("hooks=off,emulator=repair", needs, false),
                ("profile=arm64-strict", needs, true),
                ("profile=arm64-base", true, false),
                ("profile=arm64-idc-dic", false, false),
            ] {
                let guest = boot(&lab, qemu, cpu, keys, ":");
                let context = format!("QEMU {}, {cpu}, `{keys}`\n{}", qemu.version, guest.outputs());
                assert_eq!(found(&guest), expected(needs, strict), "{context}");
                let report = guest.report();
                let summary = report.summary();
                assert_eq!((&summary["complete"], &summary["dropped"]), (&true.into(), &0.into()), "{context}");
                assert_eq!(report.start["arch"], "aarch64", "{context}");
                let listed = ROUNDS.iter().filter(|round| round.listed && !strict).count();
                assert_eq!(summary["exempt"], listed, "{context}");
            }
        }
    }
}

/// The ledger says by what maintenance a change was found that was safe to execute; where none is needed it names none.
#[test]
fn the_ledger_has_the_steps_of_maintenance() {
    let lab = Lab::open();
    for qemu in &lab.arm {
        for (cpu, needs) in CPUS {
            let guest = boot(&lab, qemu, cpu, "", ":");
            let report = guest.report();
            let rows = report.summary()["reliance"].as_array().unwrap();
            let steps = |event: &str| -> BTreeSet<String> {
                let of_event = rows.iter().filter(|row| row["event"] == event);
                of_event.map(|row| row["maintained"].to_string()).collect()
            };
            let context = format!("QEMU {}, {cpu}\n{}", qemu.version, guest.outputs());
            // What one round stored and then invalidated in its own cache alone is another row.
            let (line, own) = (r#"["clean","invalidate"]"#, r#"["clean","invalidate-own"]"#);
            let expected = if needs { vec![line, own] } else { vec!["null"] };
            assert_eq!(steps("isb"), expected.iter().map(|steps| (*steps).to_owned()).collect(), "{context}");
            let expected = if needs { line } else { "null" };
            assert_eq!(steps("exception-entry"), [expected.to_owned()].into(), "{context}");
            assert_eq!(guest.stderr().contains(", after clean and invalidate-own\n"), needs, "{context}");
        }
    }
}

/// The plain model, which is told the guest's caches by the recording, comes to every verdict of the plugin's and to no
/// other.
#[test]
fn the_model_agrees() {
    let lab = Lab::open();
    for qemu in &lab.arm {
        for (cpu, _) in CPUS {
            for profile in ["linux-arm64", "arm64-strict", "arm64-base", "arm64-idc", "arm64-idc-dic"] {
                let guest = boot(&lab, qemu, cpu, &format!("record=recording,profile={profile}"), ":");
                let (agreement, totals) = check(&guest.file("recording"), &guest.outputs());
                let found = found(&guest).len() as u64;
                assert!(found > 0 && agreement.executions > 50, "{agreement:?}\n{}", guest.outputs());
                assert_eq!((agreement.agreed, totals.hazards), (found, found), "{profile}\n{}", guest.outputs());
            }
        }
    }
}

/// Without the store side maintenance is not seen: what is left is whether the executor synchronized.
#[test]
fn the_light_mode_sees_what_is_not_synchronized() {
    let lab = Lab::open();
    for qemu in &lab.arm {
        for (cpu, _) in CPUS {
            let guest = boot(&lab, qemu, cpu, "writers=off", ":");
            assert_eq!(found(&guest), expected(false, false), "QEMU {}, {cpu}\n{}", qemu.version, guest.outputs());
        }
    }
}

/// Where every store is snooped at once nothing is a hazard.
#[test]
fn the_control_is_silent() {
    let lab = Lab::open();
    for qemu in &lab.arm {
        let guest = boot(&lab, qemu, CPUS[0].0, "profile=coherent", ":");
        assert_eq!(found(&guest), [], "{}", guest.outputs());
    }
}

/// A kernel that boots enters its vectors once for each return, but for the first one, which is its own: whether QEMU's
/// API tells of that, its hooks do, or the vectors are watched.
#[test]
fn every_exception_is_told_of() {
    let lab = Lab::open();
    for qemu in &lab.arm {
        for commands in [":", "export ICSAN_WITHOUT_EXPORTS=1"] {
            let machine = Machine::virt(&lab, qemu, CPUS[0].0).arguments(&["-smp", "2"]).report().after_shell(commands);
            let mut guest = machine.kernel_of_arm(&lab.kernel_arm).launch();
            guest.exit_code(BOOT);
            let report = guest.report();
            let events = &report.summary()["serializing"];
            let count = |name: &str| events[name].as_u64().unwrap_or(0);
            let (entries, returns) = (count("exception-entry"), count("exception-return"));
            assert!(returns > 1000, "{}", guest.outputs());
            // The kernel dies in an exception that it does not return from, or in none.
            assert!((returns - 1..=returns).contains(&entries), "{entries} {returns}\n{}", guest.outputs());
        }
    }
}

/// A machine that is reset boots what was loaded anew, and a state that is restored is in memory and in no cache: what
/// the kernel changed before is no hazard. (It has one known finding
/// at each boot.)
#[test]
fn neither_a_reset_nor_a_restored_state_leaves_anything_in_a_cache() {
    let lab = Lab::open();
    for qemu in &lab.arm {
        let machine = Machine::virt(&lab, qemu, CPUS[0].0).arguments(&["-smp", "2", "-action", "reboot=reset"]);
        let (monitor, symbols) = (machine.monitor_arguments(), lab.kernel_arm.clone());
        let disk = machine.file("disk");
        std::fs::File::create(&disk).unwrap().set_len(1 << 20).unwrap();
        let drive = format!("if=none,file={},format=raw,snapshot=on", disk.display());
        let machine = machine.arguments(&monitor).arguments(&["-drive", &drive]).report().path_key("symbols", &symbols);
        let mut guest = machine.kernel_of_arm(&lab.kernel_arm).launch();
        let boots = |guest: &Guest| guest.serial().matches("Linux version").count();
        let panics = |guest: &Guest| guest.serial().matches("Kernel panic").count();
        guest.wait_until("the first boot", BOOT, |guest| boots(guest) > 0);
        guest.monitor("savevm a");
        guest.wait_until("the second boot, with its text patched", BOOT, |guest| boots(guest) > 1 && panics(guest) > 1);
        guest.monitor("loadvm a");
        guest.wait_until("one more", BOOT * 2, |guest| panics(guest) > 2);
        guest.monitor("quit");
        assert_eq!(guest.exit_code(BOOT * 2), 0, "{}", guest.outputs());
        let report = guest.report();
        let unknown: Vec<_> = report.hazards.iter().filter(|hazard| hazard["known"].is_null()).collect();
        assert_eq!(unknown, Vec::<&serde_json::Value>::new(), "QEMU {}: {}", qemu.version, guest.outputs());
        assert_eq!(report.summary()["restored"], 1, "QEMU {}: {}", qemu.version, guest.outputs());
    }
}
