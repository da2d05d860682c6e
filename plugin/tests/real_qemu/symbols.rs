//! Names are right wherever KASLR puts the kernel, whatever file they come from, and absent when the file is of another
//! kernel.

use crate::boot_sector::{BootSector, DONE, Ending};
use crate::lab::Lab;
use crate::machine::{BOOT, Guest, Machine, SOON};
use crate::report::Report;
use iced_x86::code_asm::*;
use icsan_symbols::SymbolTable;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// What every boot of Debian's kernels does: `memcpy_orig` is patched by `memcpy_orig`, and its end runs before the
/// next serializing event.
pub fn assert_boot_hazard(guest: &Guest, report: &Report) {
    let [hazard] = report.hazards.as_slice() else { panic!("one hazard is expected\n{}", guest.outputs()) };
    let name = hazard["symbol"].as_str().unwrap_or_else(|| panic!("no name\n{}", guest.outputs()));
    assert!(name.starts_with("memcpy_orig+0x"), "{name}\n{}", guest.outputs());
    assert!(hazard["paddr"].is_string(), "{hazard}");
    let writes = hazard["writes"].as_array().unwrap();
    assert!(!writes.is_empty() && writes.iter().all(|write| write["vcpu"] == hazard["vcpu"]), "{hazard}");
    assert!(writes[0]["function"].as_str().is_some_and(|name| name.starts_with("apply_returns+0x0/")), "{hazard}");
    // The patching function's own, or that of an interrupt just before.
    let sync = hazard["last_sync"]["symbol"].as_str().unwrap_or_else(|| panic!("no name\n{}", guest.outputs()));
    let names = ["text_poke_early+0x", "native_irq_return_iret+0x0/"];
    assert!(names.iter().any(|name| sync.starts_with(name)), "{sync}\n{}", guest.outputs());
    assert!(hazard["known"].as_str().is_some_and(|page| page.starts_with("docs/findings.md#memcpy_orig-")), "{hazard}");
    let told = if report.summary()["hazards"].get("smc").is_some() { "BUG: ICSAN" } else { "icsan: known" };
    assert!(guest.stderr().contains(&format!("{told}: smc in {name} / memcpy_orig+0x")), "{}", guest.outputs());
}

/// The kernel says where it is when it panics.
pub fn assert_offset_as_printed(guest: &Guest, report: &Report) {
    let serial = guest.serial();
    let printed = serial.split("Kernel Offset: ").nth(1).and_then(|rest| rest.split_whitespace().next());
    assert_eq!(report.summary()["kaslr"].as_str(), printed, "{}", guest.outputs());
}

/// A System.map of the kernel, as its build would have made it.
fn system_map(image: &Path, map: PathBuf) -> PathBuf {
    let mut text = String::new();
    for symbol in SymbolTable::load(image).unwrap().symbols() {
        writeln!(text, "{:016x} {} {}", symbol.addr, symbol.kind, symbol.name).unwrap();
    }
    std::fs::write(&map, text).unwrap();
    map
}

/// Boots until the hazard is there, and quits: with that exit code, of 0 and 3.
fn boot_to_the_hazard(machine: Machine, code: i32) -> (Guest, Report) {
    let mut guest = machine.report().keys("exitcode=3").launch();
    guest.wait_for_hazards(1, BOOT);
    guest.monitor("quit");
    assert_eq!(guest.exit_code(BOOT), code, "{}", guest.outputs());
    let report = guest.report();
    (guest, report)
}

/// With KASLR and from the image itself: `endings::a_kernel_panics` checks that with 6.1, up to the kernel's own word
/// for the offset.
#[test]
fn from_a_system_map_without_kaslr() {
    let lab = Lab::open();
    for qemu in &lab.qemus {
        let machine = Machine::pc(&lab, qemu).kernel(&lab.kernel_6_1, "nokaslr");
        let map = system_map(&lab.kernel_6_1, machine.file("System.map"));
        let (guest, report) = boot_to_the_hazard(machine.path_key("symbols", &map).keys("known=report"), 3);
        assert_boot_hazard(&guest, &report);
        assert_eq!(
            (&report.summary()["hazards"]["smc"], &report.summary()["known"]),
            (&1.into(), &1.into()),
            "{}",
            guest.outputs()
        );
        assert_eq!(report.summary()["kaslr"], "0x0", "{}", guest.outputs());
        // The address and the name must be of the same place.
        let table = SymbolTable::load(&lab.kernel_6_1).unwrap();
        let pc = u64::from_str_radix(report.sites()[0].trim_start_matches("0x"), 16).unwrap();
        assert_eq!(table.resolve(pc).unwrap().to_string(), report.hazards[0]["symbol"]);
    }
}

