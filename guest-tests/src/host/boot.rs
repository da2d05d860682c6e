//! One boot: a QEMU process from its start to its end, which comes by power-off, by a crash, or by our timeout.

use super::initramfs::GuestFile;
use crate::arch::architecture::{Architecture, Cpu};
use anyhow::{Context, Result};
use std::fmt;
use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// What the guest runs on, besides its vCPUs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hardware {
    /// The CPU of boots in which page tables need not be isolated.
    pub cpu: Cpu,
    /// The value of `-machine`.
    pub board: String,
    /// The value of `-m`.
    pub memory: String,
    /// More of QEMU's command line.
    pub options: Vec<String>,
}

impl Hardware {
    /// What a guest of that architecture runs on if nothing else is asked for.
    #[must_use]
    pub fn of(architecture: &Architecture) -> Self {
        Self { cpu: architecture.plain, board: architecture.board.into(), memory: "512".into(), options: Vec::new() }
    }
}

/// What to boot, and how.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Its architecture.
    pub architecture: &'static Architecture,
    /// The QEMU program.
    pub qemu: PathBuf,
    /// The kernel image.
    pub kernel: PathBuf,
    /// The packed initramfs.
    pub initramfs: PathBuf,
    /// The machine.
    pub hardware: Hardware,
    /// How many vCPUs.
    pub smp: usize,
    /// `multi` or `single`.
    pub thread: String,
    /// The value of `-plugin`.
    pub plugin: Option<String>,
    /// More of the kernel's command line.
    pub append: String,
    /// When to end it, if it has not ended.
    pub timeout: Duration,
}

/// How long a QEMU that is told to end may take, before it is killed: the plugin has its last words to write.
const GRACE: Duration = Duration::from_secs(10);

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Boot {
    /// Of what.
    pub architecture: &'static Architecture,
    /// The serial console.
    pub console: String,
    /// QEMU's and the plugin's own text.
    pub stderr: String,
    /// Was it ended by us?
    pub timed_out: bool,
    /// Did QEMU itself end well?
    pub clean_exit: bool,
    /// How it ended, in words.
    pub exit: String,
    /// How long it took.
    pub seconds: f64,
}

/// How QEMU's own staleness (docs/emulator.md) ended a boot, which says nothing of the guest then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EndedByEmulator {
    /// The kernel died of a breakpoint that had outlived its patch ([`Boot::died_of_breakpoint`]): what its
    /// instruction is called.
    Breakpoint(&'static str),
    /// The guest did not come to its end, and the plugin had caught QEMU running a block that memory no longer held.
    /// What outdated code does cannot be foreseen: it may die of anything, or hang.
    OutdatedBlock,
}

impl fmt::Display for EndedByEmulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Breakpoint(name) => write!(f, "the kernel died of an outdated {name}"),
            Self::OutdatedBlock => f.write_str("the guest did not come to its end after QEMU ran an outdated block"),
        }
    }
}

/// How the plugin begins the line of a block that QEMU ran although memory no longer held it.
const OUTDATED_BLOCK: &str = "icsan: emulator: vCPU ";

impl Boot {
    /// Is QEMU's own staleness to blame for how the boot ended? There is evidence for it, but no proof: the boot is to
    /// be repeated a few times at most, and the repetition to be counted.
    #[must_use]
    pub fn ended_by_emulator(&self) -> Option<EndedByEmulator> {
        let outdated = || self.stderr.lines().any(|line| line.starts_with(OUTDATED_BLOCK));
        if self.died_of_breakpoint() {
            Some(EndedByEmulator::Breakpoint(self.architecture.breakpoint))
        } else if (self.timed_out || self.console.contains("Kernel panic")) && outdated() {
            Some(EndedByEmulator::OutdatedBlock)
        } else {
            None
        }
    }

    /// Did the kernel die of a breakpoint that it had not planted? Multi-threaded TCG does that to healthy kernels: a
    /// block of the breakpoint of a text patch outlives the patch.
    #[must_use]
    pub fn died_of_breakpoint(&self) -> bool {
        self.console.contains(self.architecture.death_of_breakpoint)
    }
}

