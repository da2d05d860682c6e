//! One boot of one kernel under one profile, repeated if the emulator broke it.

use crate::arguments::Arguments;
use crate::evidence;
use crate::inject;
use crate::judge::{self, Course, Death, Judged};
use anyhow::{Result, bail};
use icsan_guest_tests::arch::architecture::Cpu;
use icsan_guest_tests::console::{DONE, PREFIX};
use icsan_guest_tests::glob::matches_any;
use icsan_guest_tests::host::boot::{Boot, Hardware, Machine};
use icsan_guest_tests::marker::Marker;
use icsan_guest_tests::verdict::{Mode, Profile};
use icsan_guest_tests::zoo::{CPUS, Inject, Row, Zoo};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// How often a boot is tried whose kernel dies. Healthy kernels die of breakpoints that outlived their patch under
/// multi-threaded TCG, and what the patches of the zoo leave out is just what guards a kernel against it. A death is
/// never a verdict.
const BOOTS: u32 = 6;

/// What all boots share.
#[derive(Clone, Copy, Debug)]
pub struct Setting<'a> {
    /// The command line.
    pub arguments: &'a Arguments,
    /// The CPU of boots in which page tables need not be isolated.
    pub cpu: Cpu,
    /// Where reports and logs go.
    pub folder: &'a Path,
    /// The guest's program, packed.
    pub initramfs: &'a Path,
}

/// What came of a boot.
#[derive(Clone, PartialEq, Debug)]
pub struct Tried {
    /// What was judged.
    pub judged: Vec<Judged>,
    /// How many boots before it died, or were spoiled.
    pub deaths: u32,
    /// How long all of them took.
    pub seconds: f64,
}

impl Tried {
    /// One line for the log.
    pub fn summary(&self) -> String {
        let deaths = if self.deaths == 0 {
            String::new()
        } else {
            format!(" ({} boots died or were spoiled before)", self.deaths)
        };
        let faults: Vec<String> = self
            .judged
            .iter()
            .filter_map(|row| row.fault.as_ref().map(|fault| format!("{}: {fault}", row.workload)))
            .collect();
        if faults.is_empty() {
            format!("as it must be{deaths}")
        } else {
            format!("WRONG: {}{deaths}", faults.join("; "))
        }
    }
}

/// Boots and judges. With `inject`, the plugin has old instructions executed, and what the guest sees is judged.
///
/// # Errors
/// There is no such kernel, or no workload is left; QEMU cannot be started, or files not be written.
pub fn run(
    setting: &Setting<'_>,
    variant: &str,
    profile: Profile,
    round: u16,
    inject: Option<Inject>,
) -> Result<Tried> {
    let arguments = setting.arguments;
    let mut rows = rows(arguments, variant);
    // A kernel that dies of one bug would not get to the others'.
    rows.retain(|row| {
        inject.is_none_or(|inject| !row.is_of_commits() && row.visible.is_none_or(|visible| visible == inject))
    });
    if rows.is_empty() {
        bail!("no workload of {variant} matches {}", arguments.filter);
    }
    let mut tried = Tried { judged: Vec::new(), deaths: 0, seconds: 0.0 };
    for rows in by_boot(rows) {
        let of_rows = run_rows(setting, variant, profile, round, inject, rows)?;
        tried.deaths += of_rows.deaths;
        tried.seconds += of_rows.seconds;
        let again = |judged: &Judged| judged.workload == judge::OUTSIDE && !tried.judged.is_empty();
        let judged: Vec<Judged> = of_rows.judged.into_iter().filter(|judged| !again(judged)).collect();
        tried.judged.extend(judged);
    }
    Ok(tried)
}

/// Which rows share a boot.
fn by_boot(rows: Vec<Row>) -> Vec<Vec<Row>> {
    let mut boots: Vec<Vec<Row>> = Vec::new();
    for row in rows {
        let shares = |other: &Row| !other.is_alone() && other.isolated == row.isolated;
        match boots.iter_mut().find(|boot| !row.is_alone() && boot.iter().all(shares)) {
            Some(boot) => boot.push(row),
            None => boots.push(vec![row]),
        }
    }
    boots
}

