//! Which rows of the table apply to a boot. What does not apply is not run, and why is told; what does must be run.

use crate::arguments::{Arguments, Named};
use icsan_guest_tests::table::{self, Files, Scenario, Selection};
use icsan_guest_tests::verdict::{Profile, Verdict};

/// The rows of one boot.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rows {
    /// Those that are run, in the table's order.
    pub applying: Vec<&'static Scenario>,
    /// Those that are asked for and do not apply, and why.
    pub left_out: Vec<(&'static Scenario, String)>,
}

impl Rows {
    /// Sorts out the rows of a boot.
    pub fn of(arguments: &Arguments, kernel: &Named, append: &str, profile: Option<Profile>) -> Self {
        let mut rows = Self::default();
        let selection = arguments.selection();
        for row in arguments.arch.table.iter().filter(|row| selection.includes(row) && row.append == append) {
            match reason(row, arguments, kernel, profile) {
                None => rows.applying.push(row),
                Some(why) => rows.left_out.push((row, why)),
            }
        }
        rows
    }

    /// For the guest: what it must not run.
    pub fn without(&self) -> String {
        table::without(self.left_out.iter().map(|(row, _)| *row))
    }

    /// One remark for each reason.
    pub fn notes(&self) -> Vec<String> {
        let mut notes: Vec<(&str, Vec<&str>)> = Vec::new();
        for (row, why) in &self.left_out {
            match notes.iter_mut().find(|(known, _)| known == why) {
                Some((_, names)) => names.push(row.name),
                None => notes.push((why, vec![row.name])),
            }
        }
        notes.into_iter().map(|(why, names)| format!("not run, {why}: {}", names.join(" "))).collect()
    }
}

/// Why a row does not apply to a boot.
fn reason(row: &Scenario, arguments: &Arguments, kernel: &Named, profile: Option<Profile>) -> Option<String> {
    let lacks = match row.needs() {
        Some(Files::Modules) if arguments.modules.iter().all(|modules| modules.name != kernel.name) => {
            Some("--modules")
        }
        Some(Files::Patcher) if arguments.patcher_of(kernel).is_none() => Some("--patcher"),
        _ => None,
    };
    if let Some(option) = lacks {
        return Some(format!("no {option} for this kernel"));
    }
    if row.cpus > usize::from(arguments.smp) {
        return Some(format!("needs {} vCPUs", row.cpus));
    }
    match row.verdict(arguments.mode, arguments.hardware().cpu.judged(profile?)) {
        Verdict::Unchecked(why) => Some(format!("cannot be judged under this profile ({why})")),
        Verdict::Silent | Verdict::Reported(_) => None,
    }
}

impl Arguments {
    /// Which scenarios are asked for.
    pub fn selection(&self) -> Selection<'_> {
        Selection { filter: &self.filter, heavy: self.heavy, without: "" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use icsan_guest_tests::verdict::x86::{LINUX_X86, SDM_STRICT};

    fn rows(more: &[&str], append: &str, profile: Option<Profile>) -> Rows {
        let words = ["icsan-runner", "--qemu", "q=/bin/sh", "--kernel", "6.1=/bin/sh", "--guest", "/bin/sh"];
        let arguments = Arguments::try_parse_from(words.iter().chain(more)).unwrap();
        Rows::of(&arguments, &arguments.kernel[0], append, profile)
    }

    fn has(rows: &Rows, name: &str) -> bool {
        let (applies, left) =
            (rows.applying.iter().any(|row| row.name == name), rows.left_out.iter().any(|(row, _)| row.name == name));
        assert!(applies != left, "{name} is neither run nor left out, or both");
        applies
    }

    #[test]
    fn modules_vcpus_and_verdicts_decide() {
        let linux = Some(LINUX_X86);
        let bare = rows(&[], "", linux);
        assert!(has(&bare, "cross/imm8") && has(&bare, "kernel/kprobe"));
        assert!(!has(&bare, "kernel/module") && !has(&bare, "module/good") && !has(&bare, "process/migrate"));
        let equipped = rows(&["--modules", "6.1=/bin", "--patcher", "6.1=/bin/sh"], "", linux);
        assert!(has(&equipped, "kernel/module") && has(&equipped, "module/good"));
        let one = rows(&["--smp", "1"], "", linux);
        assert!(!has(&one, "cross/imm8") && has(&one, "own/jump"));
        let strict = rows(&[], "", Some(SDM_STRICT));
        assert!(!has(&strict, "kernel/kprobe") && has(&strict, "own/jump"));
        assert!(has(&rows(&[], "", None), "process/migrate"));
        assert!(has(&rows(&["--heavy"], "maxcpus=1", linux), "kernel/maxcpus"));
        assert!(!has(&rows(&["--heavy", "--smp", "1"], "maxcpus=1", linux), "kernel/maxcpus"));
        assert!(
            bare.notes().iter().any(|note| note == "not run, no --modules for this kernel: kernel/module"),
            "{:?}",
            bare.notes()
        );
    }

    #[test]
    fn what_a_filter_leaves_out_is_not_told() {
        let rows = rows(&["--filter", "own/*"], "", Some(LINUX_X86));
        assert!(rows.left_out.is_empty() && rows.applying.iter().all(|row| row.name.starts_with("own/")));
    }
}