/// The kernel's command line, but for the architecture's words and the scenarios' own part. Oopses end the boot; levels
/// below 4 keep the console for the KTAP lines.
const APPEND: &str = "panic=-1 oops=panic loglevel=4";

impl Machine {
    /// The command line.
    fn command(&self) -> Command {
        let architecture = self.architecture;
        let isolated = self.append.split(' ').any(|word| word == architecture.isolated);
        let cpu = if isolated { architecture.open } else { self.hardware.cpu };
        let Architecture { console, patience, .. } = architecture;
        let append = format!("console={console} {APPEND} {patience} {} {}", cpu.mitigations, self.append);
        let mut command = Command::new(&self.qemu);
        command
            .args(["-machine", &self.hardware.board, "-cpu", cpu.model, "-m", &self.hardware.memory])
            .args(["-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"])
            .args(&self.hardware.options)
            .args(["-accel", &format!("tcg,thread={}", self.thread), "-smp", &self.smp.to_string()])
            .arg("-kernel")
            .arg(&self.kernel)
            .arg("-initrd")
            .arg(&self.initramfs)
            .args(["-append", &append]);
        if let Some(plugin) = &self.plugin {
            command.args(["-plugin", plugin]);
        }
        command
    }

    /// The command line as one would type it.
    #[must_use]
    pub fn shown(&self) -> String {
        let command = self.command();
        let quoted = |word: &std::ffi::OsStr| {
            let word = word.to_string_lossy();
            if word.contains([' ', '*', '?']) { format!("'{word}'") } else { word.into_owned() }
        };
        std::iter::once(command.get_program()).chain(command.get_args()).map(quoted).collect::<Vec<_>>().join(" ")
    }

    /// Boots and waits for the end.
    ///
    /// # Errors
    /// QEMU cannot be started.
    pub fn boot(&self) -> Result<Boot> {
        let mut command = self.command();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A group of its own, so that all of it can be killed; and the kernel kills it if we die.
        command.process_group(0);
        // SAFETY: prctl is safe to call between fork and exec.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let start = Instant::now();
        let mut child = command.spawn().with_context(|| format!("cannot start {}", self.qemu.display()))?;
        let console = collect(child.stdout.take());
        let stderr = collect(child.stderr.take());
        let mut boot = Boot { architecture: self.architecture, ..Boot::default() };
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            // A QEMU that is told to end does, whatever the guest does, and so the report has all that was seen.
            if start.elapsed() > self.timeout && !boot.timed_out {
                boot.timed_out = true;
                signal(&child, libc::SIGTERM);
            } else if start.elapsed() > self.timeout + GRACE {
                signal(&child, libc::SIGKILL);
            }
            thread::sleep(Duration::from_millis(20));
        };
        boot.seconds = start.elapsed().as_secs_f64();
        boot.clean_exit = status.success() && !boot.timed_out;
        boot.exit =
            if boot.timed_out { format!("ended by us after {:.0} s", boot.seconds) } else { status.to_string() };
        boot.console = text(console);
        boot.stderr = text(stderr);
        Ok(boot)
    }
}

/// To all processes of the child's group.
fn signal(child: &Child, number: libc::c_int) {
    // SAFETY: the group is the one that this child was started in, and it has not been waited for.
    unsafe { libc::kill(-(child.id() as libc::pid_t), number) };
}

/// No more of an output than this is kept.
const OUTPUT_LIMIT: u64 = 64 << 20;

fn collect(stream: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            let _ = stream.by_ref().take(OUTPUT_LIMIT).read_to_end(&mut bytes);
            // Keeps the writer going.
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        }
        bytes
    })
}

