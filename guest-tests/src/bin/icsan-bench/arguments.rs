//! The command line.

use clap::Parser;
use icsan_guest_tests::arch::architecture::{Architecture, Cpu};
use icsan_guest_tests::arch::registry;
use icsan_guest_tests::verdict::Mode;
use std::path::PathBuf;
use std::str::FromStr;

/// All workloads, and with how many vCPUs each is measured unless the user says so: `boot` first, the others are
/// compared with it. The last ones are not measured unless they are asked for.
const WORKLOADS: [(&str, &[u8]); 9] = [
    ("boot", &[1, 2]),
    ("sort", &[1, 2]),
    ("hash", &[1, 2]),
    ("compress", &[1, 2]),
    ("storm", &[2]),
    ("copy", &[2]),
    ("flips", &[4]),
    ("fault", &[2]),
    ("fresh", &[2]),
];
const USUAL: usize = 7;

/// Measures what ICSAN costs a guest: boots the same machine with and without the plugin, in turn, and compares QEMU's
/// CPU time.
#[derive(Parser, Clone, Debug)]
#[command(name = "icsan-bench", version)]
pub struct Arguments {
    /// ICSAN's plugin
    #[arg(long, value_name = "PATH")]
    pub plugin: PathBuf,
    /// An older build of the plugin: each boot with the plugin is compared with one with this build in the same mode,
    /// and not with one without a plugin
    #[arg(long, value_name = "PATH", conflicts_with = "resident")]
    pub base: Option<PathBuf>,
    /// A QEMU to boot with; repeatable. ARCH, here and below: the architecture of the guest, by QEMU's name of the
    /// target. Several are measured in turn, and told side by side
    #[arg(long, value_name = "[ARCH/]NAME=PATH", required = true)]
    pub qemu: Vec<Named>,
    /// The kernel image to boot, one for each architecture
    #[arg(long, value_name = "[ARCH/]NAME=PATH", required = true)]
    pub kernel: Vec<Named>,
    /// The guest's program (icsan-workload), linked statically, one for each architecture
    #[arg(long, value_name = "[ARCH=]PATH", required = true)]
    pub guest: Vec<Program>,
    /// A CPU of the guests, by the name of one that verdicts are known for; repeatable [default: the architecture's
    /// usual one]
    #[arg(long, value_name = "[ARCH/]NAME")]
    pub cpu: Vec<Processor>,
    /// How many pairs of boots each workload gets, after a first round with each QEMU that does not count
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..))]
    pub pairs: u16,
    /// Only this workload, that many times as long; repeatable [default: all but fault and fresh, once]
    #[arg(long, value_name = "NAME[:TIMES]", value_parser = chosen)]
    pub workload: Vec<(usize, u16)>,
    /// Only this mode: light (writers=off) or full; repeatable [default: both]
    #[arg(long, value_name = "MODE", value_parser = |text: &str| Mode::from_name(text).ok_or("light or full"))]
    pub mode: Vec<Mode>,
    /// With that many vCPUs; repeatable [default: as many as docs/performance.md has of each workload]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=16))]
    pub smp: Vec<u8>,
    /// One more key for the plugin; repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    pub extra: Vec<String>,
    /// Write everything that was measured to this file
    #[arg(long, value_name = "PATH")]
    pub json: Option<PathBuf>,
    /// Print the result as docs/performance.md wants it
    #[arg(long)]
    pub markdown: bool,
    /// Measure no time: flip a static key for that many seconds, and tell how large QEMU becomes
    #[arg(long, value_name = "SECONDS")]
    pub resident: Option<u64>,
    /// After how many seconds a boot is killed
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub timeout: u64,
}

impl Arguments {
    /// What to measure: a number of vCPUs and a workload, `boot` first for each number.
    #[must_use]
    pub fn machines(&self) -> Vec<(u8, String)> {
        let mut chosen = self.workload.clone();
        if chosen.is_empty() {
            chosen.extend((0..USUAL).map(|index| (index, 1)));
        }
        chosen.sort_unstable();
        chosen.dedup();
        let mut machines = Vec::new();
        for (index, times) in chosen {
            let (name, usual) = WORKLOADS[index];
            let sizes = if self.smp.is_empty() { usual } else { &self.smp };
            let name = if times == 1 { name.to_owned() } else { format!("{name}:{times}") };
            machines.extend(sizes.iter().map(|smp| (*smp, name.clone())));
        }
        machines.sort_by_key(|(smp, _)| *smp);
        machines
    }

