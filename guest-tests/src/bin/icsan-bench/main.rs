//! `icsan-bench`: what ICSAN costs a guest.
//!
//! Boots the same machine without and with the plugin, in turn, and compares the user time of the whole QEMU process.
//! It prints numbers and judges nothing: only that the guest did its work, that both did the same, and that the plugin
//! watched all of it.

mod arguments;
mod machine;
mod output;
mod process;
mod resident;
mod row;

use anyhow::{Context, Result, bail};
use arguments::{Arguments, Target};
use clap::Parser;
use icsan_guest_tests::verdict::Mode;
use machine::Setting;
use process::Guest;
use row::{Against, Pair, Row, Work};
use serde_json::json;
use std::collections::BTreeSet;
use std::fs;
use std::iter;
use std::ops::RangeInclusive;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    match bench(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("icsan-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bench(arguments: &Arguments) -> Result<()> {
    let mut setting = Setting::now()?;
    if let Some(warning) = &setting.warning {
        eprintln!("WARNING: the machine is not quiet: {warning}");
    }
    let targets = arguments.targets().map_err(anyhow::Error::msg)?;
    setting.versions = versions(&targets)?;
    let folder = std::env::temp_dir().join(format!("icsan-bench-{}", std::process::id()));
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    if let Some(seconds) = arguments.resident {
        return stay(arguments, &targets, &folder, seconds);
    }
    let rows = measure_all(arguments, &targets, &folder);
    let rows = rows.with_context(|| format!("console and stderr of the last boot are in {}", folder.display()))?;
    let _ = fs::remove_dir_all(&folder);
    if arguments.markdown {
        print!("{}", output::markdown(&rows, &setting, arguments.pairs));
    }
    if let Some(path) = &arguments.json {
        let all =
            json!({"schema": 1, "setting": setting.json(), "rows": rows.iter().map(Row::json).collect::<Vec<_>>()});
        fs::write(path, format!("{all:#}\n")).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Name and version of each QEMU and each kernel.
fn versions(targets: &[Target]) -> Result<Vec<(String, String)>> {
    let mut versions = Vec::new();
    for Target { architecture, qemu, kernel, .. } in targets {
        let image = fs::read(&kernel.path).with_context(|| format!("cannot read {}", kernel.path.display()))?;
        let release = machine::kernel_version(&image).unwrap_or_else(|| kernel.name.clone());
        let of = |what: &str, name: &str| format!("{what} {name} ({})", architecture.name);
        for (name, version) in
            [(of("QEMU", &qemu.name), machine::qemu_version(&qemu.path)?), (of("Linux", &kernel.name), release)]
        {
            if !versions.iter().any(|(known, _)| *known == name) {
                versions.push((name, version));
            }
        }
    }
    Ok(versions)
}

/// A guest of a target.
fn guest<'a>(
    target: &'a Target,
    initramfs: &'a Path,
    smp: u8,
    workload: &'a str,
    folder: &'a Path,
    arguments: &Arguments,
) -> Guest<'a> {
    Guest {
        architecture: target.architecture,
        cpu: target.cpu,
        qemu: &target.qemu.path,
        kernel: &target.kernel.path,
        initramfs,
        smp,
        workload,
        folder,
        timeout: Duration::from_secs(arguments.timeout),
    }
}

/// How large QEMU becomes over time, with the first QEMU and number of vCPUs that were given.
fn stay(arguments: &Arguments, targets: &[Target], folder: &Path, seconds: u64) -> Result<()> {
    let (Some(target), Some(smp)) = (targets.first(), arguments.smp.first().copied()) else {
        bail!("no QEMU was given, or no --smp")
    };
    let initramfs = process::initramfs(target.architecture, &target.program, folder)?;
    let workload = format!("toggle:{seconds}");
    let guest = guest(target, &initramfs, smp, &workload, folder, arguments);
    resident::run(&guest, &plugin_words(&arguments.plugin, arguments, &guest, None)?, seconds)
}

/// A build of the plugin, and its keys, as QEMU takes them.
fn plugin_words(plugin: &Path, arguments: &Arguments, guest: &Guest<'_>, mode: Option<Mode>) -> Result<String> {
    let mut words = vec![
        plugin.display().to_string(),
        format!("report={}", guest.folder.join("report.jsonl").display()),
        format!("symbols={}", guest.kernel.display()),
    ];
    words.extend(mode.map(|mode| mode.key().to_owned()));
    words.extend(arguments.extra.iter().cloned());
    if let Some(word) = words.iter().find(|word| word.contains(',')) {
        bail!("QEMU owns the comma, which stands in {word}");
    }
    Ok(words.join(","))
}

fn measure_all(arguments: &Arguments, targets: &[Target], folder: &Path) -> Result<Vec<Row>> {
    let machines = arguments.machines();
    let total = targets.len() * machines.len();
    let mut rows = Vec::new();
    let mut warm = BTreeSet::new();
    // QEMU by QEMU; what stands side by side in the table is measured close to each other.
    let names: Vec<&str> = targets.iter().map(|target| &*target.qemu.name).collect();
    let first = |(at, name): &(usize, &str)| !names[..*at].contains(name);
    for name in names.iter().copied().enumerate().filter(first).map(|(_, name)| name) {
        for (smp, workload) in &machines {
            for target in targets.iter().filter(|target| target.qemu.name == name) {
                eprintln!(
                    "{} of {total}: QEMU {name}, {}, {smp} vCPUs, {workload}",
                    rows.len() / arguments.modes().len() + 1,
                    target.name()
                );
                let initramfs = process::initramfs(target.architecture, &target.program, folder)?;
                let guest = guest(target, &initramfs, *smp, workload, folder, arguments);
                // The first round with each QEMU warms the host's page cache and CPU up, and does not count.
                let first = u16::from(!warm.insert(&target.qemu.path));
                for row in measure(arguments, target, &guest, first..=arguments.pairs)? {
                    // For the terminal; with --markdown standard output is for the table alone.
                    if arguments.markdown {
                        eprint!("{}", output::text(&row))
                    } else {
                        print!("{}", output::text(&row))
                    }
                    rows.push(row);
                }
            }
        }
    }
    Ok(rows)
}

/// A boot of a round: of which row, and whether with the plugin that is measured. What rows are compared with is
/// booted once a round if it has no plugin, and once for each mode if it is another build of the plugin.
#[derive(Clone, Copy)]
enum Turn {
    Plain,
    Base(usize),
    Plugin(usize),
}

/// Boots what is compared with and the plugin in each of its modes, in turn, and makes pairs of them. Round 0 does not
/// count.
fn measure(arguments: &Arguments, target: &Target, guest: &Guest<'_>, rounds: RangeInclusive<u16>) -> Result<Vec<Row>> {
    let report = guest.folder.join("report.jsonl");
    let against = if arguments.base.is_some() { Against::Base } else { Against::None };
    let new = |mode| Row {
        qemu: target.qemu.name.clone(),
        guest: target.name(),
        smp: guest.smp,
        workload: guest.workload.to_owned(),
        mode,
        against,
        pairs: Vec::new(),
        work: Work::default(),
    };
    let mut rows: Vec<Row> = arguments.modes().into_iter().map(new).collect();
    let mut turns: Vec<Turn> = match against {
        Against::None => iter::once(Turn::Plain).chain((0..rows.len()).map(Turn::Plugin)).collect(),
        Against::Base => (0..rows.len()).flat_map(|row| [Turn::Base(row), Turn::Plugin(row)]).collect(),
    };
    // Whose turn is first changes, so that a drift of the machine meets all alike.
    let first = usize::from(*rounds.start()) % turns.len();
    turns.rotate_left(first);
    let mut checksums = Vec::new();
    let mut boot = |plugin: Option<(&Path, Mode)>| -> Result<process::Usage> {
        let words = plugin.map(|(path, mode)| plugin_words(path, arguments, guest, Some(mode))).transpose()?;
        let (usage, checksum) = guest.run(words.as_deref())?;
        checksums.push(checksum);
        Ok(usage)
    };
    for number in rounds {
        let mut plain = vec![None; rows.len()];
        let mut with = vec![None; rows.len()];
        for turn in &turns {
            match *turn {
                Turn::Plain => plain.fill(Some(boot(None)?)),
                Turn::Base(row) => {
                    plain[row] = Some(boot(arguments.base.as_deref().map(|base| (base, rows[row].mode)))?);
                }
                Turn::Plugin(row) => {
                    with[row] = Some(boot(Some((&arguments.plugin, rows[row].mode)))?);
                    let text = fs::read_to_string(&report)
                        .with_context(|| format!("the plugin wrote no {}", report.display()))?;
                    rows[row].work = Work::parse(&text).map_err(anyhow::Error::msg)?;
                }
            }
        }
        turns.rotate_left(1);
        let label = if number == 0 { "warm-up".to_owned() } else { format!("round {number}") };
        for ((row, plain), with) in rows.iter_mut().zip(plain).zip(with) {
            let (Some(plain), Some(plugin)) = (plain, with) else { bail!("a boot is missing") };
            let pair = Pair { plain, plugin };
            eprintln!(
                "  {label}, {}: user {:.2} s {}, {:.2} s with: {:.3}",
                row.mode.name(),
                plain.user,
                against.label(),
                plugin.user,
                pair.ratio()
            );
            if number != 0 {
                row.pairs.push(pair);
            }
        }
    }
    if checksums.iter().any(|checksum| *checksum != checksums[0]) {
        bail!("'{}' did not always give the same result: {checksums:?}", guest.workload);
    }
    Ok(rows)
}
