//! What it takes to be /init: mounts, parameters from the kernel's command line, and the power switch.

use crate::architecture;
use crate::command;
use crate::kernel_cpus::SLEPT;
use crate::ktap;
use crate::pace;
use crate::say::say;
use crate::second_kernel;
use crate::zoo;
use icsan_guest_tests::table::Selection;
use std::ffi::CStr;
use std::fs;

fn mount(kind: &CStr, at: &CStr) {
    let _ = fs::create_dir_all(at.to_str().unwrap_or("/"));
    // SAFETY: three C strings and no data.
    if unsafe { libc::mount(kind.as_ptr(), at.as_ptr(), kind.as_ptr(), 0, std::ptr::null()) } != 0 {
        eprintln!("cannot mount {}: {}", at.to_string_lossy(), std::io::Error::last_os_error());
    }
}

/// The value of `icsan.KEY=VALUE` on the kernel's command line.
fn parameter(key: &str) -> Option<String> {
    let line = fs::read_to_string("/proc/cmdline").ok()?;
    line.split_whitespace()
        .find_map(|word| word.strip_prefix("icsan.")?.strip_prefix(key)?.strip_prefix('=').map(str::to_owned))
}

/// Runs what the command line asks for, and switches the machine off.
pub fn run() -> ! {
    mount(c"proc", c"/proc");
    mount(c"sysfs", c"/sys");
    mount(c"devtmpfs", c"/dev");
    mount(c"debugfs", c"/sys/kernel/debug");
    mount(c"tracefs", c"/sys/kernel/tracing");
    let filter = parameter("filter").unwrap_or_default();
    let repeat = parameter("repeat").and_then(|text| text.parse().ok()).unwrap_or(1);
    let heavy = parameter("heavy").is_some_and(|text| text == "1");
    let without = parameter("without").unwrap_or_default();
    let append = parameter("append").unwrap_or_default();
    if parameter("inject").is_some_and(|text| text == "1") {
        pace::set_injected();
    }
    if parameter("kexec").is_some_and(|text| text == "1") {
        // The runner misses what the second kernel was to do.
        say(&format!("# no second kernel: {}", second_kernel::start()));
        power_off();
    }
    match (parameter("zoo"), parameter("litmus")) {
        _ if command::is_there() => command::run(),
        (_, Some(asked)) => _ = architecture::litmus(&asked),
        (Some(workloads), None) => zoo::run(&workloads),
        (None, None) => _ = ktap::run(Selection { filter: &filter, heavy, without: &without }, &append, repeat),
    }
    power_off()
}

fn power_off() -> ! {
    // QEMU does not switch off a machine that has slept; it ends as well when it is to start anew (-no-reboot).
    let slept = fs::read_to_string(SLEPT).is_ok_and(|times| times.trim() != "0");
    let how = if slept { libc::RB_AUTOBOOT } else { libc::RB_POWER_OFF };
    // SAFETY: writes caches back, and ends the machine: nothing runs after it.
    unsafe {
        libc::sync();
        libc::reboot(how);
    }
    // Without ACPI the kernel comes back; the last process of a machine must not end.
    loop {
        std::thread::park();
    }
}
