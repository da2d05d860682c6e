//! The rows in which the kernel changes its own text, or a program's: [`crate::table::kernel`], and those that only
//! AArch64 has.

use crate::table::Scenario;
use crate::table::kernel::{self, Committing, kernel};
use crate::verdict::Verdict::Unchecked;
use crate::verdict::Verdicts;
use crate::verdict::aarch64::{ARM64_STRICT, ARM64_STRICT_COHERENT};

const CHANCE: &str =
    "no instruction may be changed under a running CPU: depends on who runs one in the epoch of the old bytes";

/// Silent, as far as the letter is not asked.
pub(super) const KERNEL: Verdicts =
    Verdicts::SILENT.but(ARM64_STRICT, Unchecked(CHANCE)).but(ARM64_STRICT_COHERENT, Unchecked(CHANCE));

/// Those of any architecture.
pub(super) const SHARED: &[Scenario] = &kernel::rows(KERNEL, COMMITTING);

const COMMITTING: Committing =
    Committing { keys: &["arch_jump_label_transform_apply"], probes: &["aarch64_insn_patch_text"] };

pub(super) const ROWS: &[Scenario] = &[
    kernel(KERNEL, "kernel/ftrace-syscalls", "switches the function tracer on and off for every system call").heavy(),
    kernel::replaced(),
];
