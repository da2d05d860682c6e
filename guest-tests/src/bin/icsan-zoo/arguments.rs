//! The command line.

use clap::Parser;
use icsan_guest_tests::arch::architecture::Architecture;
use icsan_guest_tests::arch::registry;
use icsan_guest_tests::verdict::{Mode, Profile};
use std::path::PathBuf;

/// Boots the kernels of the bug zoo under ICSAN, and compares its verdicts with the zoo's table.
#[derive(Parser, Clone, Debug)]
#[command(name = "icsan-zoo", version)]
pub struct Arguments {
    /// The architecture of the kernels, by QEMU's name of it
    #[arg(long, value_name = "NAME", default_value = registry::DEFAULT.name, value_parser = registry::by_name)]
    pub arch: &'static Architecture,
    /// The CPU of boots in which page tables need not be isolated, by its name in the table of architectures
    #[arg(long, value_name = "NAME")]
    pub cpu: Option<String>,
    /// ICSAN's plugin
    #[arg(long, value_name = "PATH")]
    pub plugin: PathBuf,
    /// The QEMU to boot with
    #[arg(long, value_name = "PATH")]
    pub qemu: PathBuf,
    /// The guest program, linked statically
    #[arg(long, value_name = "PATH")]
    pub guest: PathBuf,
    /// Where the kernels are: a folder each, with the image that the kernel's build makes
    #[arg(long, value_name = "FOLDER")]
    pub kernels: PathBuf,
    /// How often each kernel is booted under each profile
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub rounds: u16,
    /// A profile to judge by; repeatable [default: what the architecture's kernels are judged by]
    #[arg(long, value_name = "NAME", value_parser = registry::profile)]
    pub profile: Vec<Profile>,
    /// What the plugin knows: light (compares what is executed) or full (follows every store)
    #[arg(long, value_name = "MODE", default_value = "full", value_parser = |text: &str| Mode::from_name(text).ok_or("light or full"))]
    pub mode: Mode,
    /// Have old instructions executed, and judge what the guest sees of it (QEMU 11.1); under the first profile only
    #[arg(long)]
    pub inject: bool,
    /// Only the workloads that match one of these globs, joined by commas
    #[arg(long, value_name = "GLOB", default_value = "")]
    pub filter: String,
    /// After how many seconds a boot is killed
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    pub timeout: u64,
    /// Keep reports and console logs in this folder
    #[arg(long, value_name = "FOLDER")]
    pub keep: Option<PathBuf>,
    /// One more key for the plugin; repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    pub extra: Vec<String>,
    /// The kernels [default: all]
    pub variants: Vec<String>,
}
