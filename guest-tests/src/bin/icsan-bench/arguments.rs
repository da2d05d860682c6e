//! The command line.

use clap::Parser;
use std::path::PathBuf;
use std::str::FromStr;

use icsan_guest_tests::verdict::Mode;

/// All workloads, `boot` first: the others are compared with it. The last ones are not measured unless they are asked for.
const WORKLOADS: [&str; 9] = ["boot", "sort", "hash", "compress", "storm", "copy", "fault", "flips", "fresh"];
const USUAL: usize = 6;

/// Measures what ICSAN costs a guest: boots the same machine with and without the plugin, in turn, and compares QEMU's CPU time.
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
    /// How many pairs of boots each workload gets, after one boot of each kind that does not count
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    pub pairs: u16,
    /// Only this workload, that many times as long; repeatable [default: all but fault, flips and fresh, once]
    #[arg(long, value_name = "NAME[:TIMES]", value_parser = chosen)]
    pub workload: Vec<(usize, u16)>,
    /// Only this mode: light (writers=off) or full; repeatable [default: both]
    #[arg(long, value_name = "MODE", value_parser = |text: &str| Mode::from_name(text).ok_or("light or full"))]
    pub mode: Vec<Mode>,
    /// Only with that many vCPUs; repeatable [default: 1 and 2]
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
    /// The workloads to measure, `boot` first.
    #[must_use]
    pub fn workloads(&self) -> Vec<String> {
        let mut chosen = self.workload.clone();
        if chosen.is_empty() {
            chosen.extend((0..USUAL).map(|index| (index, 1)));
        }
        chosen.sort_unstable();
        chosen.dedup();
        let name = |(index, times): (usize, u16)| match times {
            1 => WORKLOADS[index].to_owned(),
            times => format!("{}:{times}", WORKLOADS[index]),
        };
        chosen.into_iter().map(name).collect()
    }

    /// The modes to measure.
    #[must_use]
    pub fn modes(&self) -> Vec<Mode> {
        if self.mode.is_empty() { vec![Mode::Light, Mode::Full] } else { self.mode.clone() }
    }

    /// The numbers of vCPUs to measure with.
    #[must_use]
    pub fn sizes(&self) -> Vec<u8> {
        if self.smp.is_empty() { vec![1, 2] } else { self.smp.clone() }
    }
}

/// A workload's index, and how many times as long it shall be.
fn chosen(text: &str) -> Result<(usize, u16), String> {
    let (name, times) = text.split_once(':').unwrap_or((text, "1"));
    let index = WORKLOADS.iter().position(|workload| *workload == name).ok_or_else(|| format!("one of {}", WORKLOADS.join(", ")))?;
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
        if path.is_file() { Ok(Self { name: name.to_owned(), path }) } else { Err(format!("{} is not a file", path.display())) }
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
        let plain = Arguments::parse_from(words);
        assert_eq!(
            (plain.workloads(), plain.sizes()),
            (["boot", "sort", "hash", "compress", "storm", "copy"].map(str::to_owned).to_vec(), vec![1, 2])
        );
        let with = |more: [&'static str; 6]| Arguments::try_parse_from(words.into_iter().chain(more));
        let chosen = with(["--workload", "hash:16", "--workload", "boot", "--smp", "4"]).unwrap();
        assert_eq!((chosen.workloads(), chosen.sizes()), (vec!["boot".to_owned(), "hash:16".to_owned()], vec![4]));
        for wrong in ["boot:2", "hash:0", "hash:x", "fish"] {
            assert!(with(["--workload", wrong, "--workload", "boot", "--smp", "4"]).is_err(), "{wrong}");
        }
    }
}
