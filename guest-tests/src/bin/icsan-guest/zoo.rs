//! The workloads of the bug zoo (`icsan.zoo=` on the kernel's command line): they have the kernels of
//! `guest-tests/zoo/` patch themselves, while another CPU runs what is patched.

use crate::architecture::ZOO;
use crate::code_page::{CodePage, Function};
use crate::executor::Spinner;
use crate::outcome::{Attempt, Outcome};
use crate::sys::{Membarrier, check, membarrier, pin};
use crate::{deferral, kernel_coverage, kernel_static_keys};
use icsan_guest_tests::code::return_value;
use icsan_guest_tests::console::{DONE, PREFIX, describe};
use icsan_guest_tests::marker::{Marker, mark};
use icsan_guest_tests::table::WRITER;
use icsan_guest_tests::zoo::{self, EXECUTOR};
use std::fs;
use std::io::{self, Write};
use std::time::{Duration, Instant};

/// When a workload begins no more patches, on a host that has no time for it.
const LONG: Duration = Duration::from_secs(4);

/// Runs the workloads that are named, joined by commas, one after the other, and says what came of each.
pub fn run(names: &str) {
    let workloads: Vec<&str> = names.split(',').filter(|name| !name.is_empty()).collect();
    say(&format!("1..{}", workloads.len()));
    for (index, name) in workloads.iter().enumerate() {
        let marker = Marker { scenario: ZOO.workload_id(name), round: 1, attempt: 1 };
        let start = Instant::now();
        let result = in_child(name, marker);
        mark(Marker::OUTSIDE);
        let (word, what) = match result {
            Ok(()) => ("ok", "carried out".into()),
            Err(error) => ("not ok", error.to_string()),
        };
        say(&format!("# {name}: {what}, {} ms", start.elapsed().as_millis()));
        say(&format!("{word} {} - {}", index + 1, describe(name, 1, 1)));
    }
    say(DONE);
}

fn say(line: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(format!("\n{PREFIX}{line}\n").as_bytes());
    let _ = out.flush();
}

/// Each in a process of its own, so that `membarrier-alone` has one thread and no other workload inherits a
/// registration.
fn in_child(name: &str, marker: Marker) -> io::Result<()> {
    // SAFETY: this process has one thread, so the child may do anything.
    let pid = check(unsafe { libc::fork() }.into())? as libc::pid_t;
    if pid == 0 {
        mark(marker);
        let outcome = match workload(name) {
            // The kernel waits for the other CPU for two seconds, which is much, but not everything on a busy host.
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Ok(Outcome::Spoiled(error.to_string())),
            outcome => outcome,
        };
        mark(Marker::OUTSIDE);
        let good = matches!(outcome, Ok(Outcome::Done { .. } | Outcome::Proven(_)));
        say(&format!("# {name}: {}", outcome.map_or_else(|error| error.to_string(), |outcome| outcome.to_line())));
        // SAFETY: ends the child without running the parent's exit handlers.
        unsafe { libc::_exit(i32::from(!good)) };
    }
    let mut status = 0;
    // SAFETY: the status is a local of ours.
    check(unsafe { libc::waitpid(pid, &mut status, 0) }.into())?;
    if status == 0 { Ok(()) } else { Err(io::Error::other(format!("wait status {status:#x}"))) }
}

fn workload(name: &str) -> Attempt {
    match name {
        "batch" => batch(),
        "kprobe" => kprobe(),
        "key" | "word" | "copy" => flips(name),
        "membarrier-sibling" => membarrier_sibling(),
        "membarrier-alone" => membarrier_alone(),
        "schedstats" => kernel_static_keys::schedstats(),
        "everyday" => kernel_coverage::everyday(),
        "programs" => kernel_coverage::programs(),
        "defer-plain" => deferral::flips(name, deferral::Text::Key),
        "defer-entry" => deferral::flips(name, deferral::Text::Entry),
        _ => Ok(Outcome::Failed("no such workload".into())),
    }
}

/// Where a file of the kernel's own part of the zoo is.
pub fn zoo_path(name: &str) -> String {
    format!("/sys/kernel/debug/icsan_zoo/{name}")
}

/// Writes to a file of the kernel's own part of the zoo.
pub fn zoo_file(name: &str, text: &str) -> io::Result<()> {
    fs::write(zoo_path(name), text).map_err(|error| io::Error::new(error.kind(), format!("{name} <- {text}: {error}")))
}

/// A thread on the executor's CPU that runs `what` in the kernel, in system calls of two milliseconds each. Nothing
/// serializes between a patch and the run that it was made for, in one of them.
fn executor(what: &str) -> io::Result<Spinner> {
    pin(WRITER)?;
    let asked = format!("{what} 2000");
    Spinner::start(EXECUTOR, move || u64::from(zoo_file("burst", &asked).is_err()))
}

/// Has the kernel patch, `times` in each system call.
fn patches(name: &str, times: u32, most: u32) -> io::Result<u32> {
    let start = Instant::now();
    let mut done = 0;
    while done < most && start.elapsed() < LONG {
        zoo_file(name, &times.to_string())?;
        done += times;
    }
    Ok(done)
}

/// All of so many patches were seen.
pub fn done(patches: u32) -> Attempt {
    Ok(Outcome::Done { patches, seen: patches, tight: 0, wrong: None })
}

/// Says how often the guest saw something else than what was patched, of so many times that it looked.
pub fn say_visible(workload: &str, wrong: u32, looked: u32) {
    say(&format!("{}{workload}: {wrong} of {looked}", zoo::VISIBLE));
}

