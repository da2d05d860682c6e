//! A boot sector in 64-bit code, with interrupts off: a function whose instruction is changed through another linear
//! address, again and again.
//!
//! Each round runs the function, changes the immediate operand of its `mov eax, imm32`, runs it again, serializes, and
//! runs it once more. What it returned other than what stood in memory is counted, before and after the serializing
//! instruction; and so is whether the flags, set before the changed instruction in the same block, are the same behind
//! it.

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use std::path::Path;

/// Where the firmware puts it, and where the same memory is mapped for 64-bit code: above 4 GiB, where no other code
/// runs.
pub const ORIGIN: u64 = 0x7c00;
const HIGH: u64 = 0xffff_ffff_8000_0000;

/// Tables: one for each level, the last with one page of 2 MiB.
const TABLES: u32 = 0x1000;
/// Present, writable, accessed, dirty.
const ENTRY: u32 = 0x63;
/// The same, of 2 MiB.
const LARGE: u32 = 0xe3;

/// Bytes of the segment table, and of the pointer to it.
const TABLE: u32 = 16;
const POINTER: u64 = 6;

/// A disk that is large enough for every machine.
const DISK: usize = 1 << 20;

/// Rounds.
pub const ROUNDS: u64 = 100;

/// What serializes at the end of each round.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Serializing {
    /// CPUID.
    Cpuid,
    /// SERIALIZE, which TCG does not have.
    Serialize,
}

/// What the guest counted: three numbers that it writes to the serial port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Counted {
    /// Wrong values right after a store through the other address.
    pub stale: u64,
    /// Wrong values after the serializing instruction.
    pub after: u64,
    /// Flags that were lost.
    pub flags: u64,
}

impl Counted {
    /// Reads the serial port. `None`: it is not all there yet.
    pub fn read(serial: &str) -> Option<Self> {
        let (numbers, _) = serial.split_once('.')?;
        let mut numbers = numbers.bytes().map(|digit| u64::from(digit - b'0'));
        let mut next = || Some(numbers.next()? * 64 + numbers.next()?);
        Some(Self { stale: next()?, after: next()?, flags: next()? })
    }
}

/// Writes the disk.
pub fn write_disk(path: &Path, serializing: Serializing) {
    write_sector(path, &assemble_sector(&[], |start| long_mode(start, serializing)).expect("it can be assembled"));
}

/// Writes a disk that begins with this code.
pub fn write_sector(path: &Path, sector: &[u8]) {
    assert!(sector.len() <= 510, "{} bytes", sector.len());
    let mut disk = vec![0; DISK];
    disk[..sector.len()].copy_from_slice(sector);
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    std::fs::write(path, disk).unwrap();
}

/// A part in 16-bit code, which goes into long mode, and one in 64-bit code, one behind the other. `long_mode` is told
/// where its part begins, after the sector's own beginning. `tables`: what else is in the page tables, by distance from
/// their beginning.
pub fn assemble_sector(
    tables: &[(u32, u32)],
    long_mode: impl FnOnce(u64) -> Result<Vec<u8>, IcedError>,
) -> Result<Vec<u8>, IcedError> {
    let start = assemble_real_mode(POINTER, tables)?.len() as u64;
    let mut sector = assemble_real_mode(start, tables)?;
    assert_eq!(sector.len() as u64, start);
    sector.extend(long_mode(start)?);
    Ok(sector)
}

/// Goes on at the address where the same memory is mapped from `base` on, which is in `register` from then on. Changes
/// RAX.
pub fn go_high(a: &mut CodeAssembler, register: AsmRegister64, base: u64) -> Result<(), IcedError> {
    let mut high = a.create_label();
    a.lea(rax, qword_ptr(high))?;
    a.mov(register, base)?;
    a.add(rax, register)?;
    a.jmp(rax)?;
    a.set_label(&mut high)
}

/// Writes a full stop to the serial port.
pub fn say_it_is_through(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(dx, 0x3f8)?;
    a.mov(al, i32::from(b'.'))?;
    a.out(dx, al)
}

/// Switches the machine off by ACPI.
pub fn switch_off(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(dx, 0x604)?;
    a.mov(ax, 0x2000)?;
    a.out(dx, ax)?;
    a.hlt()
}

