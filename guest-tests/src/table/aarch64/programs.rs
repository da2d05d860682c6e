//! Programs that change code, and publish it: what stands between that and the execution.

use super::{LISTED, NO_COMMIT, UNSYNCHRONIZED};
use crate::table::{Scenario, Visible, bad, good, programs};
use crate::verdict::Kind::Stale;
use crate::verdict::Verdicts;

const SLOW_CHILD: Visible =
    Visible::Sometimes("another process must run before the change is executed, and a tick may fall in between");

/// The executor does not synchronize.
const fn unsynchronized(name: &'static str, twin: &'static str, what: &'static str) -> Scenario {
    bad(name, twin, UNSYNCHRONIZED, what)
}

/// Another CPU changed what is mapped there; no store did.
const fn remapped(name: &'static str, twin: &'static str, what: &'static str) -> Scenario {
    Scenario { writer: None, ..unsynchronized(name, twin, what) }
}

/// The executor's own CPU stores.
const fn own(name: &'static str, twin: &'static str, what: &'static str) -> Scenario {
    unsynchronized(name, twin, what).on_one_cpu().by_itself()
}

/// A patch that is committed before the executor synchronizes.
const fn stale(name: &'static str, twin: &'static str, light: Verdicts, what: &'static str) -> Scenario {
    bad(name, twin, Verdicts::reported(Stale), what).in_light(light, NO_COMMIT)
}

/// Instructions that may be changed under a running CPU.
const fn listed(name: &'static str, what: &'static str) -> Scenario {
    Scenario { full: LISTED, visible: Visible::Always, ..good(name, what) }
}

