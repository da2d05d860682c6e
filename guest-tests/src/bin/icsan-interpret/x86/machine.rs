//! The CPU that this runs on: code and memory at fixed addresses, and a way to execute one instruction with all
//! registers loaded.
//!
//! All of it lies below 2 GiB, so that the stubs reach it by absolute addresses, without a register. Where an
//! instruction may go on there is a landing pad, which notes its number and leaves; everywhere else in the code stands
//! INT3, and a signal handler notes the rest.

use icsan_model::arch::x86::interpret::Registers;
use std::arch::global_asm;
use std::arch::x86_64::__cpuid;
use std::ptr::{self, addr_of, addr_of_mut};

/// Where code is.
pub const CODE: u64 = 0x1000_0000;
/// How much of it.
pub const CODE_LEN: u64 = 0x1_0000;
/// Where the instructions' memory is, stack and all. Nothing is mapped beside it.
pub const SCRATCH: u64 = 0x2000_0000;
/// How much of it: one page.
pub const SCRATCH_LEN: usize = 0x1000;
/// Where GS begins: somewhere below the memory, so that 32-bit offsets reach it.
const GS_BASE: u64 = 0x0712_3450;
/// Where the stubs find what they load and store.
const CONTEXT: u64 = 0x3000_0000;
const BREAKPOINT: u8 = 0xcc;

/// How long a landing pad is.
pub const PAD_LEN: u64 = 18;

/// What the stubs load and store, and the handler notes.
#[repr(C)]
struct Context {
    general: [u64; 16],
    flags: u64,
    landed: u64,
    own_stack: u64,
    entry: u64,
    exit: u64,
    signal: u64,
    signal_rip: u64,
}

global_asm!(
    ".pushsection .text",
    ".globl icsan_interpret_enter",
    "icsan_interpret_enter:",
    "push rbx; push rbp; push r12; push r13; push r14; push r15",
    "mov qword ptr [{c} + 144], rsp",
    "push qword ptr [{c} + 128]",
    "popfq",
    "mov rax, qword ptr [{c} + 0]; mov rcx, qword ptr [{c} + 8]; mov rdx, qword ptr [{c} + 16]; mov rbx, qword ptr [{c} + 24]",
    "mov rsp, qword ptr [{c} + 32]; mov rbp, qword ptr [{c} + 40]; mov rsi, qword ptr [{c} + 48]; mov rdi, qword ptr [{c} + 56]",
    "mov r8, qword ptr [{c} + 64]; mov r9, qword ptr [{c} + 72]; mov r10, qword ptr [{c} + 80]; mov r11, qword ptr [{c} + 88]",
    "mov r12, qword ptr [{c} + 96]; mov r13, qword ptr [{c} + 104]; mov r14, qword ptr [{c} + 112]; mov r15, qword ptr [{c} + 120]",
    "jmp qword ptr [{c} + 152]",
    ".globl icsan_interpret_leave",
    "icsan_interpret_leave:",
    "mov qword ptr [{c} + 0], rax; mov qword ptr [{c} + 8], rcx; mov qword ptr [{c} + 16], rdx; mov qword ptr [{c} + 24], rbx",
    "mov qword ptr [{c} + 32], rsp; mov qword ptr [{c} + 40], rbp; mov qword ptr [{c} + 48], rsi; mov qword ptr [{c} + 56], rdi",
    "mov qword ptr [{c} + 64], r8; mov qword ptr [{c} + 72], r9; mov qword ptr [{c} + 80], r10; mov qword ptr [{c} + 88], r11",
    "mov qword ptr [{c} + 96], r12; mov qword ptr [{c} + 104], r13; mov qword ptr [{c} + 112], r14; mov qword ptr [{c} + 120], r15",
    "mov rsp, qword ptr [{c} + 144]",
    "pushfq",
    "pop qword ptr [{c} + 128]",
    "cld",
    "pop r15; pop r14; pop r13; pop r12; pop rbp; pop rbx",
    "ret",
    ".popsection",
    c = const CONTEXT,
);

unsafe extern "C" {
    fn icsan_interpret_enter();
    fn icsan_interpret_leave();
}

/// How an instruction ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// It went on at this address.
    At(u64),
    /// By this signal, with this RIP.
    Signal(i32, u64),
}

/// What an instruction left behind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// By number.
    pub general: [u64; 16],
    /// RFLAGS.
    pub flags: u64,
    /// The whole memory.
    pub memory: Vec<u8>,
    /// Where it went.
    pub end: End,
}

/// The mapped memory, the handlers, and the segment bases. There is one, on one thread.
#[derive(Debug)]
pub struct Machine {
    /// Where FS begins. It is the C library's.
    pub fs_base: u64,
    /// Where GS begins. No other code uses it.
    pub gs_base: u64,
    /// Is it QEMU's TCG?
    pub emulated: bool,
}

const ARCH_SET_GS: i32 = 0x1001;
const ARCH_GET_FS: i32 = 0x1003;

/// TCG signs the first CPUID leaf of hypervisors.
fn emulated() -> bool {
    let hypervisor = __cpuid(1).ecx >> 31 != 0;
    let leaf = __cpuid(0x4000_0000);
    hypervisor && [leaf.ebx, leaf.ecx, leaf.edx].map(u32::to_le_bytes).concat() == b"TCGTCGTCGTCG"
}

fn context() -> *mut Context {
    CONTEXT as *mut Context
}

fn map(address: u64, len: usize, protection: i32) {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: a fresh mapping that replaces none.
    let mapped = unsafe { libc::mmap(address as *mut _, len, protection, flags, -1, 0) };
    assert_eq!(mapped as u64, address, "cannot map {address:#x}: {}", std::io::Error::last_os_error());
}

