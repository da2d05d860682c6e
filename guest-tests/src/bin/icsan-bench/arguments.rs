//! The command line.

use clap::Parser;
use std::path::PathBuf;
use std::str::FromStr;

use icsan_guest_tests::verdict::Mode;

/// All workloads, `boot` first: the others are compared with it. The last ones are not measured unless they are asked for.
const WORKLOADS: [&str; 8] = ["boot", "sort", "hash", "compress", "storm", "copy", "fault", "flips"];
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
    /// Only this workload; repeatable [default: all but fault and flips]
    #[arg(long, value_name = "NAME", value_parser = WORKLOADS)]
    pub workload: Vec<String>,
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
    pub fn workloads(&self) -> Vec<&str> {
        if self.workload.is_empty() {
            return WORKLOADS[..USUAL].to_vec();
        }
        WORKLOADS.into_iter().filter(|name| self.workload.iter().any(|chosen| chosen == name)).collect()
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
        assert_eq!((plain.workloads(), plain.sizes()), (vec!["boot", "sort", "hash", "compress", "storm", "copy"], vec![1, 2]));
        let chosen = Arguments::parse_from(words.into_iter().chain(["--workload", "hash", "--workload", "boot", "--smp", "4"]));
        assert_eq!((chosen.workloads(), chosen.sizes()), (vec!["boot", "hash"], vec![4]));
    }
}
