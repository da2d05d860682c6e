//! `kernel/`: what concerns every CPU at once. All of it is heavy.

use crate::executor::{Spinner, wait_until};
use crate::kernel_patching::{Times, all_ran, bystanders, lacks, other_cpus, toggle, user_mode, write};
use crate::outcome::{Attempt, Outcome};
use crate::sys::{cpus, pin};
use icsan_guest_tests::table::WRITER;
use std::cell::Cell;
use std::fs;
use std::io;
use std::time::Duration;

const KEY: &str = "/proc/sys/kernel/sched_schedstats";

/// Every preemption model that the kernel offers, and back to the one that it had.
pub fn preempt() -> Attempt {
    const FILE: &str = "/sys/kernel/debug/sched/preempt";
    if let Some(lack) = lacks(FILE) {
        return Ok(lack);
    }
    let offered = fs::read_to_string(FILE)?;
    let words: Vec<&str> = offered.split_whitespace().collect();
    let bare = |word: &str| word.trim_matches(['(', ')']).to_owned();
    let Some(now) = words.iter().find(|word| word.starts_with('(')).map(|word| bare(word)) else {
        return Ok(Outcome::Skipped(format!("{FILE} offers nothing: {}", offered.trim())));
    };
    let others: Vec<String> = words.iter().map(|word| bare(word)).filter(|word| *word != now).collect();
    let Some((first, rest)) = others.split_first() else {
        return Ok(Outcome::Skipped(format!("this kernel knows {now} only")));
    };
    // The first one proves that text changes.
    let off = || {
        rest.iter().try_for_each(|model| write(FILE, model))?;
        write(FILE, &now)
    };
    toggle(FILE, Times::Once, || write(FILE, first), off)
}

/// The file that says whether a CPU is online, and has it go and come.
pub fn online_file(cpu: usize) -> String {
    format!("/sys/devices/system/cpu/cpu{cpu}/online")
}

/// Has a CPU go, or come.
pub fn online(cpu: usize, on: bool) -> io::Result<()> {
    let file = online_file(cpu);
    let wanted = if on { "1" } else { "0" };
    write(&file, wanted)?;
    if wait_until(Duration::from_secs(5), || fs::read_to_string(&file).is_ok_and(|text| text.trim() == wanted)) {
        return Ok(());
    }
    Err(io::Error::other(format!("{file} does not become {wanted}")))
}

/// CPU 1 goes, with the threads that live there, and comes back.
pub fn hotplug() -> Attempt {
    const TIMES: u32 = 2;
    if let Some(lack) = lacks(&online_file(1)) {
        return Ok(lack);
    }
    pin(WRITER)?;
    for _ in 0..TIMES {
        let threads = user_mode()?;
        let before = cpus();
        online(1, false)?;
        all_ran(&threads)?;
        if cpus() != before - 1 {
            return Ok(Outcome::Failed(format!("there are {} CPUs, not {}", cpus(), before - 1)));
        }
        online(1, true)?;
        drop(threads);
        // On the new CPU, too.
        all_ran(&user_mode()?)?;
    }
    Ok(Outcome::Proven(format!("CPU 1 went and came back {TIMES} times")))
}

/// A thread on the writer's CPU that flips a static key over and over. It returns how often that failed.
fn flips_key() -> io::Result<Spinner> {
    let failed = Cell::new(0);
    Spinner::start(WRITER, move || {
        for value in ["1", "0"] {
            let flipped = write(KEY, value).is_ok() && fs::read_to_string(KEY).is_ok_and(|now| now.trim() == value);
            failed.set(failed.get() + u64::from(!flipped));
        }
        failed.get()
    })
}

/// What came of the flips: all right, or why not.
fn flipped(flips: &Spinner, proof: String) -> Outcome {
    match flips.last() {
        0 => Outcome::Proven(proof),
        failed => Outcome::Failed(format!("{KEY} could not be set, or did not stay, {failed} times")),
    }
}

/// Each CPU but the first goes and comes back, while a static key is flipped.
pub fn hotplug_beside_keys() -> Attempt {
    const TIMES: u32 = 2;
    if let Some(lack) = lacks(&online_file(1)).or_else(|| lacks(KEY)) {
        return Ok(lack);
    }
    pin(WRITER)?;
    let flips = flips_key()?;
    for _ in 0..TIMES {
        for cpu in other_cpus() {
            let threads = user_mode()?;
            for on in [false, true] {
                online(cpu, on)?;
                // A few flips with these CPUs.
                if !flips.ran(2) {
                    return Ok(Outcome::Spoiled("the key is not flipped".into()));
                }
            }
            all_ran(&threads)?;
        }
    }
    Ok(flipped(
        &flips,
        format!("each CPU but the first went and came back {TIMES} times, beside a key that was flipped"),
    ))
}

const STATE: &str = "/sys/power/state";
const MEM_SLEEP: &str = "/sys/power/mem_sleep";
const WAKEUPS: &str = "/sys/power/wakeup_count";
/// How often the machine has slept, since it started.
pub const SLEPT: &str = "/sys/power/suspend_stats/success";
const ALARM: &str = "/sys/class/rtc/rtc0/wakealarm";

/// The machine sleeps (ACPI S3) until its clock wakes it, beside a static key that is flipped: all CPUs but the first
/// are taken away, and the first one begins in firmware. The kernel flips a key of its own when it freezes its tasks.
/// (From suspend-to-idle QEMU's clock does not wake it.)
pub fn suspend() -> Attempt {
    const TIMES: u32 = 2;
    if let Some(lack) = [STATE, MEM_SLEEP, WAKEUPS, SLEPT, ALARM, KEY].into_iter().find_map(lacks) {
        return Ok(lack);
    }
    if !fs::read_to_string(MEM_SLEEP)?.contains("deep") {
        return Ok(Outcome::Skipped(format!("{MEM_SLEEP} does not offer deep")));
    }
    write(MEM_SLEEP, "deep")?;
    pin(WRITER)?;
    let threads = bystanders()?;
    let flips = flips_key()?;
    let before = slept()?;
    for _ in 0..TIMES {
        sleep_until_alarm()?;
        if !flips.ran(2) {
            return Ok(Outcome::Spoiled("the key is not flipped".into()));
        }
        all_ran(&threads)?;
    }
    match slept()? - before {
        TIMES => Ok(flipped(&flips, format!("the machine slept {TIMES} times, beside a key that was flipped"))),
        times => Ok(Outcome::Failed(format!("{SLEPT} says {times}, not {TIMES}"))),
    }
}

fn slept() -> io::Result<u32> {
    fs::read_to_string(SLEPT)?.trim().parse().map_err(|error| io::Error::other(format!("{SLEPT}: {error}")))
}

/// A clock that rings while the machine is not asleep yet makes the kernel stay awake: then it is set to ring later.
fn sleep_until_alarm() -> io::Result<()> {
    const LONGEST: u32 = 64;
    let mut seconds = 2;
    loop {
        let count = fs::read_to_string(WAKEUPS)?;
        write(ALARM, "0")?;
        write(ALARM, &format!("+{seconds}"))?;
        match write(WAKEUPS, count.trim()).and_then(|()| write(STATE, "mem")) {
            Ok(()) => return Ok(()),
            Err(error) if seconds == LONGEST => return Err(error),
            Err(_) => seconds *= 2,
        }
    }
}