/// The rows.
pub(super) const ROWS: &[Scenario] = &[
    // A thread runs code without a system call while another one changes it.
    unsynchronized("cross/move", "cross/move-isb", "changes the operand of a MOVZ under a spinning thread")
        .at_any_step(),
    unsynchronized(
        "cross/move-text",
        "cross/move-isb",
        "the same in the program's own text, made writable: the symbol is patch_target_movz",
    )
    .at_any_step(),
    unsynchronized("cross/pair", "cross/pair-isb", "changes a MOVZ and the MOVK behind it, in two chunks")
        .at_any_step(),
    good("cross/move-isb", "MOVZ; the executor stands aside and executes ISB"),
    good("cross/pair-isb", "MOVZ and MOVK; the executor stands aside and executes ISB"),
    listed("cross/branch", "NOP to B and back under a spinning thread: it executes the old or the new one"),
    listed("cross/call", "NOP to BL and back under a spinning thread"),
    listed("cross/breakpoint", "NOP to BRK and back; the executor stands aside, and executes no ISB"),
    // Hand-over, by what stands between the store and the execution.
    unsynchronized(
        "handover/nothing",
        "handover/isb",
        "the executor stands aside during the store, then runs the code: a flag does not synchronize",
    ),
    unsynchronized("handover/fences", "handover/isb", "the executor executes DMB and DSB: neither synchronizes"),
    good("handover/isb", "the executor executes ISB"),
    good("handover/system-call", "the executor makes a system call: exception entry and return"),
    good("handover/signal", "the executor takes a signal, and comes back from its handler"),
    programs::SYNC_CORE,
    programs::REGISTERED_LATE,
    good(
        "membarrier/plain",
        "the writer calls membarrier(PRIVATE_EXPEDITED): it promises less, but its IPI is an exception entry and return",
    ),
    programs::unregistered(UNSYNCHRONIZED),
    // A thread changes its own code.
    own("own/unsynchronized", "own/synchronized", "stores, publishes and calls the code: a branch is not enough"),
    good("own/synchronized", "stores, publishes, executes ISB and calls the code").on_one_cpu(),
    own("own/alias", "own/alias-isb", "stores through a second mapping, publishes and calls the code"),
    good("own/alias-isb", "the same with ISB between").on_one_cpu(),
    // The same memory at two executable addresses.
    programs::OTHER_VIEW,
    own("views/alias", "views/alias-isb", "stores through one executable address, then calls the code at another one"),
    good("views/alias-isb", "the same with ISB between").on_one_cpu(),
    // Mappings. The TLB's invalidation is broadcast to the hardware, and interrupts nobody.
    programs::FRESH,
    remapped(
        "mapping/munmap-mmap",
        "mapping/munmap-mmap-isb",
        "unmaps code that another thread ran and maps other code there",
    ),
    good("mapping/munmap-mmap-isb", "the same; the executor executes ISB"),
    programs::MAP_FIXED,
    remapped("mapping/mremap", "mapping/mremap-isb", "moves a page with other code over code that another thread ran"),
    good("mapping/mremap-isb", "the same; the executor executes ISB"),
    unsynchronized(
        "mapping/mprotect",
        "mapping/mprotect-isb",
        "makes code that another thread ran writable and not executable, changes it, and back",
    ),
    good("mapping/mprotect-isb", "the same; the executor executes ISB"),
    programs::pwrite(UNSYNCHRONIZED),
    programs::PWRITE_SYNC_CORE,
    // Processes.
    programs::FORK,
    programs::EXEC,
    programs::MIGRATE,
    programs::MIGRATE_REGISTERED,
    // Through a second mapping.
    unsynchronized("alias/other", "alias/other-isb", "another CPU stores through a second mapping"),
    good("alias/other-isb", "the same; the executor executes ISB"),
    // The same change, however it is stored.
    unsynchronized("store/bytes", "store/bytes-isb", "four stores of one byte"),
    good("store/bytes-isb", "the same; the executor executes ISB"),
    unsynchronized("store/halves", "store/halves-isb", "two stores of two bytes"),
    good("store/halves-isb", "the same; the executor executes ISB"),
    unsynchronized("store/quadword", "store/quadword-isb", "one aligned store of two instructions"),
    good("store/quadword-isb", "the same; the executor executes ISB"),
    unsynchronized("store/exclusive", "store/exclusive-isb", "LDXR and STXR"),
    good("store/exclusive-isb", "the same; the executor executes ISB"),
    unsynchronized("store/pair", "store/pair-isb", "STP: one store of two instructions"),
    good("store/pair-isb", "the same; the executor executes ISB"),
    unsynchronized("store/release", "store/release-isb", "STLR"),
    good("store/release-isb", "the same; the executor executes ISB"),
    unsynchronized(
        "store/read",
        "store/read-isb",
        "read(2) from a pipe into the code: the kernel stores through the user's address",
    ),
    good("store/read-isb", "the same; the executor executes ISB"),
    unsynchronized(
        "store/process-vm",
        "store/process-vm-isb",
        "process_vm_writev(2): the kernel stores through a mapping of its own",
    ),
    good("store/process-vm-isb", "the same; the executor executes ISB"),
    // Commits.
    programs::COMMITTED_BY_SYNC_CORE,
    good("commit/plain", "the writer calls membarrier(PRIVATE_EXPEDITED) instead: its IPI is an exception entry and return"),
    stale(
        "commit/symbol",
        "commit/symbol-isb",
        UNSYNCHRONIZED,
        "the patching function returns, and the executor has not synchronized since",
    ),
    good("commit/symbol-isb", "the same; the executor executes ISB"),
    stale(
        "commit/branch",
        "commit/branch-isb",
        LISTED,
        "the same, NOP to B and back: what may be changed under a running CPU is exempt until the commit, and no longer",
    ),
    good("commit/branch-isb", "the same; the executor executes ISB"),
    unsynchronized(
        "commit/fork-child",
        "commit/fork-isb",
        "the patching function forks and stores; the child returns from it, which commits nothing of the parent's, and the executor runs",
    )
    .visible(SLOW_CHILD),
    stale(
        "commit/fork-parent",
        "commit/fork-isb",
        UNSYNCHRONIZED,
        "the same; the executor runs after the parent, too, has returned: its own return commits",
    )
    .visible(SLOW_CHILD),
    good("commit/fork-isb", "the same; the executor executes ISB"),
];
