//! The rows in which the kernel changes its own text, or a program's: [`crate::table::kernel`], and those that only
//! x86-64 has.

use crate::table::Scenario;
use crate::table::kernel::{self, Committing, kernel};
use crate::verdict::Kind::Unserialized;
use crate::verdict::Verdict::{Reported, Unchecked};
use crate::verdict::Verdicts;
use crate::verdict::x86::{FRED, NO_LUCK, SDM_STRICT};

const KERNEL: Verdicts = Verdicts::SILENT
    .but(SDM_STRICT, Unchecked("no INT3 exemption: depends on who meets a breakpoint in the epoch of the old bytes"));

/// Those of any architecture.
pub(super) const SHARED: &[Scenario] = &kernel::rows(KERNEL, COMMITTING);

const COMMITTING: Committing =
    Committing { keys: &["text_poke_bp_batch", "smp_text_poke_batch_finish"], probes: &["arch_arm_kprobe"] };

pub(super) const ROWS: &[Scenario] = &[
    kernel(KERNEL, "kernel/tracepoints-irq", "enables and disables the tracepoints of every interrupt vector").heavy(),
    kernel(KERNEL, "kernel/ftrace-syscalls", "switches the function tracer on and off for every system call").heavy(),
    kernel(
        KERNEL,
        "kernel/kprobe-inside",
        "plants a kprobe inside of that system call, waits until it is a jump, and removes it",
    ),
    kernel(KERNEL, "kernel/bpf-dispatcher", "runs XDP programs through the dispatcher, which is patched for each"),
    kernel::replaced().under(FRED, Reported(Unserialized)).under(NO_LUCK, Reported(Unserialized)),
    // The heavy ones.
    Scenario {
        cpus: 2,
        ..kernel(
            KERNEL,
            "kernel/suspend",
            "the machine sleeps (ACPI S3) and is woken by its clock, twice, beside a static key that is flipped",
        )
        .heavy()
    },
    Scenario {
        append: "maxcpus=1",
        cpus: 2,
        once: true,
        ..kernel(KERNEL, "kernel/maxcpus", "boots with one CPU, then starts CPU 1: thousands of LOCK prefixes").heavy()
    },
];
