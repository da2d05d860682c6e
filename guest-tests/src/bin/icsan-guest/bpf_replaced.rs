//! `bpf/replaced`: one CPU replaces the filter of a socket over and over, and another one runs it, making system calls
//! only.
//!
//! The kernel frees a filter after a grace period and puts the next one where an older one stood, by stores through a
//! temporary address space. The CPU that runs them is told nothing: only the tick that let the grace period end was
//! there, and its return serializes, or does not (FRED).

use crate::executor::{Spinner, wait_until};
use crate::kernel_patching::lacks;
use crate::outcome::{Attempt, Outcome};
use crate::pace::outdated;
use crate::sys::{check, cpus, pin};
use icsan_guest_tests::table::{WRITER, executor};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::time::Duration;

/// How many filters follow each other.
const FILTERS: u32 = 60;

/// How long one may take to be seen: the other CPU reports hundreds of sites meanwhile, on a host that may be busy.
const PATIENCE: Duration = Duration::from_secs(4);

/// How long each stays: the one before it is freed meanwhile.
const STAYS: Duration = Duration::from_millis(20);

/// What is sent, in bytes; a filter cuts it to fewer.
const LENGTH: usize = 128;

/// A packet through the socket: how much of it arrived.
fn packet(from: &File, to: &File) -> u64 {
    let mut packet = [0u8; LENGTH];
    // SAFETY: the kernel reads and fills a local.
    let received = unsafe {
        libc::send(from.as_raw_fd(), packet.as_ptr().cast(), LENGTH, libc::MSG_DONTWAIT);
        libc::recv(to.as_raw_fd(), packet.as_mut_ptr().cast(), LENGTH, libc::MSG_DONTWAIT)
    };
    u64::try_from(received).unwrap_or(0)
}

/// Puts a filter in the place of the one that is there: it cuts packets to so many bytes, after two instructions that
/// make it differ from its neighbours in more than that.
fn attach(to: &File, cut: u32) -> io::Result<()> {
    const LOAD_HALF: u16 = 0x28;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let mut program = [
        libc::sock_filter { code: LOAD_HALF, jt: 0, jf: 0, k: cut % 8 },
        // Packets are zeros, so it never is.
        libc::sock_filter { code: JUMP_IF_EQUAL, jt: 0, jf: 1, k: 0x1000 + cut },
        libc::sock_filter { code: RETURN, jt: 0, jf: 0, k: 0 },
        libc::sock_filter { code: RETURN, jt: 0, jf: 0, k: cut },
    ];
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    let size = size_of_val(&program) as libc::socklen_t;
    check(
        // SAFETY: the kernel copies the program, which outlives the call.
        unsafe {
            libc::setsockopt(
                to.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ATTACH_FILTER,
                (&raw const program).cast(),
                size,
            )
        }
        .into(),
    )?;
    Ok(())
}

/// Replaces filters; each must be seen to run.
pub fn replaced() -> Attempt {
    if let Some(lack) = lacks("/proc/sys/net/core/bpf_jit_enable") {
        return Ok(lack);
    }
    pin(WRITER)?;
    let mut ends = [0; 2];
    check(
        // SAFETY: fills an array of two descriptors.
        unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0, ends.as_mut_ptr()) }.into(),
    )?;
    // SAFETY: both are new, and ours alone.
    let (from, to) = unsafe { (File::from_raw_fd(ends[0]), File::from_raw_fd(ends[1])) };
    let filtered = to.try_clone()?;
    let runner = Spinner::start(executor(cpus()), move || packet(&from, &to))?;
    for cut in 1..=FILTERS {
        attach(&filtered, cut)?;
        if !wait_until(PATIENCE, || runner.last() == u64::from(cut)) {
            return Ok(outdated(format!("filter {cut} is attached, but packets arrive with {} bytes", runner.last())));
        }
        // No test of a race: it gives the kernel the time to free the one before.
        std::thread::sleep(STAYS);
    }
    Ok(Outcome::Proven(format!("{FILTERS} filters in turn cut the packets of another CPU")))
}
