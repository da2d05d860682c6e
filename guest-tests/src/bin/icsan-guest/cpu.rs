//! Single instructions: the marker, the serializing ones, and the fences that do not serialize.

use icsan_guest_tests::marker::{ENCODING, Marker};
use std::arch::asm;

/// Tells the plugin which scenario runs from here on.
pub fn mark(marker: Marker) {
    const { assert!(matches!(ENCODING, [0x0F, 0x1F, 0x84, 0x00, 0x49, 0x43, 0x53, 0x4E])) };
    // SAFETY: a NOP with a memory operand that is never accessed.
    unsafe {
        asm!(".byte 0x0F, 0x1F, 0x84, 0x00, 0x49, 0x43, 0x53, 0x4E", in("rax") marker.value(), options(nostack, preserves_flags));
    }
}

/// CPUID: serializes.
#[inline(always)]
pub fn cpuid() {
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
