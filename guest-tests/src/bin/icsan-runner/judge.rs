//! Compares what the guest did and what ICSAN said with the table.

use crate::attribution;
use crate::explained::explain;
use crate::guest_output::{Ending, GuestOutput};
use crate::inject::{Failures, Inject};
use crate::report::{Hazard, MEMBARRIER, Report};
use icsan_guest_tests::marker::Marker;
use icsan_guest_tests::skips::ExpectedSkips;
use icsan_guest_tests::table::{self, Scenario, Writer};
use icsan_guest_tests::verdict::{COHERENT, Kind, Mode, Profile, Verdict};
use std::collections::{BTreeMap, BTreeSet};

/// What a check came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Status {
    /// As the table says.
    Passed,
    /// Not carried out, for a reason that is on the list of expected skips: what the guest said.
    Skipped(String),
    /// Not as the table says, and how.
    Failed(String),
}

/// One check: a scenario over all its rounds, or something about the boot as a whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Check {
    /// Scenario, or what of the boot was checked.
    pub name: String,
    /// What it came to.
    pub status: Status,
    /// What was demanded: a letter for the table.
    pub letter: char,
    /// Rounds that were as the table says, of all.
    pub rounds: (usize, usize),
    /// Attempts that the emulator spoiled.
    pub spoiled: u32,
    /// Distinct hazards that ICSAN itself put down to the emulator.
    pub emulator: usize,
    /// Under injection, what went wrong for the guest to see.
    pub failures: Option<Failures>,
}

impl Check {
    /// One that passed, so far.
    #[must_use]
    pub fn of(name: &str, letter: char) -> Self {
        Self {
            name: name.into(),
            status: Status::Passed,
            letter,
            rounds: (0, 0),
            spoiled: 0,
            emulator: 0,
            failures: None,
        }
    }
}

/// What the verdicts depend on.
#[derive(Clone, Copy, Debug)]
pub struct Conditions {
    /// The profile; none without a plugin, when only outcomes are judged.
    pub profile: Option<Profile>,
    /// How much the plugin knows.
    pub mode: Mode,
    /// How many vCPUs.
    pub smp: usize,
    /// What the plugin has executed in place of what is in memory.
    pub inject: Option<Inject>,
    /// How many kernels run, one after the other.
    pub kernels: usize,
}

/// What a guest was to do.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The rows.
    pub rows: &'a [&'static Scenario],
    /// How often each.
    pub repeat: u16,
    /// The kernel, by name.
    pub kernel: &'a str,
    /// What it may skip.
    pub skips: &'a ExpectedSkips,
}

/// Judges every scenario that the guest was to run.
#[must_use]
pub fn scenarios(asked: Asked<'_>, output: &GuestOutput, report: &Report, conditions: Conditions) -> Vec<Check> {
    asked.rows.iter().map(|row| scenario(row, asked, output, report, conditions)).collect()
}

/// None of the functions that the row's patches are committed through did so, where that is asked: with all stores
/// followed, on several CPUs, one of which may hold old code.
fn nobody_asked(row: &Scenario, report: &Report, conditions: Conditions) -> Option<String> {
    let asks = conditions.mode == Mode::Full
        && conditions.smp > 1
        && conditions.profile.is_some_and(|profile| profile != COHERENT);
    let committed = |function: &&str| report.commits.get(*function).is_some_and(|commits| *commits > 0);
    (asks && !row.commits.is_empty() && !row.commits.iter().any(committed))
        .then(|| format!("nothing was committed by {}, so nobody was asked", row.commits.join(", or ")))
}

/// What a hazard counts as in this row.
fn kind_of_row(row: &Scenario, kind: Kind) -> Kind {
    match kind {
        Kind::Unclean | Kind::Uninvalidated | Kind::Incomplete if row.any_step => Kind::Unsynchronized,
        kind => kind,
    }
}

