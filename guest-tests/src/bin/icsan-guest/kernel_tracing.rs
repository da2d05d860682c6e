//! `kernel/`: tracepoints, the function tracer and probes, all by way of tracefs.

use crate::architecture::SYSTEM_CALL;
use crate::executor::{Spinner, wait_until};
use crate::kernel_patching::{Times, all_ran, bystanders, lacks, other_cpus, toggle, write};
use crate::outcome::{Attempt, Outcome};
use crate::shape::{BEHIND_NOP, text_target};
use crate::sys::pin;
use icsan_guest_tests::table::WRITER;
use std::fs;
use std::io;
use std::time::Duration;

/// Where the tracer is.
pub const TRACING: &str = "/sys/kernel/tracing";

/// How long a probe has to be hit that other threads run into all the time.
const PATIENCE: Duration = Duration::from_secs(5);

/// Writes to a file of the tracer's.
pub fn tracing(file: &str, text: &str) -> io::Result<()> {
    write(&format!("{TRACING}/{file}"), text)
}

/// Jump labels and static calls. The first probe that is attached turns a call from the iterator to itself, and the
/// second one, which records the names of processes for the scheduler's, turns it back while the call is in use.
pub fn tracepoints(which: &str) -> Attempt {
    let file = format!("events/{which}/enable");
    let times = if which.contains('/') { Times::Some } else { Times::Once };
    toggle(&format!("{TRACING}/{file}"), times, || tracing(&file, "1"), || tracing(&file, "0"))
}

/// The function tracer on what the glob matches.
pub fn ftrace(functions: &str) -> Attempt {
    const FILTER: &str = "set_ftrace_filter";
    let on = || {
        // Without the line feed an error would be lost, and every function be traced.
        tracing(FILTER, &format!("{functions}\n"))?;
        tracing("current_tracer", "function")
    };
    let off = || {
        tracing("current_tracer", "nop")?;
        tracing(FILTER, "")
    };
    let times = if functions.contains('*') { Times::Once } else { Times::Some };
    toggle(&format!("{TRACING}/{FILTER}"), times, on, off)
}

/// Hits of our probe, by the tracer's own count: the first number behind its name.
fn hits(profile: &str) -> u64 {
    let text = fs::read_to_string(format!("{TRACING}/{profile}")).unwrap_or_default();
    let numbers = |line: &str| line.split_whitespace().skip_while(|word| *word != "icsan").nth(1)?.parse().ok();
    text.lines().find_map(numbers).unwrap_or(0)
}

fn wait_for_hits(profile: &str) -> io::Result<()> {
    if wait_until(PATIENCE, || hits(profile) > 0) {
        return Ok(());
    }
    Err(io::Error::other(format!("the probe was planted, but {profile} counts no hit")))
}

/// The probe is planted while this file says so.
pub const KPROBE: &str = "events/kprobes/icsan/enable";

/// Takes the probe away.
pub fn remove_kprobe() -> io::Result<()> {
    tracing(KPROBE, "0")?;
    tracing("kprobe_events", "")
}

/// A probe on the system call that the bystanders make: at its entry (`p`) or its return (`r`).
pub fn kprobe(kind: char) -> Attempt {
    let on = || {
        tracing("kprobe_events", &format!("{kind}:icsan {SYSTEM_CALL}getppid"))?;
        tracing(KPROBE, "1")?;
        wait_for_hits("kprobe_profile")
    };
    toggle(&format!("{TRACING}/kprobe_events"), Times::Some, on, remove_kprobe)
}

/// Where the instruction behind the first NOP of the target is in this program's file.
fn place_in_file() -> io::Result<(String, u64)> {
    let address = text_target() as usize as u64 + BEHIND_NOP;
    let maps = fs::read_to_string("/proc/self/maps")?;
    let place = maps.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let (from, to) = words.next()?.split_once('-')?;
        let number = |text| u64::from_str_radix(text, 16).ok();
        let (from, to, offset) = (number(from)?, number(to)?, number(words.nth(1)?)?);
        let file = words.nth(2)?;
        (from..to).contains(&address).then(|| (file.to_owned(), offset + address - from))
    });
    place.ok_or_else(|| io::Error::other("this program's text is not in /proc/self/maps"))
}

/// A uprobe in the function that a thread on each other CPU runs: the kernel patches user text, and executes what it
/// stands for elsewhere.
pub fn uprobe() -> Attempt {
    const EVENT: &str = "events/uprobes/icsan/enable";
    const TOGGLES: u32 = 3;
    if let Some(lack) = lacks(&format!("{TRACING}/uprobe_events")) {
        return Ok(lack);
    }
    pin(WRITER)?;
    let (file, offset) = place_in_file()?;
    let threads = bystanders()?;
    let targets: Vec<Spinner> =
        other_cpus().map(|cpu| Spinner::start(cpu, || text_target()(0))).collect::<io::Result<_>>()?;
    for _ in 0..TOGGLES {
        tracing("uprobe_events", &format!("p:icsan {file}:{offset:#x}"))?;
        tracing(EVENT, "1")?;
        wait_for_hits("uprobe_profile")?;
        all_ran(&targets)?;
        all_ran(&threads)?;
        tracing(EVENT, "0")?;
        tracing("uprobe_events", "")?;
        all_ran(&targets)?;
    }
    if let Some(wrong) = targets.iter().map(Spinner::last).find(|value| *value != 0) {
        return Ok(Outcome::Failed(format!("the probed function returned {wrong:#x}")));
    }
    Ok(Outcome::Proven(format!("{TOGGLES} uprobes were hit at {file}:{offset:#x}")))
}
