//! What interrupts a function of a patching protocol stores nothing on its behalf: on a boot sector that looks like a
//! kernel's. Its function patches, and is interrupted; once it makes the store, and once the interrupt does.

use crate::lab::{Lab, Qemu};
use crate::long_sector::{ORIGIN, assemble_sector, go_high, say_it_is_through, switch_off, write_sector};
use crate::machine::{Guest, Machine, SOON};
use iced_x86::IcedError;
use iced_x86::code_asm::*;

/// Where the sector's memory is mapped for the kernel, beside where it is.
const HIGH: u64 = 0xffff_ffff_8000_0000;
/// The interrupt table, and what is patched, by distance from [`HIGH`].
const GATES: i32 = 0x6000;
const PATCHED: u64 = 0x9000;

/// `mov $0x1111,%eax; ret`.
const FUNCTION: u64 = 0x0000_c300_0011_11b8;

/// The interrupt, and where its entry and the patching function are in the sector.
const VECTOR: u8 = 0x20;
const ENTRY: (&str, u64) = ("asm_sysvec_apic_timer_interrupt", 0x1c0);
const PATCHER: (&str, u64) = ("text_poke_early", 0x1d8);

fn assemble(by_interrupt: bool) -> Result<Vec<u8>, IcedError> {
    let mut sector = assemble_sector(&[], long_mode)?;
    let mut part = |at: u64, stores: bool, end: &dyn Fn(&mut CodeAssembler) -> Result<(), IcedError>| {
        let mut a = CodeAssembler::new(64)?;
        if stores {
            a.mov(dword_ptr(rdi + 1), 0x2222)?;
        }
        end(&mut a)?;
        assert!(sector.len() as u64 <= at, "{:#x} bytes", sector.len());
        sector.resize(at as usize, 0);
        sector.extend(a.assemble(0)?);
        Ok::<(), IcedError>(())
    };
    part(ENTRY.1, by_interrupt, &CodeAssembler::iretq)?;
    part(PATCHER.1, !by_interrupt, &|a| {
        a.int(u32::from(VECTOR))?;
        a.ret()
    })?;
    Ok(sector)
}

fn long_mode(start: u64) -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(64)?;
    go_high(&mut a, r14, HIGH)?;
    a.lea(rsp, qword_ptr(r14 + ORIGIN as i32))?;
    // The system-call entry, which tells where the kernel is: its sector's beginning.
    a.mov(ecx, 0xc000_0082u32)?;
    a.mov(eax, (HIGH + ORIGIN) as u32)?;
    a.or(edx, -1)?;
    a.wrmsr()?;
    // The gate: offset, code segment, present interrupt gate.
    a.or(ecx, -1)?;
    let (handler, gate) = (HIGH + ORIGIN + ENTRY.1, GATES + 16 * i32::from(VECTOR));
    a.mov(dword_ptr(r14 + gate), 0x8_0000 | (handler & 0xffff) as i32)?;
    a.mov(dword_ptr(r14 + (gate + 4)), (handler & 0xffff_0000) as u32 as i32 | 0x8e00)?;
    a.mov(dword_ptr(r14 + (gate + 8)), ecx)?;
    a.lea(rax, qword_ptr(r14 + GATES))?;
    // What LIDT takes: the limit, in the last two bytes of a word, and the address right above.
    a.push(rax)?;
    a.push(rax)?;
    a.mov(word_ptr(rsp + 6), 0xfff)?;
    a.lidt(ptr(rsp + 6))?;
    // Writes what is patched, serializes, runs it, has it patched through the low address, and runs it again.
    a.mov(edi, PATCHED as u32)?;
    a.lea(rbx, qword_ptr(r14 + rdi))?;
    a.mov(rax, FUNCTION)?;
    a.mov(qword_ptr(rbx), rax)?;
    a.xor(eax, eax)?;
    a.push(rbx)?;
    a.cpuid()?;
    a.pop(rbx)?;
    a.call(rbx)?;
    a.lea(rax, qword_ptr(r14 + (ORIGIN + PATCHER.1) as i32))?;
    a.call(rax)?;
    a.call(rbx)?;
    say_it_is_through(&mut a)?;
    switch_off(&mut a)?;
    a.assemble(ORIGIN + start)
}

fn boot(lab: &Lab, qemu: &Qemu, by_interrupt: bool) -> Guest {
    let described = Machine::pc(lab, qemu).report();
    let (disk, map) = (described.file("disk"), described.file("map"));
    write_sector(&disk, &assemble(by_interrupt).expect("it can be assembled"));
    let symbols = [("_stext", 0), ("entry_SYSCALL_64", 0), ENTRY, PATCHER, ("__text_poke", 0x1fe), ("_etext", 0x200)];
    let lines = symbols.map(|(name, at)| format!("{:016x} T {name}\n", HIGH + ORIGIN + at));
    std::fs::write(&map, lines.concat()).unwrap();
    let drive = format!("file={},format=raw", disk.display());
    let described = described.path_key("symbols", &map).keys("without=iret").arguments(&["-drive", &drive]);
    let mut guest = described.launch();
    assert_eq!(guest.exit_code(SOON), 0, "QEMU {}\n{}", qemu.version, guest.outputs());
    assert!(guest.serial().ends_with('.'), "{}", guest.outputs());
    guest
}

#[test]
fn a_store_is_of_the_function_that_makes_it_and_not_of_one_that_is_interrupted() {
    let lab = Lab::open();
    for qemu in &lab.qemus {
        for (by_interrupt, expected) in [(false, Some(PATCHER.0)), (true, None)] {
            let guest = boot(&lab, qemu, by_interrupt);
            let report = guest.report();
            let [hazard] = &report.hazards[..] else { panic!("not one hazard\n{}", guest.outputs()) };
            let writes = hazard["writes"].as_array().unwrap();
            let functions: Vec<_> = writes.iter().map(|write| write["function"].as_str()).collect();
            let function = functions.last().unwrap_or_else(|| panic!("no store: {hazard}"));
            let named = function.map(|function| function.split('+').next().unwrap_or_default());
            assert_eq!(named, expected, "QEMU {}, by the interrupt: {by_interrupt}: {hazard}", qemu.version);
        }
    }
}