    /// What is measured, in the order in which it was asked for.
    ///
    /// # Errors
    /// An architecture has no kernel or no program, or more than one; or what was given is for one without a QEMU.
    pub fn targets(&self) -> Result<Vec<Target>, String> {
        let has = |architecture: &Architecture| self.qemu.iter().any(|qemu| qemu.architecture == architecture);
        let given = self.kernel.iter().map(|kernel| kernel.architecture);
        let given = given.chain(self.guest.iter().map(|guest| guest.architecture));
        let mut given = given.chain(self.cpu.iter().map(|cpu| cpu.architecture));
        if let Some(stray) = given.find(|architecture| !has(architecture)) {
            return Err(format!("there is no --qemu for {}", stray.name));
        }
        let mut targets = Vec::new();
        for qemu in &self.qemu {
            let architecture = qemu.architecture;
            let of = |known: &&'static Architecture| *known == architecture;
            let kernel = only(self.kernel.iter().filter(|kernel| of(&kernel.architecture)))
                .ok_or_else(|| format!("one --kernel is needed for {}", architecture.name))?;
            let guest = only(self.guest.iter().filter(|guest| of(&guest.architecture)))
                .ok_or_else(|| format!("one --guest is needed for {}", architecture.name))?;
            let chosen = self.cpu.iter().filter(|cpu| of(&cpu.architecture)).map(|cpu| cpu.cpu);
            let mut cpus: Vec<Cpu> = chosen.collect();
            if cpus.is_empty() {
                cpus.push(architecture.plain);
            }
            targets.extend(cpus.into_iter().map(|cpu| Target {
                architecture,
                cpu,
                qemu: qemu.clone(),
                kernel: kernel.clone(),
                program: guest.path.clone(),
            }));
        }
        Ok(targets)
    }

    /// The modes to measure.
    #[must_use]
    pub fn modes(&self) -> Vec<Mode> {
        if self.mode.is_empty() { vec![Mode::Light, Mode::Full] } else { self.mode.clone() }
    }
}

/// A workload's index, and how many times as long it shall be.
fn chosen(text: &str) -> Result<(usize, u16), String> {
    let (name, times) = text.split_once(':').unwrap_or((text, "1"));
    let index = WORKLOADS
        .iter()
        .position(|(workload, _)| *workload == name)
        .ok_or_else(|| format!("one of {}", WORKLOADS.map(|(name, _)| name).join(", ")))?;
    let times = times.parse().ok().filter(|times| *times > 0 && (*times == 1 || !["boot", "flips"].contains(&name)));
    Ok((index, times.ok_or("TIMES is a number from 1 on; boot and flips are done once")?))
}

/// The only one there is.
fn only<T>(mut all: impl Iterator<Item = T>) -> Option<T> {
    all.next().filter(|_| all.next().is_none())
}

/// A guest that is measured.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its architecture.
    pub architecture: &'static Architecture,
    /// Its CPU.
    pub cpu: Cpu,
    /// The QEMU that it runs on.
    pub qemu: Named,
    /// Its kernel.
    pub kernel: Named,
    /// Its program.
    pub program: PathBuf,
}

impl Target {
    /// How its rows are called.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{} {}", self.architecture.name, self.cpu.name)
    }
}

/// An architecture in front of a separator, or the one that is meant if none is named; and the rest.
fn of_architecture(text: &str, separator: char) -> Result<(&'static Architecture, &str), String> {
    match text.split_once(separator) {
        Some((name, rest)) => Ok((registry::by_name(name)?, rest)),
        None => Ok((registry::DEFAULT, text)),
    }
}

/// A guest's program.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Program {
    /// For which architecture.
    pub architecture: &'static Architecture,
    /// The file.
    pub path: PathBuf,
}

impl FromStr for Program {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (architecture, path) = of_architecture(text, '=')?;
        Ok(Self { architecture, path: path.into() })
    }
}

/// A guest's CPU.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Processor {
    /// Of which architecture.
    pub architecture: &'static Architecture,
    /// The CPU.
    pub cpu: Cpu,
}

impl FromStr for Processor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (architecture, name) = of_architecture(text, '/')?;
        Ok(Self { architecture, cpu: architecture.cpu(name)? })
    }
}

