//! One QEMU process and what it used.
//!
//! The figures are the kernel's own account of that child (`wait4`), so they hold all of QEMU's threads and nothing
//! else.

use anyhow::{Context, Result, bail};
use icsan_guest_tests::arch::architecture::{Architecture, Cpu};
use icsan_guest_tests::console::PREFIX;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// What to boot.
#[derive(Clone, Debug)]
pub struct Guest<'a> {
    /// Its architecture.
    pub architecture: &'static Architecture,
    /// Its CPU.
    pub cpu: Cpu,
    /// The QEMU program.
    pub qemu: &'a Path,
    /// The kernel image.
    pub kernel: &'a Path,
    /// The packed initramfs.
    pub initramfs: &'a Path,
    /// How many vCPUs.
    pub smp: u8,
    /// What the guest shall do.
    pub workload: &'a str,
    /// Where logs go.
    pub folder: &'a Path,
    /// When to kill it.
    pub timeout: Duration,
}

/// What one boot used.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Usage {
    /// Seconds in user mode.
    pub user: f64,
    /// Seconds in the host's kernel.
    pub sys: f64,
    /// Seconds from start to end.
    pub wall: f64,
    /// Most memory resident at once, in MiB.
    pub rss: f64,
    /// Seconds that the host's CPUs were busy meanwhile with anything else.
    pub others: f64,
}

impl Usage {
    /// As it stands in the JSON file.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({"user_s": self.user, "sys_s": self.sys, "wall_s": self.wall, "max_rss_mib": self.rss, "others_s": self.others})
    }
}

/// The kernel's command line, but for the architecture's words and the workload.
const APPEND: &str = "panic=-1 oops=panic";

/// How often a boot is tried whose kernel dies of an outdated breakpoint, which is QEMU's fault (docs/emulator.md).
const TRIES: usize = 5;

impl Guest<'_> {
    /// QEMU's command line. `tcg`: more of the accelerator's keys; a second `-accel` would only be tried if the first
    /// one failed.
    pub fn command(&self, plugin: Option<&str>, tcg: &str) -> Command {
        let Architecture { console, patience, board, .. } = self.architecture;
        let append = format!(
            "console={console} {APPEND} {patience} {} loglevel=4 icsan.workload={}",
            self.cpu.mitigations, self.workload
        );
        let mut command = Command::new(self.qemu);
        command
            .args([
                "-machine",
                board,
                "-cpu",
                self.cpu.model,
                "-m",
                "512",
                "-nodefaults",
                "-display",
                "none",
                "-no-reboot",
                "-serial",
                "stdio",
            ])
            .args(["-accel", &format!("tcg,thread=multi{tcg}"), "-smp", &self.smp.to_string()])
            .arg("-kernel")
            .arg(self.kernel)
            .arg("-initrd")
            .arg(self.initramfs)
            .args(["-append", &append]);
        if let Some(plugin) = plugin {
            command.args(["-plugin", plugin]);
        }
        command
    }

    /// Boots once, and gives what it used and the checksum of the guest's work.
    ///
    /// # Errors
    /// QEMU cannot be started, or the guest did not do its work.
    pub fn run(&self, plugin: Option<&str>) -> Result<(Usage, String)> {
        let (console, stderr) = (self.folder.join("console"), self.folder.join("stderr"));
        for _ in 0..TRIES {
            let mut command = self.command(plugin, "");
            command.stdin(Stdio::null()).stdout(File::create(&console)?).stderr(File::create(&stderr)?);
            let (usage, good) =
                measure(command, self.timeout).with_context(|| format!("cannot measure {}", self.qemu.display()))?;
            let text = String::from_utf8_lossy(&fs::read(&console)?).into_owned();
            if text.contains(self.architecture.death_of_breakpoint) {
                eprintln!("  the kernel died of an outdated {} (QEMU's fault); again", self.architecture.breakpoint);
                continue;
            }
            return match result(&text, self.workload) {
                Some(checksum) if good => Ok((usage, checksum.to_owned())),
                _ => bail!(
                    "the guest did not finish '{}': {}",
                    self.workload,
                    last_words(&fs::read_to_string(&stderr)?, &text)
                ),
            };
        }
        bail!("the guest's kernel died of an outdated {} {TRIES} times in a row", self.architecture.breakpoint);
    }
}