fn assemble_real_mode(start: u64, tables: &[(u32, u32)]) -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(16)?;
    a.cli()?;
    a.xor(ax, ax)?;
    a.mov(ds, ax)?;
    a.mov(es, ax)?;
    a.mov(ss, ax)?;
    a.cld()?;
    a.mov(di, TABLES as i32)?;
    a.mov(cx, 0x3000 / 2)?;
    a.rep().stosw()?;
    let own = [
        (0, TABLES + 0x1000 + ENTRY),
        (511 * 8, TABLES + 0x1000 + ENTRY),
        (0x1000, TABLES + 0x2000 + ENTRY),
        (0x1000 + 510 * 8, TABLES + 0x2000 + ENTRY),
        (0x2000, LARGE),
    ];
    for (at, value) in own.iter().chain(tables).copied() {
        a.mov(dword_ptr(u64::from(TABLES + at)), value)?;
    }
    a.mov(eax, 0x20)?;
    a.mov(cr4, eax)?;
    a.mov(eax, TABLES)?;
    a.mov(cr3, eax)?;
    a.mov(ecx, 0xc000_0080u32)?;
    a.rdmsr()?;
    a.or(ah, 1)?;
    a.wrmsr()?;
    // lgdt of the pointer, which is at the end; the table is right before it
    let pointer = (ORIGIN + start - POINTER) as u16;
    let [low, high] = pointer.to_le_bytes();
    a.db(&[0x0f, 0x01, 0x16, low, high])?;
    a.mov(eax, 0x8000_0001u32)?;
    a.mov(cr0, eax)?;
    // jmp far 0x08:long mode
    let [low, high] = ((ORIGIN + start) as u16).to_le_bytes();
    a.db(&[0xea, low, high, 0x08, 0x00])?;
    // No segment, and 64-bit code of level 0.
    a.db(&[0; 8])?;
    a.db(&[0, 0, 0, 0, 0, 0x9b, 0x20, 0])?;
    a.dw(&[TABLE as u16 - 1])?;
    a.dd(&[u32::from(pointer) - TABLE])?;
    a.assemble(ORIGIN)
}

fn serialize(a: &mut CodeAssembler, serializing: Serializing) -> Result<(), IcedError> {
    match serializing {
        Serializing::Cpuid => {
            a.xor(eax, eax)?;
            a.cpuid()
        }
        Serializing::Serialize => a.serialize(),
    }
}

fn long_mode(start: u64, serializing: Serializing) -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(64)?;
    let (mut round, mut function, mut site) = (a.create_label(), a.create_label(), a.create_label());
    go_high(&mut a, rcx, HIGH)?;
    a.mov(rsp, HIGH + ORIGIN)?;
    a.mov(r8d, ROUNDS as u32)?;
    // Wrong at once, wrong after, flags lost.
    for counter in [r9d, r10d, r11d] {
        a.xor(counter, counter)?;
    }
    // Where the immediate operand is through the low address, and what was written there last.
    a.lea(rdi, qword_ptr(site))?;
    a.mov(edi, edi)?;
    a.and(edi, 0xffff)?;
    a.mov(r12d, 0x1111)?;
    a.set_label(&mut round)?;
    serialize(&mut a, serializing)?;
    a.call(function)?;
    a.inc(r12d)?;
    a.mov(dword_ptr(rdi + 1), r12d)?;
    run_and_count(&mut a, function, r9)?;
    serialize(&mut a, serializing)?;
    run_and_count(&mut a, function, r10)?;
    a.dec(r8d)?;
    a.jnz(round)?;
    // Two digits to the base of 64 each, and a full stop.
    a.mov(dx, 0x3f8)?;
    for counter in [r9d, r10d, r11d] {
        a.mov(eax, counter)?;
        a.shr(eax, 6)?;
        a.add(al, i32::from(b'0'))?;
        a.out(dx, al)?;
        a.mov(eax, counter)?;
        a.and(al, 63)?;
        a.add(al, i32::from(b'0'))?;
        a.out(dx, al)?;
    }
    say_it_is_through(&mut a)?;
    switch_off(&mut a)?;
    a.set_label(&mut function)?;
    let mut kept = a.create_label();
    a.mov(ecx, 1)?;
    a.cmp(ecx, 2)?;
    a.set_label(&mut site)?;
    a.mov(eax, 0x1111)?;
    a.jc(kept)?;
    a.inc(r11d)?;
    a.set_label(&mut kept)?;
    a.ret()?;
    a.assemble(ORIGIN + start)
}

/// Runs the function, and adds one to `counter` if what it returns is not what was written last.
fn run_and_count(a: &mut CodeAssembler, function: CodeLabel, counter: AsmRegister64) -> Result<(), IcedError> {
    a.call(function)?;
    a.xor(ebx, ebx)?;
    a.cmp(eax, r12d)?;
    a.setne(bl)?;
    a.add(counter, rbx)
}
