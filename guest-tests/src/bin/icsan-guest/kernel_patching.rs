//! `kernel/`: the kernel changes its own text, while other CPUs spin in user mode and in system calls.

use crate::executor::Spinner;
use crate::outcome::{Attempt, Outcome};
use crate::sys::{cpus, pin};
use icsan_guest_tests::table::WRITER;
use std::cell::Cell;
use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

const TRACING: &str = "/sys/kernel/tracing";

/// Toggles a scenario: on and off is one. Few, since healthy kernels die under multi-threaded TCG.
const TOGGLES: u32 = 5;

/// When a slow scenario begins no more toggles, since its host has too few CPUs for it.
pub const LONG: Duration = Duration::from_secs(8);

/// The CPUs that bystanders run on: all but the writer's, or the only one.
pub fn other_cpus() -> std::ops::Range<usize> {
    1.min(cpus() - 1)..cpus()
}

/// A thread on each other CPU that spins in user mode.
pub fn user_mode() -> io::Result<Vec<Spinner>> {
    other_cpus().map(|cpu| Spinner::start(cpu, || (0..10_000).fold(0u64, |sum, n| std::hint::black_box(sum ^ n)))).collect()
}

/// Two threads on each other CPU: one that spins in user mode, one that lives in system calls.
fn bystanders() -> io::Result<Vec<Spinner>> {
    let mut threads = user_mode()?;
    for cpu in other_cpus() {
        threads.push(Spinner::start(cpu, || {
            // SAFETY: two system calls that touch no memory.
            unsafe {
                libc::getppid();
                libc::sched_yield();
            }
            0
        })?);
    }
    Ok(threads)
}

fn toggle(needs: &str, on: impl Fn() -> io::Result<()>, off: impl Fn() -> io::Result<()>) -> Attempt {
    toggle_times(TOGGLES, needs, on, off)
}

fn toggle_times(times: u32, needs: &str, on: impl Fn() -> io::Result<()>, off: impl Fn() -> io::Result<()>) -> Attempt {
    if !Path::new(needs).exists() {
        return Ok(Outcome::Skipped(format!("this kernel has no {needs}")));
    }
    pin(WRITER)?;
    let threads = bystanders()?;
    let start = Instant::now();
    let mut done = 0;
    while done < times && (done == 0 || start.elapsed() < LONG) {
        on()?;
        threads.iter().for_each(|thread| _ = thread.ran(2));
        off()?;
        threads.iter().for_each(|thread| _ = thread.ran(2));
        done += 1;
    }
    drop(threads);
    Ok(Outcome::Done { patches: 2 * done, seen: 2 * done, tight: 0 })
}

fn tracing(file: &str, text: &str) -> io::Result<()> {
    fs::write(format!("{TRACING}/{file}"), text).map_err(|error| io::Error::other(format!("{file} <- {text}: {error}")))
}

/// Some sixty jump labels, hot ones in the scheduler.
pub fn static_keys() -> Attempt {
    const FILE: &str = "/proc/sys/kernel/sched_schedstats";
    toggle(FILE, || fs::write(FILE, "1"), || fs::write(FILE, "0"))
}

/// A jump label and a static call: the first probe that is attached turns the call from the iterator to itself, and the second one, which
/// records the names of processes, turns it back while the call is in use.
pub fn tracepoint() -> Attempt {
    const FILE: &str = "events/sched/sched_switch/enable";
    toggle(&format!("{TRACING}/{FILE}"), || tracing(FILE, "1"), || tracing(FILE, "0"))
}

/// A kprobe at the entry of the system call that the bystanders make.
pub fn kprobe() -> Attempt {
    const EVENT: &str = "events/kprobes/icsan/enable";
    let needs = format!("{TRACING}/kprobe_events");
    let on = || {
        tracing("kprobe_events", "p:icsan __x64_sys_getppid")?;
        tracing(EVENT, "1")
    };
    let off = || {
        tracing(EVENT, "0")?;
        tracing("kprobe_events", "")
    };
    toggle(&needs, on, off)
}

