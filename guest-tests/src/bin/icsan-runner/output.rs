//! What the runner prints: one KTAP report with a subtest for each boot, a table, and one line of counts.

use crate::judge::{Check, Status};
use icsan_guest_tests::skips::Skip;
use icsan_guest_tests::table::Scenario;
use icsan_guest_tests::tally::Boots;
use std::fmt::Write;

/// One boot, judged.
#[derive(Clone, Debug)]
pub struct Judged {
    /// QEMU and kernel, by name: a group of the table.
    pub machine: String,
    /// The profile, by name: a column of the table.
    pub profile: String,
    /// The kernel, by name.
    pub kernel: String,
    /// Boots whose kernel died of an outdated breakpoint, before the one that is judged.
    pub repeated: usize,
    /// Everything that was checked.
    pub checks: Vec<Check>,
    /// Remarks for the log.
    pub notes: Vec<String>,
}

/// How many checks passed, failed and were skipped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// As the table says.
    pub passed: usize,
    /// Not as the table says.
    pub failed: usize,
    /// Not carried out, as the list of expected skips has it.
    pub skipped: usize,
}

impl Counts {
    /// Over all boots.
    #[must_use]
    pub fn of(boots: &[Judged]) -> Self {
        let mut counts = Self::default();
        for check in boots.iter().flat_map(|boot| &boot.checks) {
            match check.status {
                Status::Passed => counts.passed += 1,
                Status::Failed(_) => counts.failed += 1,
                Status::Skipped(_) => counts.skipped += 1,
            }
        }
        counts
    }
}

/// What is counted: the skips by name, the boots with what was repeated of them, and the closing line.
#[must_use]
pub fn closing(boots: &[Judged]) -> String {
    let mut text = String::new();
    let mut sum = Boots { asked: boots.len(), ..Boots::default() };
    for boot in boots {
        sum.repeated += boot.repeated;
        for check in &boot.checks {
            sum.attempts += check.spoiled as usize;
            if let Status::Skipped(why) = &check.status {
                let _ = writeln!(text, "{}", Skip { name: &check.name, on: &boot.kernel, why });
            }
        }
    }
    let counts = Counts::of(boots);
    let _ = writeln!(text, "{sum}\n{} passed, {} failed, {} skipped", counts.passed, counts.failed, counts.skipped);
    text
}

/// A comment or description must stay on its line, and only a directive may follow a `#`.
fn clean(text: &str) -> String {
    text.replace(['\n', '\r'], " ").replace('#', "\\#")
}

/// The KTAP lines of one boot, as a subtest.
#[must_use]
pub fn ktap(number: usize, boot: &Judged) -> String {
    let mut text = format!("  KTAP version 1\n  1..{}\n", boot.checks.len());
    for note in &boot.notes {
        let _ = writeln!(text, "  # {}", clean(note));
    }
    for (index, check) in boot.checks.iter().enumerate() {
        let counts = match (check.rounds, check.spoiled, check.emulator) {
            ((_, 0), ..) => String::new(),
            ((good, of), 0, 0) => format!(" {good}/{of}"),
            ((good, of), spoiled, emulator) => {
                let _ = writeln!(
                    text,
                    "  # emulator: {} spoiled {spoiled} attempts, {emulator} hazards put down to it",
                    check.name
                );
                format!(" {good}/{of}")
            }
        };
        let seen = check.failures.map(|failures| failures.to_string()).filter(|text| !text.is_empty());
        let counts = counts + &seen.map(|text| format!(" ({text})")).unwrap_or_default();
        let (word, directive) = match &check.status {
            Status::Passed => ("ok", String::new()),
            Status::Skipped(why) => ("ok", format!(" # SKIP {}", clean(why))),
            Status::Failed(why) => {
                let _ = writeln!(text, "  # {}: {}", check.name, clean(why));
                ("not ok", String::new())
            }
        };
        let _ = writeln!(text, "  {word} {} - {}{counts}{directive}", index + 1, check.name);
    }
    let good = !boot.checks.iter().any(|check| matches!(check.status, Status::Failed(_)));
    let _ = writeln!(text, "{} {number} - {} {}", if good { "ok" } else { "not ok" }, boot.machine, boot.profile);
    text
}

