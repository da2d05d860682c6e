//! `store/`: the same change of code, however it is stored; and stores of the kernel into the code, on behalf of a
//! system call.

use crate::code_page::CodePage;
use crate::cross_modify::{HandOver, hand_over_by};
use crate::executor::Executor;
use crate::outcome::Attempt;
use crate::pace::Pace;
use crate::shape::{Kind, Shape};
use crate::sys::{check, pin};
use icsan_guest_tests::table::{WRITER, executor};
use std::arch::asm;
use std::io;
use std::sync::Arc;

/// How.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Via {
    /// Four stores of one byte.
    Bytes,
    /// REP MOVSB.
    RepMovsb,
    /// MOVAPS.
    Sse,
    /// MOVNTI.
    NonTemporal,
    /// XCHG on an aligned word.
    Xchg,
    /// XCHG across two quadwords.
    XchgUnaligned,
    /// LOCK CMPXCHG8B on the quadword.
    Cmpxchg8b,
    /// LOCK CMPXCHG16B on the chunk.
    Cmpxchg16b,
    /// LOCK CMPXCHG on the word.
    Cmpxchg,
    /// LOCK ADD of the difference.
    LockAdd,
    /// LOCK XADD of the difference.
    LockXadd,
    /// LOCK XOR with the difference.
    LockXor,
    /// MOVBE.
    Movbe,
    /// read(2) from a pipe: the kernel stores through the user's address.
    Read,
    /// process_vm_writev(2): the kernel stores through its own.
    ProcessVm,
}

impl Via {
    /// Where the changed bytes lie.
    fn kind(self) -> Kind {
        match self {
            Self::Xchg | Self::Cmpxchg8b | Self::Cmpxchg | Self::LockAdd | Self::LockXadd | Self::LockXor => {
                Kind::Imm32
            }
            _ => Kind::Imm32TwoQuadwords,
        }
    }
}

/// Changes an immediate in this way.
pub fn store(via: Via, how: HandOver) -> Attempt {
    let shape = Arc::new(Shape::new(via.kind())?);
    let theirs = Arc::clone(&shape);
    let pipe = Pipe::new()?;
    hand_over_by(how, &shape, shape.function(), move |n| {
        let (page, at, bytes) = (theirs.page(), theirs.site(), theirs.bytes(n));
        match via {
            Via::Bytes => page.store_bytes(at, &bytes),
            Via::RepMovsb => rep_movsb(page, at, &bytes),
            Via::Sse => sse(page, with(chunk(page), at, bytes)),
            Via::NonTemporal => non_temporal(page, at, u32::from_le_bytes(bytes)),
            Via::Xchg | Via::XchgUnaligned => xchg(page, at, u32::from_le_bytes(bytes)),
            Via::Cmpxchg8b => cmpxchg8b(page, chunk(page), with(chunk(page), at, bytes)),
            Via::Cmpxchg16b => cmpxchg16b(page, chunk(page), with(chunk(page), at, bytes)),
            Via::Cmpxchg => cmpxchg(page, at, old(&theirs, n), u32::from_le_bytes(bytes)),
            Via::LockAdd => lock_add(page, at, u32::from_le_bytes(bytes).wrapping_sub(old(&theirs, n))),
            Via::LockXadd => lock_xadd(page, at, u32::from_le_bytes(bytes).wrapping_sub(old(&theirs, n))),
            Via::LockXor => lock_xor(page, at, u32::from_le_bytes(bytes) ^ old(&theirs, n)),
            Via::Movbe => movbe(page, at, u32::from_le_bytes(bytes)),
            Via::Read => pipe.read(page, at, &bytes)?,
            Via::ProcessVm => process_vm(page, at, &bytes)?,
        }
        Ok(())
    })
}

/// What stands there before version `n`.
fn old(shape: &Shape, n: u32) -> u32 {
    u32::from_le_bytes(shape.bytes(n - 1))
}

/// Compares and exchanges what does not stand there: the code never changes.
pub fn failing() -> Attempt {
    pin(WRITER)?;
    let shape = Shape::new(Kind::Imm32)?;
    let function = shape.function();
    let executor = Executor::start(executor(2), move |_| function(0))?;
    let mut pace = Pace::of_good();
    while let Some(n) = pace.next() {
        executor.call(0)?;
        let (page, at, other) = (shape.page(), shape.site(), [0x5a ^ n as u8; 16]);
        match n % 3 {
            0 => cmpxchg(page, at, 0x1234_5678, u32::from_le_bytes([0x5a ^ n as u8; 4])),
            1 => cmpxchg8b(page, other, [n as u8; 16]),
            _ => cmpxchg16b(page, other, [n as u8; 16]),
        }
        let got = executor.call(1)?;
        if let Some(outcome) = pace.ran(shape.expected(0), got) {
            return Ok(outcome);
        }
    }
    drop(executor);
    Ok(pace.outcome())
}

type Chunk = [u8; 16];

/// The first chunk, as it stands.
fn chunk(page: &CodePage) -> Chunk {
    // SAFETY: sixteen readable bytes that nobody writes meanwhile.
    unsafe { page.address(0).cast::<Chunk>().read_volatile() }
}

fn with(mut chunk: Chunk, at: usize, bytes: [u8; 4]) -> Chunk {
    chunk[at..at + 4].copy_from_slice(&bytes);
    chunk
}

fn rep_movsb(page: &CodePage, at: usize, bytes: &[u8]) {
    let target = page.target(at, bytes.len());
    // SAFETY: copies the slice to as many bytes of a writable mapping.
    unsafe {
        asm!("rep movsb", inout("rdi") target => _, inout("rsi") bytes.as_ptr() => _, inout("rcx") bytes.len() => _,
            options(nostack, preserves_flags));
    }
}

