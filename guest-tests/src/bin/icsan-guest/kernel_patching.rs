//! `kernel/`: the kernel changes its own text, while other CPUs spin in user mode and live in system calls. What all of
//! these scenarios share.

use crate::executor::Spinner;
use crate::kernel_text::Text;
use crate::outcome::{Attempt, Outcome};
use crate::sys::{cpus, pin};
use icsan_guest_tests::table::WRITER;
use std::cell::Cell;
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// Toggles a scenario: on and off is one. Few, since healthy kernels die under multi-threaded TCG.
const TOGGLES: u32 = 3;

/// When a slow scenario begins no more toggles, since its host has too few CPUs for it.
pub const LONG: Duration = Duration::from_secs(8);

/// The CPUs that bystanders run on: all but the writer's, or the only one.
pub fn other_cpus() -> std::ops::Range<usize> {
    1.min(cpus() - 1)..cpus()
}

/// A thread on each other CPU that spins in user mode.
pub fn user_mode() -> io::Result<Vec<Spinner>> {
    other_cpus()
        .map(|cpu| Spinner::start(cpu, || (0..10_000).fold(0u64, |sum, n| std::hint::black_box(sum ^ n))))
        .collect()
}

/// Two threads on each other CPU: one that spins in user mode, one that lives in system calls, and now and then in the
/// page-fault handler.
pub fn bystanders() -> io::Result<Vec<Spinner>> {
    let mut threads = user_mode()?;
    for cpu in other_cpus() {
        let turns = Cell::new(0u32);
        threads.push(Spinner::start(cpu, move || {
            turns.set(turns.get().wrapping_add(1));
            system_calls();
            if turns.get().is_multiple_of(16) {
                // A new page each time: the allocator gives large blocks back.
                std::hint::black_box(vec![1u8; 1 << 18]);
            }
            0
        })?);
    }
    Ok(threads)
}

/// getppid(2), futex(2) with no thread to wake, sched_yield(2).
fn system_calls() {
    let futex = 0u32;
    // SAFETY: three system calls of which one is given the address of a local.
    unsafe {
        libc::getppid();
        libc::syscall(libc::SYS_futex, &raw const futex, libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, 1);
        libc::sched_yield();
    }
}

/// Every one of them gets round.
///
/// # Errors
/// One got no time, or is where it never comes back from: then no CPU executes what was changed.
pub fn all_ran<'a>(threads: impl IntoIterator<Item = &'a Spinner>) -> io::Result<()> {
    threads.into_iter().try_for_each(Spinner::gets_round)
}

/// Writes to a file of the kernel's, and names it if that fails.
pub fn write(file: &str, text: &str) -> io::Result<()> {
    fs::write(file, text).map_err(|error| io::Error::other(format!("{file} <- {text}: {error}")))
}

/// Says that the kernel has no such file.
pub fn lacks(file: &str) -> Option<Outcome> {
    (!Path::new(file).exists()).then(|| Outcome::Skipped(format!("this kernel has no {file}")))
}

/// How often something is switched on and off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Times {
    /// Some times.
    Some,
    /// Once: it takes long, or the kernel does it once a boot.
    Once,
}

/// Switches something on and off, beside bystanders; kernel text must have changed. What else proves that it works is
/// `on`'s business.
pub fn toggle(needs: &str, times: Times, on: impl Fn() -> io::Result<()>, off: impl Fn() -> io::Result<()>) -> Attempt {
    if let Some(lack) = lacks(needs) {
        return Ok(lack);
    }
    pin(WRITER)?;
    let text = match Text::open() {
        Ok(text) => text,
        Err(why) => return Ok(Outcome::Skipped(format!("nothing could prove that text changed: {why}"))),
    };
    let threads = bystanders()?;
    let times = match times {
        Times::Some => TOGGLES,
        Times::Once => 1,
    };
    toggle_under(&threads, &text, times, on, off)
}

fn toggle_under(
    threads: &[Spinner],
    text: &Text,
    times: u32,
    on: impl Fn() -> io::Result<()>,
    off: impl Fn() -> io::Result<()>,
) -> Attempt {
    let before = text.read()?;
    let start = Instant::now();
    let mut places = 0;
    let mut done = 0;
    while done < times && (done == 0 || start.elapsed() < LONG) {
        on()?;
        all_ran(threads)?;
        if done == 0 {
            places = text.places(&before)?;
        }
        off()?;
        all_ran(threads)?;
        done += 1;
    }
    Ok(match places {
        0 => Outcome::Skipped("it can be switched on, but no kernel text changed".into()),
        _ => Outcome::Proven(format!("{places} places of the kernel's text changed, {done} times")),
    })
}
