//! `defer-plain` and `defer-entry`: kernel text is patched while the other CPU is in user mode, and nothing calls that
//! CPU into the kernel until the patch is done. Then it makes a system call, and runs what was patched.
//!
//! That CPU has run the old text since it last serialized, if entering and leaving the kernel does not serialize; its
//! timer is held off meanwhile, and no other task may take it. So whatever makes it serialize is the kernel's own
//! doing, and how fast the host is does not matter.

use crate::executor::wait_until;
use crate::outcome::{Attempt, Outcome};
use crate::sys::{pin, stand_above};
use crate::zoo::{done, say_visible, zoo_file, zoo_path};
use icsan_guest_tests::code::pause;
use icsan_guest_tests::table::WRITER;
use icsan_guest_tests::zoo::EXECUTOR;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::Duration;

const FLIPS: u32 = 24;

/// How long the writer waits for the executor, on a busy host.
const PATIENCE: Duration = Duration::from_secs(12);

/// What the two share.
#[derive(Debug, Default)]
struct Turns {
    /// The executor is in user mode, and stays there.
    away: AtomicBool,
    /// It is to end.
    stop: AtomicBool,
}

/// Which text of the kernel's is flipped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Text {
    /// What a static key decides, deep in a system call.
    Key,
    /// An instruction at the entry of every system call, before the switch of page tables.
    Entry,
}

impl Text {
    const fn word(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Entry => "entry",
        }
    }
}

/// Flips the text again and again, while the executor is in user mode.
pub fn flips(workload: &str, text: Text) -> Attempt {
    pin(WRITER)?;
    let turns = &Turns::default();
    let (flipped, wrong) = std::thread::scope(|scope| {
        let executor = scope.spawn(move || executor(turns, text));
        let comes =
            || wait_until(PATIENCE, || turns.away.load(Acquire) || executor.is_finished()) && !executor.is_finished();
        let flipped = flip_while_away(turns, text, comes);
        turns.stop.store(true, Release);
        (flipped, executor.join().unwrap_or_else(|_| Err(io::Error::other("the executor panicked"))))
    });
    let wrong = wrong?;
    if !flipped? {
        return Ok(Outcome::Spoiled("the executor did not get to user mode in time".into()));
    }
    say_visible(workload, wrong, FLIPS);
    done(FLIPS)
}

/// Could all of it be done?
fn flip_while_away(turns: &Turns, text: Text, comes: impl Fn() -> bool) -> io::Result<bool> {
    for _ in 0..FLIPS {
        if !comes() {
            return Ok(false);
        }
        zoo_file("flip", text.word())?;
        turns.away.store(false, Release);
    }
    // Once more: then the last one has been run.
    Ok(comes())
}

/// How often it saw something else than what was patched.
fn executor(turns: &Turns, text: Text) -> io::Result<u32> {
    pin(EXECUTOR)?;
    let keyed = File::open(zoo_path("keyed"))?;
    let run = || -> io::Result<bool> {
        let mut value = [0];
        keyed.read_at(&mut value, 0)?;
        Ok(value == *b"1")
    };
    let mut wrong = 0;
    loop {
        stand_above(true)?;
        zoo_file("hold", "1")?;
        let before = run()?;
        // From here on no system call.
        turns.away.store(true, Release);
        while turns.away.load(Acquire) && !turns.stop.load(Acquire) {
            pause();
        }
        let patched = !turns.away.load(Acquire);
        let after = run()?;
        zoo_file("hold", "0")?;
        stand_above(false)?;
        if !patched {
            return Ok(wrong);
        }
        wrong += u32::from(text == Text::Key && before == after);
    }
}
