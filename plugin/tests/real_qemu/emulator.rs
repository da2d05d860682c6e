//! `emulator=repair` without hooks: outdated blocks are translated again, and nothing else changes.

use crate::boot_sector::{BootSector, Ending};
use crate::lab::Lab;
use crate::machine::{BOOT, Machine, SOON};

/// The same hazards as without it, and a summary that says what was done.
#[test]
fn repair_leaves_the_verdicts_as_they_are() {
    let lab = Lab::open();
    for qemu in &lab.qemus {
        let boot = |keys: &str| {
            let mut guest =
                Machine::pc(&lab, qemu).sector(&BootSector::new(Ending::PowerOff)).report().keys(keys).launch();
            assert_eq!(guest.exit_code(SOON), 0, "{}", guest.outputs());
            guest
        };
        let (told, repaired) = (boot("hooks=off,emulator=report"), boot("hooks=off,emulator=repair"));
        assert_eq!(told.report().sites(), repaired.report().sites(), "{}", repaired.outputs());
        assert_eq!(told.report().summary()["emulator"], serde_json::Value::Null);
        let emulator = &repaired.report().summary()["emulator"].clone();
        assert_eq!(
            emulator["suspect"].as_u64(),
            Some(emulator["repaired"].as_u64().unwrap() + emulator["gave_up"].as_u64().unwrap())
        );
        assert!(repaired.stderr().contains("icsan: emulator=repair: "), "{}", repaired.outputs());
        assert_eq!(repaired.report().summary()["complete"], true, "{}", repaired.outputs());
    }
}

/// A kernel with two CPUs boots to the panic that it owes to its missing root file system, with blocks repaired on its
/// way.
#[test]
fn a_kernel_boots_with_repairs() {
    let lab = Lab::open();
    for qemu in &lab.qemus {
        let mut guest = Machine::pc(&lab, qemu)
            .kernel(&lab.kernel_6_12, "no_timer_check")
            .report()
            .keys("hooks=off,emulator=repair")
            .launch();
        assert_eq!(guest.exit_code(BOOT), 0, "QEMU {}\n{}", qemu.version, guest.outputs());
        assert!(guest.serial().contains("VFS: Unable to mount root fs"), "QEMU {}\n{}", qemu.version, guest.outputs());
        let report = guest.report();
        let emulator = &report.summary()["emulator"];
        assert!(emulator["repaired"].as_u64().unwrap() > 0, "QEMU {}\n{}", qemu.version, guest.outputs());
        assert_eq!(report.summary()["complete"], true, "QEMU {}\n{}", qemu.version, guest.outputs());
    }
}