/// Scenario × profile, one table for each machine. A cell says what was demanded (S silent, R reported, ? nothing,
/// without a plugin) and how many rounds were so, with an exclamation mark if the check failed; and under injection
/// after how many changes the guest saw something else than it should.
#[must_use]
pub fn table(rows: &[Scenario], boots: &[Judged]) -> String {
    let mut text = String::new();
    let mut machines: Vec<&str> = boots.iter().map(|boot| boot.machine.as_str()).collect();
    machines.dedup();
    for machine in machines {
        let columns: Vec<&Judged> = boots.iter().filter(|boot| boot.machine == machine).collect();
        let width =
            columns.iter().flat_map(|boot| rows.iter().map(|row| cell(boot, row.name).len())).fold(11, usize::max);
        let _ = write!(text, "# {machine:28}");
        columns.iter().for_each(|boot| _ = write!(text, " {:>width$}", boot.profile));
        text.push('\n');
        for row in rows {
            let cells: Vec<String> = columns.iter().map(|boot| cell(boot, row.name)).collect();
            if cells.iter().any(|cell| cell != "-" && cell != "skip") {
                let _ = write!(text, "# {:28}", row.name);
                cells.iter().for_each(|cell| _ = write!(text, " {cell:>width$}"));
                text.push('\n');
            }
        }
    }
    text
}

fn cell(boot: &Judged, name: &str) -> String {
    let Some(check) = boot.checks.iter().find(|check| check.name == name) else { return "-".into() };
    let mark = if matches!(check.status, Status::Failed(_)) { "!" } else { "" };
    if check.rounds.0 == 0 && matches!(check.status, Status::Skipped(_)) {
        return "skip".into();
    }
    let seen = check.failures.map(|failures| failures.to_string()).filter(|text| !text.is_empty());
    let seen = seen.map(|text| format!(" {text}")).unwrap_or_default();
    format!("{} {}/{}{mark}{seen}", check.letter, check.rounds.0, check.rounds.1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inject::Failures;
    use icsan_guest_tests::table::x86::TABLE;

    fn check(name: &str, status: Status) -> Check {
        Check { status, rounds: (2, 3), spoiled: 1, ..Check::of(name, 'R') }
    }

    fn boot() -> Judged {
        Judged {
            machine: "10.0 6.1".into(),
            profile: "fred".into(),
            kernel: "6.1".into(),
            repeated: 1,
            checks: vec![
                check("cross/imm8", Status::Passed),
                check("own/jump", Status::Failed("round 2: silent # at all".into())),
                check("own/alias", Status::Skipped("needs\n2 CPUs".into())),
            ],
            notes: vec!["a note".into()],
        }
    }

    #[test]
    fn ktap_of_a_boot() {
        assert_eq!(
            ktap(4, &boot()),
            "  KTAP version 1\n  1..3\n  # a note\n\
             \x20 # emulator: cross/imm8 spoiled 1 attempts, 0 hazards put down to it\n  ok 1 - cross/imm8 2/3\n\
             \x20 # emulator: own/jump spoiled 1 attempts, 0 hazards put down to it\n\
             \x20 # own/jump: round 2: silent \\# at all\n  not ok 2 - own/jump 2/3\n\
             \x20 # emulator: own/alias spoiled 1 attempts, 0 hazards put down to it\n  ok 3 - own/alias 2/3 # SKIP needs 2 CPUs\n\
             not ok 4 - 10.0 6.1 fred\n"
        );
    }

    #[test]
    fn failures_that_the_guest_saw() {
        let mut boot = boot();
        boot.checks[0].failures = Some(Failures { changes: 50, of: 60, tight: 3, died: 1 });
        boot.checks[1].failures = Some(Failures::default());
        assert!(ktap(1, &boot).contains("ok 1 - cross/imm8 2/3 (50/60 fail, 1 died)\n"));
        let table = table(TABLE, &[boot]);
        assert!(table.contains(" R 2/3 50/60 fail, 1 died\n") && table.contains(" R 2/3!\n"), "{table}");
    }

    #[test]
    fn counts_and_cells() {
        assert_eq!(Counts::of(&[boot(), boot()]), Counts { passed: 2, failed: 2, skipped: 2 });
        let skip = "skipped: own/alias on 6.1: needs 2 CPUs\n";
        assert_eq!(
            closing(&[boot(), boot()]),
            format!("{skip}{skip}2 boots, 2 boots repeated, 6 scenarios repeated\n2 passed, 2 failed, 2 skipped\n")
        );
        let table = table(TABLE, &[boot()]);
        assert!(table.contains("R 2/3!") && table.contains("own/alias"), "{table}");
        assert!(!table.contains("guard/data"), "{table}");
    }
}