/// A kprobe inside of that system call, behind the tracer's own call, which the kernel replaces by a jump after a while, and takes back before
/// it is removed: INT3 and instruction, then INT3 and jump, and the other way round.
pub fn kprobe_inside() -> Attempt {
    const LIST: &str = "/sys/kernel/debug/kprobes/list";
    const EVENT: &str = "events/kprobes/icsan/enable";
    /// How far into the function a place is looked for.
    const INSIDE: u32 = 0x40;
    /// How long it may take: the kernel waits for a grace period of all tasks first.
    const BECOMES_JUMP: Duration = Duration::from_secs(8);
    const JMP: u8 = 0xE9;
    for needed in [LIST, KCORE, "/proc/sys/debug/kprobes-optimization"] {
        if !Path::new(needed).exists() {
            return Ok(Outcome::Skipped(format!("this kernel has no {needed}")));
        }
    }
    let off = || {
        tracing(EVENT, "0")?;
        tracing("kprobe_events", "")
    };
    // The kernel refuses a place where no instruction starts, and only some of the others can become a jump. It says at once which, and does
    // it later.
    let first = Cell::new(1);
    let on = || {
        for offset in first.get()..INSIDE {
            if tracing("kprobe_events", &format!("p:icsan __x64_sys_getppid+{offset}")).is_err() {
                continue;
            }
            tracing(EVENT, "1")?;
            let list = fs::read_to_string(LIST)?;
            let Some(line) = list.lines().find(|line| line.contains("[OPTIMIZED]")) else {
                off()?;
                continue;
            };
            first.set(offset);
            let address = line.split(' ').next().and_then(|word| u64::from_str_radix(word, 16).ok());
            let address = address.ok_or_else(|| io::Error::other(format!("{LIST}: {line}")))?;
            let start = Instant::now();
            while kernel_byte(address)? != JMP {
                if start.elapsed() > BECOMES_JUMP {
                    return Err(io::Error::other(format!("the kprobe did not become a jump: {line}")));
                }
                sleep(Duration::from_millis(50));
            }
            return Ok(());
        }
        Err(io::Error::other("no kprobe inside of __x64_sys_getppid can become a jump"))
    };
    toggle_times(3, &format!("{TRACING}/kprobe_events"), on, off)
}

const KCORE: &str = "/proc/kcore";

/// Reads a byte of the kernel's memory: the file is an ELF core dump of it.
fn kernel_byte(address: u64) -> io::Result<u8> {
    const SEGMENTS: u64 = 64;
    const SEGMENT: usize = 56;
    let kcore = fs::File::open(KCORE)?;
    let mut header = [0; 64];
    kcore.read_exact_at(&mut header, 0)?;
    let count = u64::from(u16::from_le_bytes([header[0x38], header[0x39]]));
    for index in 0..count.min(SEGMENTS) {
        let mut segment = [0; SEGMENT];
        kcore.read_exact_at(&mut segment, word(&header, 0x20) + index * SEGMENT as u64)?;
        let (offset, start, size) = (word(&segment, 8), word(&segment, 16), word(&segment, 40));
        // Not the note, which is at no address.
        if start != 0 && address.wrapping_sub(start) < size {
            let mut byte = [0];
            kcore.read_exact_at(&mut byte, offset + (address - start))?;
            return Ok(byte[0]);
        }
    }
    Err(io::Error::other(format!("{KCORE} has no {address:#x}")))
}

fn word(bytes: &[u8], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |word| u64::from_le_bytes(*word))
}

/// The function tracer on that system call, by the name that the tracer knows it by.
pub fn ftrace() -> Attempt {
    const FILTER: &str = "set_ftrace_filter";
    let on = || {
        // Without the line feed an error would be lost, and every function be traced.
        tracing(FILTER, "__do_sys_getppid\n")?;
        tracing("current_tracer", "function")
    };
    let off = || {
        tracing("current_tracer", "nop")?;
        tracing(FILTER, "")
    };
    toggle(&format!("{TRACING}/{FILTER}"), on, off)
}
