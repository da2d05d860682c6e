//! `kernel/bpf-*`: programs that the kernel translates to code of its own, runs and frees, on every CPU at once. What
//! they return proves that the new code ran.
//!
//! The kernel packs small programs into pages that they share, so that a new one soon stands where another one stood.

use crate::executor::Spinner;
use crate::kernel_patching::{all_ran, bystanders, lacks, other_cpus};
use crate::outcome::{Attempt, Outcome};
use crate::pace::outdated;
use crate::sys::{check, pin};
use icsan_guest_tests::table::WRITER;
use std::cell::Cell;
use std::fs::File;
use std::io;
use std::mem::size_of_val;
use std::os::fd::{AsRawFd, FromRawFd};
use std::time::{Duration, Instant};

const JIT: &str = "/proc/sys/net/core/bpf_jit_enable";

/// How many programs the writer makes, at most. The others make as many as they have time for.
const PROGRAMS: u32 = 40;

/// When it stops. The dispatcher waits for a grace period of all tasks at each program.
const LONG: Duration = Duration::from_millis(1500);

/// What a thread returns whose program returned something else.
const WRONG: u64 = 1;

/// Makes, runs and frees programs on every CPU: `one` does it once, with a number that the program is to return.
fn everywhere(what: &str, one: fn(u32) -> io::Result<bool>) -> Attempt {
    if let Some(lack) = lacks(JIT) {
        return Ok(lack);
    }
    if std::fs::read_to_string(JIT)?.trim() == "0" {
        return Ok(Outcome::Skipped(format!("{JIT} is 0: the kernel interprets programs")));
    }
    pin(WRITER)?;
    match one(1) {
        Ok(true) => {}
        Ok(false) => return Ok(outdated(format!("the first of the {what} returned something else"))),
        Err(why) => return Ok(Outcome::Skipped(format!("no {what}: {why}"))),
    }
    let threads = bystanders()?;
    let maker = |cpu| {
        let number = Cell::new(0);
        Spinner::start(cpu, move || {
            number.set(number.get() % 1000 + 1);
            if matches!(one(number.get()), Ok(true)) { 0 } else { WRONG }
        })
    };
    let makers: Vec<Spinner> = other_cpus().map(maker).collect::<io::Result<_>>()?;
    let start = Instant::now();
    let mut made = 0;
    while made < PROGRAMS && start.elapsed() < LONG {
        made += 1;
        if !one(made)? || makers.iter().any(|maker| maker.last() == WRONG) {
            return Ok(outdated(format!("program {made}: one of the {what} returned something else")));
        }
    }
    all_ran(&makers)?;
    all_ran(&threads)?;
    Ok(Outcome::Proven(format!("{made} {what} on this CPU, and more on the others, returned what they were made to")))
}

/// Classic filters on sockets of their own.
pub fn filter() -> Attempt {
    everywhere("socket filters", filter_once)
}

/// A filter that cuts packets to `number` bytes, or to somewhat fewer.
fn filter_once(number: u32) -> io::Result<bool> {
    const LENGTH: usize = 64;
    const RETURN: u16 = 0x06;
    let cut = number % (LENGTH as u32 - 1) + 1;
    let mut ends = [0; 2];
    check(
        // SAFETY: fills an array of two descriptors.
        unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0, ends.as_mut_ptr()) }.into(),
    )?;
    // SAFETY: both are new, and ours alone.
    let (from, to) = unsafe { (File::from_raw_fd(ends[0]), File::from_raw_fd(ends[1])) };
    let mut program = [libc::sock_filter { code: RETURN, jt: 0, jf: 0, k: cut }];
    let program = libc::sock_fprog { len: 1, filter: program.as_mut_ptr() };
    let mut packet = [0u8; LENGTH];
    // SAFETY: the kernel copies the program, and reads and fills a local.
    let received = unsafe {
        let size = size_of_val(&program) as libc::socklen_t;
        check(
            libc::setsockopt(
                to.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ATTACH_FILTER,
                (&raw const program).cast(),
                size,
            )
            .into(),
        )?;
        check(libc::send(from.as_raw_fd(), packet.as_ptr().cast(), LENGTH, 0) as i64)?;
        let received =
            check(libc::recv(to.as_raw_fd(), packet.as_mut_ptr().cast(), LENGTH, libc::MSG_DONTWAIT) as i64)?;
        check(
            libc::setsockopt(to.as_raw_fd(), libc::SOL_SOCKET, libc::SO_DETACH_FILTER, (&raw const size).cast(), 4)
                .into(),
        )?;
        received
    };
    Ok(received == i64::from(cut))
}

