//! `icsan-zoo`: boots the kernels of the bug zoo under ICSAN, and compares its verdicts with the zoo's table.

mod arguments;
mod evidence;
mod inject;
mod judge;
mod output;
mod run;

// Runner and zoo read the same reports and know the same findings. Neither needs all of it.
#[allow(dead_code)]
#[path = "../icsan-runner/explained.rs"]
mod explained;
#[allow(dead_code)]
#[path = "../icsan-runner/report.rs"]
mod report;

use anyhow::{Context, Result, bail};
use arguments::Arguments;
use clap::Parser;
use icsan_guest_tests::host::boot;
use output::Table;
use run::Setting;
use std::fs;
use std::process::ExitCode;

fn main() -> ExitCode {
    match run_all(Arguments::parse()) {
        Ok(table) if table.all_right() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("icsan-zoo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_all(arguments: Arguments) -> Result<Table> {
    let architecture = arguments.arch;
    let known = architecture.zoo.variants();
    // A kernel that is named must have something to do; of all others those are taken that have.
    let matches = |variant: &&str| {
        let matches = !run::rows(&arguments, variant).is_empty();
        if !matches {
            eprintln!("{variant} is left out: no workload of it matches {}", arguments.filter);
        }
        matches
    };
    let variants: Vec<&str> = match arguments.variants.is_empty() {
        true => known.iter().copied().filter(matches).collect(),
        false => arguments.variants.iter().map(String::as_str).collect(),
    };
    if variants.is_empty() {
        bail!("no workload matches {}", arguments.filter);
    }
    if let Some(stray) = variants.iter().find(|name| !known.contains(name)) {
        bail!("no kernel {stray}: there are {}", known.join(" "));
    }
    let profiles = match arguments.profile.is_empty() {
        true => architecture.zoo.profiles.to_vec(),
        false => arguments.profile.clone(),
    };
    let cpu = arguments.cpu.as_deref().map_or(Ok(architecture.plain), |name| architecture.cpu(name));
    let cpu = cpu.map_err(anyhow::Error::msg)?;
    let scratch = std::env::temp_dir().join(format!("icsan-zoo-{}", std::process::id()));
    let folder = arguments.keep.clone().unwrap_or_else(|| scratch.clone());
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let initramfs = boot::write_initramfs(&arguments.guest, &folder)?;
    let mut boots = Vec::new();
    for variant in &variants {
        if arguments.inject && architecture.zoo.dead_if_injected.contains(variant) {
            eprintln!("{variant} is left out: if old instructions are executed, it does not boot");
        } else if arguments.inject {
            boots.extend(
                inject::boots(&run::rows(&arguments, variant))
                    .into_iter()
                    .map(|inject| (*variant, profiles[0], Some(inject))),
            );
        } else {
            boots.extend(profiles.iter().map(|profile| (*variant, *profile, None)));
        }
    }
    let total = usize::from(arguments.rounds) * boots.len();
    let setting = Setting { arguments: &arguments, cpu, folder: &folder, initramfs: &initramfs };
    let mut table = Table::of(architecture);
    let mut number = 0;
    // Round by round, so that an interrupted run has seen every kernel.
    for round in 1..=arguments.rounds {
        for (variant, profile, inject) in &boots {
            number += 1;
            let tried = run::run(&setting, variant, *profile, round, *inject)?;
            let how = inject.map_or_else(String::new, |inject| format!(", inject={}", inject.word()));
            eprintln!(
                "boot {number} of {total}: {variant}, {}{how}, {:.1} s: {}",
                profile.name(),
                tried.seconds,
                tried.summary()
            );
            table.add(variant, *profile, &tried);
        }
    }
    if arguments.keep.is_none() {
        let _ = fs::remove_dir_all(&scratch);
    }
    print!("{}", table.text());
    Ok(table)
}
