//! An initial file system with one program, which has Linux change its own code over and over.

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use std::path::Path;

/// The program writes a `1` and a `0` to this file in turn, which has the kernel flip a static key, and one of these
/// letters to the console after each.
const SWITCH: &[u8] = b"/proc/sys/kernel/sched_schedstats\0";
/// See [`SWITCH`].
pub const FLIPPED: char = '@';

/// Where the program is loaded.
const BASE: u64 = 0x40_0000;
/// The bytes of an ELF header and one program header.
const HEADERS: usize = 64 + 56;

/// Numbers of system calls.
const WRITE: u32 = 1;
const OPEN: u32 = 2;
const PWRITE64: u32 = 18;
const EXIT: u32 = 60;
const MOUNT: u32 = 165;

/// File types and modes, as in `stat.h`.
const FOLDER: u32 = 0o40_755;
const PROGRAM: u32 = 0o100_755;
const CHARACTER_DEVICE: u32 = 0o20_600;

/// Numbers of architectures in an ELF file.
const X86_64: u16 = 62;
const AARCH64: u16 = 183;

/// A segment's permissions: 4 to read, 2 to write, 1 to execute.
const READ_EXECUTE: u32 = 5;
const ALL: u32 = 7;

/// Writes the file system, in the form that the kernel unpacks.
pub fn write(path: &Path) {
    write_with(path, &elf(X86_64, READ_EXECUTE, &program().expect("it can be assembled")));
}

/// The same for Arm, with a program of these words, which may change itself.
pub fn write_arm(path: &Path, program: &[u32]) {
    let code: Vec<u8> = program.iter().flat_map(|word| word.to_le_bytes()).collect();
    write_with(path, &elf(AARCH64, ALL, &code));
}

fn write_with(path: &Path, program: &[u8]) {
    let files = [
        ("dev", FOLDER, (0, 0), &[][..]),
        ("dev/console", CHARACTER_DEVICE, (5, 1), &[]),
        ("proc", FOLDER, (0, 0), &[]),
        ("init", PROGRAM, (0, 0), program),
        ("TRAILER!!!", 0, (0, 0), &[]),
    ];
    let archive: Vec<u8> = files.into_iter().zip(1..).flat_map(|(file, number)| entry(number, file)).collect();
    std::fs::write(path, archive).unwrap();
}

/// A file of a cpio archive in the new ASCII format (the kernel's
/// Documentation/driver-api/early-userspace/buffer-format.rst).
fn entry(number: u32, (name, mode, device, data): (&str, u32, (u32, u32), &[u8])) -> Vec<u8> {
    let size = |bytes: usize| u32::try_from(bytes).unwrap();
    let fields = [number, mode, 0, 0, 1, 0, size(data.len()), 0, 0, device.0, device.1, size(name.len() + 1), 0];
    let mut entry = b"070701".to_vec();
    fields.iter().for_each(|field| entry.extend(format!("{field:08x}").bytes()));
    entry.extend(name.bytes());
    entry.push(0);
    entry.resize(entry.len().next_multiple_of(4), 0);
    entry.extend(data);
    entry.resize(entry.len().next_multiple_of(4), 0);
    entry
}

/// A program of one segment that begins with its own headers.
fn elf(architecture: u16, permissions: u32, code: &[u8]) -> Vec<u8> {
    let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    // An executable, and what for; where it begins, and where the program header is.
    [2u16, architecture].iter().for_each(|half| file.extend(half.to_le_bytes()));
    file.extend(1u32.to_le_bytes());
    [BASE + HEADERS as u64, 64, 0].iter().for_each(|word| file.extend(word.to_le_bytes()));
    file.extend(0u32.to_le_bytes());
    [64u16, 56, 1, 0, 0, 0].iter().for_each(|half| file.extend(half.to_le_bytes()));
    // To be loaded; what it may be used for; where it is, its size twice, its alignment.
    [1u32, permissions].iter().for_each(|word| file.extend(word.to_le_bytes()));
    let size = (HEADERS + code.len()) as u64;
    [0, BASE, BASE, size, size, 0x1000].iter().for_each(|word| file.extend(word.to_le_bytes()));
    assert_eq!(file.len(), HEADERS);
    file.extend(code);
    file
}

fn program() -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(64)?;
    let (mut again, mut fails) = (a.create_label(), a.create_label());
    let (mut kind, mut folder, mut switch, mut values, mut letter) =
        (a.create_label(), a.create_label(), a.create_label(), a.create_label(), a.create_label());
    a.lea(rdi, qword_ptr(kind))?;
    a.lea(rsi, qword_ptr(folder))?;
    a.mov(rdx, rdi)?;
    a.xor(r10d, r10d)?;
    a.xor(r8d, r8d)?;
    a.mov(eax, MOUNT)?;
    a.syscall()?;
    a.lea(rdi, qword_ptr(switch))?;
    a.mov(esi, 1)?;
    a.mov(eax, OPEN)?;
    a.syscall()?;
    a.mov(r12d, eax)?;
    a.xor(r13d, r13d)?;
    a.set_label(&mut again)?;
    a.xor(r13d, 1)?;
    a.lea(rsi, qword_ptr(values))?;
    a.add(rsi, r13)?;
    a.mov(edi, r12d)?;
    a.mov(edx, 1)?;
    a.xor(r10d, r10d)?;
    a.mov(eax, PWRITE64)?;
    a.syscall()?;
    a.cmp(rax, 1)?;
    a.jne(fails)?;
    a.lea(rsi, qword_ptr(letter))?;
    a.mov(edi, 1)?;
    a.mov(edx, 1)?;
    a.mov(eax, WRITE)?;
    a.syscall()?;
    a.jmp(again)?;
    // The kernel panics if its first program ends.
    a.set_label(&mut fails)?;
    a.mov(edi, 1)?;
    a.mov(eax, EXIT)?;
    a.syscall()?;
    let data: [(&mut CodeLabel, &[u8]); 5] = [
        (&mut kind, b"proc\0"),
        (&mut folder, b"/proc\0"),
        (&mut switch, SWITCH),
        (&mut values, b"01"),
        (&mut letter, &[FLIPPED as u8]),
    ];
    for (label, bytes) in data {
        a.set_label(label)?;
        a.db(bytes)?;
    }
    a.assemble(BASE + HEADERS as u64)
}
