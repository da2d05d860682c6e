//! The writer leaves a step out of what makes other CPUs fetch what it stored: DC CVAU, DSB ISH, IC IVAU, DSB ISH. The
//! executor stands aside meanwhile, and executes ISB before it runs the code.

use super::{NO_MAINTENANCE, UNSYNCHRONIZED, left_out, step};
use crate::table::{Scenario, bad, good};
use crate::verdict::Kind::{Incomplete, Unclean, Uninvalidated, Unsynchronized};
use crate::verdict::Verdict::{Reported, Silent};
use crate::verdict::Verdicts;

const ALL: &str = "publish/all";

const fn lacks(name: &'static str, full: Verdicts, what: &'static str) -> Scenario {
    bad(name, ALL, full, what).in_light(Verdicts::SILENT, NO_MAINTENANCE)
}

pub(super) const ROWS: &[Scenario] = &[
    good(ALL, "DC, DSB, IC, DSB; then the executor executes ISB and runs the code"),
    lacks("publish/nothing", step(Unclean, Reported(Incomplete)), "the writer only stores"),
    lacks("publish/no-clean", step(Unclean, Silent), "no DC"),
    lacks("publish/no-invalidate", step(Uninvalidated, Reported(Uninvalidated)), "no IC"),
    lacks("publish/no-first-barrier", step(Incomplete, Reported(Incomplete)), "no DSB between DC and IC"),
    lacks("publish/no-second-barrier", step(Incomplete, Reported(Incomplete)), "no DSB behind IC"),
    lacks(
        "publish/narrow-first-barrier",
        step(Incomplete, Reported(Incomplete)),
        "between DC and IC a DSB for the writer's CPU alone (NSH)",
    ),
    lacks(
        "publish/narrow-second-barrier",
        step(Incomplete, Reported(Incomplete)),
        "behind IC a DSB for the writer's CPU alone (NSH)",
    ),
    lacks(
        "publish/stores-first-barrier",
        step(Incomplete, Silent),
        "between DC and IC a DSB for stores (ISHST): it completes the store, and no DC",
    ),
    lacks("publish/memory-barriers", step(Incomplete, Reported(Incomplete)), "DMB in place of both DSBs"),
    lacks("publish/other-clean", step(Unclean, Silent), "the DC is of the next line"),
    lacks("publish/other-invalidate", step(Uninvalidated, Reported(Uninvalidated)), "the IC is of the next line"),
    lacks("publish/reversed", step(Uninvalidated, Reported(Incomplete)), "IC first, then DC, with a DSB behind each"),
    bad("publish/no-synchronization", ALL, UNSYNCHRONIZED, "all four; the executor executes no ISB"),
    // Maintenance goes by lines, verdicts by bytes.
    good("publish/neighbour", "the writer only stores, into a line of which the executor runs another word"),
    bad(
        "publish/neighbour-run",
        "publish/neighbour",
        step(Unclean, Reported(Incomplete)),
        "the same; then the executor runs the word that was stored to",
    )
    .in_light(Verdicts::SILENT, NO_MAINTENANCE),
    // Own code: a CPU's own fetches are not told of its own stores, either.
    bad(
        "publish/own-nothing",
        "own/synchronized",
        left_out(Unclean, Reported(Incomplete), Reported(Unsynchronized)),
        "stores, and calls the code, without any step",
    )
    .on_one_cpu()
    .by_itself()
    .in_light(UNSYNCHRONIZED, NO_MAINTENANCE),
    bad(
        "publish/own-no-invalidate",
        "own/synchronized",
        step(Uninvalidated, Reported(Uninvalidated)),
        "stores, cleans, executes ISB and calls the code",
    )
    .on_one_cpu()
    .by_itself()
    .in_light(Verdicts::SILENT, NO_MAINTENANCE),
    // Through a second mapping: the DC by the address that is written, the IC by the one that is executed.
    lacks(
        "publish/alias-no-invalidate",
        step(Uninvalidated, Reported(Uninvalidated)),
        "stores through a second mapping, and no IC",
    ),
    lacks("publish/alias-no-clean", step(Unclean, Silent), "stores through a second mapping, and no DC"),
    lacks(
        "publish/migrated",
        step(Unclean, Reported(Uninvalidated)),
        "a thread goes to another CPU, only stores there, and comes back: that is DSB and exception return, but no maintenance",
    ),
];
