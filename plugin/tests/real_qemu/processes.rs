//! Which process a store and a system call are of.

use crate::lab::Lab;
use crate::machine::{Machine, SOON};
use crate::syscall_sector::{Program, SyscallSector};

/// A `membarrier` commits what its own process stored, and nothing of one whose page table is in the neighbouring page.
/// (In a kernel's guest the page allocator decides which page tables are neighbours.)
#[test]
fn neighbouring_page_tables_are_two_processes() {
    let lab = Lab::open();
    for qemu in &lab.qemus {
        for (same_space, kind) in [(true, "stale"), (false, "alias")] {
            let sector = SyscallSector::new(Program::Changes { same_space });
            let machine = Machine::pc(&lab, qemu).keys("without=mov-cr3+mov-cr3-pti").report();
            let disk = machine.file("disk");
            sector.write_disk(&disk);
            let mut guest = machine.arguments(&["-drive", &format!("file={},format=raw", disk.display())]).launch();
            assert_eq!(guest.exit_code(SOON), 0, "{}", guest.outputs());
            let report = guest.report();
            let found: Vec<_> =
                report.hazards.iter().map(|hazard| ["kind", "pc"].map(|key| hazard[key].as_str().unwrap())).collect();
            let site = format!("{:#x}", sector.function);
            assert_eq!(found, [[kind, &site]], "QEMU {}, same space: {same_space}\n{}", qemu.version, guest.outputs());
        }
    }
}

/// A membarrier that is called as programs of 32 bits do is not followed, which is said and counted; another call is no
/// matter.
#[test]
fn a_membarrier_of_32_bits_is_said_not_to_be_judged() {
    let lab = Lab::open();
    for qemu in &lab.qemus {
        for membarrier in [true, false] {
            let sector = SyscallSector::new(Program::CallsAs32 { membarrier });
            let machine = Machine::pc(&lab, qemu).report();
            let (disk, symbols) = (machine.file("disk"), machine.file("System.map"));
            sector.write_disk(&disk);
            sector.write_symbols(&symbols);
            let drive = format!("file={},format=raw", disk.display());
            let mut guest = machine.arguments(&["-drive", &drive]).path_key("symbols", &symbols).launch();
            assert_eq!(guest.exit_code(SOON), 0, "{}", guest.outputs());
            let told = guest.stderr().matches("incomplete from here on: a program calls membarrier as").count();
            let report = guest.report();
            let summary = report.summary();
            assert_eq!(
                (told, summary["dropped_by"]["calls"].as_u64(), summary["complete"] == true),
                (usize::from(membarrier), membarrier.then_some(1), !membarrier),
                "QEMU {}\n{}",
                qemu.version,
                guest.outputs()
            );
        }
    }
}
