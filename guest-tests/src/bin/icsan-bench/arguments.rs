//! The command line.

use clap::Parser;
use std::path::PathBuf;
use std::str::FromStr;

use icsan_guest_tests::verdict::Mode;

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
    /// A QEMU to boot with; repeatable
    #[arg(long, value_name = "NAME=PATH", required = true)]
    pub qemu: Vec<Named>,
    /// The kernel image to boot
    #[arg(long, value_name = "NAME=PATH")]
    pub kernel: Named,
    /// The guest's program (icsan-workload), linked statically
    #[arg(long, value_name = "PATH")]
    pub guest: PathBuf,
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
        let (name, path) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or("expected NAME=PATH")?;
        let path = PathBuf::from(path);
        if path.is_file() {
            Ok(Self { name: name.to_owned(), path })
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
}
