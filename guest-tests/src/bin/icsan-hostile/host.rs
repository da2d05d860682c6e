//! The host's side: boots the guest again and again until the time is over. The guest may die of what it does; QEMU may
//! not, and its report must be whole.

use anyhow::{Context, Result, bail};
use clap::Parser;
use icsan_guest_tests::arch::registry;
use icsan_guest_tests::console::PREFIX;
use icsan_guest_tests::host::boot::{Hardware, Machine, write_initramfs};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Seconds of one boot.
const BOOT: u64 = 120;

/// How much longer than its guest's time a boot may take, for the boot itself and on a busy host.
const SLACK: Duration = Duration::from_secs(180);

/// Boots a guest that changes and runs random code, under random injection; QEMU must stay alive.
#[derive(Parser, Debug)]
#[command(name = "icsan-hostile", version)]
struct Arguments {
    /// ICSAN's plugin
    #[arg(long, value_name = "PATH")]
    plugin: PathBuf,
    /// QEMU 11.1 or newer
    #[arg(long, value_name = "PATH")]
    qemu: PathBuf,
    /// The kernel image
    #[arg(long, value_name = "PATH")]
    kernel: PathBuf,
    /// This program, linked statically
    #[arg(long, value_name = "PATH")]
    guest: PathBuf,
    /// For how long, in all
    #[arg(long, value_name = "SECONDS", default_value_t = 1800)]
    seconds: u64,
    /// How many vCPUs
    #[arg(long, value_name = "N", default_value_t = 2)]
    smp: usize,
    /// How often of a hundred something else is executed than what is in memory
    #[arg(long, value_name = "N", default_value_t = 50)]
    percent: u8,
    /// More keys for the plugin
    #[arg(long, value_name = "KEY=VALUE")]
    extra: Vec<String>,
}

pub fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("icsan-hostile: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let folder = std::env::temp_dir().join(format!("icsan-hostile-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let result = boots(arguments, &folder);
    if result.is_ok() {
        std::fs::remove_dir_all(&folder)?;
    }
    result.with_context(|| format!("what was written is in {}", folder.display()))
}

/// What came of the boots.
#[derive(Debug, Default)]
struct Sums {
    injected: u64,
    not_carried_out: u64,
    died: u32,
}

fn boots(arguments: &Arguments, folder: &Path) -> Result<()> {
    let initramfs = write_initramfs(&arguments.guest, folder)?;
    let start = Instant::now();
    let (mut seed, mut sums) = (0, Sums::default());
    while start.elapsed().as_secs() < arguments.seconds {
        seed += 1;
        boot(arguments, folder, &initramfs, seed, &mut sums)?;
    }
    println!(
        "{seed} boots in {} s, QEMU alive at the end of each; {} injected, {} chosen and not carried out; {} guests died",
        start.elapsed().as_secs(),
        sums.injected,
        sums.not_carried_out,
        sums.died
    );
    if sums.injected == 0 {
        bail!("nothing was injected: that proves nothing");
    }
    Ok(())
}

fn machine(arguments: &Arguments, initramfs: &Path, seed: u32, report: &Path) -> Machine {
    let seconds = BOOT.min(arguments.seconds);
    let mut keys = vec![
        format!("inject=random:{seed}:{}", arguments.percent),
        format!("report={}", report.display()),
        format!("symbols={}", arguments.kernel.display()),
    ];
    keys.extend(arguments.extra.iter().cloned());
    Machine {
        architecture: registry::DEFAULT,
        qemu: arguments.qemu.clone(),
        kernel: arguments.kernel.clone(),
        initramfs: initramfs.to_owned(),
        hardware: Hardware::of(registry::DEFAULT),
        smp: arguments.smp,
        thread: "multi".into(),
        plugin: Some(format!("{},{}", arguments.plugin.display(), keys.join(","))),
        append: format!("icsan.seconds={seconds} icsan.seed={seed}"),
        timeout: Duration::from_secs(seconds) + SLACK,
    }
}

/// One boot; what is wrong with QEMU or its report is an error.
fn boot(arguments: &Arguments, folder: &Path, initramfs: &Path, seed: u32, sums: &mut Sums) -> Result<()> {
    let report = folder.join(format!("{seed}.jsonl"));
    let boot = machine(arguments, initramfs, seed, &report).boot()?;
    std::fs::write(folder.join(format!("{seed}.console")), &boot.console)?;
    std::fs::write(folder.join(format!("{seed}.stderr")), &boot.stderr)?;
    // A guest that died reboots, which ends QEMU as well as a power-off does.
    if !boot.clean_exit {
        bail!("seed {seed}: QEMU: {}", boot.exit);
    }
    let text = std::fs::read_to_string(&report).with_context(|| format!("seed {seed}: no report"))?;
    let summary: serde_json::Value = serde_json::from_str(text.lines().last().unwrap_or_default())?;
    if summary["type"] != "summary" {
        bail!("seed {seed}: the report is not whole");
    }
    if !summary["fault"].is_null() {
        bail!("seed {seed}: ICSAN turned itself off: {}", summary["fault"]);
    }
    let number = |key: &str| summary["injected"][key].as_u64().unwrap_or(0);
    let mut said = boot.console.lines().filter_map(|line| line.split_once(PREFIX)).map(|(_, line)| line.trim_end());
    let said = said.next_back();
    sums.injected += number("executions");
    sums.not_carried_out += number("not_carried_out");
    sums.died += u32::from(said.is_none());
    println!(
        "seed {seed}: {}; {} injected, {} chosen and not carried out; {:.0} s",
        said.unwrap_or("the guest died"),
        number("executions"),
        number("not_carried_out"),
        boot.seconds
    );
    Ok(())
}
