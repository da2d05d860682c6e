//! `icsan-litmus`: what litmus tests show under injection must be what the model allows, neither more nor less (see
//! [`icsan_guest_tests::litmus`]).

mod arguments;
mod seen;
mod table;

use anyhow::{Context, Result, bail};
use arguments::Arguments;
use clap::Parser;
use icsan_guest_tests::arch::registry;
use icsan_guest_tests::glob::matches_any;
use icsan_guest_tests::host::boot::{self, Hardware, Machine};
use icsan_guest_tests::litmus::explore::{Allowed, allowed};
use icsan_guest_tests::litmus::{Litmus, TABLE};
use seen::Seen;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;
use table::{Row, Runs};

/// One vCPU for each CPU that a test may name.
const CPUS: usize = 2;

fn main() -> ExitCode {
    match run_all(&Arguments::parse()) {
        Ok(rows) => {
            print!("{}", table::text(&rows));
            if rows.iter().all(|row| row.faults().is_empty()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("icsan-litmus: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_all(arguments: &Arguments) -> Result<Vec<Row>> {
    let mut tests: Vec<(&'static Litmus, Allowed)> = Vec::new();
    for test in TABLE.iter().filter(|test| matches_any(&arguments.filter, test.name)) {
        tests.push((test, allowed(test).map_err(anyhow::Error::msg)?));
    }
    if tests.is_empty() {
        bail!("no test matches {}", arguments.filter);
    }
    let rows = |runs: &Runs| tests.iter().map(|(test, allowed)| Row::of(test, allowed, runs)).collect::<Vec<_>>();
    let asked = format!("{}:{}", arguments.filter, arguments.rounds);
    let mut runs = Runs::default();
    if !arguments.no_native {
        runs.native = Some(seen::natively(&arguments.guest, &asked)?);
    }
    if arguments.native_only {
        return Ok(rows(&runs));
    }
    let scratch = std::env::temp_dir().join(format!("icsan-litmus-{}", std::process::id()));
    let folder = arguments.keep.as_ref().unwrap_or(&scratch);
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let initramfs = boot::write_initramfs(&arguments.guest, folder)?;
    let started = |plugin: Option<String>, name: &str| -> Result<Seen> {
        let machine = machine(arguments, &initramfs, plugin, &asked)?;
        let boot = machine.boot()?;
        fs::write(folder.join(format!("{name}.console")), &boot.console)?;
        fs::write(folder.join(format!("{name}.stderr")), &boot.stderr)?;
        eprintln!("{name}: {}, {:.1} s", boot.exit, boot.seconds);
        if !boot.clean_exit {
            bail!("{name}: QEMU: {}; {}", boot.exit, boot.stderr.lines().last().unwrap_or_default());
        }
        seen::read(&boot.console).with_context(|| name.to_owned())
    };
    if !arguments.no_plain {
        runs.plain = Some(started(None, "plain")?);
    }
    for number in 0..arguments.boots {
        let seed = arguments.seed + number;
        let name = format!("seed-{seed}");
        let more = started(Some(plugin(arguments, seed, &folder.join(&name).with_extension("jsonl"))?), &name)?;
        let injected = runs.injected.get_or_insert_default();
        more.iter().for_each(|(name, counts)| seen::add(injected, name, counts));
        // An outcome that is not allowed stays, whatever further boots show.
        if rows(&runs).iter().all(Row::is_complete) {
            break;
        }
    }
    if arguments.keep.is_none() {
        let _ = fs::remove_dir_all(&scratch);
    }
    let rows = rows(&runs);
    match tests.iter().find(|(test, _)| runs.injected.as_ref().is_none_or(|seen| !seen.contains_key(test.name))) {
        Some((test, _)) => bail!("{} was not run", test.name),
        None => Ok(rows),
    }
}

fn machine(arguments: &Arguments, initramfs: &Path, plugin: Option<String>, asked: &str) -> Result<Machine> {
    Ok(Machine {
        architecture: registry::DEFAULT,
        qemu: arguments.qemu.clone().context("no QEMU")?,
        kernel: arguments.kernel.clone().context("no kernel")?,
        initramfs: initramfs.to_owned(),
        hardware: Hardware::of(registry::DEFAULT),
        smp: CPUS,
        thread: "multi".into(),
        plugin,
        append: format!("icsan.litmus={asked}"),
        timeout: Duration::from_secs(arguments.timeout),
    })
}

fn plugin(arguments: &Arguments, seed: u32, report: &Path) -> Result<String> {
    let library = arguments.plugin.as_ref().context("no plugin")?;
    let mut words = vec![
        library.display().to_string(),
        format!("profile={}", registry::DEFAULT.linux().name()),
        format!("report={}", report.display()),
        format!("inject=random:{seed}:{}", arguments.percent),
        "emulator=repair".into(),
    ];
    words.extend(arguments.extra.iter().cloned());
    if let Some(word) = words.iter().find(|word| word.contains(',')) {
        bail!("QEMU owns the comma, which stands in {word}");
    }
    Ok(words.join(","))
}
