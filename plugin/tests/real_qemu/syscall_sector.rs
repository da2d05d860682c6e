//! A boot sector in 64-bit code that makes system calls: at low addresses, as programs do, while the entry of its
//! kernel, which does nothing, is at a high one.

use crate::long_sector::{ORIGIN, assemble_sector, say_it_is_through, switch_off, write_sector};
use iced_x86::code_asm::*;
use iced_x86::{BlockEncoderOptions, IcedError};
use std::path::Path;

/// Where the same memory is mapped once more.
const HIGH: u64 = 0xffff_ffff_8000_0000;
/// The page tables that the sector begins with, and copies of the first one.
const FIRST: u64 = 0x1000;
/// See [`FIRST`]. They differ in bit 12 only.
pub const SPACES: [u64; 2] = [0x1_0000, 0x1_1000];

/// `membarrier`, for 64-bit programs and for those of 32 bits, and its command `PRIVATE_EXPEDITED_SYNC_CORE`.
const MEMBARRIER: u32 = 324;
const MEMBARRIER_32: u32 = 375;
const SYNC_CORE: u32 = 1 << 5;

/// What it does with its system calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Program {
    /// It runs a function, changes it through the high address, and runs it again. In between it calls `membarrier`, in
    /// the address space in which it stored, or in the neighbouring one. Then it switches the machine off.
    Changes {
        /// In the same one?
        same_space: bool,
    },
    /// It makes them for ever, and tells the serial port of each.
    Calls,
    /// It makes one as a program of 32 bits does, and switches the machine off. (There is no gate for the interrupt: it
    /// jumps to where that leads.)
    CallsAs32 {
        /// Is it `membarrier`?
        membarrier: bool,
    },
}

/// A boot sector.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SyscallSector {
    code: Vec<u8>,
    /// The kernel's entries: of system calls, and of those by interrupt.
    entries: [u64; 2],
    /// The function that is changed.
    pub function: u64,
}

impl SyscallSector {
    /// Assembles it.
    pub fn new(program: Program) -> Self {
        let assemble = || {
            let mut found = [0; 3];
            let code = assemble_sector(&[], |start| {
                // The addresses are of one size whatever they are.
                let (_, labels) = long_mode(start, program, [0; 3])?;
                let (code, again) = long_mode(start, program, labels)?;
                assert_eq!(labels, again);
                found = labels;
                Ok(code)
            })?;
            Ok::<_, IcedError>(Self { code, entries: [found[0], found[2]], function: found[1] })
        };
        assemble().expect("it can be assembled")
    }

    /// Writes the disk.
    pub fn write_disk(&self, path: &Path) {
        write_sector(path, &self.code);
    }

    /// Writes what of Linux's symbols it has, in the form of a System.map.
    pub fn write_symbols(&self, path: &Path) {
        let [call, interrupt] = self.entries.map(|entry| HIGH | entry);
        let symbols =
            [(HIGH, "_text"), (call, "entry_SYSCALL_64"), (interrupt, "entry_INT80_compat"), (HIGH | 0x8000, "_etext")];
        let lines: Vec<String> = symbols.iter().map(|(address, name)| format!("{address:x} T {name}\n")).collect();
        std::fs::write(path, lines.concat()).unwrap();
    }
}

/// The part in 64-bit code, and where the kernel's entry, the function, and the other entry are in it. `labels`: the
/// same, as told by an earlier call.
fn long_mode(start: u64, program: Program, labels: [u64; 3]) -> Result<(Vec<u8>, [u64; 3]), IcedError> {
    let mut a = CodeAssembler::new(64)?;
    let (mut copy, mut again) = (a.create_label(), a.create_label());
    let (mut entry, mut function, mut interrupt) = (a.create_label(), a.create_label(), a.create_label());
    let [at_entry, at_function, at_interrupt] = labels;
    a.mov(esp, ORIGIN as u32)?;
    a.cld()?;
    a.mov(edi, SPACES[0] as u32)?;
    a.mov(edx, SPACES.len() as u32)?;
    a.set_label(&mut copy)?;
    a.mov(esi, FIRST as u32)?;
    a.mov(ecx, 512)?;
    a.rep().movsq()?;
    a.dec(edx)?;
    a.jnz(copy)?;
    // EFER.SCE, STAR (the segment that is there already), LSTAR.
    a.mov(ecx, 0xc000_0080u32)?;
    a.rdmsr()?;
    a.or(al, 1)?;
    a.wrmsr()?;
    a.mov(ecx, 0xc000_0081u32)?;
    a.mov(edx, 8)?;
    a.wrmsr()?;
    a.mov(ecx, 0xc000_0082u32)?;
    a.mov(edx, (HIGH >> 32) as u32)?;
    a.mov(eax, (HIGH | at_entry) as u32)?;
    a.wrmsr()?;
    match program {
        Program::Changes { same_space } => {
            enter(&mut a, SPACES[0])?;
            a.xor(eax, eax)?;
            a.cpuid()?;
            a.call(function)?;
            a.mov(rdi, HIGH | at_function)?;
            a.mov(dword_ptr(rdi + 1), 0x2222_2222)?;
            enter(&mut a, SPACES[usize::from(!same_space)])?;
            call_the_kernel(&mut a)?;
            a.call(function)?;
            switch_off(&mut a)?;
        }
        Program::Calls => {
            let mut spin = a.create_label();
            a.set_label(&mut again)?;
            call_the_kernel(&mut a)?;
            say_it_is_through(&mut a)?;
            a.mov(ecx, 200_000)?;
            a.set_label(&mut spin)?;
            a.dec(ecx)?;
            a.jnz(spin)?;
            a.jmp(again)?;
        }
        Program::CallsAs32 { membarrier } => {
            let number = if membarrier { MEMBARRIER_32 } else { MEMBARRIER };
            a.mov(eax, number)?;
            a.mov(ebx, SYNC_CORE)?;
            a.mov(rdx, HIGH | at_interrupt)?;
            a.call(rdx)?;
            switch_off(&mut a)?;
        }
    }
    a.set_label(&mut entry)?;
    a.xor(eax, eax)?;
    a.jmp(rcx)?;
    a.set_label(&mut function)?;
    a.mov(eax, 0x1111_1111)?;
    a.ret()?;
    a.set_label(&mut interrupt)?;
    a.xor(eax, eax)?;
    a.ret()?;
    let done = a.assemble_options(ORIGIN + start, BlockEncoderOptions::RETURN_NEW_INSTRUCTION_OFFSETS)?;
    let labels = [done.label_ip(&entry)?, done.label_ip(&function)?, done.label_ip(&interrupt)?];
    Ok((done.inner.code_buffer, labels))
}

fn enter(a: &mut CodeAssembler, space: u64) -> Result<(), IcedError> {
    a.mov(eax, space as u32)?;
    a.mov(cr3, rax)
}

fn call_the_kernel(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(eax, MEMBARRIER)?;
    a.mov(edi, SYNC_CORE)?;
    a.syscall()
}
