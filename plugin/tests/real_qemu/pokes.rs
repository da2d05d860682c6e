//! One store of a patching protocol, as the arguments of the kernel's `__text_poke()` tell it, on a boot sector that
//! has a function of that name: what it is to store can be read, or cannot.

use crate::lab::{Lab, Qemu};
use crate::long_sector::{ORIGIN, assemble_sector, go_high, say_it_is_through, switch_off, write_sector};
use crate::machine::{Guest, Machine, SOON};
use iced_x86::IcedError;
use iced_x86::code_asm::*;

/// Where the sector's memory is mapped for the kernel, and where nothing is: behind the only page, of 2 MiB, there.
const HIGH: u64 = 0xffff_ffff_8000_0000;
const UNMAPPED: u64 = HIGH + 0x20_0000;

/// How often the function is called.
const CALLS: i32 = 3;

/// Where the function is, from the sector's beginning on.
const POKE: u64 = 0x1f0;

/// `bytes`: where the function is told to take from what it shall store.
fn assemble(bytes: u64) -> Result<Vec<u8>, IcedError> {
    let mut sector = assemble_sector(&[], |start| long_mode(start, bytes))?;
    assert!(sector.len() as u64 <= POKE, "{:#x} bytes", sector.len());
    sector.resize(POKE as usize, 0);
    let mut function = CodeAssembler::new(64)?;
    function.ret()?;
    sector.extend(function.assemble(0)?);
    Ok(sector)
}

fn long_mode(start: u64, bytes: u64) -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(64)?;
    let mut next = a.create_label();
    go_high(&mut a, r14, HIGH)?;
    a.lea(rsp, qword_ptr(r14 + ORIGIN as i32))?;
    // The system-call entry, which tells where the kernel is: its sector's beginning.
    a.mov(ecx, 0xc000_0082u32)?;
    a.mov(eax, (HIGH + ORIGIN) as u32)?;
    a.or(edx, -1)?;
    a.wrmsr()?;
    a.mov(ebx, CALLS)?;
    a.set_label(&mut next)?;
    // Which address, from where, and how many bytes (the first argument is a function that copies them).
    a.lea(rsi, qword_ptr(r14 + ORIGIN as i32))?;
    a.mov(rdx, bytes)?;
    a.mov(ecx, 1)?;
    a.lea(rax, qword_ptr(r14 + (ORIGIN + POKE) as i32))?;
    a.call(rax)?;
    a.dec(ebx)?;
    a.jnz(next)?;
    say_it_is_through(&mut a)?;
    switch_off(&mut a)?;
    a.assemble(ORIGIN + start)
}

fn boot(lab: &Lab, qemu: &Qemu, bytes: u64) -> Guest {
    let described = Machine::pc(lab, qemu).report();
    let (disk, map) = (described.file("disk"), described.file("map"));
    write_sector(&disk, &assemble(bytes).expect("it can be assembled"));
    let symbols = [(0, "_stext"), (0, "entry_SYSCALL_64"), (POKE, "__text_poke"), (0x200, "_etext")];
    let lines: Vec<String> =
        symbols.iter().map(|(at, name)| format!("{:016x} T {name}\n", HIGH + ORIGIN + at)).collect();
    std::fs::write(&map, lines.concat()).unwrap();
    let drive = format!("file={},format=raw", disk.display());
    let mut guest = described.path_key("symbols", &map).arguments(&["-drive", &drive]).launch();
    assert_eq!(guest.exit_code(SOON), 0, "QEMU {}\n{}", qemu.version, guest.outputs());
    assert!(guest.serial().ends_with('.'), "{}", guest.outputs());
    guest
}

#[test]
fn a_store_that_cannot_be_read_makes_the_coverage_unknown() {
    let lab = Lab::open();
    for qemu in &lab.qemus {
        for (bytes, unread) in [(HIGH + ORIGIN, 0), (UNMAPPED, CALLS)] {
            let guest = boot(&lab, qemu, bytes);
            let report = guest.report();
            let summary = report.summary();
            let context = format!("QEMU {}, bytes at {bytes:#x}: {summary}\n{}", qemu.version, guest.outputs());
            assert_eq!(summary["dropped_by"]["coverage"].as_i64().unwrap_or(0), i64::from(unread), "{context}");
            assert_eq!(summary["complete"], unread == 0, "{context}");
            assert_eq!(guest.stderr().contains("what a patch is to store could not be read"), unread != 0, "{context}");
        }
    }
}
