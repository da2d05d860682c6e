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
use arguments::{Arguments, Named};
use clap::Parser;
use icsan_guest_tests::arch::architecture::Architecture;
use icsan_guest_tests::host::boot;
use icsan_guest_tests::host::initramfs::GuestFile;
use icsan_guest_tests::kexec;
use icsan_guest_tests::skips::ExpectedSkips;
use icsan_guest_tests::verdict::{Mode, Profile};
use output::{Counts, Judged};
use rows::Rows;
use run::{Cell, Setting};
use std::fs;
use std::path::{Path, PathBuf};
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
    refuse_nonsense(&arguments)?;
    let initramfs = initramfs(&arguments, &folder)?;
    let skips = ExpectedSkips::committed().map_err(anyhow::Error::msg).context("expected-skips.txt")?;
    let setting = Setting { arguments, folder, skips };
    let boots = boot_all(&setting, &cells(&setting.arguments, &initramfs)?)?;
    if setting.arguments.keep.is_none() {
        let _ = fs::remove_dir_all(&scratch);
    }
    print!("{}", output::table(setting.arguments.arch.table, &boots));
    print!("{}", output::closing(&boots));
    Ok(Counts::of(&boots))
}

/// What the command line asks for and cannot have.
fn refuse_nonsense(arguments: &Arguments) -> Result<()> {
    let has = |name: &str| arguments.kernel.iter().any(|kernel| kernel.name == name);
    if let Some(stray) = arguments.modules.iter().find(|modules| !has(&modules.name)) {
        bail!("--modules {}=…: there is no --kernel {}=…", stray.name, stray.name);
    }
    if arguments.inject.is_some() && arguments.mode == Mode::Light {
        bail!("--inject needs the full mode: the light one knows no old instructions");
    }
    if let Some(stray) = arguments.patcher.iter().find(|patcher| !has(&patcher.name)) {
        bail!("--patcher {}=…: there is no --kernel {}=…", stray.name, stray.name);
    }
    arguments.cpu().map_err(anyhow::Error::msg).context("--cpu")?;
    let Architecture { name, profiles, marker, .. } = arguments.arch;
    if let Some(stray) = arguments.profile.iter().find(|profile| !profiles.contains(profile)) {
        bail!("--profile {}: {name} has no such profile", stray.name());
    }
    let guest = &arguments.guest;
    let program = fs::read(guest).with_context(|| format!("cannot read the guest program {}", guest.display()))?;
    if !program.windows(marker.len()).any(|bytes| bytes == *marker) {
        bail!("--guest {}: it has no marker of {name} in it", guest.display());
    }
    Ok(())
}

/// An initramfs for each kernel: only modules make them differ.
fn initramfs(arguments: &Arguments, folder: &Path) -> Result<Vec<PathBuf>> {
    let of = |kernel: &Named| {
        let modules = arguments.modules.iter().find(|modules| modules.name == kernel.name);
        let mut files = modules.map(|modules| modules::read(&modules.path)).transpose()?.unwrap_or_default();
        files.extend(arguments.patcher_of(kernel).map(attribution::guest_file).transpose()?);
        let path = folder.join(format!("initramfs-{}.gz", kernel.name.replace('/', "-")));
        boot::write_initramfs_with(&arguments.guest, &files, &path)?;
        if !arguments.kexec {
            return Ok(path);
        }
        // The first kernel's holds what the second one is started from.
        let files = [(kexec::KERNEL, &kernel.path), (kexec::INITRAMFS, &path)]
            .map(|(at, path)| Ok(GuestFile { path: at.into(), data: fs::read(path)? }))
            .into_iter()
            .collect::<Result<Vec<_>>>()?;
        let first = folder.join(format!("kexec-{}.gz", kernel.name.replace('/', "-")));
        boot::write_initramfs_with(&arguments.guest, &files, &first)?;
        Ok(first)
    };
    arguments.kernel.iter().map(of).collect()
}

/// Everything that is to be booted: each QEMU with each kernel, each word on its command line, and each profile.
fn cells<'a>(arguments: &'a Arguments, initramfs: &'a [PathBuf]) -> Result<Vec<Cell<'a>>> {
    let profiles: Vec<Option<Profile>> = match (&arguments.plugin, arguments.profile.is_empty()) {
        (None, _) => vec![None],
        (Some(_), true) => arguments.arch.profiles.iter().copied().map(Some).collect(),
        (Some(_), false) => arguments.profile.iter().copied().map(Some).collect(),
    };
    let appends = if arguments.boot_only { vec![""] } else { arguments.selection().boots(arguments.arch.table) };
    if appends.is_empty() {
        bail!("no scenario passes the filter{}", if arguments.heavy { "" } else { "; the heavy ones need --heavy" });
    }
    let mut cells = Vec::new();
    for qemu in &arguments.qemu {
        for (kernel, initramfs) in arguments.kernel.iter().zip(initramfs) {
            for append in &appends {
                cells.extend(profiles.iter().map(|profile| {
                    let rows = Rows::of(arguments, kernel, append, *profile);
                    Cell { qemu, kernel, initramfs, append, profile: *profile, rows }
                }));
            }
        }
    }
    // Where no row applies, there is nothing to boot for.
    cells.retain(|cell| arguments.boot_only || !cell.rows.applying.is_empty());
    if cells.is_empty() {
        bail!("no scenario that passes the filter applies to any of these boots");
    }
    Ok(cells)
}

/// Boots one after the other, and says what came of each.
fn boot_all(setting: &Setting, cells: &[Cell<'_>]) -> Result<Vec<Judged>> {
    let total = cells.len();
    println!("KTAP version 1\n1..{total}");
    let mut boots = Vec::new();
    for (number, cell) in (1..).zip(cells) {
        let name = cell.profile.map_or("no plugin", Profile::name);
        eprintln!(
            "boot {number} of {total}: QEMU {}, kernel {} {}, {name}",
            cell.qemu.name, cell.kernel.name, cell.append
        );
        let start = Instant::now();
        let judged = run::run(setting, cell)?;
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
    Ok(boots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_program_of_another_architecture_is_refused() {
        let refused = |guest: &str| {
            let words = ["icsan-runner", "--qemu", "q=/bin/sh", "--kernel", "6.1=/bin/sh", "--guest", guest];
            refuse_nonsense(&Arguments::try_parse_from(words).unwrap()).err().map(|error| error.to_string())
        };
        let file = |name: &str, bytes: &[u8]| {
            let path = std::env::temp_dir().join(format!("icsan-runner-{name}-{}", std::process::id()));
            fs::write(&path, bytes).unwrap();
            path
        };
        let marker = icsan_guest_tests::arch::registry::DEFAULT.marker;
        let (without, with) = (file("without", b"another"), file("with", &[b"text", marker, b"text"].concat()));
        assert!(refused(without.to_str().unwrap()).unwrap().contains("no marker of x86_64"));
        assert_eq!(refused(with.to_str().unwrap()), None);
        [without, with].iter().for_each(|path| fs::remove_file(path).unwrap());
    }
}
