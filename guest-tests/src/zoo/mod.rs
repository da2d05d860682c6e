//! The bug zoo: kernels with one bug each, what they are made to do, and what ICSAN must say.
//!
//! A row says what is true under the full model, by the commits of the known protocol functions; where the light mode
//! has to say something else, the row says what and why, as in [`crate::table`]. A bug that a profile cannot show has a
//! row as well: silent, and the reason.

pub mod aarch64;
pub mod x86;

use crate::verdict::Kind::Unsynced;
use crate::verdict::{Mode, Profile, Verdict, Verdicts};

/// The CPU that runs what is patched, where that is not the writer's own.
pub const EXECUTOR: usize = 1;

/// How many vCPUs: a writer and an executor.
pub const CPUS: usize = 2;

/// The kernel without a patch.
pub const HEALTHY: &str = "healthy";

/// What the line of a workload begins with that says how often the guest saw something else than what was patched:
/// `WORKLOAD: WRONG of LOOKED` follows.
pub const VISIBLE: &str = "# visible: ";

/// Which old instruction a bug lets a CPU execute so that the guest sees it: what `inject=` is set to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Inject {
    /// The oldest.
    Stale,
    /// One that never stood in memory.
    Torn,
}

impl Inject {
    /// As the plugin's key has it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Stale => "stale",
            Self::Torn => "torn",
        }
    }
}

/// The kernels of one architecture.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Zoo {
    /// Where their patches lie, below `guest-tests/zoo/`.
    pub folder: &'static str,
    /// What the kernel's build calls the image that is booted.
    pub image: &'static str,
    /// By what they are judged if no profile is asked for.
    pub profiles: &'static [Profile],
    /// Keys of the plugin's that every boot has.
    pub keys: &'static [&'static str],
    /// What a kernel is made to do, with what that is. A workload's place, from 1, is its marker.
    pub workloads: &'static [(&'static str, &'static str)],
    /// The workloads that the kernel carries out while it boots; it is asked for them by a word of its own on the
    /// command line, and its own code has their markers.
    pub at_boot: &'static [&'static str],
    /// The workloads that are also run with page tables isolated.
    pub isolated: &'static [&'static str],
    /// The bugs; the healthy kernel is silent under every workload.
    pub bugs: &'static [Row],
    /// Kernels that do not boot if old instructions are executed: there is nothing to look at then.
    pub dead_if_injected: &'static [&'static str],
    /// Kernels by whose design something else synchronizes, with the key of the plugin's that says what.
    pub meanings: &'static [(&'static str, &'static str)],
}

impl Zoo {
    /// A workload's marker.
    #[must_use]
    pub fn workload_id(&self, name: &str) -> u16 {
        self.workloads.iter().position(|(known, _)| *known == name).map_or(u16::MAX, |index| index as u16 + 1)
    }

    /// A key of the plugin's that says what a kernel means, if there is one.
    #[must_use]
    pub fn meaning(&self, variant: &str) -> Option<&'static str> {
        self.meanings.iter().find(|(known, _)| *known == variant).map(|(_, key)| *key)
    }

    /// The kernels, the healthy one first.
    #[must_use]
    pub fn variants(&self) -> Vec<&'static str> {
        let mut names = vec![HEALTHY];
        for row in self.bugs {
            if !names.contains(&row.variant) {
                names.push(row.variant);
            }
        }
        names
    }

    /// What one kernel is made to do, and what must be said of it.
    #[must_use]
    pub fn rows(&self, variant: &str) -> Vec<Row> {
        if variant != HEALTHY {
            return self.bugs.iter().filter(|row| row.variant == variant).copied().collect();
        }
        let healthy = |isolated: bool, (workload, why): &(&'static str, &'static str)| Row {
            isolated,
            executor: 0,
            why,
            ..Row::silent(HEALTHY, workload)
        };
        let isolated = self.workloads.iter().filter(|(workload, _)| self.isolated.contains(workload));
        self.workloads.iter().map(|row| healthy(false, row)).chain(isolated.map(|row| healthy(true, row))).collect()
    }
}

