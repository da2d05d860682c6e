//! `--inject`: the plugin has old instructions executed, and what the guest saw of it is judged: a bug must show, and
//! where there is none nothing may.

use crate::judge::Judged;
use icsan_guest_tests::console::PREFIX;
use icsan_guest_tests::host::boot::Boot;
use icsan_guest_tests::zoo::{Inject, Row, VISIBLE};

/// The plugin's keys. QEMU's own outdated blocks must be repaired, or they would look the same.
#[must_use]
pub fn keys(inject: Inject) -> [String; 2] {
    [format!("inject={}", inject.word()), "emulator=repair".into()]
}

/// What a kernel is booted with, one boot each: what its bugs show with; where there are none, both.
#[must_use]
pub fn boots(rows: &[Row]) -> Vec<Inject> {
    let mut boots: Vec<Inject> = Vec::new();
    for inject in [Inject::Stale, Inject::Torn] {
        let shows = |row: &&Row| !row.is_of_commits() && row.visible.is_none_or(|visible| visible == inject);
        if rows.iter().any(|row| shows(&row)) {
            boots.push(inject);
        }
    }
    boots
}

/// Did the kernel die? Only of what it executed: with `emulator=repair` nothing else kills one.
#[must_use]
pub fn died(boot: &Boot) -> bool {
    ["Oops", "Kernel panic", "BUG:"].iter().any(|word| boot.console.contains(word)) || boot.died_of_breakpoint()
}

/// How often the guest saw something wrong in a workload, and how often it looked.
fn seen(boot: &Boot, workload: &str) -> Option<(u32, u32)> {
    let lines = boot.console.lines().filter_map(|line| line.split_once(PREFIX));
    let counts = lines
        .filter_map(|(_, line)| line.trim_end().strip_prefix(VISIBLE)?.strip_prefix(workload)?.strip_prefix(": "))
        .next_back()?;
    let (wrong, looked) = counts.split_once(" of ")?;
    Some((wrong.parse().ok()?, looked.parse().ok()?))
}

/// Judges one workload. `fault`: what is wrong with the guest's run as such.
#[must_use]
pub fn row(row: &Row, inject: Inject, boot: &Boot, fault: Option<&str>) -> Judged {
    let visible = row.visible == Some(inject);
    let (demanded, fault) = match (visible, seen(boot, row.workload)) {
        (true, _) if died(boot) => ("dies or sees it", None),
        (true, Some((wrong, _))) if wrong > 0 => ("dies or sees it", None),
        (true, counts) => (
            "dies or sees it",
            Some(format!("the guest saw nothing ({counts:?}): {}", fault.unwrap_or("it ended well"))),
        ),
        (false, Some((wrong, looked))) if wrong > 0 => {
            ("unharmed", Some(format!("the guest saw {wrong} of {looked} go wrong")))
        }
        (false, _) => ("unharmed", fault.map(str::to_owned)),
    };
    Judged { workload: format!("{} {}", row.label(), inject.word()), demanded: demanded.into(), fault }
}

#[cfg(test)]
mod tests {
    use super::*;
    use icsan_guest_tests::zoo::HEALTHY;
    use icsan_guest_tests::zoo::x86::ZOO;

    fn boot(console: &str) -> Boot {
        Boot { console: console.into(), clean_exit: true, ..Boot::default() }
    }

    fn of(variant: &str, inject: Inject, console: &str) -> Option<String> {
        let rows = ZOO.rows(variant);
        let judged = rows.iter().find(|known| known.workload == "key").unwrap();
        row(judged, inject, &boot(console), None).fault
    }

    #[test]
    fn a_bug_must_show_and_a_healthy_kernel_must_not() {
        let line = |wrong: u32| format!("x\r\n{PREFIX}{VISIBLE}key: {wrong} of 60\r\n");
        let bad = "static-key-memcpy";
        assert_eq!(of(bad, Inject::Stale, &line(7)), None);
        assert!(of(bad, Inject::Stale, &line(0)).is_some() && of(bad, Inject::Stale, "").is_some());
        assert_eq!(of(bad, Inject::Stale, "[ 1.0] Oops: invalid opcode: 0000 [#1]"), None);
        assert_eq!(of(HEALTHY, Inject::Stale, &line(0)), None);
        assert!(of(HEALTHY, Inject::Torn, &line(1)).is_some());
    }

    #[test]
    fn each_kernel_has_the_boots_that_its_bugs_show_in() {
        assert_eq!(boots(&ZOO.rows(HEALTHY)), [Inject::Stale, Inject::Torn]);
        assert_eq!(boots(&ZOO.rows("batch-no-first-sync")), [Inject::Torn]);
        assert_eq!(boots(&ZOO.rows("kprobes-no-sync")), [Inject::Stale]);
    }
}
