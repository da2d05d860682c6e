//! The rows about what a patching protocol makes other CPUs do, as far as they are the same on any architecture.

use super::{Scenario, Visible, Writer, good};
use crate::verdict::Kind::Unsynced;
use crate::verdict::Verdict::{Reported, Silent, Unchecked};
use crate::verdict::{COHERENT, Verdicts};

const NO_COMMITS: &str = "commits are of the store side";

/// What executors then run depends on chance, and on the guest's timers.
const CHANCE: Visible = Visible::Sometimes("whether a CPU meets changed code before it serializes is chance");

/// So often a static key is switched on and off, at the least: each time the other vCPU must be told of.
pub(super) const TOGGLES: u64 = 2 * KEY_ROUNDS as u64;

/// How often it is switched on.
pub const KEY_ROUNDS: u32 = 20;

/// The kernel is whole.
pub(super) const fn healthy(full: Verdicts) -> Scenario {
    Scenario {
        full,
        ..good(
            "coverage/healthy",
            "twenty toggles of a static key, a kprobe and a tracepoint, and a program that changes its code, beside \
             loops of sched_yield(2)",
        )
    }
}

/// It lacks a step.
pub(super) const fn broken(name: &'static str, twin: &'static str, what: &'static str) -> Scenario {
    Scenario {
        twin: Some(twin),
        full: Verdicts::all(Reported(Unsynced)).but(COHERENT, Silent),
        light: Some((Verdicts::all(Unchecked("executions of what changed are chance")), NO_COMMITS)),
        visible: CHANCE,
        writer: Some(Writer::Other),
        ..good(name, what)
    }
}
