//! What the plugin asks of the process that it lives in.

use super::api::find;
use std::io::Write;
use std::os::fd::AsRawFd;

/// Writes one line for the user to stderr. A stderr that is closed or full is no reason to disturb the guest.
pub fn say(line: &str) {
    let _ = std::io::stderr().write_all(format!("icsan: {line}\n").as_bytes());
}

/// Ends the process at once with that code, after everything that is buffered by C's stdio was written. No destructors,
/// no further exit handlers: to be called when the report is complete.
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

/// Locks an open file for this process, against others that lock it as well (flock(2)). `false`: another process holds
/// it.
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

/// QEMU's version: what it answers to QMP's `query-version`.
///
/// # Errors
/// It does not tell, as the rest of a line.
pub(super) fn qemu_version() -> Result<(i64, i64), String> {
    #[repr(C)]
    struct Triple {
        major: i64,
        minor: i64,
        micro: i64,
    }
    #[repr(C)]
    struct Info {
        qemu: *const Triple,
        package: *const libc::c_char,
    }
    let query = find(c"qmp_query_version")?;
    // SAFETY: the function has had this type, and its answer this layout (QEMU's documented QMP schema), since before
    // plugin API 4. The answer is QEMU's to free; its few bytes are left.
    unsafe {
        let query = std::mem::transmute::<*mut libc::c_void, unsafe extern "C" fn(*mut *mut libc::c_void) -> *const Info>(
            query,
        );
        let info = query(std::ptr::null_mut());
        let triple = info.as_ref().and_then(|info| info.qemu.as_ref()).ok_or("this QEMU does not tell its version")?;
        Ok((triple.major, triple.minor))
    }
}
