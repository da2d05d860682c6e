//! One cell of the matrix: a QEMU, a kernel and a profile, booted until it counts, and judged.

use crate::arguments::{Arguments, Named};
use crate::attribution::{self, ModuleText};
use crate::guest_output::{self, GuestOutput};
use crate::inject::Inject;
use crate::judge::{self, Asked, Check, Conditions, Status};
use crate::output::Judged;
use crate::report::{self, Report};
use crate::rows::Rows;
use anyhow::{Context, Result, bail};
use icsan_guest_tests::host::boot::{Boot, Hardware, Machine};
use icsan_guest_tests::skips::ExpectedSkips;
use icsan_guest_tests::verdict::{Mode, Profile};
use std::fs;
use std::path::{Path, PathBuf};

/// How often a boot is tried that QEMU's own staleness ended (see [`Boot::ended_by_emulator`]). A healthy kernel does
/// so once in some dozens of boots here, so this many in a row mean something else.
const BOOTS: usize = 5;

/// What all boots share.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The command line.
    pub arguments: Arguments,
    /// Where reports and logs go.
    pub folder: PathBuf,
    /// What may be skipped.
    pub skips: ExpectedSkips,
}

/// One cell: what is booted, and what for.
#[derive(Clone, Debug)]
pub struct Cell<'a> {
    /// QEMU.
    pub qemu: &'a Named,
    /// The kernel.
    pub kernel: &'a Named,
    /// What goes with it.
    pub initramfs: &'a Path,
    /// The scenarios with this word on the kernel's command line.
    pub append: &'static str,
    /// The profile; none without a plugin.
    pub profile: Option<Profile>,
    /// What applies to it.
    pub rows: Rows,
}

/// Boots and judges.
///
/// # Errors
/// QEMU cannot be started, or files not be written.
pub fn run(context: &Setting, cell: &Cell<'_>) -> Result<Judged> {
    let arguments = &context.arguments;
    let name = machine_name(arguments, cell);
    let profile_name = cell.profile.map_or("no-plugin", Profile::name);
    let stem = context.folder.join(format!("{name} {profile_name}").replace([' ', '/', '=', ':', ','], "-"));
    let report_path = stem.with_added("jsonl");
    let machine = machine(arguments, cell, &report_path)?;
    if arguments.show {
        eprintln!("\n{}\n", machine.shown());
    }
    let (boot, spoiled) = boot(arguments, &machine, &stem, &report_path)?;
    let output = guest_output::parse(&boot.console);
    let mut report = cell.profile.map(|_| read_report(&report_path));
    let patcher = arguments.patcher_of(cell.kernel);
    if let (Some(Ok(report)), Some(patcher), Some(text)) = (&mut report, patcher, output.patcher) {
        attribution::name_places(report, &ModuleText::read(&patcher.path)?, text);
    }
    let conditions = Conditions {
        profile: cell.profile.map(|profile| arguments.hardware().cpu.judged(profile)),
        mode: arguments.mode,
        smp: arguments.smp.into(),
        inject: arguments.inject,
        kernels: 1 + usize::from(arguments.kexec),
    };
    let asked =
        Asked { rows: &cell.rows.applying, repeat: arguments.repeat, kernel: &cell.kernel.name, skips: &context.skips };
    let mut judged = judge(asked, &boot, &output, report, conditions);
    judged.machine = name;
    judged.profile = profile_name.into();
    judged.repeated = spoiled.len();
    judged.notes.push(format!("{:.1} s", boot.seconds));
    judged.notes.extend(cell.rows.notes());
    judged.notes.extend(spoiled);
    Ok(judged)
}

/// What is booted, in words: the same for all profiles.
fn machine_name(arguments: &Arguments, cell: &Cell<'_>) -> String {
    let Arguments { arch, smp, thread, .. } = arguments;
    let mut name =
        format!("{} {} smp{smp} {thread} {}", cell.qemu.name, cell.kernel.name, cell.append).trim_end().to_owned();
    let hardware = arguments.hardware();
    if hardware != Hardware::of(arch) {
        name = format!("{name} {} {} {}", hardware.cpu.name, hardware.board, hardware.memory);
    }
    if let Some([key, _]) = arguments.inject.map(Inject::keys) {
        name = format!("{name} {key}");
    }
    name
}

