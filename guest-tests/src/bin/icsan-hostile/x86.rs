//! The guest: children that live for two seconds at most, each with a thread for each CPU. A thread changes a few bytes
//! of code that all of them share, through one of two mappings, and calls into it, over and over. What faults comes
//! back by a signal handler; what does not come back is killed.
//!
//! Every thread is in seccomp's strict mode: random code finds system calls, too.

use icsan_guest_tests::console::PREFIX;
use icsan_guest_tests::numbers::Numbers;
use std::arch::global_asm;
use std::cell::UnsafeCell;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Bytes of code, and of data that its registers point to.
const CODE: usize = 4 * 4096;
const DATA: usize = 4096;

/// Signal stacks are aligned to their size, so that the handler finds its thread's [`Context`] at the beginning of its
/// stack. It may not look at anything that a register points to: they are random, the base of FS included.
const SIGNAL_STACK: usize = 1 << 16;

/// A child's life.
const LIFE: Duration = Duration::from_secs(2);

/// How long one call may take.
const CALL: Duration = Duration::from_millis(3);

/// Calls of one place in a row, with changes around it in between.
const CALLS: usize = 16;

/// Threads of a child.
const MAX_THREADS: usize = 16;

/// Opcodes that are worth more than others: what patching swaps, and what gets back.
const OPCODES: [u8; 20] = [
    0xcc, 0x90, 0xe9, 0xeb, 0xe8, 0x0f, 0x66, 0xb8, 0x48, 0x05, 0x3d, 0x81, 0x83, 0x74, 0x75, 0x50, 0x58, 0x8d, 0xa1,
    0xf7,
];

/// What a thread needs to come back from code that did not return.
#[repr(C)]
struct Context {
    /// The stack pointer at the call.
    stack: u64,
    /// How often the handler brought it back.
    faults: u64,
    /// Is it in there?
    inside: u64,
}

unsafe extern "C" {
    /// Calls `code` with random registers: sixteen words, of which the stack pointer is not taken. Comes back when it
    /// returns, or when the handler says so.
    fn hostile_call(code: u64, context: *mut Context, registers: *const u64);
    /// Where the handler goes on: with the stack as it was at the call.
    fn hostile_return();
}

global_asm!(
    ".globl hostile_call",
    "hostile_call:",
    "push rbx",
    "push rbp",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "push rdi",
    "push rsi",
    "mov [rsi], rsp",
    "mov qword ptr [rsi + 16], 1",
    "mov rax, rdx",
    "mov rcx, [rax + 8]",
    "mov rdx, [rax + 16]",
    "mov rbx, [rax + 24]",
    "mov rbp, [rax + 40]",
    "mov rsi, [rax + 48]",
    "mov rdi, [rax + 56]",
    "mov r8, [rax + 64]",
    "mov r9, [rax + 72]",
    "mov r10, [rax + 80]",
    "mov r11, [rax + 88]",
    "mov r12, [rax + 96]",
    "mov r13, [rax + 104]",
    "mov r14, [rax + 112]",
    "mov r15, [rax + 120]",
    "mov rax, [rax]",
    "call qword ptr [rsp + 8]",
    // The thread that gets here need not have the stack pointer of the call. If it has, the context is on top, and says
    // so; else this faults, or traps, and the handler comes.
    "mov rsi, [rsp]",
    "cmp [rsi], rsp",
    "je 2f",
    "int3",
    "2: cld",
    ".globl hostile_return",
    "hostile_return:",
    "pop rsi",
    "mov qword ptr [rsi + 16], 0",
    "pop rdi",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbp",
    "pop rbx",
    "ret",
);

/// Brings the thread back to the end of its call: with its stack, and with flags that are safe.
extern "C" fn on_fault(signal: libc::c_int, _info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let here = &raw const context as usize;
    let mine = (here & !(SIGNAL_STACK - 1)) as *mut Context;
    // SAFETY: the kernel passes a valid context to a handler installed with SA_SIGINFO; the thread's own context is at
    // the beginning of its signal stack.
    unsafe {
        // Time is up for code that loops; everything else that the thread does may go on.
        if signal == libc::SIGALRM && (*mine).inside == 0 {
            return;
        }
        let registers = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
        (*mine).faults += 1;
        registers[libc::REG_RSP as usize] = (*mine).stack as i64;
        registers[libc::REG_RIP as usize] = hostile_return as *const () as i64;
        registers[libc::REG_EFL as usize] = 0x202;
    }
}

