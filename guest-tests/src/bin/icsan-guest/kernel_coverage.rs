//! `coverage/`: what everyday kernels patch beside everyday work, and what a program with a just-in-time compiler asks
//! of them, with the kernel's own protocol whole, or with a step taken away by the module. No executor waits for the
//! bug.

use crate::architecture::SYSTEM_CALL;
use crate::executor::{Executor, Spinner};
use crate::kernel_bpf;
use crate::kernel_patching::{all_ran, other_cpus, write};
use crate::kernel_tracing::{TRACING, tracing};
use crate::outcome::{Attempt, Outcome, wrong};
use crate::sys::{Membarrier, cpus, membarrier, pin};
use crate::zoo::Returns;
use icsan_guest_tests::table::coverage::KEY_ROUNDS as TOGGLES;
use icsan_guest_tests::table::{WRITER, executor};
use std::fs;
use std::io;

const KEY: &str = "/proc/sys/kernel/sched_schedstats";
const TRACEPOINT: &str = "events/sched/sched_switch/enable";
const KPROBE: &str = "events/kprobes/icsan/enable";

/// How far behind a function's entry places are tried for a kprobe, from this distance on, in bytes.
const INSIDE: u32 = 12;

/// A program of two threads changes its code, as one with a just-in-time compiler does: one thread through an alias,
/// with membarrier(SYNC_CORE) before it says so; the other one, on another CPU, then runs it.
pub fn code_changes() -> Attempt {
    pin(WRITER)?;
    membarrier(Membarrier::RegisterSyncCore)?;
    let code = Returns::new()?;
    let run = code.function();
    let other = Executor::start(executor(cpus()), move |_| run(0))?;
    let mut seen = 0;
    let mut first_wrong = None;
    for number in 1..=TOGGLES {
        code.change(number as u16);
        membarrier(Membarrier::SyncCore)?;
        match other.call(0)? {
            got if got == u64::from(number) => seen += 1,
            got => first_wrong = first_wrong.or_else(|| Some(wrong(number.into(), got))),
        }
    }
    Ok(Outcome::Done { patches: TOGGLES, seen, tight: seen, wrong: first_wrong })
}

/// Two loops of sched_yield(2) on each other CPU.
fn yields() -> io::Result<Vec<Spinner>> {
    let yields = |cpu| {
        Spinner::start(cpu, || {
            // SAFETY: a system call without arguments.
            unsafe { libc::sched_yield() };
            0
        })
    };
    other_cpus().chain(other_cpus()).map(yields).collect()
}

/// Programs that the kernel translates to code of its own, runs at each switch of tasks, and frees, beside such loops.
/// The code of a new one stands on a page where that of others stood.
pub fn programs() -> Attempt {
    pin(WRITER)?;
    let threads = &yields()?;
    for number in 1..=TOGGLES {
        let _program = kernel_bpf::at_switches(number)?;
        all_ran(threads)?;
    }
    Ok(Outcome::Proven(format!("{TOGGLES} programs")))
}

/// Twenty toggles of a static key, one tracepoint switched on and off, one kprobe armed and disarmed, and a program
/// that changes its code, beside two loops of sched_yield(2) on each other CPU.
pub fn everyday() -> Attempt {
    pin(WRITER)?;
    let threads = &yields()?;
    for _ in 0..TOGGLES {
        for value in ["1", "0"] {
            write(KEY, value)?;
            let now = fs::read_to_string(KEY)?;
            if now.trim() != value {
                return Err(io::Error::other(format!("{KEY} <- {value}: it is {}", now.trim())));
            }
        }
        all_ran(threads)?;
    }
    tracing(TRACEPOINT, "1")?;
    all_ran(threads)?;
    tracing(TRACEPOINT, "0")?;
    // Not at the entry, where the tracer's own call would be used; the kernel refuses a place where no instruction
    // starts.
    let inside = |offset: &u32| {
        write(&format!("{TRACING}/kprobe_events"), &format!("p:icsan {SYSTEM_CALL}sched_yield+{offset}")).is_ok()
    };
    if !(INSIDE..2 * INSIDE).any(|offset| inside(&offset)) {
        return Err(io::Error::other(format!("no kprobe can be planted inside of {SYSTEM_CALL}sched_yield")));
    }
    tracing(KPROBE, "1")?;
    all_ran(threads)?;
    tracing(KPROBE, "0")?;
    tracing("kprobe_events", "")?;
    match code_changes()? {
        Outcome::Done { wrong: None, .. } => Ok(Outcome::Proven(format!(
            "{TOGGLES} toggles of a static key, a tracepoint and a kprobe, and {TOGGLES} changes of a program's code"
        ))),
        Outcome::Done { wrong: Some(how), .. } => {
            Ok(Outcome::Spoiled(format!("a change of the program's code was not seen: {how}")))
        }
        other => Ok(other),
    }
}
