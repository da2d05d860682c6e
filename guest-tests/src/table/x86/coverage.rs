//! The rows about what a patching protocol makes other CPUs do: the kernel's own protocol, on an everyday workload,
//! whole and with a step taken away. No executor is made for the bug: the report must come from the commit alone.

use super::ISOLATED;
use crate::table::{Scenario, Visible, Writer, good};
use crate::verdict::Kind::Unsynced;
use crate::verdict::Verdict::{Reported, Silent, Unchecked};
use crate::verdict::{COHERENT, Verdicts};

const NO_COMMITS: &str = "commits are of the store side";

/// What executors then run depends on chance, and on the guest's timers.
const CHANCE: Visible = Visible::Sometimes("whether a CPU meets changed code before it serializes is chance");

const fn broken(name: &'static str, twin: &'static str, what: &'static str) -> Scenario {
    Scenario {
        twin: Some(twin),
        full: Verdicts::all(Reported(Unsynced)).but(COHERENT, Silent),
        light: Some((Verdicts::all(Unchecked("executions of what changed are chance")), NO_COMMITS)),
        visible: CHANCE,
        writer: Some(Writer::Other),
        ..good(name, what)
    }
}

/// In a boot of its own, with page tables isolated.
const fn isolated(name: &'static str, what: &'static str) -> Scenario {
    Scenario { append: ISOLATED, ..good(name, what).heavy() }
}

pub(super) const ROWS: &[Scenario] = &[
    good(
        "coverage/healthy",
        "twenty toggles of a static key, a kprobe and a tracepoint, and a program that changes its code, beside loops \
         of sched_yield(2)",
    ),
    broken(
        "coverage/empty-ipi",
        "coverage/healthy",
        "the same; do_sync_core() returns at once, so that only the IPI's own IRET serializes",
    ),
    good(
        "coverage/membarrier",
        "a program of two threads changes its code, with membarrier(SYNC_CORE) before the other thread runs it",
    ),
    broken(
        "coverage/membarrier-empty-ipi",
        "coverage/membarrier",
        "the same; ipi_sync_core() returns at once, so that the caller does not serialize, and the other CPU by the \
         IPI's own IRET only",
    ),
    isolated("coverage/healthy-isolated", "coverage/healthy, with page tables isolated"),
    isolated(
        "coverage/membarrier-isolated",
        "coverage/membarrier, with page tables isolated: the write of CR3 on the way to user mode serializes",
    ),
];