/// One boot with these workloads.
fn run_rows(
    setting: &Setting<'_>,
    variant: &str,
    profile: Profile,
    round: u16,
    inject: Option<Inject>,
    rows: Vec<Row>,
) -> Result<Tried> {
    let arguments = setting.arguments;
    let of_commits = rows.iter().all(Row::is_of_commits);
    let architecture = arguments.arch;
    let zoo = architecture.zoo;
    let kernel = arguments.kernels.join(variant).join(zoo.image);
    if !kernel.is_file() {
        bail!("{} is not there: scripts/zoo builds it", kernel.display());
    }
    let word = inject.map_or("", Inject::word);
    let isolated = rows.iter().any(|row| row.isolated);
    let alone = if rows[0].is_alone() { format!("-{}", rows[0].workload) } else { String::new() };
    let stem = setting.folder.join(format!(
        "{variant}{alone}{}-{}{word}-{round}",
        if isolated { "-isolated" } else { "" },
        profile.name()
    ));
    let report = stem.with_extension("jsonl");
    let (at_boot, by_program): (Vec<&str>, Vec<&str>) =
        rows.iter().map(|row| row.workload).partition(|name| zoo.at_boot.contains(name));
    let isolation = if isolated { architecture.isolated } else { "" };
    let asked = if at_boot.is_empty() { String::new() } else { format!("icsan_zoo={} ", at_boot.join("+")) };
    let machine = Machine {
        architecture,
        qemu: arguments.qemu.clone(),
        kernel: kernel.clone(),
        initramfs: setting.initramfs.to_owned(),
        hardware: Hardware { cpu: setting.cpu, ..Hardware::of(architecture) },
        smp: CPUS,
        thread: "multi".into(),
        plugin: Some(plugin(arguments, &kernel, profile, &report, inject, zoo.meaning(variant))?),
        append: format!("{asked}icsan.zoo={} {isolation}", by_program.join(",")),
        timeout: Duration::from_secs(arguments.timeout),
    };
    let mut tried = Tried { judged: Vec::new(), deaths: 0, seconds: 0.0 };
    loop {
        let _ = fs::remove_file(&report);
        let boot = machine.boot()?;
        tried.seconds += boot.seconds;
        fs::write(stem.with_extension("console"), &boot.console)?;
        fs::write(stem.with_extension("stderr"), &boot.stderr)?;
        // What was reported of its commits before a kernel died of them is no less true.
        let fault = fault_of_guest(&boot, by_program.len()).filter(|_| !(of_commits && inject::died(&boot)));
        if let Some(inject) = inject {
            if boot.console.contains(": spoiled ") && !inject::died(&boot) && tried.deaths + 1 < BOOTS {
                tried.deaths += 1;
                continue;
            }
            tried.judged = rows.iter().map(|row| inject::row(row, inject, &boot, fault.as_deref())).collect();
            return Ok(tried);
        }
        let failed = fault.is_some();
        let judged_as = if isolated { profile } else { setting.cpu.judged(profile) };
        tried.judged = judged(zoo, &rows, fault, inject::died(&boot), &report, arguments.mode, judged_as);
        // Of a kernel that may die of its bug, too: where QEMU ran an outdated block before, that may have come first.
        let wrong = || tried.judged.iter().any(|judged| judged.fault.is_some());
        let again = failed && spoiled(&boot) || boot.ended_by_emulator().is_some() && wrong();
        if !again || tried.deaths + 1 == BOOTS {
            return Ok(tried);
        }
        tried.deaths += 1;
        fs::write(stem.with_extension(format!("death-{}", tried.deaths)), &boot.console)?;
    }
}

