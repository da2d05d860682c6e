//! The rows about what a patching protocol makes other CPUs do: the kernel's own protocol, on an everyday workload,
//! whole and with a step taken away. No executor is made for the bug: the report must come from the commit alone.

use super::ISOLATED;
use crate::table::coverage::{TOGGLES, broken, healthy};
use crate::table::{Scenario, good};
use crate::verdict::Verdicts;

/// In a boot of its own, with page tables isolated.
const fn isolated(name: &'static str, what: &'static str) -> Scenario {
    Scenario { append: ISOLATED, ..good(name, what).heavy() }
}

pub(super) const ROWS: &[Scenario] = &[
    healthy(Verdicts::SILENT),
    broken(
        "coverage/empty-ipi",
        "coverage/healthy",
        "the same; do_sync_core() returns at once, so that only the IPI's own IRET serializes",
    )
    // Since 6.16 the other one.
    .unsynced("text_poke_bp_batch,smp_text_poke_batch_finish", TOGGLES),
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
