//! The zoo of AArch64.
//!
//! What `word` patches is committed by none of the known protocol functions, so that the kind says what was left out;
//! what is executed after a commit is `stale`, whatever the reason.

use super::{Inject, Row, Zoo};
use crate::verdict::Kind::{self, Incomplete, Stale, Unclean, Uninvalidated, Unsynced};
use crate::verdict::Verdict::{Silent, Unchecked};
use crate::verdict::aarch64::{ARM64_STRICT_COHERENT, LINUX_ARM64, LINUX_ARM64_COHERENT};
use crate::verdict::{COHERENT, Verdicts};

/// The data.
pub const ZOO: Zoo = Zoo {
    folder: "arm64",
    image: "Image",
    profiles: &[LINUX_ARM64],
    // QEMU's own outdated blocks would spoil most boots.
    keys: &["emulator=repair"],
    workloads: WORKLOADS,
    at_boot: &[],
    isolated: &[],
    bugs: BUGS,
    // No page of theirs is ever maintained.
    dead_if_injected: &["flush-no-clean", "flush-no-invalidate"],
    meanings: &[],
};

const WORKLOADS: &[(&str, &str)] = &[
    ("key", "flips a static key while the other CPU stands aside; it then runs the code at once"),
    (
        "word",
        "changes one instruction by aarch64_insn_patch_text_nosync() and kick_all_cpus_sync() while the other CPU \
         stands aside; it then runs the code at once",
    ),
    ("copy", "the same by aarch64_insn_copy()"),
    (
        "everyday",
        "twenty toggles of sched_schedstats, a tracepoint and a kprobe, and twenty changes of a program's code with \
         membarrier(SYNC_CORE), beside loops of sched_yield(2): no executor is made for the bug",
    ),
    (
        "programs",
        "loads twenty BPF programs, one after the other, that run at each switch of tasks, beside loops of \
         sched_yield(2): the same",
    ),
];

/// The copy that all stores to the kernel's text end in.
const COPY: &str = "copy_to_kernel_nofault+*";

const NO_COMMIT: &str = "no commits without the store side";
const NO_MAINTENANCE: &str = "without the store side no maintenance is missed";

/// Executions of what a commit left out.
const CHANCE: Verdicts = Verdicts::all(Unchecked("whether a CPU comes by in time is chance"));

/// Reported where the hardware needs maintenance at all.
const fn needed(kind: Kind) -> Verdicts {
    Verdicts::reported(kind).but(LINUX_ARM64_COHERENT, Silent).but(ARM64_STRICT_COHERENT, Silent)
}

/// A CPU was left out, and executes what was patched; the commit is known.
const fn left_out(variant: &'static str, workload: &'static str, site: &'static str, function: &'static str) -> Row {
    Row {
        full: Verdicts::reported(Stale),
        light: Some((CHANCE, NO_COMMIT)),
        site,
        writer: COPY,
        function: Some(function),
        everywhere: true,
        visible: Some(Inject::Stale),
        why: "the kernel takes the old instruction for gone, and the other CPU, which was not interrupted, may still \
              hold it",
        ..Row::silent(variant, workload)
    }
}

/// The same bug met by everyday work: the commit alone shows it.
const fn everyday(variant: &'static str, workload: &'static str, site: &'static str, why: &'static str) -> Row {
    Row {
        full: Verdicts::reported(Unsynced).but(COHERENT, Silent),
        light: Some((CHANCE, NO_COMMIT)),
        site,
        writer: COPY,
        everywhere: true,
        why,
        ..Row::silent(variant, workload)
    }
}

/// A step of maintenance is left out; the other CPU synchronizes.
const fn step(variant: &'static str, kind: Kind, why: &'static str) -> Row {
    Row {
        full: needed(kind),
        light: Some((Verdicts::SILENT, NO_MAINTENANCE)),
        site: "zoo_word+*",
        writer: COPY,
        function: Some("aarch64_insn_patch_text_nosync+*"),
        everywhere: true,
        visible: Some(Inject::Stale),
        why,
        ..Row::silent(variant, "word")
    }
}

const BUGS: &[Row] = &[
    left_out("jump-labels-no-kick", "key", "zoo_keyed+*", "arch_jump_label_transform_queue+*"),
    everyday(
        "jump-labels-no-kick",
        "everyday",
        "arch_jump_label_transform_apply",
        "arch_jump_label_transform_apply() returns, and sent no IPI",
    ),
    left_out("copy-no-kick", "copy", "zoo_copied+*", "aarch64_insn_copy+*"),
    everyday(
        "copy-no-kick",
        "programs",
        "aarch64_insn_copy,aarch64_insn_set",
        "the functions that store and take back what was translated return, and sent no IPI",
    ),
    step("flush-no-clean", Unclean, "what is invalidated is fetched again from where the store has not got to"),
    step("flush-no-invalidate", Uninvalidated, "the instruction caches still hold what was there before"),
    step("flush-not-completed", Incomplete, "nothing has waited for the invalidate when the other CPU is told"),
    step("flush-own-cpu", Uninvalidated, "the other CPU's instruction cache still holds what was there before"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::registry;
    use crate::verdict::{Mode, Verdict};

    #[test]
    fn a_step_that_is_left_out_is_missed_where_the_hardware_needs_it_and_by_the_full_model_alone() {
        let aarch64 = registry::by_name("aarch64").unwrap();
        let max = aarch64.cpu("max").unwrap();
        for row in BUGS.iter().filter(|row| row.workload == "word") {
            let verdict = |mode, profile| row.verdict(mode, profile);
            assert!(matches!(verdict(Mode::Full, LINUX_ARM64), Verdict::Reported(_)), "{}", row.variant);
            assert_eq!(verdict(Mode::Full, max.judged(LINUX_ARM64)), Silent, "{}", row.variant);
            assert_eq!(verdict(Mode::Full, COHERENT), Silent, "{}", row.variant);
            assert_eq!(verdict(Mode::Light, LINUX_ARM64), Silent, "{}", row.variant);
        }
    }

    #[test]
    fn an_interrupt_that_is_left_out_is_missed_on_every_cpu() {
        let aarch64 = registry::by_name("aarch64").unwrap();
        let judged = aarch64.others.iter().map(|cpu| cpu.judged(LINUX_ARM64)).chain([LINUX_ARM64]);
        for profile in judged {
            for row in BUGS.iter().filter(|row| row.workload != "word") {
                assert!(matches!(row.verdict(Mode::Full, profile), Verdict::Reported(Stale | Unsynced)));
            }
        }
    }
}
