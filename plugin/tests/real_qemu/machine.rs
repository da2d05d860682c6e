//! A QEMU with the plugin: its command line, and what can be done to it while it runs.

use crate::boot_sector::BootSector;
use crate::lab::{Lab, Qemu};
use crate::report::Report;
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// For what takes a fraction of a second on a machine that has nothing else to do.
pub const SOON: Duration = Duration::from_secs(30);
/// For a boot of a kernel, which takes four seconds on such a machine.
pub const BOOT: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(10);

/// A QEMU that was not started yet.
#[derive(Debug)]
pub struct Machine {
    program: PathBuf,
    plugin: String,
    arguments: Vec<OsString>,
    shell: Option<&'static str>,
    folder: TempDir,
}

impl Machine {
    /// This QEMU with the plugin and no keys, and no machine at all.
    pub fn bare(lab: &Lab, program: &Path) -> Self {
        let plugin = escaped(&lab.plugin);
        Self {
            program: program.to_owned(),
            plugin,
            arguments: Vec::new(),
            shell: None,
            folder: TempDir::new().unwrap(),
        }
    }

    /// A PC with two vCPUs (multi-threaded TCG unless other arguments say otherwise), a serial port and a monitor.
    pub fn pc(lab: &Lab, qemu: &Qemu) -> Self {
        Self::pc_with(lab, qemu, &["-accel", "tcg,thread=multi", "-smp", "2"])
    }

    /// The same with other accelerators and vCPUs.
    pub fn pc_with(lab: &Lab, qemu: &Qemu, cpus: &[&str]) -> Self {
        let machine = Self::bare(lab, &qemu.program).arguments(cpus);
        let serial = format!("file:{}", machine.serial_path().display());
        machine
            .arguments(&[
                "-machine",
                "q35",
                "-m",
                "512",
                "-cpu",
                "max",
                "-nodefaults",
                "-display",
                "none",
                "-no-reboot",
            ])
            .arguments(&["-serial", &serial])
            .with_monitor()
    }

    /// Arm's `virt` board with one vCPU of that model, a serial port and no monitor.
    pub fn virt(lab: &Lab, qemu: &Qemu, cpu: &str) -> Self {
        let machine = Self::bare(lab, &qemu.program);
        let serial = format!("file:{}", machine.serial_path().display());
        let board = ["-machine", "virt", "-accel", "tcg,thread=multi", "-m", "512", "-cpu", cpu];
        machine.arguments(&board).arguments(&["-nodefaults", "-display", "none", "-no-reboot", "-serial", &serial])
    }

    /// Starts Arm's first processor at `start`, with these words in memory from `origin` on.
    pub fn words(self, words: &[u32], origin: u64, start: u64) -> Self {
        let image = self.file("image");
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        std::fs::write(&image, bytes).unwrap();
        let load = format!("loader,file={},addr={origin:#x},force-raw=on", image.display());
        let begin = format!("loader,addr={start:#x},cpu-num=0");
        self.arguments(&["-device", &load, "-device", &begin])
    }

    /// What gives a machine its monitor.
    pub fn monitor_arguments(&self) -> [String; 2] {
        ["-monitor".to_owned(), format!("unix:{},server=on,wait=off", self.monitor_path().display())]
    }

    /// Boots a kernel of Arm's without a root file system: as [`Machine::kernel`].
    pub fn kernel_of_arm(self, image: &Path) -> Self {
        let append = OsStr::new("console=ttyAMA0 panic=-1");
        self.arguments(&[OsStr::new("-kernel"), image.as_os_str(), OsStr::new("-append"), append])
    }

    fn with_monitor(self) -> Self {
        let monitor = self.monitor_arguments();
        self.arguments(&monitor)
    }

