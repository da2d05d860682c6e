//! Litmus tests: carries the steps of [`icsan_guest_tests::litmus`] out, and counts the outcomes.
//!
//! Each CPU has a thread that is pinned to it. A step belongs to one of them; the threads hand over by a counter,
//! without system calls, since a switch of tasks would serialize. The threads' own code never changes. Before each
//! round memory is laid out anew, and every CPU serializes.

use super::guarded_call;
use crate::say::say;
use crate::sys::{check, cpus, pin};
use icsan_guest_tests::code::{self, pause, serialize};
use icsan_guest_tests::console::DONE;
use icsan_guest_tests::glob::matches_any;
use icsan_guest_tests::litmus::outcome::{Counts, line};
use icsan_guest_tests::litmus::{Action, End, Litmus, Outcome, TABLE, View};
use std::io;
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// No test takes longer; it has fewer rounds then.
const LIMIT: Duration = Duration::from_secs(30);

/// How long a thread waits for its turn before it lets others run.
const SPINS: u32 = 1000;

/// Runs the tests that match, so many rounds each, and prints a line for each. True if all could be run.
pub fn run(filter: &str, rounds: u64) -> bool {
    let mut good = true;
    for test in TABLE.iter().filter(|test| matches_any(filter, test.name)) {
        if test.cpus() > cpus() {
            say(&format!("# litmus {} needs {} CPUs", test.name, test.cpus()));
            continue;
        }
        match count(test, rounds, LIMIT) {
            Ok(counts) => say(&line(test.name, &counts)),
            Err(error) => {
                say(&format!("# litmus {}: {error}", test.name));
                good = false;
            }
        }
    }
    say(DONE);
    good
}

/// `FILTER:ROUNDS`, as on the kernel's command line.
pub fn run_asked(asked: &str) -> bool {
    let (filter, rounds) = asked.rsplit_once(':').unwrap_or((asked, ""));
    run(filter, rounds.parse().unwrap_or(2000))
}

/// Up to so many rounds of one test.
pub fn count(test: &'static Litmus, rounds: u64, limit: Duration) -> io::Result<Counts> {
    guarded_call::install()?;
    let ends = test.steps.iter().map(|_| Mutex::new(None)).collect();
    let play = Play { test, code: Code::new(test)?, turn: AtomicU64::new(0), over: AtomicBool::new(false), ends };
    let (end, play) = (Instant::now() + limit, &play);
    thread::scope(|scope| {
        let others: Vec<_> = (1..test.cpus()).map(|cpu| scope.spawn(move || play.follow(cpu as u16))).collect();
        // A thread of its own, so that the caller is not left pinned.
        let first = scope.spawn(move || play.lead(rounds, end));
        let counts = first.join().map_err(|_| io::Error::other("a thread panicked"))?;
        for other in others {
            other.join().map_err(|_| io::Error::other("a thread panicked"))??;
        }
        counts
    })
}

/// The code, mapped twice: to be executed and written, and to be written.
#[derive(Debug)]
struct Code {
    own: *mut u8,
    alias: *mut u8,
    image: Vec<u8>,
}

// SAFETY: the pointers are to shared mappings that outlive the threads, which touch them by single instructions of
// inline assembly and volatile reads.
unsafe impl Send for Code {}
// SAFETY: as above.
unsafe impl Sync for Code {}

impl Code {
    fn new(test: &Litmus) -> io::Result<Self> {
        let image = test.image();
        // SAFETY: the name is a C string; the result is a new descriptor.
        let fd = check(unsafe { libc::memfd_create(c"litmus".as_ptr(), libc::MFD_CLOEXEC) }.into())? as libc::c_int;
        let map = |protection| {
            // SAFETY: takes no memory that Rust knows of.
            let mapped = unsafe { libc::mmap(ptr::null_mut(), image.len(), protection, libc::MAP_SHARED, fd, 0) };
            if mapped == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(mapped.cast::<u8>()) }
        };
        // SAFETY: sets the size of a file that is ours.
        check(unsafe { libc::ftruncate(fd, image.len() as i64) }.into())?;
        let own = map(libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC);
        let alias = map(libc::PROT_READ | libc::PROT_WRITE);
        // SAFETY: the descriptor is ours; the mappings stay.
        unsafe { libc::close(fd) };
        Ok(Self { own: own?, alias: alias?, image })
    }

    fn address(&self, offset: usize, view: View) -> *mut u8 {
        assert!(offset < self.image.len());
        let base = if view == View::Own { self.own } else { self.alias };
        base.wrapping_add(offset)
    }

    /// Makes memory what the test begins with. Only what differs is stored.
    fn lay_out(&self) {
        for (word, wanted) in self.image.chunks_exact(8).enumerate() {
            let at = self.address(word * 8, View::Alias);
            // SAFETY: an aligned word of the mapping.
            let there = unsafe { at.cast::<u64>().read_volatile() }.to_ne_bytes();
            for (i, (there, wanted)) in there.iter().zip(wanted).enumerate() {
                if there != wanted {
                    store(at.wrapping_add(i), &[*wanted]);
                }
            }
        }
    }
}

