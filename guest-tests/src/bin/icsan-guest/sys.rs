//! The few system calls that std does not wrap.

use std::io::{self, Error};

/// Turns -1 into the error that errno names.
pub fn check(result: i64) -> io::Result<i64> {
    if result < 0 { Err(Error::last_os_error()) } else { Ok(result) }
}

/// Pins the calling thread to one CPU.
pub fn pin(cpu: usize) -> io::Result<()> {
    // SAFETY: cpu_set_t is plain bits, for which all zero is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is a local of ours, and CPU numbers here are far below its size.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: the set is valid for the size that is given; 0 is the calling thread.
    check(unsafe { libc::sched_setaffinity(0, size_of_val(&set), &set) }.into())?;
    Ok(())
}

/// Lets no ordinary task take the CPU from the calling thread; or lets them again.
pub fn stand_above(others: bool) -> io::Result<()> {
    let (policy, priority) = if others { (libc::SCHED_FIFO, 1) } else { (libc::SCHED_OTHER, 0) };
    let parameter = libc::sched_param { sched_priority: priority };
    // SAFETY: the parameter is a local of ours; 0 is the calling thread.
    check(unsafe { libc::sched_setscheduler(0, policy, &raw const parameter) }.into())?;
    Ok(())
}

/// How many CPUs are online.
pub fn cpus() -> usize {
    // SAFETY: asks for a number and touches no memory of ours.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) }).unwrap_or(1).max(1)
}

/// How many CPUs there are, online or not.
pub fn present_cpus() -> usize {
    // SAFETY: asks for a number and touches no memory of ours.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_NPROCESSORS_CONF) }).unwrap_or(1).max(1)
}

/// Commands of membarrier(2).
#[derive(Clone, Copy, Debug)]
#[repr(i32)]
pub enum Membarrier {
    /// An IPI to every CPU that runs this process.
    PrivateExpedited = 8,
    /// Announces `PrivateExpedited`.
    RegisterPrivateExpedited = 16,
    /// The same, and every one of them serializes.
    SyncCore = 32,
    /// Announces `SyncCore`.
    RegisterSyncCore = 64,
}

/// Calls membarrier(2).
pub fn membarrier(command: Membarrier) -> io::Result<()> {
    // SAFETY: membarrier takes three numbers and touches no memory of ours.
    check(unsafe { libc::syscall(libc::SYS_membarrier, command as libc::c_int, 0, 0) })?;
    Ok(())
}