/// A byte of code: one that goes back, an opcode of the list, or anything.
fn byte_of_code(numbers: &mut Numbers) -> u8 {
    match numbers.below(4) {
        0 => 0xc3,
        1 | 2 => OPCODES[numbers.below(OPCODES.len())],
        _ => numbers.next() as u8,
    }
}

/// Memory that the parent and its children share: how often code was called, and faulted.
struct Totals(UnsafeCell<*mut AtomicU64>);

// SAFETY: the pointer is written once, before there is a second thread; what it points to is atomic.
unsafe impl Sync for Totals {}

static TOTALS: Totals = Totals(UnsafeCell::new(null_mut()));

fn totals() -> &'static [AtomicU64; 2] {
    // SAFETY: `run` maps two words before anything calls this.
    unsafe { &*(*TOTALS.0.get()).cast::<[AtomicU64; 2]>() }
}

fn map(len: usize, file: libc::c_int) -> *mut u8 {
    let flags = if file < 0 { libc::MAP_SHARED | libc::MAP_ANONYMOUS } else { libc::MAP_SHARED };
    // SAFETY: a fresh mapping that nothing else knows of.
    let memory =
        unsafe { libc::mmap(null_mut(), len, libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC, flags, file, 0) };
    assert!(memory != libc::MAP_FAILED, "no memory");
    memory.cast()
}

/// Calls into the code, and changes it, until the child is killed.
fn thread(code: [*mut u8; 2], data: *mut u8, seed: u64) {
    let mut numbers = Numbers(seed);
    let mut stack: *mut libc::c_void = null_mut();
    // SAFETY: memory of our own for the signal stack, which begins with the context; prctl takes numbers.
    let context = unsafe {
        assert_eq!(libc::posix_memalign(&raw mut stack, SIGNAL_STACK, SIGNAL_STACK), 0, "no memory");
        let context = stack.cast::<Context>();
        context.write(Context { stack: 0, faults: 0, inside: 0 });
        let signals = libc::stack_t { ss_sp: stack.byte_add(4096), ss_flags: 0, ss_size: SIGNAL_STACK - 4096 };
        assert_eq!(libc::sigaltstack(&raw const signals, null_mut()), 0, "no signal stack");
        wake_up(CALL);
        libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_STRICT, 0, 0, 0);
        context
    };
    let [calls, faults] = totals();
    loop {
        let place = numbers.below(CODE - 32);
        let entry = code[numbers.below(2)] as u64 + place as u64;
        for _ in 0..CALLS {
            change(code[numbers.below(2)], place + numbers.below(16), &mut numbers);
            let mut registers = [0_u64; 16];
            for register in &mut registers {
                *register =
                    if numbers.below(2) == 0 { data as u64 + numbers.below(DATA) as u64 } else { numbers.next() };
            }
            calls.fetch_add(1, Ordering::Relaxed);
            // SAFETY: nothing about this is safe; the process is made for it.
            unsafe {
                let before = (*context).faults;
                hostile_call(entry, context, registers.as_ptr());
                // Random code stores to random places, to this one, too.
                faults.fetch_add((*context).faults.wrapping_sub(before).min(1), Ordering::Relaxed);
            }
        }
    }
}

/// Changes one, four, or eight bytes of the code.
fn change(mapping: *mut u8, at: usize, numbers: &mut Numbers) {
    // SAFETY: within the mapping. Other threads write and execute it: that is what this is for.
    unsafe {
        match numbers.below(3) {
            0 => mapping.add(at).write_volatile(byte_of_code(numbers)),
            1 => mapping
                .add(at)
                .cast::<u32>()
                .write_unaligned(u32::from_le_bytes([(); 4].map(|()| byte_of_code(numbers)))),
            _ => mapping
                .add(at & !7)
                .cast::<u64>()
                .write_volatile(u64::from_le_bytes([(); 8].map(|()| byte_of_code(numbers)))),
        }
    }
}

