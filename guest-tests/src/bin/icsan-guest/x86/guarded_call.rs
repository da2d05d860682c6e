//! Calls code that may not come back: INT3, UD2 and faults end a call as well.

use icsan_guest_tests::litmus::End;
use std::arch::global_asm;
use std::cell::Cell;
use std::io;
use std::ptr;

// (function, alias, argument, where to keep the stack pointer). The code gets alias and argument, all other registers
// that a call may use are 0, and so are the flags but for what `xor eax, eax` makes of them: what the model begins
// with.
global_asm!(
    ".pushsection .text.icsan_litmus, \"ax\", @progbits",
    ".globl icsan_litmus_call",
    "icsan_litmus_call:",
    "push rbp",
    "push rbx",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "sub rsp, 8",
    "mov qword ptr [rcx], rsp",
    "mov r11, rdi",
    "mov rdi, rsi",
    "mov rsi, rdx",
    "xor ecx, ecx",
    "xor edx, edx",
    "xor ebx, ebx",
    "xor eax, eax",
    "call r11",
    ".globl icsan_litmus_back",
    "icsan_litmus_back:",
    "add rsp, 8",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbx",
    "pop rbp",
    "ret",
    ".popsection",
);

unsafe extern "C" {
    fn icsan_litmus_call(function: *mut u8, alias: *mut u8, argument: u64, stack_pointer: *const Cell<u64>) -> u64;
    fn icsan_litmus_back();
}

thread_local! {
    /// The stack pointer to come back with; 0 outside of calls.
    static STACK_POINTER: Cell<u64> = const { Cell::new(0) };
    /// The signal that ended the call, and RIP.
    static ENDED: Cell<Option<(libc::c_int, u64)>> = const { Cell::new(None) };
}

/// Calls the code at `function`, with the address of its other mapping. Where it ends is counted from `start` on.
pub fn call(function: *mut u8, alias: *mut u8, start: *mut u8, argument: u64) -> End {
    ENDED.set(None);
    // SAFETY: the code is what a litmus test lays out or makes of it. It uses registers that a call may use, and the
    // stack; what else it does ends in a signal.
    let value = STACK_POINTER.with(|kept| unsafe { icsan_litmus_call(function, alias, argument, ptr::from_ref(kept)) });
    STACK_POINTER.set(0);
    let offset = |rip: u64| rip.wrapping_sub(start as u64);
    match ENDED.get() {
        None => End::Returned(value),
        Some((libc::SIGTRAP, rip)) => End::Trap(offset(rip)),
        Some((libc::SIGILL, rip)) => End::Undefined(offset(rip)),
        Some((_, rip)) => End::Fault(offset(rip)),
    }
}

/// Catches the signals, for the whole process.
pub fn install() -> io::Result<()> {
    for signal in [libc::SIGTRAP, libc::SIGILL, libc::SIGSEGV, libc::SIGBUS] {
        // SAFETY: sigaction is plain bits, for which all zero is valid.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = caught as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        // SAFETY: the action is whole, and the old one is not asked for.
        if unsafe { libc::sigaction(signal, &action, ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

extern "C" fn caught(signal: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let stack_pointer = STACK_POINTER.get();
    if stack_pointer == 0 {
        // Not ours: it strikes again, and ends the process.
        // SAFETY: sets the default action.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
        return;
    }
    // SAFETY: with SA_SIGINFO this is the interrupted thread's context, which is this thread's own.
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    ENDED.set(Some((signal, registers[libc::REG_RIP as usize] as u64)));
    registers[libc::REG_RSP as usize] = stack_pointer as i64;
    registers[libc::REG_RIP as usize] = icsan_litmus_back as *const () as i64;
}
