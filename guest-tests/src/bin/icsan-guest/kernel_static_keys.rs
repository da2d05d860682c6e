//! `kernel/`: static keys that a program can flip, each by what the kernel offers for it.

use crate::executor::wait_until;
use crate::kernel_patching::{Times, toggle, write};
use crate::kernel_text::{KCORE, Text};
use crate::outcome::{Attempt, Outcome};
use crate::sys::check;
use std::cell::Cell;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

/// A file that takes one value for on and one for off.
fn switch(file: &str, on: &str, off: &str) -> Attempt {
    toggle(file, Times::Some, || write(file, on), || write(file, off))
}

/// Some sixty jump labels, hot ones in the scheduler.
pub fn schedstats() -> Attempt {
    switch("/proc/sys/kernel/sched_schedstats", "1", "0")
}

/// Where tasks wait.
pub fn delayacct() -> Attempt {
    switch("/proc/sys/kernel/task_delayacct", "1", "0")
}

/// In the scheduler's tick and in the page-fault handler.
pub fn numa_balancing() -> Attempt {
    switch("/proc/sys/kernel/numa_balancing", "1", "0")
}

/// In reclaim. Some kernels have it on, some off: the other way, and back.
pub fn lru_gen() -> Attempt {
    const FILE: &str = "/sys/kernel/mm/lru_gen/enabled";
    let enabled = fs::read_to_string(FILE).is_ok_and(|text| text.trim() != "0x0000");
    if enabled { switch(FILE, "0", "7") } else { switch(FILE, "7", "0") }
}

/// In the path of every packet.
pub fn rps() -> Attempt {
    switch("/sys/class/net/lo/queues/rx-0/rps_cpus", "1", "0")
}

/// The same.
pub fn rps_flows() -> Attempt {
    switch("/proc/sys/net/core/rps_sock_flow_entries", "256", "0")
}

/// The messages of the kernel's own files; they stay below the console's level.
pub fn dynamic_debug() -> Attempt {
    const FILE: &str = "/proc/dynamic_debug/control";
    toggle(FILE, Times::Some, || write(FILE, "file kernel/* +p\n"), || write(FILE, "file kernel/* -p\n"))
}

/// In the allocator, once a boot. (A kernel with CONFIG_KFENCE_STATIC_KEYS would flip the key at every interval;
/// Debian's does not.)
pub fn kfence() -> Attempt {
    const FILE: &str = "/sys/module/kfence/parameters/sample_interval";
    toggle(FILE, Times::Once, || write(FILE, "50"), || write(FILE, "0"))
}

fn set_option(kind: libc::c_int, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: creates a descriptor.
    let socket = check(unsafe { libc::socket(libc::AF_INET, kind, 0) }.into())? as libc::c_int;
    // SAFETY: passes the address and the size of a local; closes what was created.
    let result = unsafe {
        let result = check(libc::setsockopt(socket, level, name, (&raw const value).cast(), 4).into());
        libc::close(socket);
        result
    };
    result.map(drop).map_err(|error| io::Error::other(format!("setsockopt {level} {name}: {error}")))
}

/// Unprivileged, and never off again.
fn option_once(level: libc::c_int, name: libc::c_int) -> Attempt {
    toggle(KCORE, Times::Once, || set_option(libc::SOCK_STREAM, level, name, 10), || Ok(()))
}

/// In the path of every TCP packet.
pub fn ip_minttl() -> Attempt {
    const IP_MINTTL: libc::c_int = 21;
    option_once(libc::IPPROTO_IP, IP_MINTTL)
}

/// The same.
pub fn tcp_tx_delay() -> Attempt {
    const TCP_TX_DELAY: libc::c_int = 37;
    option_once(libc::IPPROTO_TCP, TCP_TX_DELAY)
}

