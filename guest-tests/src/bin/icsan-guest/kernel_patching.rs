//! `kernel/`: the kernel changes its own text, while other CPUs spin in user mode and in system calls.

use crate::executor::Spinner;
use crate::outcome::{Attempt, Outcome};
use crate::sys::{cpus, pin};
use icsan_guest_tests::table::WRITER;
use std::fs;
use std::io;
use std::path::Path;

const TRACING: &str = "/sys/kernel/tracing";

/// Toggles a scenario: on and off is one. Few, since healthy kernels die under multi-threaded TCG.
const TOGGLES: u32 = 5;

/// Two threads on each other CPU, or on the only one: one that spins in user mode, one that lives in system calls.
fn bystanders() -> io::Result<Vec<Spinner>> {
    let mut threads = Vec::new();
    for cpu in 1.min(cpus() - 1)..cpus() {
        threads.push(Spinner::start(cpu, || (0..10_000).fold(0u64, |sum, n| std::hint::black_box(sum ^ n)))?);
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
    if !Path::new(needs).exists() {
        return Ok(Outcome::Skipped(format!("this kernel has no {needs}")));
    }
    pin(WRITER)?;
    let threads = bystanders()?;
    for _ in 0..TOGGLES {
        on()?;
        threads.iter().for_each(|thread| _ = thread.ran(2));
        off()?;
        threads.iter().for_each(|thread| _ = thread.ran(2));
    }
    drop(threads);
    Ok(Outcome::Done { patches: 2 * TOGGLES, seen: 2 * TOGGLES, tight: 0 })
}

fn tracing(file: &str, text: &str) -> io::Result<()> {
    fs::write(format!("{TRACING}/{file}"), text).map_err(|error| io::Error::other(format!("{file} <- {text}: {error}")))
}

/// Some sixty jump labels, hot ones in the scheduler.
pub fn static_keys() -> Attempt {
    const FILE: &str = "/proc/sys/kernel/sched_schedstats";
    toggle(FILE, || fs::write(FILE, "1"), || fs::write(FILE, "0"))
}

/// A jump label and a static call.
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
