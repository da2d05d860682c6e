//! Detours: a function of QEMU's begins with a jump to one of ours.
//!
//! All of them are placed at installation, when QEMU has no vCPU thread yet, so that no thread can be in what is
//! written over; or none is. No page is ever writable and executable at once: what is jumped to is made in a page of
//! our own, which becomes executable when it is complete, and QEMU's text is written through `/proc/self/mem`, as a
//! debugger does, which leaves its protection as it is. A host that forbids either is refused as a whole. The jumps are
//! direct, and indirect ones are NOTRACK, behind an ENDBR64 that stays in its place: a host that tracks indirect
//! branches (CET) takes them.

use super::prologue::{JUMP, Prologue};
use super::stubs::stub;
use crate::qemu::host::detour::{Detour, Function, HookError, To};
use iced_x86::{BlockEncoder, BlockEncoderOptions, Code, Instruction, InstructionBlock};
use libc::c_void;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;

const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];
/// `notrack jmp [rip]`; the address follows.
const JUMP_TO: [u8; 7] = [0x3e, 0xff, 0x25, 0, 0, 0, 0];
/// How far a jump with a displacement of 32 bits surely reaches, in bytes.
const REACH: usize = 0x7000_0000;
/// How far apart places are tried.
const STEP: usize = 0x10_0000;
/// Room for what one detour needs, in bytes.
const ROOM: usize = 128;
const HOST_PAGE: usize = 4096;

/// `jmp` over `JUMP` bytes at `from`.
fn jump(from: usize, to: usize) -> Option<[u8; JUMP]> {
    let distance = i32::try_from((to as i64).wrapping_sub(from as i64 + JUMP as i64)).ok()?;
    let mut bytes = [0xe9, 0, 0, 0, 0];
    bytes[1..].copy_from_slice(&distance.to_le_bytes());
    Some(bytes)
}

/// A page table's worth of pages of our own near an address.
#[derive(Debug)]
struct Near {
    start: usize,
    len: usize,
}

impl Near {
    /// # Errors
    /// There is no room.
    fn map(to: usize, len: usize) -> Result<Self, HookError> {
        let len = len.next_multiple_of(HOST_PAGE);
        let at = to & !(HOST_PAGE - 1);
        let places = (1..REACH / STEP).flat_map(|step| {
            let away = step * STEP;
            [at.checked_add(away), at.checked_sub(away)].into_iter().flatten()
        });
        for place in places {
            // SAFETY: MAP_FIXED_NOREPLACE takes no place that is in use.
            let got = unsafe {
                libc::mmap(
                    place as *mut c_void,
                    len,
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE,
                    -1,
                    0,
                )
            };
            if got as usize == place {
                return Ok(Self { start: place, len });
            }
            if got != libc::MAP_FAILED {
                // SAFETY: an old kernel mapped it elsewhere; it is ours, and nothing refers to it.
                unsafe { libc::munmap(got, len) };
            }
        }
        Err(HookError::NoRoom)
    }

    /// Writes `bytes` at `offset`, while nothing is executed there.
    fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.len, "a detour needs more room than it has");
        // SAFETY: within the pages, which are ours, writable until `seal`, and seen by this thread only.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), (self.start + offset) as *mut u8, bytes.len());
        }
    }

    /// # Errors
    /// The host lets no memory become executable.
    fn seal(&self) -> Result<(), HookError> {
        // SAFETY: the pages are ours, and nothing writes to them from now on.
        match unsafe { libc::mprotect(self.start as *mut c_void, self.len, libc::PROT_READ | libc::PROT_EXEC) } {
            0 => Ok(()),
            _ => Err(HookError::NotExecutable(std::io::Error::last_os_error().to_string())),
        }
    }
}

/// The bytes of `instructions` and of a jump to `next`, at `at`.
fn moved(prologue: &Prologue, at: u64) -> Result<Vec<u8>, HookError> {
    let mut instructions = prologue.moved.clone();
    if instructions.last().is_none_or(|last| last.code() != Code::Jmp_rel32_64) {
        let back = Instruction::with_branch(Code::Jmp_rel32_64, prologue.next);
        instructions.push(back.map_err(|error| HookError::Encoding(error.to_string()))?);
    }
    let block = InstructionBlock::new(&instructions, at);
    BlockEncoder::encode(64, block, BlockEncoderOptions::NONE)
        .map(|encoded| encoded.code_buffer)
        .map_err(|error| HookError::Encoding(error.to_string()))
}

/// What is to be written where.
struct Write {
    name: String,
    at: usize,
    old: Vec<u8>,
    new: [u8; JUMP],
}

