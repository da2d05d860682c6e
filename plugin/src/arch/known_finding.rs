//! Hazards of unmodified kernels that are understood and explained (docs/findings.md): the user is told of them in one
//! line, and they are no reason to fail a test. Each architecture has a table of them.

use icsan_model::verdict::kind::Kind;

/// An instruction.
#[derive(Debug)]
pub enum Instruction {
    /// These bytes.
    Is(&'static [u8]),
    /// A jump to a function, whichever of its names that is.
    JumpTo(&'static str),
}

/// A finding. All that is said here must hold of a hazard, so that another one at the same place is not taken for it.
#[derive(Debug)]
pub struct KnownFinding {
    /// Of which kind: one of these, where it depends on what the CPU needs.
    pub kinds: &'static [Kind],
    /// The function that executes.
    pub executes: &'static str,
    /// The function that stores, and the protocol function on whose behalf it does: of every store. `None`: stores are
    /// not seen.
    pub stores: Option<(&'static str, &'static str)>,
    /// The instruction that is in memory: one of these.
    pub memory: &'static [Instruction],
    /// All that may be executed instead.
    pub instead: Instruction,
    /// What it is, in a line.
    pub what: &'static str,
    /// Where it is explained.
    pub page: &'static str,
}