fn machine(arguments: &Arguments, cell: &Cell<'_>, report: &Path) -> Result<Machine> {
    let append = cell.append;
    Ok(Machine {
        architecture: arguments.arch,
        qemu: cell.qemu.path.clone(),
        kernel: cell.kernel.path.clone(),
        initramfs: cell.initramfs.to_path_buf(),
        hardware: arguments.hardware(),
        smp: arguments.smp.into(),
        thread: arguments.thread.clone(),
        plugin: cell.profile.map(|profile| plugin(arguments, cell.kernel, profile, report)).transpose()?,
        append: format!(
            "icsan.kexec={} icsan.filter={} icsan.without={} icsan.repeat={} icsan.heavy={} icsan.inject={} icsan.append={append} {append} {}",
            u8::from(arguments.kexec),
            arguments.filter,
            cell.rows.without(),
            arguments.repeat,
            u8::from(arguments.heavy),
            u8::from(arguments.inject.is_some()),
            arguments.append
        ),
        timeout: arguments.limit(),
    })
}

/// Boots until QEMU's own staleness did not end it, a few times at most. Says of each that it did.
fn boot(arguments: &Arguments, machine: &Machine, stem: &Path, report: &Path) -> Result<(Boot, Vec<String>)> {
    let mut spoiled = Vec::new();
    loop {
        let _ = fs::remove_file(report);
        let boot = machine.boot()?;
        fs::write(stem.with_added("console"), &boot.console)?;
        fs::write(stem.with_added("stderr"), &boot.stderr)?;
        if arguments.show {
            eprint!("{}", boot.stderr);
        }
        // Under injection it may be what was executed on purpose, and QEMU's own outdated blocks are repaired.
        let Some(how) = boot.ended_by_emulator().filter(|_| arguments.inject.is_none()) else {
            return Ok((boot, spoiled));
        };
        spoiled.push(format!("emulator: {how}, after {:.1} s", boot.seconds));
        let deaths = spoiled.len();
        eprintln!("  {how} (QEMU's fault), boot {deaths} of {BOOTS}");
        fs::write(stem.with_added(&format!("spoiled-{deaths}.console")), &boot.console)?;
        fs::write(stem.with_added(&format!("spoiled-{deaths}.stderr")), &boot.stderr)?;
        if deaths == BOOTS {
            return Ok((boot, spoiled));
        }
    }
}

fn plugin(arguments: &Arguments, kernel: &Named, profile: Profile, report: &Path) -> Result<String> {
    let library = arguments.plugin.as_ref().context("no plugin")?;
    let mut words = vec![
        library.display().to_string(),
        format!("profile={}", profile.name()),
        format!("report={}", report.display()),
        format!("symbols={}+{}", kernel.path.display(), arguments.guest.display()),
    ];
    words.push(match arguments.mode {
        Mode::Full => "commit=guest_patch_commit".into(),
        Mode::Light => "writers=off".into(),
    });
    words.extend(arguments.inject.into_iter().flat_map(Inject::keys));
    words.extend(arguments.extra.iter().cloned());
    if let Some(word) = words.iter().find(|word| word.contains(',')) {
        bail!("QEMU owns the comma, which stands in {word}");
    }
    Ok(words.join(","))
}

fn read_report(path: &Path) -> Result<Report, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    report::parse(&text)
}

fn judge(
    asked: Asked<'_>,
    boot: &Boot,
    output: &GuestOutput,
    report: Option<Result<Report, String>>,
    conditions: Conditions,
) -> Judged {
    let mut judged = Judged {
        machine: String::new(),
        profile: String::new(),
        kernel: asked.kernel.into(),
        repeated: 0,
        checks: Vec::new(),
        notes: Vec::new(),
    };
    let guest_fault = if boot.clean_exit {
        output.fault().map(|fault| format!("{fault}; the console ends with: {}", last_lines(&boot.console)))
    } else {
        Some(format!("QEMU: {}; {}", boot.exit, last_words(boot, output)))
    };
    judged.checks.push(whole("guest ran to power-off", guest_fault));
    let mut readable = false;
    let report = match report {
        None => Report::default(),
        Some(report) => {
            let fault = report.as_ref().map_or_else(|why| Some(why.clone()), Report::fault);
            judged.checks.push(whole("report is whole", fault));
            readable = report.is_ok();
            let report = report.unwrap_or_default();
            if conditions.kernels > 1 {
                judged.checks.push(whole("each kernel is found", kernels_fault(&report, conditions.kernels)));
            }
            report
        }
    };
    judged.checks.extend(judge::scenarios(asked, output, &report, conditions));
    // What was not reported cannot be judged; `report is whole` has failed already.
    if let (Some(profile), true) = (conditions.profile, readable) {
        let (check, notes) = judge::outside(&report, conditions.mode, profile);
        judged.checks.push(check);
        judged.notes.extend(notes);
    }
    judged
}