    /// Adds arguments.
    pub fn arguments<S: AsRef<OsStr>>(mut self, arguments: &[S]) -> Self {
        self.arguments.extend(arguments.iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Adds `text` to the plugin's keys as it stands.
    pub fn keys(mut self, text: &str) -> Self {
        if !text.is_empty() {
            self.plugin.push(',');
            self.plugin.push_str(text);
        }
        self
    }

    /// Adds a key with a path.
    pub fn path_key(self, key: &str, path: &Path) -> Self {
        let pair = format!("{key}={}", escaped(path));
        self.keys(&pair)
    }

    /// Asks for the report at the usual place.
    pub fn report(self) -> Self {
        let path = self.report_path();
        self.path_key("report", &path)
    }

    /// Boots the boot sector and gives the plugin its symbols.
    pub fn sector(self, sector: &BootSector) -> Self {
        let (disk, symbols) = (self.file("disk"), self.file("sector.map"));
        sector.write_disk(&disk);
        sector.write_symbols(&symbols);
        let drive = format!("file={},format=raw", disk.display());
        self.arguments(&["-drive", &drive]).path_key("symbols", &symbols)
    }

    /// Boots a kernel without a root file system: it panics as soon as it has started, and then reboots.
    pub fn kernel(self, image: &Path, more: &str) -> Self {
        // The kernel's test of its timer fails, and the kernel with it, where QEMU gets no time from its host.
        let append = format!("console=ttyS0 panic=-1 mitigations=off no_timer_check {more}");
        self.arguments(&[OsStr::new("-kernel"), image.as_os_str(), OsStr::new("-append"), OsStr::new(&append)])
    }

    /// Starts QEMU from a shell after these commands.
    pub fn after_shell(mut self, commands: &'static str) -> Self {
        self.shell = Some(commands);
        self
    }

    /// A place in the machine's own folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Where [`Machine::report`] goes.
    pub fn report_path(&self) -> PathBuf {
        self.file("report.jsonl")
    }

    fn serial_path(&self) -> PathBuf {
        self.file("serial")
    }

    fn monitor_path(&self) -> PathBuf {
        self.file("monitor")
    }

    /// Starts it, in its own folder.
    pub fn launch(self) -> Guest {
        let mut command = match self.shell {
            None => Command::new(&self.program),
            Some(commands) => {
                let mut shell = Command::new("sh");
                shell.arg("-c").arg(format!("{commands}; exec \"$@\"")).arg("sh").arg(&self.program);
                shell
            }
        };
        command.arg("-plugin").arg(&self.plugin).args(&self.arguments).current_dir(self.folder.path());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = Arc::default();
        let reader = {
            let (mut pipe, stderr) = (child.stderr.take().unwrap(), Arc::clone(&stderr));
            std::thread::spawn(move || collect(&mut pipe, &stderr))
        };
        Guest { child, machine: self, stderr, reader: Some(reader), started: Instant::now() }
    }
}

/// QEMU splits option arguments at commas, but for doubled ones.
fn escaped(path: &Path) -> String {
    path.to_str().unwrap().replace(',', ",,")
}

fn collect(pipe: &mut impl Read, into: &Mutex<Vec<u8>>) {
    let mut buffer = [0; 4096];
    while let Ok(len @ 1..) = pipe.read(&mut buffer) {
        into.lock().unwrap().extend_from_slice(&buffer[..len]);
    }
}

/// A QEMU that runs, or ran. It is killed when it goes out of scope.
#[derive(Debug)]
pub struct Guest {
    child: Child,
    machine: Machine,
    stderr: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
    started: Instant,
}

impl Guest {
    /// What it wrote to stderr so far.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr.lock().unwrap()).into_owned()
    }

    /// What the guest wrote to its serial port so far.
    pub fn serial(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.machine.serial_path()).unwrap_or_default()).into_owned()
    }

    /// The report file as it is now.
    pub fn report_text(&self) -> String {
        std::fs::read_to_string(self.machine.report_path()).unwrap_or_default()
    }

    /// A place in the machine's own folder, which QEMU runs in.
    pub fn file(&self, name: &str) -> PathBuf {
        self.machine.file(name)
    }

    /// The whole report, once QEMU ended.
    pub fn report(&self) -> Report {
        Report::whole(&self.report_text())
    }

    /// Waits until `condition` holds.
    pub fn wait_until(&mut self, what: &str, limit: Duration, condition: impl Fn(&Self) -> bool) {
        while !condition(self) {
            let ended = self.child.try_wait().unwrap();
            // What it did last may have come between the two looks.
            if let Some(status) = ended
                && !condition(self)
            {
                panic!("QEMU ended ({status}) before {what}\n{}", self.outputs());
            }
            assert!(self.started.elapsed() < limit, "no {what} within {limit:?}\n{}", self.outputs());
            std::thread::sleep(POLL);
        }
    }

    /// Waits for the first hazards in the report file.
    pub fn wait_for_hazards(&mut self, count: usize, limit: Duration) {
        self.wait_until("the hazards", limit, |guest| {
            guest.report_text().matches("{\"type\":\"hazard\"").count() >= count
        });
    }

    /// Gives the monitor a command.
    pub fn monitor(&mut self, command: &str) {
        let path = self.machine.monitor_path();
        self.wait_until("the monitor", SOON, |_| UnixStream::connect(&path).is_ok());
        let mut monitor = UnixStream::connect(path).unwrap();
        writeln!(monitor, "{command}").unwrap();
        // The connection must stay until the command was carried out; the prompt after the first, or the end, says so.
        monitor.set_read_timeout(Some(SOON)).unwrap();
        let (mut said, mut part) = (String::new(), [0; 4096]);
        while said.matches("(qemu) ").count() < 2
            && let Ok(len @ 1..) = monitor.read(&mut part)
        {
            said.push_str(&String::from_utf8_lossy(&part[..len]));
        }
        assert!(!said.contains("Error"), "{said}");
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end and gives its exit code; a death by signal is a failure.
    pub fn exit_code(&mut self, limit: Duration) -> i32 {
        self.ends_within(limit).unwrap_or_else(|| panic!("QEMU does not end within {limit:?}\n{}", self.outputs()))
    }

    /// The same, but `None` if it does not end.
    pub fn ends_within(&mut self, limit: Duration) -> Option<i32> {
        let status = self.end(limit)?;
        Some(status.code().unwrap_or_else(|| panic!("QEMU was killed: {status}\n{}", self.outputs())))
    }

    /// Waits for its end by a signal.
    pub fn killed(&mut self, limit: Duration) {
        let status = self.end(limit);
        assert!(status.is_some_and(|status| status.signal().is_some()), "{status:?}\n{}", self.outputs());
    }

    fn end(&mut self, limit: Duration) -> Option<ExitStatus> {
        while self.started.elapsed() < limit {
            if let Some(status) = self.child.try_wait().unwrap() {
                if let Some(reader) = self.reader.take() {
                    reader.join().unwrap();
                }
                return Some(status);
            }
            std::thread::sleep(POLL);
        }
        None
    }

    /// Everything that helps to see why a test fails.
    pub fn outputs(&self) -> String {
        format!(
            "--- {} -plugin {}\n--- stderr\n{}--- report\n{}\n--- serial\n{}",
            self.machine.program.display(),
            self.machine.plugin,
            self.stderr(),
            self.report_text(),
            self.serial().lines().rev().take(10).collect::<Vec<_>>().join("\n")
        )
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
