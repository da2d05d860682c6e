//! Starts another kernel from this one, by kexec.

use crate::sys::check;
use icsan_guest_tests::kexec::{ASKED, DONE, INITRAMFS, KERNEL};
use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;

/// Loads the kernel and the initramfs that are there for it, and goes over to it, with the command line of this one.
/// Comes back only with an error.
pub fn start() -> io::Error {
    load().and_then(|()| go_over()).err().unwrap_or_else(|| io::Error::other("the kernel came back"))
}

fn load() -> io::Result<()> {
    let (kernel, initramfs) = (File::open(KERNEL)?, File::open(INITRAMFS)?);
    let line = fs::read_to_string("/proc/cmdline")?.trim_end().replace(ASKED, DONE);
    let line = CString::new(line).map_err(io::Error::other)?;
    let length = line.as_bytes_with_nul().len();
    // SAFETY: two files that are open, and a command line of that many bytes, its last one 0.
    check(unsafe {
        libc::syscall(
            libc::SYS_kexec_file_load,
            kernel.as_raw_fd(),
            initramfs.as_raw_fd(),
            length,
            line.as_ptr(),
            0_u64, // no flags
        )
    })?;
    Ok(())
}

fn go_over() -> io::Result<()> {
    // SAFETY: ends all that runs here, which is this process alone.
    check(unsafe { libc::reboot(libc::LINUX_REBOOT_CMD_KEXEC) }.into())?;
    Ok(())
}