/// A file with a name for the table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Named {
    /// The architecture of the guests that it is for.
    pub architecture: &'static Architecture,
    /// The name.
    pub name: String,
    /// The file.
    pub path: PathBuf,
}

impl FromStr for Named {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, path) = text.split_once('=').ok_or("expected [ARCH/]NAME=PATH")?;
        let (architecture, name) = of_architecture(name, '/')?;
        if name.is_empty() {
            return Err("expected [ARCH/]NAME=PATH".into());
        }
        let path = PathBuf::from(path);
        if path.is_file() {
            Ok(Self { architecture, name: name.to_owned(), path })
        } else {
            Err(format!("{} is not a file", path.display()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
        let words = ["icsan-bench", "--plugin", "p", "--qemu", "a=/bin/sh", "--kernel", "k=/bin/sh", "--guest", "g"];
        let machines = |arguments: &Arguments| {
            arguments.machines().iter().map(|(smp, name)| format!("{smp} {name}")).collect::<Vec<_>>()
        };
        let plain = Arguments::parse_from(words);
        let usual = [
            "1 boot",
            "1 sort",
            "1 hash",
            "1 compress",
            "2 boot",
            "2 sort",
            "2 hash",
            "2 compress",
            "2 storm",
            "2 copy",
            "4 flips",
        ];
        assert_eq!(machines(&plain), usual);
        let with = |more: [&'static str; 6]| Arguments::try_parse_from(words.into_iter().chain(more));
        assert_eq!(
            machines(&with(["--workload", "hash:16", "--workload", "boot", "--smp", "4"]).unwrap()),
            ["4 boot", "4 hash:16"]
        );
        assert_eq!(machines(&with(["--workload", "boot", "--smp", "8", "--smp", "1"]).unwrap()), ["1 boot", "8 boot"]);
        for wrong in ["boot:2", "hash:0", "hash:x", "fish"] {
            assert!(with(["--workload", wrong, "--workload", "boot", "--smp", "4"]).is_err(), "{wrong}");
        }
    }

    fn targets(more: &[&str]) -> Result<Vec<String>, String> {
        let words = ["icsan-bench", "--plugin", "p", "--qemu", "a=/bin/sh", "--kernel", "k=/bin/sh", "--guest", "g"];
        let arguments = Arguments::try_parse_from(words.iter().chain(more)).map_err(|error| error.to_string())?;
        let targets = arguments.targets()?;
        let shown = |target: &Target| format!("{} on {} {}", target.name(), target.qemu.name, target.program.display());
        Ok(targets.iter().map(shown).collect())
    }

    #[test]
    fn several_architectures_are_measured_side_by_side() {
        let [first, second] = [registry::DEFAULT, registry::by_name("aarch64").unwrap()];
        let [plain, other] = [first, second].map(|known| format!("{} {}", known.name, known.plain.name));
        assert_eq!(targets(&[]).unwrap(), [format!("{plain} on a g")]);
        let both = ["--qemu", "aarch64/b=/bin/sh", "--kernel", "aarch64/l=/bin/sh", "--guest", "aarch64=h"];
        assert_eq!(targets(&both).unwrap(), [format!("{plain} on a g"), format!("{other} on b h")]);
        let cpu = second.others[0].name;
        let chosen = format!("aarch64/{cpu}");
        let with = [&both[..], &["--cpu", &chosen]].concat();
        assert_eq!(targets(&with).unwrap()[1], format!("{} {cpu} on b h", second.name));
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        assert_eq!(targets(&["--kernel", "aarch64/l=/bin/sh"]).unwrap_err(), "there is no --qemu for aarch64");
        assert_eq!(targets(&["--cpu", "aarch64/max"]).unwrap_err(), "there is no --qemu for aarch64");
        assert_eq!(targets(&["--qemu", "aarch64/b=/bin/sh"]).unwrap_err(), "one --kernel is needed for aarch64");
        let none = ["--qemu", "aarch64/b=/bin/sh", "--kernel", "aarch64/l=/bin/sh"];
        assert_eq!(targets(&none).unwrap_err(), "one --guest is needed for aarch64");
        assert_eq!(targets(&["--guest", "h"]).unwrap_err(), "one --guest is needed for x86_64");
        for wrong in [["--qemu", "vax/b=/bin/sh"], ["--qemu", "aarch64/=/bin/sh"], ["--cpu", "vax"]] {
            assert!(targets(&wrong).is_err(), "{wrong:?}");
        }
    }
}
