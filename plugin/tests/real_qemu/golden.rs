//! Whole reports of the boot sector, in `golden/`, but for what differs from run to run: places in the order, epochs,
//! and where the firmware serialized last. `UPDATE_EXPECT=1` writes them.

use crate::boot_sector::{BootSector, Ending};
use crate::lab::{Lab, Qemu};
use crate::machine::{Machine, SOON};
use expect_test::expect_file;
use serde_json::Value;

/// What stands for a number, or an address, that differs.
const SOME: &str = "…";

/// The reports of hazards out of all that was said.
fn hazards(stderr: &str) -> String {
    let bar = "==================================================================\n";
    stderr.split(bar).filter(|part| part.starts_with("BUG: ICSAN: ")).map(steady).collect()
}

/// Without the numbers after `seq` and the address after `last serialized`.
fn steady(text: &str) -> String {
    let lines = text.lines().map(|line| {
        let mut words: Vec<&str> = line.split(' ').collect();
        let serialized = line.contains(" last serialized at seq ");
        for index in 1..words.len() {
            let address = serialized && words[index - 1] == "in";
            if words[index - 1] == "seq" || address {
                words[index] = SOME;
            }
        }
        words.join(" ") + "\n"
    });
    lines.collect()
}

fn steady_object(object: &mut Value) {
    match object {
        Value::Array(items) => items.iter_mut().for_each(steady_object),
        Value::Object(fields) => {
            for (key, value) in fields {
                match (key.as_str(), &mut *value) {
                    ("seq" | "epoch", number) => *number = SOME.into(),
                    ("versions", Value::Array(versions)) => {
                        versions
                            .iter_mut()
                            .filter(|version| version.as_u64().is_some_and(|version| version != 0))
                            .for_each(|version| *version = SOME.into());
                    }
                    ("last_sync", Value::Object(sync)) => {
                        for key in ["pc", "seq"] {
                            sync.insert(key.to_owned(), SOME.into());
                        }
                    }
                    _ => steady_object(value),
                }
            }
        }
        _ => {}
    }
}

fn same(lab: &Lab, qemu: &Qemu, name: &str, keys: &str) {
    let mut guest = Machine::pc(lab, qemu).sector(&BootSector::new(Ending::PowerOff)).report().keys(keys).launch();
    assert_eq!(guest.exit_code(SOON), 0, "{}", guest.outputs());
    expect_file![format!("golden/{name}.txt")].assert_eq(&hazards(&guest.stderr()));
    let objects = guest.report().hazards.into_iter().map(|mut hazard| {
        steady_object(&mut hazard);
        serde_json::to_string_pretty(&hazard).unwrap() + "\n"
    });
    expect_file![format!("golden/{name}.json")].assert_eq(&objects.collect::<String>());
}

#[test]
fn the_boot_sector() {
    let lab = Lab::open();
    for qemu in &lab.qemus {
        same(&lab, qemu, "full", "");
        same(&lab, qemu, "light", "writers=off");
        same(&lab, qemu, "without-cpuid", "without=cpuid");
    }
}