fn result<'a>(console: &'a str, workload: &str) -> Option<&'a str> {
    let line = console.lines().find_map(|line| line.trim_end().split_once(PREFIX)?.1.strip_prefix("done "))?;
    line.strip_prefix(workload)?.strip_prefix(' ')
}

/// The end of what the guest and QEMU said.
fn last_words(stderr: &str, console: &str) -> String {
    let last = |text: &str| {
        text.lines()
            .rev()
            .map(str::trim)
            .find(|line| !line.is_empty())
            .map_or_else(|| "nothing".to_owned(), str::to_owned)
    };
    format!("the guest last said: {}; QEMU last said: {}", last(console), last(stderr))
}

/// Runs a command to its end: what it used, and whether it ended well.
fn measure(mut command: Command, timeout: Duration) -> Result<(Usage, bool)> {
    // SAFETY: prctl is safe to call between fork and exec. The kernel kills the child if we die.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
    let busy = busy_seconds()?;
    let start = Instant::now();
    let child = command.spawn()?;
    let pid = child.id() as libc::pid_t;
    let mut status = 0;
    let mut killed = false;
    // SAFETY: all zeros is a valid rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: the pointers are valid for the call. The child is waited for here and nowhere else.
        match unsafe { libc::wait4(pid, &raw mut status, libc::WNOHANG, &raw mut usage) } {
            0 => {}
            -1 => return Err(std::io::Error::last_os_error().into()),
            _ => break,
        }
        if start.elapsed() > timeout && !killed {
            killed = true;
            // SAFETY: our own child, which has not been waited for.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
        thread::sleep(Duration::from_millis(10));
    }
    let wall = start.elapsed().as_secs_f64();
    if killed {
        bail!("killed after {wall:.0} s");
    }
    let (user, sys) = (seconds(usage.ru_utime), seconds(usage.ru_stime));
    let others = (busy_seconds()? - busy - user - sys).max(0.0);
    Ok((
        Usage { user, sys, wall, rss: usage.ru_maxrss as f64 / 1024.0, others },
        libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0,
    ))
}

fn seconds(time: libc::timeval) -> f64 {
    time.tv_sec as f64 + time.tv_usec as f64 / 1e6
}

/// For how many seconds all CPUs together were busy since the machine started, time that a hypervisor took away
/// included.
fn busy_seconds() -> Result<f64> {
    let stat = fs::read_to_string("/proc/stat")?;
    // SAFETY: no pointers.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
    Ok(busy_ticks(&stat).context("/proc/stat has no line 'cpu'")? as f64 / ticks)
}

/// User, nice, system, interrupts, soft interrupts, steal; not idle, nor waiting for a disk.
fn busy_ticks(stat: &str) -> Option<u64> {
    let fields: Vec<u64> =
        stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    [0, 1, 2, 5, 6, 7].iter().map(|index| fields.get(*index).copied()).sum()
}

/// Writes an initramfs with the program of an architecture's guests.
///
/// # Errors
/// The guest's program cannot be read, or the archive not be written.
pub fn initramfs(architecture: &Architecture, program: &Path, folder: &Path) -> Result<PathBuf> {
    let path = folder.join(format!("initramfs-{}.gz", architecture.name));
    icsan_guest_tests::host::boot::write_initramfs_with(program, &[], &path)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_is_all_but_idle_and_waiting() {
        assert_eq!(busy_ticks("cpu  1 2 4 1000 2000 8 16 32 0 0\ncpu0 1\n"), Some(63));
        assert_eq!(busy_ticks("intr 1\n"), None);
    }

    #[test]
    fn only_the_right_work_counts() {
        let console = "[ 1.0] hello\r\nICSAN| done sort 00ff\r\n";
        assert_eq!((result(console, "sort"), result(console, "hash")), (Some("00ff"), None));
        assert!(last_words("", "a\nb\n\n").contains("said: b;"));
    }

    #[test]
    fn a_child_is_measured() {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "i=0; while [ $i -lt 20000 ]; do i=$((i + 1)); done"]);
        let (usage, good) = measure(command, Duration::from_secs(60)).unwrap();
        assert!(good && usage.rss > 0.1 && usage.user + usage.sys <= usage.wall + 0.1, "{usage:?}");
        let mut command = Command::new("/bin/sleep");
        command.arg("100");
        assert!(measure(command, Duration::from_millis(50)).is_err());
    }
}