/// The same, as the kernel's own part of the zoo counted it.
fn say_visible_in_kernel(workload: &str) -> io::Result<()> {
    let counted = fs::read_to_string(zoo_path("wrong"))?;
    let mut counts = counted.split_whitespace().map(|count| count.parse::<u32>());
    match (counts.next(), counts.next()) {
        (Some(Ok(wrong)), Some(Ok(looked))) => say_visible(workload, wrong, looked),
        _ => return Err(io::Error::other(format!("the kernel counted '{}'", counted.trim()))),
    }
    Ok(())
}

/// Until the executor came in time, often enough, for each of the syncs that may be missing; or on a busy host until it
/// is clear that it does not.
fn batch() -> Attempt {
    const ENOUGH: u32 = 6;
    const PATIENT: Duration = Duration::from_secs(15);
    let _executor = executor("sites")?;
    let start = Instant::now();
    let mut all = 0;
    loop {
        zoo_file("batch", "5")?;
        all += 5;
        let met = fs::read_to_string(zoo_path("met"))?;
        if met.split_whitespace().all(|count| count.parse().is_ok_and(|count: u32| count >= ENOUGH)) {
            say(&format!("# batch: met {}", met.trim()));
            say_visible_in_kernel("batch")?;
            return done(all);
        }
        if start.elapsed() > PATIENT {
            return Ok(Outcome::Spoiled(format!(
                "the host is too busy: of {all} batches the executor met {}",
                met.trim()
            )));
        }
    }
}

/// The kernel patches what has that name, each time while the executor stands aside.
fn flips(name: &str) -> Attempt {
    let _executor = executor(name)?;
    let flips = patches(name, 10, 60)?;
    say_visible_in_kernel(name)?;
    done(flips)
}

fn kprobe() -> Attempt {
    const TOGGLES: u32 = 8;
    // It stays a breakpoint: the jump that it would become comes by way of text_poke_bp(), which is another workload.
    fs::write("/proc/sys/debug/kprobes-optimization", "0")?;
    // Registers it, which takes every CPU: also the one that will stand aside.
    zoo_file("probe", "0")?;
    let _executor = executor("probed")?;
    let start = Instant::now();
    let mut toggles = 0;
    while toggles < TOGGLES && start.elapsed() < LONG {
        for plant in ["1", "0"] {
            zoo_file("probe", plant)?;
        }
        toggles += 1;
    }
    say_visible_in_kernel("kprobe")?;
    done(2 * toggles)
}

/// Code that returns the number that was stored last, through an alias: it is stale until the CPU serializes.
pub struct Returns(CodePage);

impl Returns {
    /// It returns 0.
    pub fn new() -> io::Result<Self> {
        let page = CodePage::aliased()?;
        page.store_bytes(0, &return_value(0));
        page.publish(0, size_of_val(&return_value(0)));
        Ok(Self(page))
    }

    /// The code.
    pub fn function(&self) -> Function {
        self.0.function(0)
    }

    /// From now on it returns that number, to each thread that serializes. Not inlined: reports name this function as
    /// the writer.
    #[inline(never)]
    pub fn change(&self, number: u16) {
        self.0.change_returned(0, number);
        self.0.publish(0, size_of_val(&return_value(0)));
    }
}

const CHANGES: u16 = 200;

/// The only thread of a process changes code, calls membarrier, and runs it.
fn membarrier_alone() -> Attempt {
    pin(WRITER)?;
    membarrier(Membarrier::RegisterSyncCore)?;
    let code = Returns::new()?;
    let run = code.function();
    let mut wrong = 0;
    for number in 1..=CHANGES {
        run(0);
        code.change(number);
        membarrier(Membarrier::SyncCore)?;
        wrong += u32::from(run(0) != u64::from(number));
    }
    say_visible("membarrier-alone", wrong, CHANGES.into());
    done(CHANGES.into())
}

/// Two threads take turns on one CPU: one runs code, the other changes it and calls membarrier. They wait for each
/// other in read(2), so no interrupt is needed to get from one to the other, and the address space stays.
fn membarrier_sibling() -> Attempt {
    pin(WRITER)?;
    membarrier(Membarrier::RegisterSyncCore)?;
    let code = Returns::new()?;
    let run = code.function();
    let (mine, theirs) = (Turn::new()?, Turn::new()?);
    let wrong = std::thread::scope(|scope| {
        let sibling = scope.spawn(|| -> io::Result<u32> {
            pin(WRITER)?;
            let mut wrong = 0;
            for number in 1..=CHANGES {
                run(0);
                mine.give()?;
                theirs.wait()?;
                wrong += u32::from(run(0) != u64::from(number));
            }
            Ok(wrong)
        });
        for number in 1..=CHANGES {
            mine.wait()?;
            code.change(number);
            membarrier(Membarrier::SyncCore)?;
            theirs.give()?;
        }
        sibling.join().unwrap_or_else(|_| Err(io::Error::other("the sibling panicked")))
    })?;
    say_visible("membarrier-sibling", wrong, CHANGES.into());
    done(CHANGES.into())
}

/// Whose turn it is: an eventfd.
#[derive(Debug)]
struct Turn(libc::c_int);

impl Turn {
    fn new() -> io::Result<Self> {
        // SAFETY: a new descriptor.
        Ok(Self(check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) }.into())? as libc::c_int))
    }

    fn give(&self) -> io::Result<()> {
        // SAFETY: writes eight bytes of a constant.
        check(unsafe { libc::write(self.0, (&raw const ONE).cast(), 8) } as i64).map(drop)
    }

    fn wait(&self) -> io::Result<()> {
        let mut count = 0u64;
        // SAFETY: reads eight bytes into a local.
        check(unsafe { libc::read(self.0, (&raw mut count).cast(), 8) } as i64).map(drop)
    }
}

static ONE: u64 = 1;