/// Notes the signal and goes on in the exit stub, with all registers as they are.
extern "C" fn handle(signal: i32, _: *mut libc::siginfo_t, interrupted: *mut libc::c_void) {
    // SAFETY: the kernel gives a context that is ours until we return, and the page of the stubs is mapped.
    unsafe {
        let registers = &mut (*interrupted.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
        let rip = registers[libc::REG_RIP as usize] as u64;
        // An instruction under test may have gone anywhere, but then it did not come from our own code.
        if rip.wrapping_sub(icsan_interpret_enter as *const () as u64) < 0x400 || (*context()).entry == 0 {
            libc::signal(signal, libc::SIG_DFL);
            return;
        }
        (*context()).signal = signal as u64;
        (*context()).signal_rip = rip;
        registers[libc::REG_RIP as usize] = icsan_interpret_leave as *const () as i64;
    }
}

impl Machine {
    /// Maps everything and takes the signals over.
    pub fn new() -> Self {
        let writable = libc::PROT_READ | libc::PROT_WRITE;
        map(CODE, CODE_LEN as usize, writable | libc::PROT_EXEC);
        map(SCRATCH, SCRATCH_LEN, writable);
        map(CONTEXT, size_of::<Context>(), writable);
        let mut fs_base = 0_u64;
        let stack = vec![0_u8; 1 << 16].leak();
        // SAFETY: the code was mapped above; GS is not used by anything in a program for x86-64 Linux; the handler
        // keeps to what a handler may do, on a stack that is never freed.
        unsafe {
            ptr::write_bytes(CODE as *mut u8, BREAKPOINT, CODE_LEN as usize);
            assert_eq!(libc::syscall(libc::SYS_arch_prctl, ARCH_SET_GS, GS_BASE), 0, "cannot set GS");
            assert_eq!(libc::syscall(libc::SYS_arch_prctl, ARCH_GET_FS, addr_of_mut!(fs_base)), 0, "cannot read FS");
            let stack = libc::stack_t { ss_sp: stack.as_mut_ptr().cast(), ss_flags: 0, ss_size: stack.len() };
            assert_eq!(libc::sigaltstack(&stack, ptr::null_mut()), 0, "no signal stack");
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handle as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            for signal in [libc::SIGTRAP, libc::SIGILL, libc::SIGSEGV, libc::SIGBUS] {
                assert_eq!(libc::sigaction(signal, &action, ptr::null_mut()), 0, "cannot handle signal {signal}");
            }
        }
        Self { fs_base, gs_base: GS_BASE, emulated: emulated() }
    }

    /// Executes the instruction at `registers.rip`, with landing pads behind it and at `target`.
    pub fn execute(&self, bytes: &[u8], registers: &Registers, memory: &[u8], target: Option<u64>) -> Outcome {
        let behind = registers.rip + bytes.len() as u64;
        let pads = [Some(behind), target.filter(|target| *target != behind)];
        let context = context();
        // SAFETY: code, memory and context are mapped, and nothing else of this program refers to them. Pads and
        // instructions lie in the code. The stubs save what a C function must, and come back from wherever the
        // instruction goes: a pad, or by a signal.
        unsafe {
            copy(registers.rip, bytes);
            for (pad, number) in pads.into_iter().zip(1..) {
                pad.inspect(|pad| copy(*pad, &landing_pad(number)));
            }
            copy(SCRATCH, memory);
            context.write_volatile(Context {
                general: registers.general,
                flags: registers.flags,
                landed: 0,
                own_stack: 0,
                entry: registers.rip,
                exit: icsan_interpret_leave as *const () as u64,
                signal: 0,
                signal_rip: 0,
            });
            // The code is this thread's own, but it was not written by the instruction before it.
            __cpuid(0);
            icsan_interpret_enter();
            let left = context.read_volatile();
            (*context).entry = 0;
            clear(registers.rip, bytes.len() as u64);
            pads.into_iter().flatten().for_each(|pad| clear(pad, PAD_LEN));
            let end = match (left.signal, pads.get(left.landed.wrapping_sub(1) as usize)) {
                (0, Some(Some(pad))) => End::At(*pad),
                (signal, _) => End::Signal(signal as i32, left.signal_rip),
            };
            let mut memory = vec![0; SCRATCH_LEN];
            ptr::copy_nonoverlapping(SCRATCH as *const u8, memory.as_mut_ptr(), SCRATCH_LEN);
            Outcome { general: left.general, flags: left.flags, memory, end }
        }
    }
}

/// # Safety
/// It is mapped there.
unsafe fn copy(to: u64, bytes: &[u8]) {
    // SAFETY: the caller says so.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), to as *mut u8, bytes.len()) };
}

/// # Safety
/// It is in the code.
unsafe fn clear(from: u64, len: u64) {
    // SAFETY: the caller says so.
    unsafe { ptr::write_bytes(from as *mut u8, BREAKPOINT, len as usize) };
}

/// `movl $number, landed; jmp *exit`, both at absolute addresses: no register and no flag changes.
fn landing_pad(number: u32) -> Vec<u8> {
    // SAFETY: only addresses of fields are taken.
    let (landed, exit) = unsafe { (addr_of!((*context()).landed) as u32, addr_of!((*context()).exit) as u32) };
    let mut pad = vec![0xc7, 0x04, 0x25];
    pad.extend(landed.to_le_bytes());
    pad.extend(number.to_le_bytes());
    pad.extend([0xff, 0x24, 0x25]);
    pad.extend(exit.to_le_bytes());
    pad
}