#[test]
fn of_a_newer_kernel() {
    let lab = Lab::open();
    for qemu in &lab.qemus {
        let machine = Machine::pc(&lab, qemu).kernel(&lab.kernel_6_12, "").path_key("symbols", &lab.kernel_6_12);
        let (guest, report) = boot_to_the_hazard(machine, 0);
        assert_boot_hazard(&guest, &report);
        assert_eq!(
            (&report.summary()["hazards"], &report.summary()["known"]),
            (&serde_json::json!({}), &1.into()),
            "{}",
            guest.outputs()
        );
        assert!(report.summary()["kaslr"].is_string(), "{}", guest.outputs());
    }
}

/// The light mode sees no writers, and knows the finding all the same.
#[test]
fn of_a_newer_kernel_in_the_light_mode() {
    let lab = Lab::open();
    let machine = Machine::pc(&lab, &lab.qemus[1]).kernel(&lab.kernel_6_12, "").path_key("symbols", &lab.kernel_6_12);
    let (guest, report) = boot_to_the_hazard(machine.keys("writers=off"), 0);
    assert_eq!(
        (&report.summary()["hazards"], &report.summary()["known"]),
        (&serde_json::json!({}), &1.into()),
        "{}",
        guest.outputs()
    );
}

/// What is known hides nothing else: by the letter of the manual the firmware's own loading is a hazard, too.
#[test]
fn what_is_known_and_what_is_not() {
    let lab = Lab::open();
    let machine = Machine::pc(&lab, &lab.qemus[1]).kernel(&lab.kernel_6_1, "").path_key("symbols", &lab.kernel_6_1);
    let mut guest = machine.report().keys("speculation=on,exitcode=3").launch();
    guest.wait_until("the known finding", BOOT, |guest| guest.report_text().contains("\"known\":"));
    guest.monitor("quit");
    assert_eq!(guest.exit_code(BOOT), 3, "{}", guest.outputs());
    let (report, context) = (guest.report(), guest.outputs());
    assert_eq!(
        (report.summary()["known"].as_u64(), report.summary()["hazards"].get("smc")),
        (Some(1), None),
        "{context}"
    );
    // Some twenty sites, all of two causes: the option ROM, and the kernel's real-mode part.
    let groups = report.summary()["groups"].as_array().unwrap().len();
    assert!(groups > 0 && report.summary()["hazards"]["speculative"].as_u64() > Some(2 * groups as u64), "{context}");
    assert_eq!(
        guest.stderr().matches("BUG: ICSAN: speculative in ").count(),
        groups,
        "each cause is told once\n{context}"
    );
    assert!(guest.stderr().contains("more sites like it in its page"), "{context}");
}

/// 6.12's symbols for a boot of 6.1: no names rather than wrong ones, and the guest boots on.
#[test]
fn of_another_kernel() {
    let lab = Lab::open();
    for qemu in &lab.qemus {
        let machine = Machine::pc(&lab, qemu).kernel(&lab.kernel_6_1, "").path_key("symbols", &lab.kernel_6_12);
        let (guest, report) = boot_to_the_hazard(machine, 3);
        let stderr = guest.stderr();
        let said: Vec<_> =
            stderr.lines().filter(|line| line.contains("the symbols are not of the kernel that runs")).collect();
        assert_eq!(said.len(), 1, "{}", guest.outputs());
        assert!(
            said[0].starts_with("icsan: ") && said[0].contains("give the symbols of the kernel that boots"),
            "{}",
            said[0]
        );
        assert_eq!(report.hazards.len(), 1, "{}", guest.outputs());
        assert!(
            report.hazards[0]["symbol"].is_null() && report.hazards[0]["last_sync"]["symbol"].is_null(),
            "{}",
            guest.outputs()
        );
        assert!(report.summary()["kaslr"].is_null(), "{}", guest.outputs());
    }
}

/// Debian names its kernels like this: `+` joins files, and is a letter of their names.
#[test]
fn from_a_file_with_a_plus_in_its_name() {
    let lab = Lab::open();
    let sector = BootSector::new(Ending::PowerOff);
    for qemu in &lab.qemus {
        let machine = Machine::pc(&lab, qemu);
        let (disk, map) = (machine.file("disk"), machine.file("vmlinuz-6.12.117+deb12-cloud-amd64"));
        sector.write_disk(&disk);
        sector.write_symbols(&map);
        let drive = format!("file={},format=raw", disk.display());
        let mut guest = machine.arguments(&["-drive", &drive]).path_key("symbols", &map).report().launch();
        assert_eq!(guest.exit_code(SOON), 0, "{}", guest.outputs());
        assert!(
            guest.report().hazards[0]["symbol"].as_str().is_some_and(|name| name.starts_with("whole+0x0/")),
            "{}",
            guest.outputs()
        );
    }
}

