//! The rows of a kernel module that patches its own text, well and badly (`guest-tests/module`), and those in which it
//! takes a step of the kernel's own protocol away.
//!
//! A bad role has its executor run the old version, changes the site, and has it run the new one, with that CPU's
//! interrupts off: no tick synchronizes in between.

use super::kernel::KERNEL;
use super::{LISTED, NO_COMMIT, NO_MAINTENANCE, UNSYNCHRONIZED, left_out, step};
use crate::table::coverage::{TOGGLES, broken, healthy};
use crate::table::{Scenario, bad, good};
use crate::verdict::Kind::{Incomplete, Stale, Unclean, Uninvalidated, Unsynchronized};
use crate::verdict::Verdict::{Reported, Silent};
use crate::verdict::Verdicts;

const MOVE: &str = "icsan_patcher:icsan_target_move+*";
const KEY: &str = "icsan_patcher:icsan_target_key+*";
const WRITE: &str = "icsan_patcher:icsan_write_word+*";
/// The kernel's own copying, on behalf of aarch64_insn_write().
const INSN_WRITE: &str = "copy_to_kernel_nofault+*,__aarch64_insn_write+*,aarch64_insn_write+*";

/// In a module's own store a step is left out; the executor stands aside, and executes ISB before it comes back.
const fn lacks(name: &'static str, full: Verdicts, what: &'static str) -> Scenario {
    bad(name, "module/all", full, what).in_light(Verdicts::SILENT, NO_MAINTENANCE).named(MOVE, WRITE)
}

/// The writer executes.
const fn own(name: &'static str, full: Verdicts, what: &'static str) -> Scenario {
    bad(name, "module/own-kernel-steps", full, what).on_one_cpu().by_itself().named(MOVE, WRITE)
}

pub(super) const ROWS: &[Scenario] = &[
    // The kernel's protocols.
    Scenario {
        full: KERNEL,
        ..good(
            "module/good",
            "aarch64_insn_patch_text_nosync() and kick_all_cpus_sync(): NOP to B and back under a running CPU",
        )
    },
    good("module/stopped", "aarch64_insn_patch_text(), which stops all CPUs: the operand of a MOVZ"),
    Scenario { full: KERNEL, ..good("module/static-key", "a static key of the module's, under a running CPU") },
    bad(
        "module/no-kick",
        "module/static-key",
        Verdicts::reported(Stale),
        "the same; kick_all_cpus_sync() returns at once",
    )
    .in_light(LISTED, NO_COMMIT)
    .named(KEY, INSN_WRITE),
    bad(
        "module/no-ipi",
        "module/aside",
        UNSYNCHRONIZED,
        "aarch64_insn_patch_text_nosync() of a MOVZ under a running CPU, and nothing behind it",
    )
    .at_any_step()
    .named(MOVE, INSN_WRITE),
    bad("module/kick-first", "module/kick", UNSYNCHRONIZED, "the same behind kick_all_cpus_sync()")
        .at_any_step()
        .named(MOVE, INSN_WRITE),
    good("module/kick", "the same before kick_all_cpus_sync(), while the executor stands aside with interrupts on"),
    good("module/aside", "the same while the executor stands aside; it executes ISB before it comes back"),
    bad(
        "module/no-maintenance",
        "module/aside",
        step(Unclean, Reported(Uninvalidated)),
        "aarch64_insn_write(), which only stores, while the executor stands aside; it executes ISB",
    )
    .in_light(Verdicts::SILENT, NO_MAINTENANCE)
    .named(MOVE, INSN_WRITE),
    // Stores through an alias.
    good("module/all", "a store through an alias, DC, DSB, IC, DSB; the executor stands aside, and executes ISB"),
    good("module/kernel-steps", "the same with caches_clean_inval_pou() in place of the steps"),
    lacks("module/nothing", step(Unclean, Reported(Incomplete)), "the same without any step"),
    lacks("module/no-clean", step(Unclean, Silent), "the same without the DC"),
    lacks("module/no-first-barrier", step(Incomplete, Reported(Incomplete)), "the same without the DSB behind DC"),
    lacks("module/no-invalidate", step(Uninvalidated, Reported(Uninvalidated)), "the same without the IC"),
    lacks("module/no-second-barrier", step(Incomplete, Reported(Incomplete)), "the same without the DSB behind IC"),
    own(
        "module/own-nothing",
        left_out(Unclean, Reported(Incomplete), Reported(Unsynchronized)),
        "stores through an alias, then calls the code on the same CPU",
    )
    .in_light(UNSYNCHRONIZED, NO_MAINTENANCE),
    own("module/own-no-synchronization", UNSYNCHRONIZED, "the same with DC, DSB, IC and DSB between, and no ISB"),
    good("module/own-kernel-steps", "the same with caches_clean_inval_pou() between, which ends in ISB").on_one_cpu(),
    // The kernel's protocol, on an everyday workload. No executor is made for the bug.
    healthy(KERNEL),
    broken(
        "coverage/no-kick",
        "coverage/healthy",
        "the same; kick_all_cpus_sync() returns at once, so that only chance synchronizes the other CPUs",
    )
    .unsynced("arch_jump_label_transform_apply", TOGGLES),
];