fn text(collector: JoinHandle<Vec<u8>>) -> String {
    collector.join().map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// Writes an initramfs that holds the guest program only.
///
/// # Errors
/// The guest program cannot be read, or the archive not be written.
pub fn write_initramfs(guest: &Path, folder: &Path) -> Result<PathBuf> {
    let path = folder.join("initramfs.gz");
    write_initramfs_with(guest, &[], &path)?;
    Ok(path)
}

/// Writes an initramfs that holds the guest program and more files.
///
/// # Errors
/// The guest program cannot be read, or the archive not be written.
pub fn write_initramfs_with(guest: &Path, files: &[GuestFile], path: &Path) -> Result<()> {
    let program = fs::read(guest).with_context(|| format!("cannot read the guest program {}", guest.display()))?;
    fs::write(path, super::initramfs::build(&program, files)?)
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::registry;

    #[test]
    fn deaths_of_a_breakpoint_of_both_wordings() {
        let with = |console: &str| Boot { console: console.into(), ..Boot::default() }.died_of_breakpoint();
        assert!(with("[    3.1] int3: 0000 [#1] PREEMPT SMP NOPTI"));
        assert!(with("[    3.1] Oops: int3: 0000 [#1] SMP"));
        assert!(!with("[    3.1] Oops: 0000 [#1] SMP\nint3: none"));
    }

    #[test]
    fn the_plugin_says_so_in_these_words() {
        let said = include_str!("../../../plugin/src/report/golden/emulator.txt");
        assert!(said.starts_with(OUTDATED_BLOCK), "{said}");
    }

    #[test]
    fn a_boot_is_the_emulators_fault_only_where_there_is_evidence() {
        const OUTDATED: &str = "icsan: emulator: vCPU 2 runs a block at 0x10 although memory has not held its bytes\n";
        let boot = |console: &str, stderr: &str, timed_out| Boot {
            console: console.into(),
            stderr: stderr.into(),
            timed_out,
            ..Boot::default()
        };
        let rows = [
            (boot("Oops: int3: 0000 [#1]", "", false), Some(EndedByEmulator::Breakpoint("INT3"))),
            (boot("", OUTDATED, true), Some(EndedByEmulator::OutdatedBlock)),
            (boot("Kernel panic - not syncing", OUTDATED, false), Some(EndedByEmulator::OutdatedBlock)),
            (boot("", OUTDATED, false), None),
            (boot("", "icsan: torn: vCPU 2", true), None),
            (boot("Kernel panic - not syncing", "", false), None),
        ];
        for (boot, expected) in rows {
            assert_eq!(boot.ended_by_emulator(), expected, "{boot:?}");
        }
    }

    fn machine(qemu: PathBuf, append: &str) -> Machine {
        Machine {
            architecture: registry::DEFAULT,
            qemu,
            kernel: PathBuf::new(),
            initramfs: PathBuf::new(),
            hardware: Hardware::of(registry::DEFAULT),
            smp: 1,
            thread: "multi".into(),
            plugin: None,
            append: append.into(),
            timeout: Duration::from_millis(300),
        }
    }

    #[test]
    fn page_tables_are_isolated_on_a_cpu_that_needs_it() {
        let shown = |append| machine("qemu".into(), append).shown();
        assert!(shown("icsan.zoo=key").contains("-cpu max ") && shown("icsan.zoo=key").contains("mitigations=off"));
        let isolated = shown("icsan.zoo=key pti=auto");
        assert!(isolated.contains("-cpu IvyBridge ") && !isolated.contains("mitigations=off"), "{isolated}");
    }

    /// Boots a shell script in the place of QEMU.
    fn boot(name: &str, script: &str) -> Boot {
        let folder = std::env::temp_dir().join(format!("icsan-runner-test-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let qemu = folder.join("qemu");
        fs::write(&qemu, format!("#!/bin/sh\n{script}")).unwrap();
        fs::set_permissions(&qemu, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let boot = machine(qemu, "").boot().unwrap();
        fs::remove_dir_all(folder).unwrap();
        boot
    }

    #[test]
    fn a_process_that_hangs_has_its_last_words() {
        let boot = boot("ends", "trap 'echo bye; exit 0' TERM\necho hello\nsleep 100 &\nwait\n");
        assert!(boot.timed_out && !boot.clean_exit && boot.console == "hello\nbye\n", "{boot:?}");
    }

    #[test]
    fn a_process_that_goes_on_hanging_is_killed() {
        let boot = boot("hangs", "trap '' TERM\necho hello\nsleep 100 &\nwait\nwait\n");
        assert!(boot.timed_out && !boot.clean_exit && boot.console == "hello\n", "{boot:?}");
        assert!(boot.seconds >= GRACE.as_secs_f64(), "{boot:?}");
    }
}
