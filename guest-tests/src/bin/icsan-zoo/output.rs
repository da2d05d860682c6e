//! The table at the end: kernel and workload against profile.

use crate::judge::OUTSIDE;
use crate::run::Tried;
use icsan_guest_tests::arch::architecture::Architecture;
use icsan_guest_tests::verdict::Profile;
use std::collections::BTreeMap;
use std::fmt::Write;

/// One cell.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Cell {
    demanded: String,
    right: usize,
    of: usize,
}

/// All that was tried so far.
#[derive(Clone, PartialEq, Debug)]
pub struct Table {
    architecture: &'static Architecture,
    /// Kernel and workload, in the order in which they came.
    rows: Vec<(String, String)>,
    cells: BTreeMap<(usize, Profile), Cell>,
    boots: usize,
    deaths: BTreeMap<String, u32>,
}

impl Table {
    /// Nothing was tried yet.
    pub const fn of(architecture: &'static Architecture) -> Self {
        Self { architecture, rows: Vec::new(), cells: BTreeMap::new(), boots: 0, deaths: BTreeMap::new() }
    }

    /// Adds what came of a boot.
    pub fn add(&mut self, variant: &str, profile: Profile, tried: &Tried) {
        self.boots += 1;
        *self.deaths.entry(variant.into()).or_default() += tried.deaths;
        for judged in &tried.judged {
            let key = (variant.to_owned(), judged.workload.clone());
            let row = self.rows.iter().position(|row| *row == key).unwrap_or_else(|| {
                self.rows.push(key);
                self.rows.len() - 1
            });
            let cell = self.cells.entry((row, profile)).or_default();
            cell.demanded.clone_from(&judged.demanded);
            cell.of += 1;
            cell.right += usize::from(judged.fault.is_none());
        }
    }

    /// Is every verdict right?
    pub fn all_right(&self) -> bool {
        self.boots > 0 && self.cells.values().all(|cell| cell.right == cell.of)
    }

    /// In words.
    pub fn text(&self) -> String {
        let mut profiles: Vec<Profile> = self.cells.keys().map(|(_, profile)| *profile).collect();
        // In the architecture's order.
        let place = |profile: &Profile| self.architecture.profiles.iter().position(|known| known == profile);
        profiles.sort_unstable_by_key(place);
        profiles.dedup();
        let mut text = format!("{:24} {:20}", "kernel", "workload");
        profiles.iter().for_each(|profile| _ = write!(text, " {:>24}", profile.name()));
        text.push('\n');
        for (index, (variant, workload)) in self.rows.iter().enumerate() {
            let _ = write!(text, "{variant:24} {workload:20}");
            for profile in &profiles {
                let cell = self.cells.get(&(index, *profile)).cloned().unwrap_or_default();
                let mark = if cell.right == cell.of { "" } else { " WRONG" };
                let _ = write!(text, " {:>24}", format!("{} {}/{}{mark}", cell.demanded, cell.right, cell.of));
            }
            text.push('\n');
        }
        for (variant, deaths) in self.deaths.iter().filter(|(_, deaths)| **deaths > 0) {
            let _ = writeln!(text, "{variant}: {deaths} boots died or were spoiled, and were repeated");
        }
        let wrong = self.cells.values().filter(|cell| cell.right != cell.of).count();
        let outside = self.rows.iter().filter(|(_, workload)| workload == OUTSIDE).count() * profiles.len();
        let _ = writeln!(
            text,
            "{} boots; {} verdicts, {outside} of them on the boots themselves; {wrong} wrong",
            self.boots,
            self.cells.len()
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::Judged;
    use icsan_guest_tests::arch::registry;
    use icsan_guest_tests::verdict::x86::FRED;

    #[test]
    fn right_and_wrong_verdicts_are_counted() {
        let judged = |fault: Option<&str>| Judged {
            workload: "key".into(),
            demanded: "stale".into(),
            fault: fault.map(str::to_owned),
        };
        let tried = |fault| Tried { judged: vec![judged(fault)], deaths: 1, seconds: 1.0 };
        let mut table = Table::of(registry::DEFAULT);
        assert!(!table.all_right());
        table.add("some-bug", FRED, &tried(None));
        assert!(table.all_right());
        assert!(table.text().contains("stale 1/1\n"), "{}", table.text());
        table.add("some-bug", FRED, &tried(Some("silent")));
        assert!(!table.all_right());
        assert!(table.text().contains("stale 1/2 WRONG") && table.text().contains("2 boots died"), "{}", table.text());
    }
}
