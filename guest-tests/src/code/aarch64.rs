//! AArch64, by its manual (DDI0487).

pub use crate::arch::aarch64::MARKER;
use std::arch::asm;

/// Executes the marker.
pub fn mark(value: u64) {
    const { assert!(u32::from_le_bytes(MARKER) == 0xF289_287F) };
    // SAFETY: it changes a half of XZR, which stays 0.
    unsafe { asm!(".inst 0xF289287F", in("x0") value, options(nomem, nostack, preserves_flags)) };
}

/// ISB: a context synchronization event.
#[inline(always)]
pub fn serialize() {
    // SAFETY: a barrier.
    unsafe { asm!("isb", options(nostack, preserves_flags)) };
}

/// DMB and DSB: they order memory, and neither is a context synchronization event.
#[inline(always)]
pub fn fences() {
    // SAFETY: barriers.
    unsafe { asm!("dmb ish", "dsb ish", options(nostack, preserves_flags)) };
}

/// YIELD. What the standard library has for it is an ISB.
#[inline(always)]
pub fn pause() {
    // SAFETY: a hint.
    unsafe { asm!("yield", options(nomem, nostack, preserves_flags)) };
}

/// DC CVAU: cleans the line that holds this byte to where instruction caches fill from.
#[inline(always)]
pub fn clean_line(at: *const u8) {
    // SAFETY: it changes no memory. An address that is not mapped ends the process, and nothing worse.
    unsafe { asm!("dc cvau, {}", in(reg) at, options(nostack, preserves_flags)) };
}

/// IC IVAU: invalidates the line that holds this byte in the instruction caches of all CPUs.
#[inline(always)]
pub fn invalidate_line(at: *const u8) {
    // SAFETY: it changes no memory.
    unsafe { asm!("ic ivau, {}", in(reg) at, options(nostack, preserves_flags)) };
}

/// DSB ISH: all CPUs that run this operating system.
#[inline(always)]
pub fn dsb_inner() {
    // SAFETY: a barrier.
    unsafe { asm!("dsb ish", options(nostack, preserves_flags)) };
}

/// DSB NSH: this CPU alone.
#[inline(always)]
pub fn dsb_own() {
    // SAFETY: a barrier.
    unsafe { asm!("dsb nsh", options(nostack, preserves_flags)) };
}

/// DSB ISHST: it waits for stores, and for no maintenance.
#[inline(always)]
pub fn dsb_stores() {
    // SAFETY: a barrier.
    unsafe { asm!("dsb ishst", options(nostack, preserves_flags)) };
}

/// DMB ISH: it completes nothing.
#[inline(always)]
pub fn dmb() {
    // SAFETY: a barrier.
    unsafe { asm!("dmb ish", options(nostack, preserves_flags)) };
}

/// CTR_EL0: the cache type.
fn cache_type() -> u64 {
    let value: u64;
    // SAFETY: reads a register, which Linux lets programs do, or does for them.
    unsafe { asm!("mrs {}, ctr_el0", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

/// The bytes of a line that a clean is good for.
#[must_use]
pub fn data_line() -> usize {
    4 << (cache_type() >> 16 & 15)
}

/// The bytes of a line that an invalidate is good for.
#[must_use]
pub fn instruction_line() -> usize {
    4 << (cache_type() & 15)
}

/// The first byte of each line that these bytes touch.
fn lines(at: *const u8, len: usize, line: usize) -> impl Iterator<Item = *const u8> {
    let before = at as usize % line;
    (0..(before + len).div_ceil(line)).map(move |index| at.wrapping_sub(before).wrapping_add(index * line))
}

/// All that makes fetches of all CPUs find what was stored: clean, barrier, invalidate, barrier. It is right whatever
/// CTR_EL0 says could be left out. It does not make a CPU forget what it has fetched: that is [`serialize`].
pub fn publish(written: *const u8, executed: *const u8, len: usize) {
    lines(written, len, data_line()).for_each(clean_line);
    dsb_inner();
    lines(executed, len, instruction_line()).for_each(invalidate_line);
    dsb_inner();
}

/// Another CPU's change of the mappings is broadcast to the hardware, and interrupts no CPU.
pub const REMAPPING_SERIALIZES: bool = false;

/// One STRB.
///
/// # Safety
/// A byte may be written there.
#[inline(always)]
pub unsafe fn store8(at: *mut u8, value: u8) {
    // SAFETY: the caller says so.
    unsafe { asm!("strb {:w}, [{}]", in(reg) value, in(reg) at, options(nostack, preserves_flags)) }
}

/// One STRH, aligned or not.
///
/// # Safety
/// Two bytes may be written there.
#[inline(always)]
pub unsafe fn store16(at: *mut u8, value: u16) {
    // SAFETY: the caller says so.
    unsafe { asm!("strh {:w}, [{}]", in(reg) value, in(reg) at, options(nostack, preserves_flags)) }
}

/// One STR of four bytes, aligned or not.
///
/// # Safety
/// Four bytes may be written there.
#[inline(always)]
pub unsafe fn store32(at: *mut u8, value: u32) {
    // SAFETY: the caller says so.
    unsafe { asm!("str {:w}, [{}]", in(reg) value, in(reg) at, options(nostack, preserves_flags)) }
}

/// One STR of eight bytes, aligned or not.
///
/// # Safety
/// Eight bytes may be written there.
#[inline(always)]
pub unsafe fn store64(at: *mut u8, value: u64) {
    // SAFETY: the caller says so.
    unsafe { asm!("str {}, [{}]", in(reg) value, in(reg) at, options(nostack, preserves_flags)) }
}

/// `ret`
pub const RET: u32 = 0xD65F_03C0;
/// `nop`
pub const NOP: u32 = 0xD503_201F;

/// `movz w0, #value`
#[must_use]
pub const fn movz(value: u16) -> u32 {
    0x5280_0000 | (value as u32) << 5
}

/// `movk w0, #value, lsl #16`
#[must_use]
pub const fn movk_high(value: u16) -> u32 {
    0x72A0_0000 | (value as u32) << 5
}

/// `b` to so many bytes further on.
#[must_use]
pub const fn branch(distance: usize) -> u32 {
    0x1400_0000 | distance as u32 / 4
}

/// `bl` to so many bytes further on.
#[must_use]
pub const fn call(distance: usize) -> u32 {
    0x9400_0000 | distance as u32 / 4
}

/// `brk #number`
#[must_use]
pub const fn breakpoint(number: u16) -> u32 {
    0xD420_0000 | (number as u32) << 5
}

/// `movz w0, #…`, `movk w0, #…, lsl #16` and `ret`.
#[must_use]
pub const fn return_value(value: u32) -> [u8; 12] {
    let ([a, b, c, d], [e, f, g, h], [i, j, k, l]) =
        (movz(value as u16).to_le_bytes(), movk_high((value >> 16) as u16).to_le_bytes(), RET.to_le_bytes());
    [a, b, c, d, e, f, g, h, i, j, k, l]
}

/// One store of the first instruction.
///
/// # Safety
/// A [`return_value()`] stands there, and may be written.
#[inline(always)]
pub unsafe fn change_returned(at: *mut u8, value: u16) {
    // SAFETY: it is four bytes of what the caller says is there.
    unsafe { store32(at, movz(value)) };
}