/// Sends the calling thread SIGALRM again and again.
fn wake_up(every: Duration) {
    // SAFETY: plain data, for which all zero is valid; the timer's number is a local of ours.
    unsafe {
        let mut event: libc::sigevent = std::mem::zeroed();
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = libc::SIGALRM;
        event.sigev_notify_thread_id = libc::gettid();
        let mut timer: libc::timer_t = std::mem::zeroed();
        assert_eq!(libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer), 0, "no timer");
        let interval = libc::timespec { tv_sec: 0, tv_nsec: every.subsec_nanos().into() };
        libc::timer_settime(timer, 0, &libc::itimerspec { it_interval: interval, it_value: interval }, null_mut());
    }
}

fn child(threads: usize, seed: u64) -> ! {
    let mut numbers = Numbers(seed);
    // SAFETY: a name and a number; sigaction gets a handler that only touches its context and its thread's.
    let file = unsafe {
        let file = libc::memfd_create(c"code".as_ptr(), 0);
        libc::ftruncate(file, CODE as libc::off_t);
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_fault as extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
        for signal in [libc::SIGSEGV, libc::SIGILL, libc::SIGTRAP, libc::SIGFPE, libc::SIGBUS, libc::SIGALRM] {
            libc::sigaction(signal, &raw const action, null_mut());
        }
        file
    };
    let code = [map(CODE, file), map(CODE, file)];
    let data = map(DATA, -1);
    // SAFETY: within the mapping.
    (0..CODE).for_each(|at| unsafe { code[0].add(at).write(byte_of_code(&mut numbers)) });
    let addresses = (code.map(|code| code as usize), data as usize);
    for _ in 1..threads {
        let seed = numbers.next();
        std::thread::spawn(move || thread(addresses.0.map(|code| code as *mut u8), addresses.1 as *mut u8, seed));
    }
    thread(code, data, numbers.next());
    // It never comes back.
    std::process::abort();
}

/// The value of `icsan.KEY=` on the kernel's command line.
fn parameter(key: &str) -> Option<u64> {
    let line = std::fs::read_to_string("/proc/cmdline").ok()?;
    line.split_whitespace()
        .find_map(|word| word.strip_prefix("icsan.")?.strip_prefix(key)?.strip_prefix('=')?.parse().ok())
}

/// Makes children for as long as it is told, and switches the machine off.
pub fn run() -> ! {
    let _ = std::fs::create_dir_all("/proc");
    // SAFETY: three C strings and no data.
    unsafe { libc::mount(c"proc".as_ptr(), c"/proc".as_ptr(), c"proc".as_ptr(), 0, std::ptr::null()) };
    let seconds = parameter("seconds").unwrap_or(10);
    let mut numbers = Numbers(parameter("seed").unwrap_or(1));
    // SAFETY: the only thread; see `Totals`.
    unsafe { *TOTALS.0.get() = map(4096, -1).cast() };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
    let start = Instant::now();
    let mut children = 0_u64;
    while start.elapsed() < Duration::from_secs(seconds) {
        let seed = numbers.next();
        // SAFETY: this process has one thread, so the child may do anything.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            child(threads, seed);
        }
        if pid < 0 {
            break;
        }
        children += 1;
        let born = Instant::now();
        let mut status = 0;
        // SAFETY: our own child, and a local of ours.
        unsafe {
            while libc::waitpid(pid, &raw mut status, libc::WNOHANG) == 0 {
                if born.elapsed() > LIFE {
                    libc::kill(pid, libc::SIGKILL);
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
    let [calls, faults] = totals();
    println!(
        "\n{PREFIX}hostile: {children} children, {} calls, {} that did not return in {} s",
        calls.load(Ordering::Relaxed),
        faults.load(Ordering::Relaxed),
        start.elapsed().as_secs()
    );
    // SAFETY: writes caches back, and ends the machine: nothing runs after it.
    unsafe {
        libc::sync();
        libc::reboot(libc::RB_POWER_OFF);
    }
    // Without ACPI the kernel comes back; the last process of a machine must not end.
    loop {
        std::thread::park();
    }
}
