//! What the plugin asks of the process that it lives in.

use std::io::Write;
use std::os::fd::AsRawFd;

/// Writes one line for the user to stderr. A stderr that is closed or full is no reason to disturb the guest.
pub fn say(line: &str) {
    let _ = std::io::stderr().write_all(format!("icsan: {line}\n").as_bytes());
}

/// Ends the process at once with that code, after everything that is buffered by C's stdio was written. No destructors, no further exit handlers: to be called when
/// the report is complete.
pub fn exit_now(code: u8) -> ! {
    // SAFETY: fflush(NULL) flushes all output streams and takes each stream's lock; _exit never returns.
    unsafe {
        libc::fflush(std::ptr::null_mut());
        libc::_exit(i32::from(code))
    }
}

/// Ends the process as QEMU does when it cannot go on: with QEMU's exit handlers, which give the terminal back.
pub fn refuse() -> ! {
    // SAFETY: QEMU itself leaves this way from any of its threads.
    unsafe { libc::exit(1) }
}

/// Makes writes wait, on a file that was opened with O_NONBLOCK.
///
/// # Errors
/// What the kernel says.
pub fn set_blocking(file: &std::fs::File) -> std::io::Result<()> {
    // SAFETY: the descriptor is open; F_SETFL takes an int.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, 0) } {
        -1 => Err(std::io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Locks an open file for this process, against whoever locks it as well (flock(2)). `false`: somebody else holds it.
///
/// # Errors
/// The file system has no locks, or none are left.
pub fn lock(file: &std::fs::File) -> std::io::Result<bool> {
    // SAFETY: the descriptor is open.
    match unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } {
        0 => Ok(true),
        _ => match std::io::Error::last_os_error() {
            error if error.kind() == std::io::ErrorKind::WouldBlock => Ok(false),
            error => Err(error),
        },
    }
}

/// The kernel's id of the calling thread.
#[must_use]
pub fn thread_id() -> i32 {
    // SAFETY: gettid has no preconditions.
    unsafe { libc::gettid() }
}