/// Places all detours, or none. To be called at installation, before QEMU has a vCPU thread.
///
/// # Errors
/// Why none is placed.
pub(in crate::qemu) fn place(detours: &[Detour]) -> Result<(), HookError> {
    let Some(first) = detours.first() else { return Ok(()) };
    let prologues = detours.iter().map(|detour| detour.function.prologue()).collect::<Result<Vec<_>, _>>()?;
    let near = Near::map(first.function.address, detours.len() * ROOM)?;
    let mut writes = Vec::new();
    for ((detour, prologue), index) in detours.iter().zip(&prologues).zip(0..) {
        let Function { name, address, code } = &detour.function;
        let room = index * ROOM;
        // What leads to the function that is executed in its place, and behind it the old one.
        let (lead, original) = match detour.to {
            To::Ours(ours, original) => {
                let mut lead = JUMP_TO.to_vec();
                lead.extend_from_slice(&ours.to_le_bytes());
                (lead, Some(original))
            }
            To::Stub(shape, pair) => (stub(shape, &pair), None),
        };
        near.write(room, &lead);
        if let Some(original) = original {
            let offset = (room + lead.len()).next_multiple_of(16);
            near.write(offset, &ENDBR64);
            let start = near.start + offset;
            near.write(offset + ENDBR64.len(), &moved(prologue, (start + ENDBR64.len()) as u64)?);
            original.store(start, Ordering::SeqCst);
        }
        let skipped = if prologue.endbr { ENDBR64.len() } else { 0 };
        let at = address + skipped;
        let new = jump(at, near.start + room).ok_or(HookError::NoRoom)?;
        writes.push(Write { name: name.clone(), at, old: code[skipped..skipped + JUMP].to_vec(), new });
    }
    near.seal()?;
    let memory = File::options().read(true).write(true).open("/proc/self/mem");
    let memory = memory.map_err(|error| HookError::NotWritable(error.to_string()))?;
    for (index, write) in writes.iter().enumerate() {
        if let Err(error) = replace(&memory, write) {
            for undone in &writes[..=index] {
                let _ = memory.write_all_at(&undone.old, undone.at as u64);
            }
            return Err(error);
        }
    }
    Ok(())
}

/// # Errors
/// The text is not what was looked at, cannot be written, or does not hold what was written.
fn replace(memory: &File, write: &Write) -> Result<(), HookError> {
    let failed = |error: std::io::Error| HookError::NotWritable(error.to_string());
    let mut now = vec![0; write.old.len()];
    memory.read_exact_at(&mut now, write.at as u64).map_err(failed)?;
    if now != write.old {
        return Err(HookError::Changed(write.name.clone()));
    }
    memory.write_all_at(&write.new, write.at as u64).map_err(failed)?;
    memory.read_exact_at(&mut now, write.at as u64).map_err(failed)?;
    if now == write.new { Ok(()) } else { Err(HookError::Changed(write.name.clone())) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::code_asm::{CodeAssembler, qword_ptr, rax, rcx, rdi, rdx, rsp};
    use std::sync::atomic::AtomicUsize;

    type Two = extern "C" fn(u64, u64) -> u64;

    /// A page with this code, behind ENDBR64 if it is said, executable.
    fn page(endbr: bool, code: impl FnOnce(&mut CodeAssembler, u64)) -> Function {
        let near = Near::map(place as *const () as usize, HOST_PAGE).unwrap();
        let mut assembler = CodeAssembler::new(64).unwrap();
        if endbr {
            assembler.endbr64().unwrap();
        }
        let data = near.start + HOST_PAGE - 8;
        code(&mut assembler, data as u64);
        let code = assembler.assemble(near.start as u64).unwrap();
        near.write(0, &code);
        near.write(HOST_PAGE - 8, &1000_u64.to_le_bytes());
        near.seal().unwrap();
        Function { name: "page".to_owned(), address: near.start, code }
    }

    fn call(function: usize) -> Two {
        // SAFETY: the code of these tests is a function of that type.
        unsafe { std::mem::transmute::<usize, Two>(function) }
    }

    static ORIGINAL: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];

    extern "C" fn ours<const WHICH: usize>(a: u64, b: u64) -> u64 {
        1 + call(ORIGINAL[WHICH].load(Ordering::SeqCst))(a + 10, b)
    }

    #[test]
    fn ours_is_called_and_can_call_the_old_one() {
        // One that begins with what depends on where it is.
        let relative = page(true, |assembler, data| {
            assembler.mov(rax, qword_ptr(data)).unwrap();
            assembler.add(rax, rdi).unwrap();
            assembler.ret().unwrap();
        });
        let short = page(false, |assembler, _| {
            assembler.push(rcx).unwrap();
            assembler.mov(rax, rdi).unwrap();
            assembler.add(rsp, 8).unwrap();
            assembler.add(rax, rsi()).unwrap();
            assembler.ret().unwrap();
        });
        let at = [relative.address, short.address];
        assert_eq!((call(at[0])(5, 0), call(at[1])(5, 3)), (1005, 8));
        place(&[
            Detour { function: relative, to: To::Ours(ours::<0> as *const () as usize, &ORIGINAL[0]) },
            Detour { function: short, to: To::Ours(ours::<1> as *const () as usize, &ORIGINAL[1]) },
        ])
        .unwrap();
        assert_eq!((call(at[0])(5, 0), call(at[1])(5, 3)), (1016, 19));
    }

    fn rsi() -> iced_x86::code_asm::AsmRegister64 {
        iced_x86::code_asm::rsi
    }

    #[test]
    fn all_are_placed_or_none() {
        let good = page(false, |assembler, _| {
            assembler.mov(rax, rdi).unwrap();
            assembler.mov(rdx, rax).unwrap();
            assembler.ret().unwrap();
        });
        let mut other = page(false, |assembler, _| {
            assembler.mov(rax, rdi).unwrap();
            assembler.mov(rcx, rax).unwrap();
            assembler.ret().unwrap();
        });
        // It was looked at while it was another one.
        other.code[..6].copy_from_slice(&[0x48, 0x89, 0xf9, 0x48, 0x89, 0xc8]);
        static UNUSED: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];
        let (at, name) = (good.address, other.name.clone());
        let to = |which: usize| To::Ours(ours::<0> as *const () as usize, &UNUSED[which]);
        let placed = place(&[Detour { function: good, to: to(0) }, Detour { function: other, to: to(1) }]);
        assert_eq!(placed, Err(HookError::Changed(name)));
        assert_eq!(call(at)(5, 0), 5, "as it was");
    }
}
