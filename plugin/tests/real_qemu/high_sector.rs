//! A boot sector in 64-bit code whose functions lie in memory above 4 GiB, some of them across a page end, and are
//! changed by its own stores.
//!
//! The memory at physical 4 GiB is mapped twice. Each function is written, called, changed by a store, and called
//! again; what tells the cases apart is the function's shape, the address that the store goes through, and whether
//! CPUID comes before the second call.

use crate::long_sector::{ORIGIN, assemble_sector, go_high, say_it_is_through, switch_off, write_sector};
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use std::path::Path;

/// Where the memory of the functions is, and where it is mapped for its execution, and once more.
pub const PHYSICAL: u64 = 1 << 32;
const RUN: u64 = 0xffff_ffff_8020_0000;
const OTHER: u64 = 0xffff_ffff_8040_0000;
const CODE: u64 = 0xffff_ffff_8000_0000;

/// `mov $0x1111,%eax; ret`, and `jmp` to 0xffe bytes behind its end.
const MOV: u64 = 0x0000_c300_0011_11b8;
const JMP: u64 = 0x0000_0000_000f_fee9;

/// What a case does.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Where its function begins, from the memory's beginning on.
    pub at: u64,
    function: u64,
    /// Where the store goes, from the function on.
    store: u64,
    /// Through the other address?
    other: bool,
    /// Is there CPUID behind the store?
    cpuid: bool,
}

impl Case {
    const fn mov(at: u64, store: u64) -> Self {
        Self { at, function: MOV, store, other: true, cpuid: false }
    }

    const fn jmp(at: u64) -> Self {
        Self { at, function: JMP, store: 3, other: true, cpuid: false }
    }

    const fn then_cpuid(self) -> Self {
        Self { cpuid: true, ..self }
    }

    const fn through_its_own_address(self) -> Self {
        Self { other: false, ..self }
    }

    /// Must it be reported? A store through the address that is executed is visible after a branch.
    pub fn is_bad(&self) -> bool {
        self.other && !self.cpuid
    }

    /// Its function's linear address.
    pub fn linear(&self) -> u64 {
        RUN + self.at
    }

    /// Its function's physical address.
    pub fn physical(&self) -> u64 {
        PHYSICAL + self.at
    }
}

/// A function within a page; one of which only the first byte is in its page, and the store goes behind it; and a jump
/// across a page end, behind which no instruction begins: the store changes where it goes.
pub const CASES: [Case; 8] = [
    Case::mov(0x100, 1),
    Case::mov(0x200, 1).then_cpuid(),
    Case::mov(0x300, 1).through_its_own_address(),
    Case::mov(0xfff, 1),
    Case::mov(0x2fff, 1).then_cpuid(),
    Case::mov(0x4fff, 1).through_its_own_address(),
    Case::jmp(0x6ffd),
    Case::jmp(0x8ffd).then_cpuid(),
];

/// What each store stores: 0x10001 more of the operand that it begins to change.
const STORED: u32 = 0x0001_0001;

/// Writes the disk.
pub fn write_disk(path: &Path) {
    // The two pages of 2 MiB behind the one of the code.
    let tables = [(0x2008, 0xe3), (0x200c, 1), (0x2010, 0xe3), (0x2014, 1)];
    write_sector(path, &assemble_sector(&tables, long_mode).expect("it can be assembled"));
}

fn long_mode(start: u64) -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(64)?;
    let (mut case, mut quick) = (a.create_label(), a.create_label());
    go_high(&mut a, rcx, CODE)?;
    a.mov(rsp, CODE + ORIGIN)?;
    a.mov(r14, RUN)?;
    a.mov(r9d, STORED)?;
    // Where the jumps go, before and after.
    for case in CASES.iter().filter(|case| case.function == JMP) {
        let end = case.at + 5;
        for target in [end + 0xffe, end + 0x1_0ffe] {
            a.mov(byte_ptr(r14 + target as i32), 0xc3)?;
        }
    }
    let mut function = 0;
    for described in CASES {
        if described.function != function {
            function = described.function;
            a.mov(r10, function)?;
        }
        a.lea(rdi, qword_ptr(r14 + described.at as i32))?;
        let other = if described.other { OTHER - RUN } else { 0 };
        a.lea(rsi, qword_ptr(rdi + (other + described.store) as i32))?;
        if described.cpuid {
            a.stc()?;
        } else {
            a.clc()?;
        }
        a.call(case)?;
    }
    say_it_is_through(&mut a)?;
    switch_off(&mut a)?;
    a.set_label(&mut case)?;
    a.setc(r8b)?;
    a.mov(qword_ptr(rdi), r10)?;
    a.xor(eax, eax)?;
    a.cpuid()?;
    a.call(rdi)?;
    a.mov(dword_ptr(rsi), r9d)?;
    a.test(r8b, r8b)?;
    a.jz(quick)?;
    a.xor(eax, eax)?;
    a.cpuid()?;
    a.set_label(&mut quick)?;
    a.jmp(rdi)?;
    a.assemble(ORIGIN + start)
}
