//! `kernel/membarrier`: every command of membarrier(2), with and without its registration, while other CPUs run threads
//! of the same process.

use crate::kernel_patching::{all_ran, bystanders};
use crate::outcome::{Attempt, Outcome};
use crate::sys::{check, pin};
use icsan_guest_tests::table::WRITER;
use std::io;

const QUERY: i32 = 0;
const GLOBAL: i32 = 1 << 0;
const GLOBAL_EXPEDITED: i32 = 1 << 1;
const REGISTER_GLOBAL_EXPEDITED: i32 = 1 << 2;
const PRIVATE_EXPEDITED: i32 = 1 << 3;
const REGISTER_PRIVATE_EXPEDITED: i32 = 1 << 4;
const SYNC_CORE: i32 = 1 << 5;
const REGISTER_SYNC_CORE: i32 = 1 << 6;
const RSEQ: i32 = 1 << 7;
const REGISTER_RSEQ: i32 = 1 << 8;
const GET_REGISTRATIONS: i32 = 1 << 9;

/// The commands that want a registration, each with its own.
const PAIRS: [(i32, i32); 3] =
    [(PRIVATE_EXPEDITED, REGISTER_PRIVATE_EXPEDITED), (SYNC_CORE, REGISTER_SYNC_CORE), (RSEQ, REGISTER_RSEQ)];

fn command(command: i32) -> io::Result<i32> {
    // SAFETY: membarrier takes three numbers and touches no memory of ours.
    let result = check(unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) });
    result.map(|value| value as i32).map_err(|error| match error.raw_os_error() {
        Some(libc::EPERM) => error,
        _ => io::Error::other(format!("membarrier {command}: {error}")),
    })
}

/// All that the kernel offers.
pub fn all() -> Attempt {
    const TIMES: u32 = 20;
    let offered = match command(QUERY) {
        Ok(offered) => offered,
        Err(why) => return Ok(Outcome::Skipped(why.to_string())),
    };
    let has = |command| offered & command != 0;
    pin(WRITER)?;
    let threads = bystanders()?;
    let mut done = Vec::new();
    for (barrier, registration) in PAIRS.into_iter().filter(|(barrier, _)| has(*barrier)) {
        match command(barrier) {
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {}
            result => return Ok(Outcome::Failed(format!("membarrier {barrier}, unregistered: {result:?}, not EPERM"))),
        }
        // Twice, the second time while the first is in force.
        command(registration)?;
        command(registration)?;
        for _ in 0..TIMES {
            command(barrier)?;
        }
        done.push(barrier);
        all_ran(&threads)?;
    }
    for global in [GLOBAL, REGISTER_GLOBAL_EXPEDITED, GLOBAL_EXPEDITED].into_iter().filter(|command| has(*command)) {
        command(global)?;
        done.push(global);
        all_ran(&threads)?;
    }
    if has(GET_REGISTRATIONS) {
        let all = PAIRS
            .iter()
            .filter(|(barrier, _)| has(*barrier))
            .fold(REGISTER_GLOBAL_EXPEDITED, |all, (_, one)| all | one);
        let registered = command(GET_REGISTRATIONS)?;
        if registered != all {
            return Ok(Outcome::Failed(format!("registered are {registered:#x}, not {all:#x}")));
        }
        done.push(GET_REGISTRATIONS);
    }
    Ok(Outcome::Proven(format!("commands {done:?} of {offered:#x} did as the manual says")))
}