impl Drop for Code {
    fn drop(&mut self) {
        // SAFETY: the threads were joined.
        unsafe {
            libc::munmap(self.own.cast(), self.image.len());
            libc::munmap(self.alias.cast(), self.image.len());
        }
    }
}

/// One store of 1, 2, 4 or 8 bytes, aligned or not.
fn store(at: *mut u8, bytes: &[u8]) {
    let mut value = [0; 8];
    value[..bytes.len()].copy_from_slice(bytes);
    let value = u64::from_le_bytes(value);
    // SAFETY: the target is within a writable mapping.
    unsafe {
        match bytes.len() {
            1 => code::store8(at, value as u8),
            2 => code::store16(at, value as u16),
            4 => code::store32(at, value as u32),
            8 => code::store64(at, value),
            other => unreachable!("no store has {other} bytes"),
        }
    }
}

/// One test that is being run.
#[derive(Debug)]
struct Play {
    test: &'static Litmus,
    code: Code,
    /// How many turns were taken. A round has one for each CPU, in which it serializes, one for each step, and one in
    /// which the round is counted.
    turn: AtomicU64,
    /// There is no further round.
    over: AtomicBool,
    /// What each step's call came to. Never contended, since only one thread has the turn.
    ends: Vec<Mutex<Option<End>>>,
}

impl Play {
    fn turns(&self) -> u64 {
        (self.test.cpus() + self.test.steps.len() + 1) as u64
    }

    /// Waits until it is that turn. Its own turn a CPU cannot miss, the end of a round it may find over.
    fn wait_for(&self, turn: u64) {
        let mut waited = 0;
        while self.turn.load(Ordering::Acquire) < turn {
            pause();
            waited += 1;
            // Outside of a guest the other thread may well wait for this very CPU.
            if waited % SPINS == 0 && std::process::id() != 1 {
                thread::yield_now();
            }
        }
    }

    /// What CPU 0 does.
    fn lead(&self, rounds: u64, end: Instant) -> io::Result<Counts> {
        let pinned = pin(0);
        let mut counts = Counts::default();
        for round in 0.. {
            self.round(0, round);
            self.wait_for((round + 1) * self.turns() - 1);
            let ends = self.ends.iter().filter_map(|end| end.lock().ok()?.take()).collect();
            *counts.entry(Outcome(ends)).or_default() += 1;
            let last = pinned.is_err() || round + 1 >= rounds || Instant::now() > end;
            self.over.store(last, Ordering::Release);
            self.turn.fetch_add(1, Ordering::Release);
            if last {
                break;
            }
        }
        pinned.map(|()| counts)
    }

    /// What any other CPU does.
    fn follow(&self, cpu: u16) -> io::Result<()> {
        let pinned = pin(cpu.into());
        for round in 0.. {
            self.round(cpu, round);
            self.wait_for((round + 1) * self.turns());
            if self.over.load(Ordering::Acquire) {
                break;
            }
        }
        pinned
    }

    fn round(&self, cpu: u16, round: u64) {
        let mut turn = round * self.turns();
        for first in 0..self.test.cpus() as u16 {
            if first == cpu {
                self.wait_for(turn);
                if first == 0 {
                    self.code.lay_out();
                }
                serialize();
                self.turn.fetch_add(1, Ordering::Release);
            }
            turn += 1;
        }
        for (step, end) in self.test.steps.iter().zip(&self.ends) {
            if step.cpu == cpu {
                self.wait_for(turn);
                match step.action {
                    Action::Execute(entry, argument) => {
                        let came_to = guarded_call::call(
                            self.code.address(entry.into(), View::Own),
                            self.code.address(0, View::Alias),
                            self.code.address(0, View::Own),
                            argument.into(),
                        );
                        if let Ok(mut end) = end.lock() {
                            *end = Some(came_to);
                        }
                    }
                    Action::Store(offset, bytes, view) => store(self.code.address(offset.into(), view), bytes),
                    Action::Serialize => serialize(),
                }
                self.turn.fetch_add(1, Ordering::Release);
            }
            turn += 1;
        }
    }
}

#[cfg(all(test, feature = "interpret"))]
mod tests {
    use super::count;
    use icsan_guest_tests::litmus::TABLE;
    use icsan_guest_tests::litmus::compare::Difference;
    use icsan_guest_tests::litmus::explore::allowed;
    use std::time::Duration;

    #[test]
    fn this_cpu_shows_only_what_is_allowed() {
        for test in TABLE.iter().filter(|test| test.cpus() <= crate::sys::cpus()) {
            let seen = count(test, 300, Duration::from_secs(2)).unwrap();
            let extra = Difference::of(&allowed(test).unwrap(), &seen).extra;
            assert!(!seen.is_empty() && extra.is_empty(), "{}: {extra:?}", test.name);
        }
    }
}