/// Programs that bpf(2) loads and runs.
pub fn run() -> Attempt {
    const SOCKET_FILTER: u32 = 1;
    everywhere("programs", |number| test_run(SOCKET_FILTER, number, 1))
}

/// XDP programs. More than one run goes through the dispatcher, into which the kernel patches a direct call for each
/// program.
pub fn dispatcher() -> Attempt {
    const XDP: u32 = 6;
    everywhere("XDP programs", |number| test_run(XDP, number, 4))
}

/// A program that runs at each switch of tasks, until both files are closed: itself, and what ties it to the
/// tracepoint.
pub fn at_switches(number: u32) -> io::Result<[File; 2]> {
    const RAW_TRACEPOINT: u32 = 17;
    const RAW_TRACEPOINT_OPEN: i32 = 17;
    let program = load(RAW_TRACEPOINT, number)?;
    let name = c"sched_switch";
    let attributes = [name.as_ptr() as u64, pair(program.as_raw_fd() as u32, 0), 0];
    // SAFETY: the kernel copies the attributes and the name; the descriptor is new, and ours alone.
    let tie = unsafe {
        let size = size_of_val(&attributes);
        let tie = check(libc::syscall(libc::SYS_bpf, RAW_TRACEPOINT_OPEN, attributes.as_ptr(), size))?;
        File::from_raw_fd(tie as libc::c_int)
    };
    Ok([tie, program])
}

/// Loads a program that returns `number`, runs it on a packet, and closes it.
fn test_run(kind: u32, number: u32, repeat: u32) -> io::Result<bool> {
    let program = load(kind, number)?;
    let packet = [0u8; 64];
    let mut attributes = [0u64; 16];
    attributes[1] = pair(packet.len() as u32, 0);
    attributes[2] = packet.as_ptr() as u64;
    attributes[4] = pair(repeat, 0);
    run_once(&program, attributes, number)
}

/// Two words of an attribute.
fn pair(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

/// Loads a program that returns `number`.
fn load(kind: u32, number: u32) -> io::Result<File> {
    const LOAD: i32 = 5;
    // mov r0, number; exit
    let program = [0xB7 | u64::from(number) << 32, 0x95u64];
    let license = c"GPL";
    let mut attributes = [0u64; 16];
    attributes[..3].copy_from_slice(&[
        pair(kind, program.len() as u32),
        program.as_ptr() as u64,
        license.as_ptr() as u64,
    ]);
    // SAFETY: the kernel copies the attributes and what they point to; the descriptor is new, and ours alone.
    unsafe {
        let program = check(libc::syscall(libc::SYS_bpf, LOAD, attributes.as_ptr(), size_of_val(&attributes)))?;
        Ok(File::from_raw_fd(program as libc::c_int))
    }
}

/// Runs a program. Does it return `number`?
fn run_once(program: &File, mut attributes: [u64; 16], number: u32) -> io::Result<bool> {
    const TEST_RUN: i32 = 10;
    attributes[0] = pair(program.as_raw_fd() as u32, 0);
    // SAFETY: the kernel copies the attributes and the packet, and writes its answer into the attributes.
    check(unsafe { libc::syscall(libc::SYS_bpf, TEST_RUN, attributes.as_mut_ptr(), size_of_val(&attributes)) })?;
    Ok((attributes[0] >> 32) as u32 == number)
}