/// The rows of a kernel that are asked for.
pub fn rows(arguments: &Arguments, variant: &str) -> Vec<Row> {
    arguments.arch.zoo.rows(variant).into_iter().filter(|row| matches_any(&arguments.filter, row.workload)).collect()
}

/// An oops, whatever it died of, or a guest that hung: what outdated code does cannot be foreseen. Or a workload that
/// did not get its host's time.
fn spoiled(boot: &Boot) -> bool {
    boot.console.contains(": spoiled ")
        || boot.timed_out
        || boot.console.contains("Kernel panic")
        || boot.console.contains("Oops")
        || boot.died_of_breakpoint()
}

/// What is wrong with the guest's run as such.
fn fault_of_guest(boot: &Boot, workloads: usize) -> Option<String> {
    let ours = || boot.console.lines().filter_map(|line| line.split_once(PREFIX)).map(|(_, line)| line.trim_end());
    if !boot.clean_exit {
        Some(format!("QEMU: {}", boot.exit))
    } else if let Some(line) = ours().find(|line| line.starts_with("not ok")) {
        let before: Vec<&str> = ours().take_while(|other| *other != line).collect();
        // What the workload's process said, and what its parent did.
        Some(format!("{line} ({})", before[before.len().saturating_sub(2)..].join("; ")))
    } else if !ours().any(|line| line == DONE) || ours().filter(|line| line.starts_with("ok ")).count() != workloads {
        Some("the guest did not come to its end".into())
    } else {
        None
    }
}

fn plugin(
    arguments: &Arguments,
    kernel: &Path,
    profile: Profile,
    report: &Path,
    inject: Option<Inject>,
    meaning: Option<&str>,
) -> Result<String> {
    let mut words = vec![
        arguments.plugin.display().to_string(),
        format!("profile={}", profile.name()),
        format!("report={}", report.display()),
        format!("symbols={}+{}", kernel.display(), arguments.guest.display()),
        arguments.mode.key().to_owned(),
    ];
    let keys: Vec<String> = inject.into_iter().flat_map(inject::keys).collect();
    let always = arguments.arch.zoo.keys.iter().map(|key| (*key).to_owned());
    words.extend(always.filter(|key| !keys.contains(key)).chain(keys.iter().cloned()));
    words.extend(meaning.filter(|_| arguments.mode == Mode::Full).map(str::to_owned));
    words.extend(arguments.extra.iter().cloned());
    if let Some(word) = words.iter().find(|word| word.contains(',')) {
        bail!("QEMU owns the comma, which stands in {word}");
    }
    Ok(words.join(","))
}

fn judged(
    zoo: &Zoo,
    rows: &[Row],
    fault: Option<String>,
    died: bool,
    report: &Path,
    mode: Mode,
    profile: Profile,
) -> Vec<Judged> {
    let text = fs::read_to_string(report).map_err(|error| error.to_string());
    let read = text.and_then(|text| evidence::read(&text));
    let (report, evidence) = match (fault, read) {
        (Some(fault), _) | (None, Err(fault)) => {
            let failed = |row: &Row| Judged {
                workload: row.label(),
                demanded: "a whole run".into(),
                fault: Some(fault.clone()),
            };
            return rows.iter().map(failed).collect();
        }
        (None, Ok(read)) => read,
    };
    let mut judged: Vec<Judged> = Vec::new();
    for row in rows {
        let marker = Marker { scenario: zoo.workload_id(row.workload), round: 1, attempt: 1 };
        let began = report.markers.contains(&marker);
        let death = died.then_some(if began { Death::AtWork } else { Death::AtBoot });
        let course = Course { deferred: report.deferred, death };
        let mut result = judge::row(zoo, row, &evidence, course, mode, profile);
        if !(began || died && row.is_of_commits()) {
            result.fault = Some("the plugin did not see the marker".into());
        }
        judged.push(result);
    }
    judged.push(judge::outside(rows, &evidence, mode, profile));
    judged
}