fn sse(page: &CodePage, new: Chunk) {
    // SAFETY: reads a local, and writes an aligned chunk of a writable mapping.
    unsafe {
        asm!("movups {x}, [{from}]", "movaps [{to}], {x}", x = out(xmm_reg) _, from = in(reg) new.as_ptr(), to = in(reg) page.target(0, 16),
            options(nostack, preserves_flags));
    }
}

fn non_temporal(page: &CodePage, at: usize, value: u32) {
    // SAFETY: the target is within a writable mapping.
    unsafe {
        asm!("movnti [{}], {:e}", "sfence", in(reg) page.target(at, 4), in(reg) value, options(nostack, preserves_flags));
    }
}

fn xchg(page: &CodePage, at: usize, value: u32) {
    // SAFETY: the target is within a writable mapping.
    unsafe {
        asm!("xchg [{}], {:e}", in(reg) page.target(at, 4), inout(reg) value => _, options(nostack, preserves_flags))
    }
}

fn cmpxchg(page: &CodePage, at: usize, old: u32, new: u32) {
    // SAFETY: the target is within a writable mapping.
    unsafe {
        asm!("lock cmpxchg [{}], {:e}", in(reg) page.target(at, 4), in(reg) new, inout("eax") old => _, options(nostack))
    }
}

fn lock_add(page: &CodePage, at: usize, value: u32) {
    // SAFETY: the target is within a writable mapping.
    unsafe { asm!("lock add dword ptr [{}], {:e}", in(reg) page.target(at, 4), in(reg) value, options(nostack)) }
}

fn lock_xadd(page: &CodePage, at: usize, value: u32) {
    // SAFETY: the target is within a writable mapping.
    unsafe { asm!("lock xadd [{}], {:e}", in(reg) page.target(at, 4), inout(reg) value => _, options(nostack)) }
}

fn lock_xor(page: &CodePage, at: usize, value: u32) {
    // SAFETY: the target is within a writable mapping.
    unsafe { asm!("lock xor dword ptr [{}], {:e}", in(reg) page.target(at, 4), in(reg) value, options(nostack)) }
}

/// Stores the value by MOVBE.
pub fn movbe(page: &CodePage, at: usize, value: u32) {
    // SAFETY: the target is within a writable mapping.
    unsafe {
        asm!("movbe [{}], {:e}", in(reg) page.target(at, 4), in(reg) value.swap_bytes(), options(nostack, preserves_flags))
    }
}

fn halves(chunk: Chunk) -> (u64, u64) {
    let value = u128::from_le_bytes(chunk);
    (value as u64, (value >> 64) as u64)
}

fn cmpxchg8b(page: &CodePage, old: Chunk, new: Chunk) {
    let (old, new) = (halves(old).0, halves(new).0);
    // SAFETY: the target is an aligned quadword of a writable mapping; rbx, which is LLVM's own, is put back.
    unsafe {
        asm!("xchg {new}, rbx", "lock cmpxchg8b [{to}]", "xchg {new}, rbx", new = inout(reg) new & 0xFFFF_FFFF => _,
            to = in(reg) page.target(0, 8), inout("rax") old & 0xFFFF_FFFF => _, inout("rdx") old >> 32 => _, in("rcx") new >> 32,
            options(nostack));
    }
}

fn cmpxchg16b(page: &CodePage, old: Chunk, new: Chunk) {
    let (old, new) = (halves(old), halves(new));
    // SAFETY: the target is an aligned chunk of a writable mapping; rbx, which is LLVM's own, is put back.
    unsafe {
        asm!("xchg {new}, rbx", "lock cmpxchg16b [{to}]", "xchg {new}, rbx", new = inout(reg) new.0 => _, to = in(reg) page.target(0, 16),
            inout("rax") old.0 => _, inout("rdx") old.1 => _, in("rcx") new.1, options(nostack));
    }
}

/// A pipe that one thread writes and reads.
#[derive(Debug)]
struct Pipe([libc::c_int; 2]);

impl Pipe {
    fn new() -> io::Result<Self> {
        let mut ends = [0; 2];
        // SAFETY: fills an array of two descriptors.
        check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) }.into())?;
        Ok(Self(ends))
    }

    /// Sends the bytes through the pipe into the code.
    fn read(&self, page: &CodePage, at: usize, bytes: &[u8]) -> io::Result<()> {
        let target = page.target(at, bytes.len());
        // SAFETY: reads the slice, and fills as many bytes of a writable mapping.
        let (sent, got) = unsafe {
            let sent = check(libc::write(self.0[1], bytes.as_ptr().cast(), bytes.len()) as i64)?;
            (sent, check(libc::read(self.0[0], target.cast(), bytes.len()) as i64)?)
        };
        whole(sent.min(got), bytes)
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        // SAFETY: both descriptors are ours.
        self.0.iter().for_each(|end| _ = unsafe { libc::close(*end) });
    }
}

fn process_vm(page: &CodePage, at: usize, bytes: &[u8]) -> io::Result<()> {
    let local = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let remote = libc::iovec { iov_base: page.target(at, bytes.len()).cast(), iov_len: bytes.len() };
    // SAFETY: reads the slice, and writes to a mapping of this very process.
    let written = check(unsafe { libc::process_vm_writev(libc::getpid(), &local, 1, &remote, 1, 0) } as i64)?;
    whole(written, bytes)
}

fn whole(count: i64, bytes: &[u8]) -> io::Result<()> {
    if count == bytes.len() as i64 { Ok(()) } else { Err(io::Error::other("not all bytes were written")) }
}