/// What is wrong with the kernels that the report speaks of, if not so many ran, one after the other, with a known
/// place each.
fn kernels_fault(report: &Report, kernels: usize) -> Option<String> {
    let (ran, found) = report.kernels;
    ((ran, found) != (kernels, kernels))
        .then(|| format!("{kernels} kernels ran: {ran} were noticed, {found} of them found"))
}

fn whole(name: &str, fault: Option<String>) -> Check {
    let status = fault.map_or(Status::Passed, Status::Failed);
    Check { status, ..Check::of(name, ' ') }
}

/// Where it stopped: QEMU's own last line, or the guest's.
fn last_words(boot: &Boot, output: &GuestOutput) -> String {
    let last = |text: &str| text.lines().rev().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned);
    let words = last(&boot.stderr).or_else(|| last(&boot.console)).unwrap_or_else(|| "it said nothing".into());
    match output.rounds.last() {
        Some(round) => format!("after {} round {}: {words}", round.name, round.round),
        None => words,
    }
}

/// The last few lines that say something: a guest that died tells why before it prints its registers.
fn last_lines(text: &str) -> String {
    const LINES: usize = 5;
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if lines.is_empty() { "nothing".into() } else { lines[lines.len().saturating_sub(LINES)..].join(" | ") }
}

trait WithAdded {
    /// Adds `.extension` and keeps the dots that are there.
    fn with_added(&self, extension: &str) -> PathBuf;
}

impl WithAdded for Path {
    fn with_added(&self, extension: &str) -> PathBuf {
        let mut name = self.as_os_str().to_owned();
        name.push(".");
        name.push(extension);
        name.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_kernel_must_be_noticed_and_found() {
        let fault = |kernels| kernels_fault(&Report { kernels, ..Report::default() }, 2);
        assert_eq!(fault((2, 2)), None);
        assert_eq!(fault((1, 1)).as_deref(), Some("2 kernels ran: 1 were noticed, 1 of them found"));
        assert_eq!(fault((2, 1)).as_deref(), Some("2 kernels ran: 2 were noticed, 1 of them found"));
    }

    use icsan_guest_tests::table::by_name;
    use icsan_guest_tests::table::x86::TABLE;
    use icsan_guest_tests::verdict::x86::LINUX_X86;

    const CONSOLE: &str = "ICSAN| 1..1\nICSAN| ok 1 - cross/imm8 round 1 attempt 1\nICSAN| # done\n";
    const CONDITIONS: Conditions =
        Conditions { profile: Some(LINUX_X86), mode: Mode::Full, smp: 2, inject: None, kernels: 1 };

    fn failed(console: &str, clean_exit: bool, report: Option<Result<Report, String>>) -> Vec<String> {
        let boot = Boot { console: console.into(), clean_exit, exit: "exit status: 1".into(), ..Boot::default() };
        let skips = ExpectedSkips::parse("").unwrap();
        let asked = Asked { rows: &[by_name(TABLE, "cross/imm8").unwrap()], repeat: 1, kernel: "6.1", skips: &skips };
        let judged = judge(asked, &boot, &guest_output::parse(console), report, CONDITIONS);
        judged
            .checks
            .into_iter()
            .filter(|check| matches!(check.status, Status::Failed(_)))
            .map(|check| check.name)
            .collect()
    }

    #[test]
    fn all_is_well() {
        assert!(failed(CONSOLE, true, Some(report::parse(report::tests::WHOLE))).is_empty());
    }

    #[test]
    fn a_missing_or_truncated_report_fails() {
        let missing = read_report(Path::new("/no/such/report"));
        assert_eq!(failed(CONSOLE, true, Some(missing)), ["report is whole", "cross/imm8"]);
        let cut = report::parse(&report::tests::WHOLE[..200]);
        assert_eq!(failed(CONSOLE, true, Some(cut)), ["report is whole", "cross/imm8"]);
    }

    #[test]
    fn the_last_lines_are_told() {
        assert_eq!(last_lines(""), "nothing");
        assert_eq!(last_lines("a\n\nb\r\n"), "a | b");
        assert_eq!(last_lines("a\nb\nc\nd\ne\nf\n"), "b | c | d | e | f");
    }

    #[test]
    fn a_guest_without_ktap_fails() {
        let report = || Some(report::parse(report::tests::WHOLE));
        assert_eq!(failed("Kernel panic - not syncing", true, report()), ["guest ran to power-off", "cross/imm8"]);
        assert_eq!(failed(CONSOLE, false, report()), ["guest ran to power-off"]);
    }
}