/// Opens a counter of context switches of this task.
fn open_event() -> io::Result<libc::c_int> {
    const SOFTWARE: u32 = 1;
    const CONTEXT_SWITCHES: u64 = 3;
    /// The first version of `perf_event_attr`: type, size, configuration, and zeros.
    const SIZE: usize = 64;
    let mut attributes = [0u64; SIZE / 8];
    attributes[0] = u64::from(SOFTWARE) | (SIZE as u64) << 32;
    attributes[1] = CONTEXT_SWITCHES;
    // SAFETY: the kernel reads as many bytes as the attributes say that they have.
    let event = unsafe { libc::syscall(libc::SYS_perf_event_open, attributes.as_ptr(), 0, -1, -1, 0) };
    Ok(check(event)? as libc::c_int)
}

/// In the context switch. It goes off a second later, by a work item, which is waited for, so that it is part of the
/// scenario.
pub fn perf_event() -> Attempt {
    const NEEDS: &str = "/proc/sys/kernel/perf_event_paranoid";
    let text = Text::open()?;
    let before = Cell::new(text.read()?);
    let event = Cell::new(-1);
    let on = || {
        event.set(open_event()?);
        Ok(())
    };
    let off = || {
        // SAFETY: closes what `on` opened.
        unsafe { libc::close(event.get()) };
        let old = before.take();
        let quiet = wait_until(Duration::from_secs(4), || matches!(text.places(&old), Ok(0)));
        before.set(old);
        if quiet { Ok(()) } else { Err(io::Error::other("the event is closed, but its keys stay on")) }
    };
    toggle(NEEDS, Times::Once, on, off)
}

const CGROUP: &str = "/tmp/cgroup2";

/// Mounts the control groups, and hands a controller to the groups below the root.
fn controller(name: &str) -> io::Result<Option<Outcome>> {
    fs::create_dir_all(CGROUP)?;
    if !Path::new(CGROUP).join("cgroup.controllers").exists() {
        // SAFETY: three C strings and no data.
        let mounted = unsafe {
            libc::mount(c"cgroup2".as_ptr(), c"/tmp/cgroup2".as_ptr(), c"cgroup2".as_ptr(), 0, std::ptr::null())
        };
        if mounted != 0 {
            return Ok(Some(Outcome::Skipped(format!("no cgroup2: {}", io::Error::last_os_error()))));
        }
    }
    let has = fs::read_to_string(format!("{CGROUP}/cgroup.controllers"))?;
    if !has.split_whitespace().any(|controller| controller == name) {
        return Ok(Some(Outcome::Skipped(format!("this kernel has no {name} controller"))));
    }
    // Of an attempt that was cut short.
    let _ = fs::remove_dir(format!("{CGROUP}/icsan"));
    Ok(None)
}

fn with_controller(name: &str, on: bool) -> io::Result<()> {
    write(&format!("{CGROUP}/cgroup.subtree_control"), &format!("{}{name}", if on { '+' } else { '-' }))
}

fn group(exists: bool) -> io::Result<()> {
    let group = format!("{CGROUP}/icsan");
    if exists { fs::create_dir(group) } else { fs::remove_dir(group) }
}

fn control_group(name: &str, times: Times, settings: &[(&str, &str)], reset: &[(&str, &str)]) -> Attempt {
    if let Some(lack) = controller(name)? {
        return Ok(lack);
    }
    let set = |settings: &[(&str, &str)]| {
        settings.iter().try_for_each(|(file, text)| write(&format!("{CGROUP}/icsan/{file}"), text))
    };
    let on = || {
        with_controller(name, true)?;
        group(true)?;
        set(settings)
    };
    let off = || {
        set(reset)?;
        group(false)?;
        with_controller(name, false)
    };
    toggle(CGROUP, times, on, off)
}

/// In the page allocator.
pub fn cgroup_cpuset() -> Attempt {
    control_group("cpuset", Times::Some, &[], &[])
}

/// In the scheduler.
pub fn cgroup_cpu() -> Attempt {
    control_group("cpu", Times::Some, &[("cpu.max", "50000 100000")], &[("cpu.max", "max 100000")])
}

/// All over memory management; most of it stays on.
pub fn cgroup_memory() -> Attempt {
    control_group("memory", Times::Once, &[], &[])
}