/// One bug, under one workload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    /// The kernel, by the name of its patch.
    pub variant: &'static str,
    /// The workload.
    pub workload: &'static str,
    /// Are page tables isolated? Then it has a boot of its own.
    pub isolated: bool,
    /// What the full model must say.
    pub full: Verdicts,
    /// What the light mode says instead, and why.
    pub light: Option<(Verdicts, &'static str)>,
    /// Where it must be reported: globs over the symbol, joined by commas. Of what is unsynced: over the protocol
    /// function's name.
    pub site: &'static str,
    /// Which function's stores it must be put down to, where stores are seen: globs over the symbol.
    pub writer: &'static str,
    /// Which of the known patching functions they must have been made for: globs over the outermost one; none: for none
    /// of them.
    pub function: Option<&'static str>,
    /// Who executes it: the vCPU.
    pub executor: usize,
    /// Is the bug one of all patches of a kind, so that it may be met at other places, and while the kernel boots?
    pub everywhere: bool,
    /// The protocol function that must be unsynced, too, whatever is executed: globs.
    pub unsynced: Option<&'static str>,
    /// Is it silent since an event that is meant to ([`meaning`]) serializes who was left out, in time? Then that must
    /// have been seen.
    pub deferred: bool,
    /// With what the guest sees it. `None`: nothing is reported, and nothing is to be seen. The healthy kernel must
    /// bear both.
    pub visible: Option<Inject>,
    /// Why it is reported, or silent.
    pub why: &'static str,
}

impl Row {
    /// Nothing is reported.
    #[must_use]
    pub const fn silent(variant: &'static str, workload: &'static str) -> Self {
        Self {
            variant,
            workload,
            isolated: false,
            full: Verdicts::SILENT,
            light: None,
            site: "",
            writer: "",
            function: None,
            executor: EXECUTOR,
            everywhere: false,
            unsynced: None,
            deferred: false,
            visible: None,
            why: "",
        }
    }

    /// The workload, and what is special about the boot.
    #[must_use]
    pub fn label(&self) -> String {
        format!("{}{}", self.workload, if self.isolated { ", isolated" } else { "" })
    }

    /// Does it have a boot of its own? With everyday work some of these kernels die, which is their bug.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.is_of_commits() || self.unsynced.is_some()
    }

    /// Is it about what a commit shows, and not about what the guest executes?
    #[must_use]
    pub fn is_of_commits(&self) -> bool {
        matches!(self.full.elsewhere(), Verdict::Reported(Unsynced))
    }

    /// What must be said under `profile` in `mode`.
    #[must_use]
    pub fn verdict(&self, mode: Mode, profile: Profile) -> Verdict {
        match (mode, &self.light) {
            (Mode::Light, Some((light, _))) => light.under(profile),
            _ => self.full.under(profile),
        }
    }
}

/// Code that a program of the guest generated has no symbol.
pub const NO_SYMBOL: &str = "";

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const ALL: [Zoo; 2] = [x86::ZOO, aarch64::ZOO];

    fn folder(zoo: &Zoo) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("zoo").join(zoo.folder)
    }

    #[test]
    fn the_healthy_kernel_does_everything_and_is_silent() {
        for zoo in ALL {
            let rows = zoo.rows(HEALTHY);
            assert_eq!(rows.len(), zoo.workloads.len() + zoo.isolated.len());
            for row in rows {
                for (mode, profile) in zoo.profiles.iter().flat_map(|p| [(Mode::Light, *p), (Mode::Full, *p)]) {
                    assert_eq!(row.verdict(mode, profile), Verdict::Silent, "{}", row.workload);
                }
            }
        }
    }

    #[test]
    fn every_bug_has_a_patch_and_a_workload() {
        for zoo in ALL {
            for row in zoo.bugs {
                assert!(folder(&zoo).join(format!("{}.patch", row.variant)).is_file(), "{}", row.variant);
                assert!(zoo.workload_id(row.workload) <= zoo.workloads.len() as u16, "{}", row.workload);
            }
            let patches = std::fs::read_dir(folder(&zoo))
                .unwrap()
                .filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|e| e == "patch"));
            assert_eq!(patches.count() + 1, zoo.variants().len());
        }
    }

    #[test]
    fn every_bug_is_reported_in_full_mode_unless_its_kernel_says_why_not() {
        for zoo in ALL {
            for variant in &zoo.variants()[1..] {
                let rows = zoo.rows(variant);
                let reported = rows.iter().any(|row| matches!(row.full.elsewhere(), Verdict::Reported(_)));
                assert!(reported || rows.iter().all(|row| row.why.starts_with("cannot show: ")), "{variant}");
            }
        }
    }

    #[test]
    fn the_kernel_marks_the_workloads_that_it_carries_out_itself() {
        for zoo in ALL {
            let source = std::fs::read_to_string(folder(&zoo).join("habitat.c")).unwrap();
            for name in zoo.at_boot {
                let marker = crate::marker::Marker { scenario: zoo.workload_id(name), round: 1, attempt: 1 };
                assert!(source.contains(&format!("mark({marker});\n\t\t{name}();")), "{name}");
            }
        }
    }
}