/// Two files, joined by `+`: the kernel's and a program's.
#[test]
fn from_several_files() {
    let lab = Lab::open();
    let sector = BootSector::new(Ending::PowerOff);
    for qemu in &lab.qemus {
        let machine = Machine::pc(&lab, qemu);
        let (disk, map) = (machine.file("disk"), machine.file("sector.map"));
        sector.write_disk(&disk);
        sector.write_symbols(&map);
        let drive = format!("file={},format=raw", disk.display());
        let keys = format!("symbols={}+{},start=first,stop=kernel_init", lab.kernel_6_1.display(), map.display());
        let mut guest = machine.arguments(&["-drive", &drive]).keys(&keys).report().launch();
        assert_eq!(guest.exit_code(SOON), 0, "{}", guest.outputs());
        let report = guest.report();
        assert!(
            report.hazards[0]["symbol"].as_str().is_some_and(|name| name.starts_with("whole+0x0/")),
            "{}",
            guest.outputs()
        );
        // The kernel of that file never ran, and that is said.
        assert!(guest.stderr().contains("icsan: no kernel symbols"), "{}", guest.outputs());
    }
}

/// Kernels that are nothing but their system-call entry: each writes where that is, one after the other; then a full
/// stop.
fn kernels(entries: &[u64]) -> BootSector {
    let mut a = CodeAssembler::new(16).unwrap();
    a.cli().unwrap();
    for entry in entries {
        a.mov(ecx, 0xc000_0082u32).unwrap();
        a.mov(eax, *entry as u32).unwrap();
        a.mov(edx, (entry >> 32) as u32).unwrap();
        a.wrmsr().unwrap();
    }
    BootSector::of(a.assemble(0x7c00).unwrap(), Ending::Spin)
}

const ENTRY: u64 = 0xffff_ffff_8200_0080;

/// The same kernel elsewhere, as kexec or a reset boots it, has names there; another one has none, and that is said.
#[test]
fn of_each_kernel_that_runs() {
    let lab = Lab::open();
    let (first, second) = (ENTRY + 0x20_0000, ENTRY + 0x600_0000);
    for qemu in &lab.qemus {
        for (entries, boots, complete) in [
            (&[first, first][..], &[][..], true),
            (&[first, second], &[Some("0x200000"), Some("0x6000000")], true),
            (&[first, ENTRY + 0x1000], &[Some("0x200000"), None], false),
        ] {
            let machine = Machine::pc(&lab, qemu).arguments(&["-action", "reboot=reset"]);
            let map = machine.file("System.map");
            std::fs::write(
                &map,
                "ffffffff81000000 T _text\nffffffff82000080 T entry_SYSCALL_64\nffffffff82000180 T _etext\n",
            )
            .unwrap();
            let disk = machine.file("disk");
            kernels(entries).write_disk(&disk);
            let drive = format!("file={},format=raw", disk.display());
            let mut guest = machine.arguments(&["-drive", &drive]).path_key("symbols", &map).report().launch();
            guest.wait_until("the first round", SOON, |guest| guest.serial().contains(DONE));
            guest.monitor("system_reset");
            guest.wait_until("the round after the reset", SOON, |guest| guest.serial().matches(DONE).count() == 2);
            guest.monitor("quit");
            assert_eq!(guest.exit_code(SOON), 0, "{}", guest.outputs());
            let report = guest.report();
            // The machine was reset, and it all came again.
            let once = if boots.is_empty() { &[Some("0x200000")][..] } else { boots };
            let expected: Vec<_> = once.iter().chain(once).map(|offset| offset.map(str::to_owned)).collect();
            assert_eq!(report.summary()["boots"], serde_json::to_value(&expected).unwrap(), "{}", guest.outputs());
            assert_eq!(
                (&report.summary()["complete"], report.summary()["dropped_by"]["kernels"].is_u64()),
                (&complete.into(), !complete)
            );
            assert_eq!(guest.stderr().matches("icsan: boot ").count(), expected.len() - 1, "{}", guest.outputs());
            assert!(report.events("reset") >= 1, "{}", guest.outputs());
        }
    }
}