fn scenario(row: &Scenario, asked: Asked<'_>, output: &GuestOutput, report: &Report, conditions: Conditions) -> Check {
    let verdict = conditions
        .profile
        .map_or(Verdict::Unchecked("no plugin: outcome only"), |profile| row.verdict(conditions.mode, profile));
    let letter = match verdict {
        Verdict::Silent => 'S',
        Verdict::Reported(_) => 'R',
        Verdict::Unchecked(_) => '?',
    };
    let mut check = Check::of(row.name, letter);
    check.failures =
        conditions.inject.map(|_| Failures::of(output.rounds.iter().filter(|round| round.name == row.name)));
    let mut skipped = None;
    for round in output.rounds.iter().filter(|round| round.name == row.name) {
        check.rounds.1 += 1;
        check.spoiled += round.attempt - 1;
        let marker = Marker { scenario: row.id, round: round.round, attempt: round.attempt };
        check.emulator += report.hazards_at(marker).filter(|hazard| hazard.kind == Kind::Emulator).count();
        let fault = match &round.ending {
            Ending::Skipped(why) => {
                skipped = Some(why.clone());
                continue;
            }
            Ending::Failed(why) => Some(why.clone()),
            Ending::Ok if conditions.profile.is_none() => None,
            Ending::Ok if !report.markers.contains(&marker) => Some("the plugin did not see the marker".into()),
            Ending::Ok => {
                let hazards: Vec<Hazard> = report
                    .hazards_at(marker)
                    .filter(|hazard| hazard.kind != Kind::Emulator)
                    .map(|hazard| Hazard { kind: kind_of_row(row, hazard.kind), ..hazard.clone() })
                    .collect();
                let hazards: Vec<&Hazard> = hazards.iter().collect();
                let executor = table::executor(conditions.smp) as u64;
                fault_of_hazards(verdict, &hazards, executor)
                    .or_else(|| fault_of_writers(row, verdict, &hazards, conditions))
                    .or_else(|| attribution::fault(row, verdict, &hazards, conditions.mode))
                    .or_else(|| conditions.inject?.fault(row, verdict, round))
            }
        };
        match fault {
            None => check.rounds.0 += 1,
            Some(why) if !matches!(check.status, Status::Failed(_)) => {
                check.status = Status::Failed(format!("round {}: {why}", round.round))
            }
            Some(_) => {}
        }
    }
    if check.status == Status::Passed
        && skipped.is_none()
        && let Some(why) = nobody_asked(row, report, conditions)
    {
        check.status = Status::Failed(why);
    }
    let rounds = row.rounds(asked.repeat);
    if check.rounds.1 != usize::from(rounds) && check.status == Status::Passed {
        check.status = Status::Failed(format!("{} of {rounds} rounds were run", check.rounds.1));
    }
    if let (Status::Passed, Some(why)) = (&check.status, skipped) {
        check.status = match asked.skips.reason(row.name, asked.kernel) {
            Some(_) => Status::Skipped(why),
            None => Status::Failed(format!("skipped, which expected-skips.txt does not have: {why}")),
        };
    }
    check
}

fn fault_of_hazards(verdict: Verdict, hazards: &[&Hazard], executor: u64) -> Option<String> {
    match verdict {
        Verdict::Unchecked(_) => None,
        Verdict::Silent if hazards.is_empty() => None,
        Verdict::Silent => Some(format!("should be silent, but: {}", list(hazards))),
        Verdict::Reported(_) if hazards.is_empty() => Some("should be reported, but is silent".into()),
        Verdict::Reported(kind) if !hazards.iter().any(|hazard| hazard.kind == kind && hazard.vcpu == executor) => {
            Some(format!("should be {kind} on vCPU {executor}, but is: {}", list(hazards)))
        }
        // A protocol leaves out every CPU but the one that patches, which its own switches serialize. A caller of
        // membarrier has none.
        Verdict::Reported(Kind::Unsynced) => hazards
            .iter()
            .filter(|hazard| hazard.protocol.as_deref() != Some(MEMBARRIER))
            .any(|hazard| hazard.kind == Kind::Unsynced && hazard.vcpu == table::WRITER as u64)
            .then(|| {
                format!("should not be unsynced on vCPU {}, which patches, but is: {}", table::WRITER, list(hazards))
            }),
        Verdict::Reported(kind) if hazards.iter().any(|hazard| hazard.vcpu != executor) => {
            Some(format!("should be {kind} on vCPU {executor} only, but is: {}", list(hazards)))
        }
        Verdict::Reported(_) => None,
    }
}

