//! The command line.

use clap::Parser;
use icsan_guest_tests::arch::registry;
use icsan_guest_tests::verdict::{Mode, Profile};
use std::path::PathBuf;

/// Boots the kernels of the bug zoo under ICSAN, and compares its verdicts with the zoo's table.
#[derive(Parser, Clone, Debug)]
#[command(name = "icsan-zoo", version)]
pub struct Arguments {
    /// ICSAN's plugin
    #[arg(long, value_name = "PATH")]
    pub plugin: PathBuf,
    /// The QEMU to boot with
    #[arg(long, value_name = "PATH")]
    pub qemu: PathBuf,
    /// The guest program, linked statically
    #[arg(long, value_name = "PATH")]
    pub guest: PathBuf,
    /// Where the kernels are: kernels/VARIANT/bzImage
    #[arg(long, value_name = "FOLDER")]
    pub kernels: PathBuf,
    /// How often each kernel is booted under each profile
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub rounds: u16,
    /// A profile to judge by; repeatable [default: linux-x86 and fred]
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
