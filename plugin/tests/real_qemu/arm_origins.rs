//! What an ERET returns from, on a kernel of Arm's: in the ledger, and with `without=exception-return@SYMBOL`.

use crate::initramfs;
use crate::lab::{Lab, Qemu};
use crate::machine::{BOOT, Guest, Machine};
use std::collections::BTreeSet;

/// Nothing but a synchronizing event lets it execute what was stored.
const CPU: &str = "max,pauth-impdef=on";

/// The first program. In each of 20 rounds it changes a function of its own, makes a system call and executes it; in
/// ten of them it then changes it again, lets an eighth of a second go by (in which the timer's interrupt comes), and
/// executes it once more. Then it ends, which the kernel does not survive.
#[rustfmt::skip]
const PROGRAM: &[u32] = &[
    0x1000_0433, // adr x19, site
    0x5280_0296, // mov w22, #0x14
    0x9400_0016, // bl publish
    0xd503_3fdf, // isb
    0x9400_001d, // bl site
    0x9400_0013, // bl publish
    0xd280_1588, // mov x8, #0xac
    0xd400_0001, // svc #0x0
    0x9400_0019, // bl site
    0x7100_2adf, // cmp w22, #0xa
    0x5400_0128, // b.hi .+36
    0x9400_000d, // bl publish
    0xd53b_e054, // mrs x20, cntvct_el0
    0xd53b_e015, // mrs x21, cntfrq_el0
    0x8b55_0e95, // add x21, x20, x21, lsr #3
    0xd53b_e054, // mrs x20, cntvct_el0
    0xeb15_029f, // cmp x20, x21
    0x54ff_ffcb, // b.lt .-8
    0x9400_000f, // bl site
    0x7100_06d6, // subs w22, w22, #0x1
    0x54ff_fdc1, // b.ne .-72
    0xd280_0ba8, // mov x8, #0x5d
    0xd280_0000, // mov x0, #0x0
    0xd400_0001, // svc #0x0
    // publish:
    0x1100_06f7, // add w23, w23, #0x1
    0x52aa_5001, // mov w1, #0x52800000
    0x2a17_1421, // orr w1, w1, w23, lsl #5
    0xb900_0261, // str w1, [x19]
    0xd50b_7b33, // dc cvau, x19
    0xd503_3b9f, // dsb ish
    0xd50b_7533, // ic ivau, x19
    0xd503_3b9f, // dsb ish
    0xd65f_03c0, // ret
    // site:
    0x5280_0000, // mov w0, #0x0
    0xd65f_03c0, // ret
];

/// Boots the kernel with that program, to the panic that it ends in.
fn boot(lab: &Lab, qemu: &Qemu, keys: &str) -> Guest {
    let machine = Machine::virt(lab, qemu, CPU).arguments(&["-smp", "2"]).report().keys(keys);
    let initramfs = machine.file("initramfs");
    initramfs::write_arm(&initramfs, PROGRAM);
    let machine = machine.path_key("symbols", &lab.kernel_arm).arguments(&["-initrd".as_ref(), initramfs.as_os_str()]);
    let mut guest = machine.kernel_of_arm(&lab.kernel_arm).launch();
    assert_eq!(guest.exit_code(BOOT), 0, "QEMU {}, `{keys}`\n{}", qemu.version, guest.outputs());
    assert!(guest.serial().contains("Attempted to kill init"), "QEMU {}, `{keys}`\n{}", qemu.version, guest.outputs());
    guest
}

/// The origins that the ledger has of this event.
fn origins(guest: &Guest, event: &str) -> BTreeSet<String> {
    let report = guest.report();
    let rows = report.summary()["reliance"].as_array().unwrap().iter().filter(|row| row["event"] == event);
    rows.filter_map(|row| Some(row["origin"].as_str()?.to_owned())).collect()
}

/// Where exception entries do not count, nor the ISBs on the kernel's way out, the returns do, each under the name of
/// what was entered.
#[test]
fn the_ledger_names_what_an_exception_returned_from() {
    let lab = Lab::open();
    for qemu in &lab.arm {
        let guest = boot(&lab, qemu, "without=exception-entry+isb");
        let found = origins(&guest, "exception-return");
        for expected in ["el1h_64_irq", "el0t_64_sync", "el0t_64_irq"] {
            assert!(found.contains(expected), "{expected}: {found:?}, QEMU {}\n{}", qemu.version, guest.outputs());
        }
        assert_eq!(guest.report().summary()["complete"], true, "QEMU {}\n{}", qemu.version, guest.outputs());
    }
}

/// What is taken from one entry's return is counted, is in no row, and nothing is lost by it.
#[test]
fn returns_from_one_entry_are_refused_and_no_others() {
    let lab = Lab::open();
    for qemu in &lab.arm {
        let guest = boot(&lab, qemu, "without=exception-entry+isb+exception-return@el0t_64_irq");
        let report = guest.report();
        let context = format!("QEMU {}\n{}", qemu.version, guest.outputs());
        assert!(report.summary()["refused"].as_u64() > Some(0), "{context}");
        assert_eq!(report.summary()["complete"], true, "{context}");
        let found = origins(&guest, "exception-return");
        assert!(found.contains("el0t_64_sync") && !found.contains("el0t_64_irq"), "{found:?}, {context}");
        let guest = boot(&lab, qemu, "without=exception-return@el1h_64_irq");
        let report = guest.report();
        let context = format!("QEMU {}\n{}", qemu.version, guest.outputs());
        assert!(report.summary()["refused"].as_u64() > Some(0), "{context}");
        assert_eq!(report.summary()["complete"], true, "{context}");
    }
}
