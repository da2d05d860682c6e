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
