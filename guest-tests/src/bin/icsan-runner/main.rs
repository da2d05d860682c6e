//! `icsan-runner`: boots guests under ICSAN and compares its verdicts with the scenario table.

mod arguments;
mod attribution;
mod explained;
mod guest_output;
mod inject;
mod judge;
mod modules;
mod output;
mod report;
mod rows;
mod run;

use anyhow::{Context, Result, bail};
use arguments::Arguments;
use clap::Parser;
use icsan_guest_tests::host::boot;
use icsan_guest_tests::skips::ExpectedSkips;
use icsan_guest_tests::verdict::{Mode, Profile};
use output::{Counts, Judged};
use rows::Rows;
use run::{Cell, Setting};
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    match run_all(Arguments::parse()) {
        Ok(counts) if counts.failed == 0 && counts.passed > 0 => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("icsan-runner: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A filter that no scenario passes, in the guest either.
const NO_SCENARIO: &str = "none";

fn run_all(mut arguments: Arguments) -> Result<Counts> {
    if arguments.boot_only {
        arguments.filter = NO_SCENARIO.into();
    }
    let scratch = std::env::temp_dir().join(format!("icsan-runner-{}", std::process::id()));
    let folder: PathBuf = arguments.keep.clone().unwrap_or_else(|| scratch.clone());
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    if let Some(stray) =
        arguments.modules.iter().find(|modules| arguments.kernel.iter().all(|kernel| kernel.name != modules.name))
    {
        bail!("--modules {}=…: there is no --kernel {}=…", stray.name, stray.name);
    }
    if arguments.inject.is_some() && arguments.mode == Mode::Light {
        bail!("--inject needs the full mode: the light one knows no old instructions");
    }
    let profiles: Vec<Option<Profile>> = match (&arguments.plugin, arguments.profile.is_empty()) {
        (None, _) => vec![None],
        (Some(_), true) => Profile::NAMES.iter().map(|(profile, _)| Some(*profile)).collect(),
        (Some(_), false) => arguments.profile.iter().copied().map(Some).collect(),
    };
    let appends = if arguments.boot_only { vec![""] } else { arguments.selection().boots() };
    if appends.is_empty() {
        bail!("no scenario passes the filter{}", if arguments.heavy { "" } else { "; the heavy ones need --heavy" });
    }
    if let Some(stray) =
        arguments.patcher.iter().find(|patcher| arguments.kernel.iter().all(|kernel| kernel.name != patcher.name))
    {
        bail!("--patcher {}=…: there is no --kernel {}=…", stray.name, stray.name);
    }
    // Only modules make them differ.
    let mut initramfs = Vec::new();
    for kernel in &arguments.kernel {
        let modules = arguments.modules.iter().find(|modules| modules.name == kernel.name);
        let mut files = modules.map(|modules| modules::read(&modules.path)).transpose()?.unwrap_or_default();
        files.extend(arguments.patcher_of(kernel).map(attribution::guest_file).transpose()?);
        let path = folder.join(format!("initramfs-{}.gz", kernel.name.replace('/', "-")));
        boot::write_initramfs_with(&arguments.guest, &files, &path)?;
        initramfs.push(path);
    }
    let skips = ExpectedSkips::committed().map_err(anyhow::Error::msg).context("expected-skips.txt")?;
    let setting = Setting { arguments, folder, skips };
    let mut boots: Vec<Judged> = Vec::new();
    let machines = setting
        .arguments
        .qemu
        .iter()
        .flat_map(|qemu| setting.arguments.kernel.iter().zip(&initramfs).map(move |kernel| (qemu, kernel)));
    let cells = machines.flat_map(|(qemu, (kernel, initramfs))| {
        let (profiles, arguments) = (&profiles, &setting.arguments);
        appends.iter().flat_map(move |append| {
            profiles.iter().map(move |profile| {
                let rows = Rows::of(arguments, kernel, append, *profile);
                Cell { qemu, kernel, initramfs, append, profile: *profile, rows }
            })
        })
    });
    // Where no row applies, there is nothing to boot for.
    let cells: Vec<Cell> = cells.filter(|cell| setting.arguments.boot_only || !cell.rows.applying.is_empty()).collect();
    let total = cells.len();
    if total == 0 {
        bail!("no scenario that passes the filter applies to any of these boots");
    }
    println!("KTAP version 1\n1..{total}");
    for (number, cell) in (1..).zip(&cells) {
        let name = cell.profile.map_or("no plugin", Profile::name);
        eprintln!(
            "boot {number} of {total}: QEMU {}, kernel {} {}, {name}",
            cell.qemu.name, cell.kernel.name, cell.append
        );
        let start = Instant::now();
        let judged = run::run(&setting, cell)?;
        let counts = Counts::of(std::slice::from_ref(&judged));
        eprintln!(
            "  {:.1} s: {} passed, {} failed, {} skipped",
            start.elapsed().as_secs_f64(),
            counts.passed,
            counts.failed,
            counts.skipped
        );
        print!("{}", output::ktap(number, &judged));
        boots.push(judged);
    }
    if setting.arguments.keep.is_none() {
        let _ = fs::remove_dir_all(&scratch);
    }
    print!("{}", output::table(&boots));
    print!("{}", output::closing(&boots));
    let counts = Counts::of(&boots);
    Ok(counts)
}
