//! Threads that execute code under test, pinned to a CPU, with no system call once they run.

use crate::pace;
use crate::sys::pin;
use icsan_guest_tests::code::pause;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a scenario waits for an executor's step before it gives up.
const STEP: Duration = Duration::from_secs(12);

/// How long a scenario waits for an executor to run into the new version. Real CPUs need nanoseconds, TCG some
/// microseconds; a block that TCG left outdated never gets there.
pub const SIGHT: Duration = Duration::from_millis(4);

/// Waits until `done` or until the time is over; says which.
pub fn wait_until(limit: Duration, done: impl Fn() -> bool) -> bool {
    let start = Instant::now();
    loop {
        for _ in 0..64 {
            if done() {
                return true;
            }
            pause();
        }
        if start.elapsed() > limit {
            return done();
        }
    }
}

const STOP: u64 = u64::MAX;
const FAILED: u64 = u64::MAX;

#[derive(Debug, Default)]
struct Shared {
    /// Commands given so far, or `STOP`.
    ticket: AtomicU64,
    /// The command's argument.
    argument: AtomicU64,
    /// Commands, or runs, that are done: 1 more than that, since 0 means not ready; `FAILED` if the thread could not be
    /// pinned.
    done: AtomicU64,
    /// The last result.
    result: AtomicU64,
}

#[derive(Debug)]
struct Thread {
    cpu: usize,
    shared: Arc<Shared>,
    handle: Option<JoinHandle<()>>,
}

impl Thread {
    fn start(cpu: usize, body: impl FnOnce(&Shared) + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let handle = std::thread::Builder::new().spawn(move || match pin(cpu) {
            Ok(()) => {
                theirs.done.store(1, Release);
                body(&theirs);
            }
            Err(_) => theirs.done.store(FAILED, Release),
        })?;
        let thread = Self { cpu, shared, handle: Some(handle) };
        if !wait_until(STEP, || thread.shared.done.load(Acquire) != 0) || thread.shared.done.load(Acquire) == FAILED {
            return Err(io::Error::other(format!("no thread on CPU {cpu}")));
        }
        Ok(thread)
    }

    fn runs(&self) -> u64 {
        self.shared.done.load(Acquire) - 1
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.shared.ticket.store(STOP, Release);
        if let Some(handle) = self.handle.take() {
            let _ = handle.join();
        }
    }
}

/// Runs one function over and over.
#[derive(Debug)]
pub struct Spinner(Thread);

impl Spinner {
    /// Starts, and waits until the function ran.
    pub fn start(cpu: usize, job: impl Fn() -> u64 + Send + 'static) -> io::Result<Self> {
        let thread = Thread::start(cpu, move |shared| {
            let mut runs = 1;
            while shared.ticket.load(Relaxed) != STOP {
                let result = job();
                shared.result.store(result, Relaxed);
                runs += 1;
                shared.done.store(runs, Release);
                pause();
            }
        })?;
        let spinner = Self(thread);
        if spinner.ran(2) {
            Ok(spinner)
        } else {
            Err(io::Error::new(io::ErrorKind::TimedOut, "the spinner does not run"))
        }
    }

    /// Waits for `more` whole runs from now on. The first one to end may have begun before, so it is not counted.
    pub fn ran(&self, more: u64) -> bool {
        let before = self.0.runs();
        wait_until(STEP, || self.0.runs() > before + more)
    }

    /// Waits for two whole runs.
    ///
    /// # Errors
    /// They do not come.
    pub fn gets_round(&self) -> io::Result<()> {
        let stuck = || format!("the thread on CPU {} did not come round in {} s", self.0.cpu, STEP.as_secs());
        if self.ran(2) { Ok(()) } else { Err(io::Error::new(io::ErrorKind::TimedOut, stuck())) }
    }

    /// What the function returns after a change that has it return `value`. Waits for that as long as it takes, up to
    /// `limit`; but under injection for two whole runs only, since the next tick ends the staleness that is to be seen.
    pub fn runs_into(&self, value: u64, limit: Duration) -> u64 {
        if pace::injected() {
            self.ran(2);
        } else {
            wait_until(limit, || self.last() == value);
        }
        self.last()
    }

    /// What the function returned last.
    pub fn last(&self) -> u64 {
        self.0.shared.result.load(Acquire)
    }
}

/// Runs one function once for each command, and stands in a loop of its own between.
#[derive(Debug)]
pub struct Executor(Thread);

impl Executor {
    /// Starts the thread.
    pub fn start(cpu: usize, job: impl Fn(u64) -> u64 + Send + 'static) -> io::Result<Self> {
        let thread = Thread::start(cpu, move |shared| {
            let mut served = 0;
            loop {
                let ticket = shared.ticket.load(Acquire);
                if ticket == STOP {
                    return;
                }
                if ticket != served {
                    let result = job(shared.argument.load(Relaxed));
                    shared.result.store(result, Relaxed);
                    served = ticket;
                    shared.done.store(served + 1, Release);
                }
                pause();
            }
        })?;
        Ok(Self(thread))
    }

    /// Has the function run once with `argument`; its result.
    pub fn call(&self, argument: u64) -> io::Result<u64> {
        let shared = &self.0.shared;
        let ticket = shared.ticket.load(Relaxed) + 1;
        shared.argument.store(argument, Relaxed);
        shared.ticket.store(ticket, Release);
        if wait_until(STEP, || shared.done.load(Acquire) == ticket + 1) {
            Ok(shared.result.load(Acquire))
        } else {
            Err(io::Error::other("the executor does not answer"))
        }
    }
}
