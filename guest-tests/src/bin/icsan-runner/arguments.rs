//! The command line.

use crate::inject::Inject;
use clap::Parser;
use icsan_guest_tests::arch::architecture::{Architecture, Cpu};
use icsan_guest_tests::arch::registry;
use icsan_guest_tests::host::boot::Hardware;
use icsan_guest_tests::verdict::{Mode, Profile};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Boots guests under ICSAN, compares its verdicts with the scenario table, and prints KTAP.
#[derive(Parser, Clone, Debug)]
#[command(name = "icsan-runner", version)]
pub struct Arguments {
    /// The guest's architecture, by QEMU's name of the target
    #[arg(long, value_name = "NAME", default_value = registry::DEFAULT.name, value_parser = registry::by_name)]
    pub arch: &'static Architecture,
    /// ICSAN's plugin; without it only the outcomes of the scenarios are checked
    #[arg(long, value_name = "PATH")]
    pub plugin: Option<PathBuf>,
    /// A QEMU to boot with; repeatable
    #[arg(long, value_name = "NAME=PATH", required = true)]
    pub qemu: Vec<Named>,
    /// A kernel image to boot; repeatable
    #[arg(long, value_name = "NAME=PATH", required = true)]
    pub kernel: Vec<Named>,
    /// The modules folder of a kernel, `lib/modules/RELEASE`, by that kernel's name; repeatable. Without it,
    /// kernel/module is not run
    #[arg(long, value_name = "NAME=FOLDER")]
    pub modules: Vec<NamedFolder>,
    /// The module icsan_patcher.ko, built for a kernel, by that kernel's name; repeatable. Without it, the rows
    /// module/* are not run
    #[arg(long, value_name = "NAME=PATH")]
    pub patcher: Vec<Named>,
    /// A profile to judge by; repeatable [default: all]
    #[arg(long, value_name = "NAME", value_parser = registry::profile)]
    pub profile: Vec<Profile>,
    /// The guest program, linked statically
    #[arg(long, value_name = "PATH")]
    pub guest: PathBuf,
    /// How many vCPUs
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub smp: u8,
    /// The machine: what QEMU's -machine takes [default: the architecture's usual one]
    #[arg(long, value_name = "NAME")]
    pub machine: Option<String>,
    /// Its CPU, by the name of one that verdicts are known for [default: the architecture's usual one]
    #[arg(long, value_name = "NAME")]
    pub cpu: Option<String>,
    /// Its memory: what QEMU's -m takes
    #[arg(long, value_name = "SIZE", default_value = "512")]
    pub memory: String,
    /// One more word for QEMU's command line; repeatable
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    pub qemu_word: Vec<String>,
    /// TCG's threads: one for each vCPU, or one for all
    #[arg(long, default_value = "multi", value_parser = ["multi", "single"])]
    pub thread: String,
    /// How often each scenario runs in one boot
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub repeat: u16,
    /// Only the scenarios that match one of these globs, joined by commas, and none of those with ! before them
    #[arg(long, value_name = "GLOB", default_value = "")]
    pub filter: String,
    /// No scenario: the kernel boots, and what is judged is what happens outside of any
    #[arg(long, conflicts_with_all = ["filter", "heavy"])]
    pub boot_only: bool,
    /// Start each kernel by kexec from itself: what is judged is the second one
    #[arg(long)]
    pub kexec: bool,
    /// The heavy scenarios, too; some of them get boots of their own
    #[arg(long)]
    pub heavy: bool,
    /// What the plugin knows: full (follows every store), or light (`writers=off`: compares what is executed)
    #[arg(long, value_name = "MODE", default_value = "full", value_parser = |text: &str| Mode::from_name(text).ok_or("light or full"))]
    pub mode: Mode,
    /// Have old instructions executed: stale, torn, or random:SEED:PERCENT. The guest's own view is judged, too. QEMU
    /// 11.1
    #[arg(long, value_name = "MODE", requires = "plugin")]
    pub inject: Option<Inject>,
    /// After how many seconds a boot is killed [default: 600, with --heavy or --inject 1800]
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<u64>,
    /// Keep reports and console logs in this folder
    #[arg(long, value_name = "FOLDER")]
    pub keep: Option<PathBuf>,
    /// More words for the kernel's command line
    #[arg(long, value_name = "WORDS", default_value = "")]
    pub append: String,
    /// Show how QEMU is started, and what the plugin writes
    #[arg(long)]
    pub show: bool,
    /// One more key for the plugin; repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    pub extra: Vec<String>,
}

impl Arguments {
    /// The CPU of boots in which page tables need not be isolated.
    ///
    /// # Errors
    /// The architecture has none of the name that was asked for.
    pub fn cpu(&self) -> Result<Cpu, String> {
        self.cpu.as_deref().map_or(Ok(self.arch.plain), |name| self.arch.cpu(name))
    }

    /// What the guest runs on.
    pub fn hardware(&self) -> Hardware {
        let usual = Hardware::of(self.arch);
        Hardware {
            cpu: self.cpu().unwrap_or(usual.cpu),
            board: self.machine.clone().unwrap_or(usual.board),
            memory: self.memory.clone(),
            options: self.qemu_word.clone(),
        }
    }

    /// The patcher for a kernel.
    pub fn patcher_of(&self, kernel: &Named) -> Option<&Named> {
        self.patcher.iter().find(|patcher| patcher.name == kernel.name)
    }

    /// When a boot is killed.
    pub fn limit(&self) -> Duration {
        Duration::from_secs(self.timeout.unwrap_or(if self.heavy || self.inject.is_some() { 1800 } else { 600 }))
    }
}

/// A file with a name for the table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Named {
    /// The name.
    pub name: String,
    /// The file.
    pub path: PathBuf,
}

impl FromStr for Named {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, path) = split(text)?;
        if path.is_file() { Ok(Self { name, path }) } else { Err(format!("{} is not a file", path.display())) }
    }
}

/// A folder that goes with the file of the same name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NamedFolder {
    /// The name.
    pub name: String,
    /// The folder.
    pub path: PathBuf,
}

impl FromStr for NamedFolder {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, path) = split(text)?;
        if path.is_dir() { Ok(Self { name, path }) } else { Err(format!("{} is not a folder", path.display())) }
    }
}

fn split(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, path)) if !name.is_empty() => Ok((name.to_owned(), path.into())),
        _ => Err("expected NAME=PATH".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
        assert!("10.0".parse::<Named>().is_err());
        assert!("=/bin/sh".parse::<Named>().is_err());
        assert!("10.0=/no/such/file".parse::<Named>().is_err());
        assert!("6.1=/no/such/folder".parse::<NamedFolder>().is_err());
        assert_eq!("6.1=/bin".parse::<NamedFolder>().unwrap().path, PathBuf::from("/bin"));
        assert_eq!("10.0=/bin/sh".parse::<Named>().unwrap().name, "10.0");
    }

    #[test]
    fn an_unknown_architecture_is_refused_with_the_known_ones() {
        let parse = |arch: &[&str]| {
            let words = ["icsan-runner", "--qemu", "q=/bin/sh", "--kernel", "6.1=/bin/sh", "--guest", "/bin/sh"];
            Arguments::try_parse_from(words.iter().chain(arch))
        };
        assert_eq!(parse(&[]).unwrap().arch, registry::DEFAULT);
        assert_eq!(parse(&["--arch", "x86_64"]).unwrap().hardware(), Hardware::of(registry::DEFAULT));
        let refused = parse(&["--arch", "vax"]).unwrap_err().to_string();
        assert!(refused.contains("known: x86_64"), "{refused}");
    }
}
