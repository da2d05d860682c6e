//! `store/`: the same change of code, by every instruction that stores.

use crate::code_page::CodePage;
use crate::executor::Executor;
use crate::outcome::Attempt;
use crate::pace::Pace;
use crate::shape::{Kind, Shape};
use crate::sys::pin;
use icsan_guest_tests::table::{WRITER, executor};
use std::arch::asm;
use std::io;

/// REP MOVSB.
pub fn by_rep_movsb(shape: &Shape, n: u32) -> io::Result<()> {
    rep_movsb(shape.page(), shape.site(), &shape.bytes(n));
    Ok(())
}

/// MOVAPS of the chunk.
pub fn by_sse(shape: &Shape, n: u32) -> io::Result<()> {
    sse(shape.page(), with(chunk(shape.page()), shape.site(), shape.bytes(n)));
    Ok(())
}

/// LOCK CMPXCHG8B on the quadword.
pub fn by_cmpxchg8b(shape: &Shape, n: u32) -> io::Result<()> {
    let page = shape.page();
    cmpxchg8b(page, chunk(page), with(chunk(page), shape.site(), shape.bytes(n)));
    Ok(())
}

/// LOCK CMPXCHG16B on the chunk.
pub fn by_cmpxchg16b(shape: &Shape, n: u32) -> io::Result<()> {
    let page = shape.page();
    cmpxchg16b(page, chunk(page), with(chunk(page), shape.site(), shape.bytes(n)));
    Ok(())
}

/// LOCK CMPXCHG on the word.
pub fn by_cmpxchg(shape: &Shape, n: u32) -> io::Result<()> {
    cmpxchg(shape.page(), shape.site(), old(shape, n), new(shape, n));
    Ok(())
}

/// MOVNTI.
pub fn by_non_temporal(shape: &Shape, n: u32) -> io::Result<()> {
    non_temporal(shape.page(), shape.site(), new(shape, n));
    Ok(())
}

/// XCHG with the word, aligned or not.
pub fn by_xchg(shape: &Shape, n: u32) -> io::Result<()> {
    xchg(shape.page(), shape.site(), new(shape, n));
    Ok(())
}

/// LOCK ADD of the difference.
pub fn by_lock_add(shape: &Shape, n: u32) -> io::Result<()> {
    lock_add(shape.page(), shape.site(), new(shape, n).wrapping_sub(old(shape, n)));
    Ok(())
}

/// LOCK XADD of the difference.
pub fn by_lock_xadd(shape: &Shape, n: u32) -> io::Result<()> {
    lock_xadd(shape.page(), shape.site(), new(shape, n).wrapping_sub(old(shape, n)));
    Ok(())
}

/// LOCK XOR with the difference.
pub fn by_lock_xor(shape: &Shape, n: u32) -> io::Result<()> {
    lock_xor(shape.page(), shape.site(), new(shape, n) ^ old(shape, n));
    Ok(())
}

/// MOVBE.
pub fn by_movbe(shape: &Shape, n: u32) -> io::Result<()> {
    movbe(shape.page(), shape.site(), new(shape, n));
    Ok(())
}

/// The word of version `n`.
fn new(shape: &Shape, n: u32) -> u32 {
    u32::from_le_bytes(shape.bytes(n))
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
    // SAFETY: sixteen readable bytes that no thread writes meanwhile.
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
