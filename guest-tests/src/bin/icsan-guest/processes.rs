//! `process/`: changed code meets fork, exec and migration.

use crate::code_page::CodePage;
use crate::outcome::{Attempt, Outcome, wrong};
use crate::pace::Pace;
use crate::shape::{Kind, Shape, text_target};
use crate::sys::{Membarrier, check, cpus, membarrier, pin};
use icsan_guest_tests::code::serialize;
use icsan_guest_tests::table::{WRITER, executor};
use std::io;
use std::process::Command;

/// How the exec scenario's second program is called; see [`exec_probe`].
pub const EXEC_PROBE: &str = "exec-probe";

const FORKS: u32 = 6;

/// Waits for the end of a child, and gives its exit code.
pub fn wait_for(pid: libc::pid_t) -> io::Result<i32> {
    let mut status = 0;
    // SAFETY: the status is a local of ours.
    check(unsafe { libc::waitpid(pid, &mut status, 0) }.into())?;
    Ok(if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 255 })
}

/// The parent runs the code and changes it through an alias; the child, on the same CPU, runs it first. A
/// switch of address spaces stands between.
pub fn fork() -> Attempt {
    pin(executor(cpus()))?;
    let shape = Shape::on(Kind::PLAIN, CodePage::aliased()?);
    let function = shape.function();
    let mut pace = Pace::of_few(FORKS);
    while let Some(n) = pace.next() {
        function(0);
        shape.store(n);
        // SAFETY: this process has one thread, and the child calls nothing but the code and _exit.
        let pid = check(unsafe { libc::fork() }.into())? as libc::pid_t;
        if pid == 0 {
            let code = i32::from(function(0) != shape.expected(n));
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(code) };
        }
        let right = wait_for(pid)? == 0;
        if let Some(outcome) = pace.saw(right, || "the child ran old code".into()) {
            return Ok(outcome);
        }
    }
    Ok(pace.outcome())
}

/// Changes this program's text, runs it, and has a child do the same and then execute the program anew, at the same
/// addresses.
pub fn exec() -> Attempt {
    pin(executor(cpus()))?;
    let shape = Shape::new(Kind::TEXT)?;
    let function = shape.function();
    let mut pace = Pace::of_few(FORKS);
    while let Some(n) = pace.next() {
        shape.store(n);
        serialize();
        let (got, expected) = (function(0), shape.expected(n));
        let status = Command::new("/proc/self/exe").arg(EXEC_PROBE).status()?;
        let new_text = match status.code() {
            Some(0) => true,
            Some(1) => false,
            _ => return Ok(Outcome::Failed(format!("the new program: {status}"))),
        };
        let why = || if new_text { wrong(expected, got) } else { "the new program ran the old one's text".into() };
        if let Some(outcome) = pace.saw(got == expected && new_text, why) {
            return Ok(outcome);
        }
    }
    Ok(pace.outcome())
}

/// The second program of `exec`: its text is as in the file. The exit code says so.
pub fn exec_probe() -> i32 {
    i32::from(text_target()(0) != 0)
}

/// Runs code on one CPU, changes it on another, and comes back, at this pace.
pub fn migrate(registered: bool, mut pace: Pace) -> Attempt {
    if registered {
        membarrier(Membarrier::RegisterSyncCore)?;
    }
    let shape = Shape::new(Kind::PLAIN)?;
    let function = shape.function();
    while let Some(n) = pace.next() {
        pin(executor(2))?;
        function(0);
        pin(WRITER)?;
        shape.store(n);
        pin(executor(2))?;
        if let Some(outcome) = pace.ran(shape.expected(n), function(0)) {
            return Ok(outcome);
        }
    }
    Ok(pace.outcome())
}
