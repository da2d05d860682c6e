//! x86-64, by its manuals.

pub use crate::arch::x86::MARKER;
use std::arch::asm;

/// Executes the marker.
pub fn mark(value: u64) {
    const { assert!(matches!(MARKER, [0x0F, 0x1F, 0x84, 0x00, 0x49, 0x43, 0x53, 0x4E])) };
    // SAFETY: a NOP with a memory operand that is never accessed.
    unsafe {
        asm!(".byte 0x0F, 0x1F, 0x84, 0x00, 0x49, 0x43, 0x53, 0x4E", in("rax") value, options(nostack, preserves_flags));
    }
}

/// CPUID: serializes.
#[inline(always)]
pub fn serialize() {
    // SAFETY: CPUID changes four registers, of which rbx is LLVM's own and saved.
    unsafe {
        asm!("push rbx", "cpuid", "pop rbx", inout("eax") 0 => _, out("ecx") _, out("edx") _);
    }
}

/// IRET to the next instruction, at the same privilege: serializes, under FRED too.
#[inline(always)]
pub fn iret_to_self() {
    // SAFETY: the frame on the stack is the current state with the address after the IRET, so nothing changes but RIP.
    unsafe {
        asm!(
            "mov {t:e}, ss",
            "push {t}",
            "lea {t}, [rsp + 8]",
            "push {t}",
            "pushfq",
            "mov {t:e}, cs",
            "push {t}",
            "lea {t}, [rip + 2f]",
            "push {t}",
            "iretq",
            "2:",
            t = out(reg) _,
        );
    }
}

/// Fences and a locked instruction: they order memory, and none of them serializes.
#[inline(always)]
pub fn fences() {
    // SAFETY: adds nothing to the top of the stack, below which the asm may push.
    unsafe { asm!("mfence", "lfence", "lock add dword ptr [rsp], 0") };
}

/// PAUSE.
#[inline(always)]
pub fn pause() {
    std::hint::spin_loop();
}

/// Fetches find what was stored before, by any CPU: there is nothing to do.
#[inline(always)]
pub fn publish(_written: *const u8, _executed: *const u8, _len: usize) {}

/// The CPU that changes page tables interrupts all others that may use them, and the return from that serializes.
pub const REMAPPING_SERIALIZES: bool = true;

/// One MOV of one byte.
///
/// # Safety
/// A byte may be written there.
#[inline(always)]
pub unsafe fn store8(at: *mut u8, value: u8) {
    // SAFETY: the caller says so.
    unsafe { asm!("mov byte ptr [{}], {}", in(reg) at, in(reg_byte) value, options(nostack, preserves_flags)) }
}

/// One MOV of two bytes, aligned or not.
///
/// # Safety
/// Two bytes may be written there.
#[inline(always)]
pub unsafe fn store16(at: *mut u8, value: u16) {
    // SAFETY: the caller says so.
    unsafe { asm!("mov word ptr [{}], {:x}", in(reg) at, in(reg) value, options(nostack, preserves_flags)) }
}

/// One MOV of four bytes, aligned or not.
///
/// # Safety
/// Four bytes may be written there.
#[inline(always)]
pub unsafe fn store32(at: *mut u8, value: u32) {
    // SAFETY: the caller says so.
    unsafe { asm!("mov dword ptr [{}], {:e}", in(reg) at, in(reg) value, options(nostack, preserves_flags)) }
}

/// One MOV of eight bytes, aligned or not.
///
/// # Safety
/// Eight bytes may be written there.
#[inline(always)]
pub unsafe fn store64(at: *mut u8, value: u64) {
    // SAFETY: the caller says so.
    unsafe { asm!("mov qword ptr [{}], {}", in(reg) at, in(reg) value, options(nostack, preserves_flags)) }
}

/// `ret`
pub const RET: u8 = 0xC3;

/// `nop`, of one byte.
pub const NOP: u8 = 0x90;

/// `mov eax, value` and `ret`.
#[must_use]
pub const fn return_value(value: u32) -> [u8; 6] {
    let [a, b, c, d] = value.to_le_bytes();
    [0xB8, a, b, c, d, RET]
}

/// One store of the immediate operand.
///
/// # Safety
/// A [`return_value()`] stands there, and may be written.
#[inline(always)]
pub unsafe fn change_returned(at: *mut u8, value: u16) {
    // SAFETY: the operand is four bytes of what the caller says is there.
    unsafe { store32(at.wrapping_add(1), value.into()) };
}