/// The full model has to say who wrote.
fn fault_of_writers(row: &Scenario, verdict: Verdict, hazards: &[&Hazard], conditions: Conditions) -> Option<String> {
    let (Verdict::Reported(kind), Some(writer), Mode::Full) = (verdict, row.writer, conditions.mode) else {
        return None;
    };
    let writer = match writer {
        Writer::Other => table::WRITER as u64,
        Writer::Itself => table::executor(conditions.smp) as u64,
    };
    let named = hazards.iter().any(|hazard| hazard.kind == kind && hazard.writers.contains(&Some(writer)));
    (!named).then(|| format!("should name vCPU {writer} as the writer, but is: {}", list(hazards)))
}

fn list(hazards: &[&Hazard]) -> String {
    let mut text: Vec<String> = hazards.iter().take(4).map(|hazard| describe(hazard)).collect();
    if hazards.len() > 4 {
        text.push(format!("{} more", hazards.len() - 4));
    }
    text.join("; ")
}

fn describe(hazard: &Hazard) -> String {
    let symbol = hazard.symbol.as_deref().map(|symbol| format!(" {symbol}")).unwrap_or_default();
    let writers: BTreeSet<String> = hazard
        .writers
        .iter()
        .map(|writer| writer.map_or_else(|| "unknown".into(), |vcpu| format!("vCPU {vcpu}")))
        .collect();
    let by = if writers.is_empty() {
        String::new()
    } else {
        format!(" by {}", writers.into_iter().collect::<Vec<_>>().join(", "))
    };
    format!("{} on vCPU {} at {:#x}{symbol}{by} ({} times)", hazard.kind, hazard.vcpu, hazard.pc, hazard.count)
}

