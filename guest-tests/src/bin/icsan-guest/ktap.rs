//! Runs the scenarios and prints KTAP.

use crate::architecture::TABLE;
use crate::child;
use crate::outcome::Outcome;
use crate::say::say;
use crate::sys::present_cpus;
use icsan_guest_tests::console::{ATTEMPTS, DONE, describe};
use icsan_guest_tests::marker::Marker;
use icsan_guest_tests::observed::Observed;
use icsan_guest_tests::table::{Scenario, Selection};
use std::time::Instant;

/// Runs every scenario that is asked for, and belongs to a boot with `append` on the kernel's command line, `repeat`
/// times. True if none failed.
pub fn run(selection: Selection<'_>, append: &str, repeat: u16) -> bool {
    let rows: Vec<&Scenario> = TABLE.iter().filter(|row| selection.includes(row) && row.append == append).collect();
    say("KTAP version 1");
    say(&format!("1..{}", rows.iter().map(|row| usize::from(row.rounds(repeat))).sum::<usize>()));
    let mut number = 0;
    let mut good = true;
    for round in 1..=repeat {
        for row in rows.iter().filter(|row| round <= row.rounds(repeat)) {
            number += 1;
            good &= one(number, row, round);
        }
    }
    say(DONE);
    good
}

fn one(number: usize, row: &Scenario, round: u16) -> bool {
    // The runner asks for no row that the machine has too few CPUs for.
    if row.cpus > present_cpus() {
        say(&format!("# {}: needs {} CPUs, and there are {}", row.name, row.cpus, present_cpus()));
        say(&format!("not ok {number} - {}", describe(row.name, round, 1)));
        return false;
    }
    let mut last = String::new();
    for attempt in 1..=ATTEMPTS {
        let description = describe(row.name, round, attempt);
        let start = Instant::now();
        match child::attempt(row, Marker { scenario: row.id, round, attempt }) {
            Outcome::Done { patches, seen, tight, wrong } => {
                let first_wrong = wrong.map(|wrong| format!(", first wrong: {wrong}")).unwrap_or_default();
                say(&format!(
                    "# {}: {}, {} ms, emulator: {}{first_wrong}",
                    row.name,
                    Observed::Changes { seen, of: patches, tight },
                    start.elapsed().as_millis(),
                    attempt - 1
                ));
                say(&format!("ok {number} - {description}"));
                return true;
            }
            Outcome::Died(how) => {
                say(&format!("# {}: {}", row.name, Observed::Died(how)));
                say(&format!("ok {number} - {description}"));
                return true;
            }
            Outcome::Proven(how) => {
                say(&format!("# {}: {how}, {} ms, emulator: {}", row.name, start.elapsed().as_millis(), attempt - 1));
                say(&format!("ok {number} - {description}"));
                return true;
            }
            Outcome::Skipped(why) => {
                say(&format!("ok {number} - {description} # SKIP {why}"));
                return true;
            }
            Outcome::Failed(why) => {
                say(&format!("# {}: {why}", row.name));
                say(&format!("not ok {number} - {description}"));
                return false;
            }
            Outcome::Spoiled(why) => {
                say(&format!("# {} attempt {attempt} spoiled: {why}", row.name));
                last = why;
            }
        }
    }
    say(&format!("# {}: spoiled in all {ATTEMPTS} attempts, the last time: {last}", row.name));
    say(&format!("not ok {number} - {}", describe(row.name, round, ATTEMPTS)));
    false
}
