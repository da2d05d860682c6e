//! Each attempt at a scenario runs in a process of its own: fresh addresses, fresh membarrier registrations, and a
//! crash ends only itself.

use crate::outcome::Outcome;
use crate::pace;
use crate::scenarios;
use crate::sys::check;
use icsan_guest_tests::marker::{Marker, mark};
use icsan_guest_tests::table::Scenario;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::FromRawFd;
use std::time::{Duration, Instant};

/// How long one attempt may take. Most take less than three seconds on a host that has a CPU for each vCPU; a busy one
/// is given time.
const LIMIT: Duration = Duration::from_secs(120);

/// How long one attempt at a heavy scenario may take. `kernel/preempt` took 35 and 98 s with 2 vCPUs, and more than 400
/// s with 4 on two host CPUs that others used, too.
const HEAVY_LIMIT: Duration = Duration::from_secs(1000);

/// Runs one attempt and says what came of it.
pub fn attempt(row: &Scenario, marker: Marker) -> Outcome {
    let outcome = run(row, marker).unwrap_or_else(|error| Outcome::Failed(error.to_string()));
    // Again, in case the child crashed.
    mark(Marker::OUTSIDE);
    outcome
}

fn run(row: &Scenario, marker: Marker) -> io::Result<Outcome> {
    let Some(function) = scenarios::function(row.name) else {
        return Ok(Outcome::Failed("no such scenario".into()));
    };
    let mut ends = [0; 2];
    // SAFETY: fills an array of two descriptors.
    check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) }.into())?;
    // SAFETY: this process has one thread, so the child may do anything.
    let pid = check(unsafe { libc::fork() }.into())? as libc::pid_t;
    // SAFETY: both descriptors are new, and ours alone; each process closes the end that it does not use.
    let (mut reader, mut writer) = unsafe { (File::from_raw_fd(ends[0]), File::from_raw_fd(ends[1])) };
    if pid == 0 {
        drop(reader);
        mark(marker);
        let outcome = function().unwrap_or_else(|error| match error.kind() {
            // A thread that got no time from the host in many seconds: another attempt, as with the patcher's roles.
            io::ErrorKind::TimedOut => Outcome::Spoiled(error.to_string()),
            _ => Outcome::Failed(error.to_string()),
        });
        mark(Marker::OUTSIDE);
        let _ = writer.write_all(outcome.to_line().as_bytes());
        drop(writer);
        // SAFETY: ends the child without running the parent's exit handlers.
        unsafe { libc::_exit(0) };
    }
    drop(writer);
    let limit = if row.heavy { HEAVY_LIMIT } else { LIMIT };
    let in_time = wait_readable(ends[0], limit);
    if !in_time {
        // SAFETY: our own child, not reaped yet.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    }
    let mut line = String::new();
    reader.read_to_string(&mut line)?;
    let mut status = 0;
    // SAFETY: the status is a local of ours.
    check(unsafe { libc::waitpid(pid, &mut status, 0) }.into())?;
    Ok(match Outcome::from_line(&line) {
        Some(outcome) => outcome,
        None if !in_time => Outcome::Failed(format!("took longer than {} s", limit.as_secs())),
        None => died(status, pace::injected()),
    })
}

/// Wild jumps and stray breakpoints are what outdated blocks end in, and old instructions that were executed on
/// purpose.
fn died(status: libc::c_int, injected: bool) -> Outcome {
    let how = match () {
        () if libc::WIFSIGNALED(status) => format!("killed by signal {}", libc::WTERMSIG(status)),
        () => format!("exit status {status:#x}"),
    };
    if injected { Outcome::Died(how) } else { Outcome::Spoiled(how) }
}

/// Waits for the first byte or the end of the pipe.
fn wait_readable(fd: libc::c_int, limit: Duration) -> bool {
    let end = Instant::now() + limit;
    loop {
        let left = end.saturating_duration_since(Instant::now()).as_millis() as libc::c_int;
        let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        // SAFETY: one descriptor, in a local of ours.
        match unsafe { libc::poll(&mut poll, 1, left) } {
            0 => return false,
            1 => return true,
            _ if left == 0 => return false,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Outcome, died};

    #[test]
    fn a_death_is_a_result_under_injection_only() {
        assert_eq!(died(libc::SIGILL, true), Outcome::Died("killed by signal 4".into()));
        assert_eq!(died(libc::SIGILL, false), Outcome::Spoiled("killed by signal 4".into()));
        assert_eq!(died(3 << 8, true), Outcome::Died("exit status 0x300".into()));
    }
}