/// Judges what was reported outside of all scenarios: nothing, but for what is explained. Notes say what was.
#[must_use]
pub fn outside(report: &Report, mode: Mode, profile: Profile) -> (Check, Vec<String>) {
    let mut explained: BTreeMap<&str, usize> = BTreeMap::new();
    let mut check = Check::of("outside of scenarios", 'S');
    let mut left = Vec::new();
    for hazard in report.hazards_at(Marker::OUTSIDE) {
        match explain(hazard, mode, profile) {
            _ if hazard.kind == Kind::Emulator => check.emulator += 1,
            Some(why) => *explained.entry(why).or_default() += 1,
            None => left.push(hazard),
        }
    }
    if !left.is_empty() {
        check.status = Status::Failed(format!("{} unexplained: {}", left.len(), list(&left)));
    }
    (check, explained.iter().map(|(why, count)| format!("explained: {count} × {why}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest_output;
    use crate::report;
    use icsan_guest_tests::table::by_name;
    use icsan_guest_tests::table::x86::TABLE;
    use icsan_guest_tests::verdict::x86::LINUX_X86;

    const ONE: &str = "ICSAN| 1..1\nICSAN| ok 1 - cross/imm8 round 1 attempt 1\nICSAN| # done\n";

    fn conditions(profile: Profile) -> Conditions {
        Conditions { profile: Some(profile), mode: Mode::Full, smp: 2, inject: None, kernels: 1 }
    }

    fn judge_rounds(repeat: u16, console: &str, report: &str, conditions: Conditions) -> Vec<Check> {
        let skips = ExpectedSkips::parse("cross/imm8 6.1 it lacks what this row needs\n").unwrap();
        let asked = Asked { rows: &[by_name(TABLE, "cross/imm8").unwrap()], repeat, kernel: "6.1", skips: &skips };
        let (console, report) = (guest_output::parse(console), report::parse(report).unwrap());
        let checks = scenarios(asked, &console, &report, conditions);
        // On another kernel there is no licence to skip, and all else is the same.
        for (check, there) in
            checks.iter().zip(scenarios(Asked { kernel: "6.12", ..asked }, &console, &report, conditions))
        {
            match &check.status {
                Status::Skipped(why) => assert!(failure(&there).contains(why)),
                _ => assert_eq!(check, &there),
            }
        }
        checks
    }

    fn judge(console: &str, report: &str, conditions: Conditions) -> Vec<Check> {
        judge_rounds(1, console, report, conditions)
    }

    fn failure(check: &Check) -> &str {
        match &check.status {
            Status::Failed(why) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_silence_is_worth_nothing_if_nobody_was_asked() {
        let row = by_name(TABLE, "kernel/kprobe").unwrap();
        let asked = |function: &str, commits, conditions| {
            let report = Report { commits: BTreeMap::from([(function.into(), commits)]), ..Report::default() };
            nobody_asked(row, &report, conditions)
        };
        let linux = conditions(LINUX_X86);
        assert_eq!(asked("arch_arm_kprobe", 1, linux), None);
        let words = "nothing was committed by arch_arm_kprobe, so nobody was asked";
        assert_eq!(asked("arch_arm_kprobe", 0, linux).as_deref(), Some(words));
        assert_eq!(asked("text_poke_bp_batch", 9, linux).as_deref(), Some(words));
        for conditions in
            [conditions(COHERENT), Conditions { smp: 1, ..linux }, Conditions { mode: Mode::Light, ..linux }]
        {
            assert_eq!(asked("arch_arm_kprobe", 0, conditions), None);
        }
    }

    #[test]
    fn a_bad_scenario_that_is_reported() {
        let checks = judge(ONE, report::tests::WHOLE, conditions(LINUX_X86));
        assert_eq!((checks.len(), &checks[0].status, checks[0].rounds), (1, &Status::Passed, (1, 1)));
    }

    #[test]
    fn a_bad_scenario_on_the_wrong_vcpu_or_of_the_wrong_kind_or_silent() {
        let linux = conditions(LINUX_X86);
        let whole = report::tests::WHOLE;
        assert!(
            failure(
                &judge(ONE, &whole.replace("\"unserialized\",\"vcpu\":1", "\"unserialized\",\"vcpu\":0"), linux)[0]
            )
            .contains("on vCPU 0")
        );
        assert!(
            failure(&judge(ONE, &whole.replace("\"kind\":\"unserialized\"", "\"kind\":\"stale\""), linux)[0])
                .contains("stale")
        );
        let silent: String =
            whole.lines().filter(|line| !line.contains("hazard\"")).map(|line| format!("{line}\n")).collect();
        assert!(failure(&judge(ONE, &silent, linux)[0]).contains("silent"));
        assert!(
            failure(&judge(ONE, &whole.replace("\"kind\":\"unserialized\"", "\"kind\":\"emulator\""), linux)[0])
                .contains("silent")
        );
    }

    #[test]
    fn the_full_model_names_the_writer() {
        let other =
            report::tests::WHOLE.replace("\"writes\":[{\"vcpu\":0}]", "\"writes\":[{\"vcpu\":null},{\"vcpu\":1}]");
        let full = conditions(LINUX_X86);
        assert!(failure(&judge(ONE, &other, full)[0]).contains("should name vCPU 0"));
        assert_eq!(judge(ONE, &other, Conditions { mode: Mode::Light, ..full })[0].status, Status::Passed);
    }

    #[test]
    fn every_round_must_be_run() {
        let linux = conditions(LINUX_X86);
        assert_eq!(failure(&judge_rounds(2, ONE, report::tests::WHOLE, linux)[0]), "1 of 2 rounds were run");
        let other = ONE.replace("cross/imm8", "cross/imm32");
        assert_eq!(failure(&judge(&other, report::tests::WHOLE, linux)[0]), "0 of 1 rounds were run");
    }

    #[test]
    fn a_skip_in_one_round_of_two_is_a_skip() {
        let twice = "ICSAN| 1..2\nICSAN| ok 1 - cross/imm8 round 1 attempt 1\nICSAN| ok 2 - cross/imm8 round 2 attempt 1 # SKIP not again\nICSAN| # done\n";
        let check = &judge_rounds(2, twice, report::tests::WHOLE, conditions(LINUX_X86))[0];
        assert_eq!((&check.status, check.rounds), (&Status::Skipped("not again".into()), (1, 2)));
    }

    #[test]
    fn a_good_scenario_that_is_reported() {
        assert!(failure(&judge(ONE, report::tests::WHOLE, conditions(COHERENT))[0]).contains("should be silent"));
    }

    #[test]
    fn a_marker_that_the_plugin_missed() {
        let second = ONE.replace("attempt 1", "attempt 2");
        let checks = judge(&second, report::tests::WHOLE, conditions(LINUX_X86));
        assert!(failure(&checks[0]).contains("marker"));
        assert_eq!(checks[0].spoiled, 1);
    }

    #[test]
    fn the_guests_own_failures_and_skips() {
        let failed = "ICSAN| 1..1\nICSAN| # it broke\nICSAN| not ok 1 - cross/imm8 round 1 attempt 1\nICSAN| # done\n";
        assert!(failure(&judge(failed, report::tests::WHOLE, conditions(LINUX_X86))[0]).contains("it broke"));
        let skipped = ONE.replace("attempt 1", "attempt 1 # SKIP needs 2 CPUs");
        assert_eq!(
            judge(&skipped, report::tests::WHOLE, conditions(LINUX_X86))[0].status,
            Status::Skipped("needs 2 CPUs".into())
        );
    }

    #[test]
    fn without_a_plugin_only_outcomes_count() {
        let skips = ExpectedSkips::parse("").unwrap();
        let checks = scenarios(
            Asked { rows: &[by_name(TABLE, "cross/imm8").unwrap()], repeat: 1, kernel: "6.1", skips: &skips },
            &guest_output::parse(ONE),
            &Report::default(),
            Conditions { profile: None, mode: Mode::Light, ..conditions(LINUX_X86) },
        );
        assert_eq!(checks[0].status, Status::Passed);
    }

    #[test]
    fn under_injection_what_the_guest_saw_counts() {
        let linux = Conditions { inject: Some(Inject::Stale), ..conditions(LINUX_X86) };
        let saw =
            |seen| ONE.replace("1..1\n", &format!("1..1\nICSAN| # cross/imm8: {seen} of 60 changes seen, 3 tight\n"));
        let silent: String = report::tests::WHOLE
            .lines()
            .filter(|line| !line.contains("hazard\""))
            .map(|line| format!("{line}\n"))
            .collect();
        let bad = judge(&saw(10), report::tests::WHOLE, linux);
        assert_eq!(
            (&bad[0].status, bad[0].failures),
            (&Status::Passed, Some(Failures { changes: 50, of: 60, tight: 3, died: 0 }))
        );
        assert!(failure(&judge(&saw(60), report::tests::WHOLE, linux)[0]).contains("must fail"));
        assert!(failure(&judge(&saw(10), &silent, linux)[0]).contains("silent"));
        let coherent = Conditions { inject: Some(Inject::Stale), ..conditions(COHERENT) };
        assert!(failure(&judge(&saw(59), &silent, coherent)[0]).contains("must not fail"));
        assert_eq!(judge(&saw(60), &silent, coherent)[0].status, Status::Passed);
        assert_eq!(judge(&saw(60), report::tests::WHOLE, conditions(LINUX_X86))[0].failures, None);
    }

    #[test]
    fn a_protocol_leaves_out_other_cpus_and_membarrier_its_caller_too() {
        let whole = report::tests::WHOLE.replace("\"kind\":\"unserialized\"", "\"kind\":\"unsynced\"");
        let of = |vcpu, protocol: &str| Hazard {
            vcpu,
            protocol: Some(protocol.into()),
            ..report::parse(&whole).unwrap().hazards.remove(0)
        };
        let fault = |vcpus: &[u64], protocol| {
            let hazards: Vec<Hazard> = vcpus.iter().map(|vcpu| of(*vcpu, protocol)).collect();
            fault_of_hazards(Verdict::Reported(Kind::Unsynced), &hazards.iter().collect::<Vec<_>>(), 1)
        };
        assert_eq!(fault(&[1], "text_poke_bp_batch"), None);
        assert!(fault(&[0, 1], "text_poke_bp_batch").unwrap().contains("which patches"));
        assert_eq!(fault(&[0, 1], MEMBARRIER), None);
        assert!(fault(&[0], MEMBARRIER).is_some() && fault(&[], MEMBARRIER).is_some());
    }

    #[test]
    fn hazards_outside_of_scenarios_need_an_explanation() {
        let report =
            report::parse(&report::tests::WHOLE.replace("\"marker\":\"0x100010001\"", "\"marker\":\"0x0\"")).unwrap();
        assert!(failure(&outside(&report, Mode::Full, LINUX_X86).0).contains("1 unexplained"));
        let none = report::parse(report::tests::WHOLE).unwrap();
        assert_eq!(outside(&none, Mode::Full, LINUX_X86).0.status, Status::Passed);
    }
}
