//! `icsan-jit`: boots a guest with a just-in-time compiler and a program for it, and tells what ICSAN reports of the
//! code that it makes, by instruction.

mod changes;

use anyhow::{Context, Result, bail};
use changes::Changes;
use clap::Parser;
use icsan_guest_tests::arch::registry;
use icsan_guest_tests::console::{COMMAND, DONE, PREFIX};
use icsan_guest_tests::host::boot::{Hardware, Machine};
use icsan_guest_tests::host::initramfs::{self, GuestFile};
use icsan_guest_tests::verdict::Profile;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// How much RAM the guests have, in MiB. Their packages lie in it, too.
const MEMORY: &str = "4096";

/// One vCPU for each of a program's threads.
const CPUS: usize = 2;

/// Where the program lies in the guest.
const PROGRAM: &str = "program";

/// The last words of every program that gets to its end.
const WORK_DONE: &str = "WORK DONE";

#[derive(Parser, Clone, Debug)]
#[command(name = "icsan-jit", version)]
struct Arguments {
    /// ICSAN's plugin
    #[arg(long, value_name = "PATH")]
    plugin: PathBuf,
    /// QEMU, with the name that it has in the output
    #[arg(long, value_name = "NAME=PATH", value_parser = named)]
    qemu: (String, PathBuf),
    /// The kernel image
    #[arg(long, value_name = "PATH")]
    kernel: PathBuf,
    /// The guest program, linked statically
    #[arg(long, value_name = "PATH")]
    guest: PathBuf,
    /// The guest's file system: unpacked packages
    #[arg(long, value_name = "FOLDER")]
    tree: PathBuf,
    /// What is /program in the guest
    #[arg(long, value_name = "FOLDER")]
    program: PathBuf,
    /// A profile to judge by; repeatable
    #[arg(long, value_name = "NAME", required = true, value_parser = registry::profile)]
    profile: Vec<Profile>,
    /// A profile under which something must be reported; repeatable
    #[arg(long, value_name = "NAME", value_parser = registry::profile)]
    reported: Vec<Profile>,
    /// After how many seconds a boot is killed
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    timeout: u64,
    /// Keep reports and console logs in this folder
    #[arg(long, value_name = "FOLDER")]
    keep: Option<PathBuf>,
    /// What the guest runs, and its arguments
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

fn named(text: &str) -> Result<(String, PathBuf), String> {
    let (name, path) = text.split_once('=').ok_or("expected NAME=PATH")?;
    Ok((name.into(), path.into()))
}

fn main() -> ExitCode {
    match run_all(&Arguments::parse()) {
        Ok((passed, failed)) => {
            println!("{passed} passed, {failed} failed, 0 skipped");
            if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("icsan-jit: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_all(arguments: &Arguments) -> Result<(usize, usize)> {
    let scratch = std::env::temp_dir().join(format!("icsan-jit-{}", std::process::id()));
    let folder = arguments.keep.clone().unwrap_or_else(|| scratch.clone());
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let initramfs = folder.join("initramfs");
    fs::write(&initramfs, pack(arguments)?).with_context(|| format!("cannot write {}", initramfs.display()))?;
    let (mut passed, mut failed) = (0, 0);
    for profile in &arguments.profile {
        match run(arguments, &folder, &initramfs, *profile)? {
            None => passed += 1,
            Some(fault) => {
                println!("{}: {fault}", profile.name());
                failed += 1;
            }
        }
    }
    let _ = fs::remove_file(&initramfs);
    if arguments.keep.is_none() {
        let _ = fs::remove_dir_all(&scratch);
    }
    Ok((passed, failed))
}

/// Three archives, one behind the other: our program as /init, the packages, and what they are to run.
fn pack(arguments: &Arguments) -> Result<Vec<u8>> {
    let init = fs::read(&arguments.guest).with_context(|| format!("cannot read {}", arguments.guest.display()))?;
    let command = GuestFile { path: COMMAND.into(), data: arguments.command.join("\n").into_bytes() };
    let mut packed = initramfs::build(&init, &[command])?;
    for (folder, at) in [(&arguments.tree, ""), (&arguments.program, PROGRAM)] {
        // Zeros may stand between archives, which begin at multiples of four.
        packed.resize(packed.len().next_multiple_of(4), 0);
        packed.extend(initramfs::tree(folder, at).with_context(|| format!("cannot pack {}", folder.display()))?);
    }
    Ok(packed)
}

/// Boots once: what is wrong, if anything.
fn run(arguments: &Arguments, folder: &Path, initramfs: &Path, profile: Profile) -> Result<Option<String>> {
    let stem = folder.join(format!("{}-{}", arguments.qemu.0, profile.name()));
    let file = |ending: &str| PathBuf::from(format!("{}.{ending}", stem.display()));
    let report = file("jsonl");
    let words = [
        arguments.plugin.display().to_string(),
        format!("profile={}", profile.name()),
        format!("report={}", report.display()),
        format!("symbols={}", arguments.kernel.display()),
    ];
    if let Some(word) = words.iter().find(|word| word.contains(',')) {
        bail!("QEMU owns the comma, which stands in {word}");
    }
    let machine = Machine {
        architecture: registry::DEFAULT,
        qemu: arguments.qemu.1.clone(),
        kernel: arguments.kernel.clone(),
        initramfs: initramfs.to_owned(),
        hardware: Hardware { memory: MEMORY.into(), ..Hardware::of(registry::DEFAULT) },
        smp: CPUS,
        thread: "multi".into(),
        plugin: Some(words.join(",")),
        append: String::new(),
        timeout: Duration::from_secs(arguments.timeout),
    };
    let boot = machine.boot()?;
    fs::write(file("console"), &boot.console)?;
    fs::write(file("stderr"), &boot.stderr)?;
    let changes = fs::read_to_string(&report).map_err(|error| error.to_string()).and_then(|text| Changes::read(&text));
    println!("QEMU {}, {}: {:.0} s", arguments.qemu.0, profile.name(), boot.seconds);
    if let Ok(changes) = &changes {
        print!("{changes}");
    }
    let done = boot.console.contains(WORK_DONE) && boot.console.contains(&format!("{PREFIX}{DONE}"));
    Ok(match changes {
        _ if !boot.clean_exit => Some(format!("QEMU: {}", boot.exit)),
        _ if !done => Some("the program did not get to its end".into()),
        Err(why) => Some(format!("the report: {why}")),
        Ok(changes) => changes.fault(profile, arguments.reported.contains(&profile)),
    })
}
