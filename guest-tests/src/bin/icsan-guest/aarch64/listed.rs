//! `cross/breakpoint`: NOP becomes BRK, whose handler carries out what stands there for, and back.

use crate::aarch64::shape::AFTER_BREAKPOINT;
use crate::hand_over::{BARE, hand_over};
use crate::outcome::Attempt;
use crate::shape::Kind;
use crate::sys::check;
use std::ptr;

/// The function goes on behind the breakpoint, with another result.
extern "C" fn on_trap(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid context to a handler that was installed with SA_SIGINFO.
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext };
    registers.regs[0] = AFTER_BREAKPOINT;
    registers.pc += 4;
}

/// Under a thread that stands aside, and does not synchronize.
pub fn breakpoint() -> Attempt {
    // SAFETY: sigaction is plain data, for which all zero is valid.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_trap as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: the handler only touches its context.
    check(unsafe { libc::sigaction(libc::SIGTRAP, &action, ptr::null_mut()) }.into())?;
    hand_over(Kind::Breakpoint, BARE)
}
