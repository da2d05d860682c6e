//! `kernel/`: what concerns every CPU at once. All of it is heavy.

use crate::executor::{Spinner, wait_until};
use crate::kernel_patching::{Times, all_ran, lacks, toggle, user_mode, write};
use crate::kernel_text::{KCORE, Text};
use crate::outcome::{Attempt, Outcome};
use crate::sys::{cpus, pin};
use icsan_guest_tests::table::WRITER;
use std::fs;
use std::io;
use std::time::Duration;

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

const ONLINE: &str = "/sys/devices/system/cpu/cpu1/online";

fn online(on: bool) -> io::Result<()> {
    write(ONLINE, if on { "1" } else { "0" })?;
    let wanted = if on { "1" } else { "0" };
    if wait_until(Duration::from_secs(5), || fs::read_to_string(ONLINE).is_ok_and(|text| text.trim() == wanted)) {
        return Ok(());
    }
    Err(io::Error::other(format!("{ONLINE} does not become {wanted}")))
}

/// CPU 1 goes, with the threads that live there, and comes back.
pub fn hotplug() -> Attempt {
    const TIMES: u32 = 2;
    if let Some(lack) = lacks(ONLINE) {
        return Ok(lack);
    }
    pin(WRITER)?;
    for _ in 0..TIMES {
        let threads = user_mode()?;
        let before = cpus();
        online(false)?;
        all_ran(&threads);
        if cpus() != before - 1 {
            return Ok(Outcome::Failed(format!("there are {} CPUs, not {}", cpus(), before - 1)));
        }
        online(true)?;
        drop(threads);
        // On the new CPU, too.
        all_ran(&user_mode()?);
    }
    Ok(Outcome::Proven(format!("CPU 1 went and came back {TIMES} times")))
}

/// The kernel booted with one CPU, and took the LOCK prefixes out of its text. They come back with the second CPU, once a boot.
pub fn maxcpus() -> Attempt {
    for needed in [ONLINE, KCORE] {
        if let Some(lack) = lacks(needed) {
            return Ok(lack);
        }
    }
    if cpus() > 1 {
        return Ok(Outcome::Failed("the second CPU was started already".into()));
    }
    pin(WRITER)?;
    let text = Text::open()?;
    let before = text.read()?;
    let bystander = Spinner::start(WRITER, || (0..10_000).fold(0u64, |sum, n| std::hint::black_box(sum ^ n)))?;
    online(true)?;
    bystander.ran(2);
    all_ran(&user_mode()?);
    let places = text.places(&before)?;
    Ok(match places {
        0 => Outcome::Skipped("CPU 1 was started, but no kernel text changed".into()),
        _ => Outcome::Proven(format!("{places} places of the kernel's text changed")),
    })
}
