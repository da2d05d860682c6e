//! The command line.

use clap::Parser;
use std::path::PathBuf;

/// Runs litmus tests under injection, without it, and natively, and compares what they show with what the model allows.
#[derive(Parser, Clone, Debug)]
#[command(name = "icsan-litmus", version)]
pub struct Arguments {
    /// ICSAN's plugin
    #[arg(long, value_name = "PATH", required_unless_present = "native_only")]
    pub plugin: Option<PathBuf>,
    /// The QEMU to boot with: 11.1 or later
    #[arg(long, value_name = "PATH", required_unless_present = "native_only")]
    pub qemu: Option<PathBuf>,
    /// The kernel
    #[arg(long, value_name = "PATH", required_unless_present = "native_only")]
    pub kernel: Option<PathBuf>,
    /// The guest program, linked statically
    #[arg(long, value_name = "PATH")]
    pub guest: PathBuf,
    /// Only the tests that match one of these globs, joined by commas
    #[arg(long, value_name = "GLOB", default_value = "")]
    pub filter: String,
    /// Rounds of each test in each boot
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// Boots with injection, at most: as soon as every set is complete, no more are needed
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    pub boots: u32,
    /// The first boot's seed; each further one has the next number
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u32,
    /// Of a hundred executions with a choice, so many are of something else than what is in memory
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub percent: u8,
    /// After how many seconds a boot is killed
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub timeout: u64,
    /// No boots, only the run on this CPU
    #[arg(long)]
    pub native_only: bool,
    /// No run on this CPU
    #[arg(long, conflicts_with = "native_only")]
    pub no_native: bool,
    /// No boot without injection
    #[arg(long)]
    pub no_plain: bool,
    /// Keep reports and console logs in this folder
    #[arg(long, value_name = "FOLDER")]
    pub keep: Option<PathBuf>,
    /// One more key for the plugin; repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    pub extra: Vec<String>,
}
