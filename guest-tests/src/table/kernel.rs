//! The rows in which the kernel changes its own text, or a program's, while other CPUs, if there are any, are in user
//! mode and in system calls, as far as they are the same on any architecture.
//!
//! Each proves that text changed, or that what it switched on worked; where it did not, or the kernel lacks it, the
//! scenario is skipped, which fails unless `expected-skips.txt` has it.
//!
//! One row of each mechanism (static key, tracepoint, ftrace, kprobe at an entry, uprobe, BPF, module) is in every run.
//! Further triggers of the same mechanism are heavy: they read the kernel's text several times each, which is what
//! takes the time.

use super::{Scenario, Visible, Writer, good};
use crate::verdict::Verdicts;

/// A row of the kernel's, with these verdicts.
pub(super) const fn kernel(full: Verdicts, name: &'static str, what: &'static str) -> Scenario {
    Scenario { full, ..good(name, what).on_one_cpu() }
}

/// Through which functions an architecture's kernels commit what they patch: one of each, by version.
#[derive(Clone, Copy, Debug)]
pub(super) struct Committing {
    /// Jump labels.
    pub keys: &'static [&'static str],
    /// Kprobes.
    pub probes: &'static [&'static str],
}

/// The rows, with these verdicts.
pub(super) const fn rows(full: Verdicts, committing: Committing) -> [Scenario; 28] {
    [
        // Static keys.
        kernel(full, "kernel/static-keys", "toggles /proc/sys/kernel/sched_schedstats").commits(committing.keys),
        kernel(full, "kernel/task-delayacct", "toggles /proc/sys/kernel/task_delayacct").heavy(),
        kernel(full, "kernel/numa-balancing", "toggles /proc/sys/kernel/numa_balancing"),
        kernel(full, "kernel/ip-minttl", "sets IP_MINTTL, which a kernel does once a boot").once(),
        kernel(full, "kernel/tcp-tx-delay", "sets TCP_TX_DELAY, which a kernel does once a boot").once().heavy(),
        kernel(full, "kernel/perf-event", "opens a perf event of software, and closes it").heavy(),
        kernel(full, "kernel/rps", "toggles receive packet steering of the loopback device").heavy(),
        kernel(full, "kernel/rps-flows", "toggles receive flow steering").heavy(),
        kernel(full, "kernel/cgroup-cpuset", "makes and removes a control group with a cpuset").heavy(),
        kernel(full, "kernel/cgroup-cpu", "gives a control group a share of CPU time, and takes it away").heavy(),
        kernel(full, "kernel/cgroup-memory", "makes the first control group with a memory controller").once().heavy(),
        kernel(full, "kernel/lru-gen", "toggles the multi-generational LRU").heavy(),
        kernel(full, "kernel/dynamic-debug", "switches debugging messages of the kernel's own files on and off")
            .heavy(),
        kernel(full, "kernel/kfence", "switches KFENCE on, which flips a key of the allocator once a boot, and off")
            .once()
            .heavy(),
        // Tracepoints: a jump label each, and a static call where the architecture has them.
        kernel(
            full,
            "kernel/tracepoint",
            "enables and disables the tracepoint sched_switch: a jump label, and a static call where there are any",
        )
        .commits(committing.keys),
        kernel(full, "kernel/tracepoints-sched", "enables and disables every tracepoint of the scheduler").heavy(),
        kernel(
            full,
            "kernel/tracepoints-syscalls",
            "enables and disables the tracepoints at entry and exit of every system call",
        )
        .heavy(),
        // Probes.
        kernel(full, "kernel/ftrace", "switches the function tracer on and off for one function"),
        kernel(full, "kernel/kprobe", "plants and removes a kprobe at the entry of a system call")
            .commits(committing.probes),
        kernel(full, "kernel/kretprobe", "plants and removes a probe at the return of that system call").heavy(),
        kernel(full, "kernel/uprobe", "plants and removes a uprobe in a function that another thread runs"),
        // Code that the kernel makes.
        kernel(
            full,
            "kernel/bpf-filter",
            "attaches and detaches socket filters, on every CPU at once, and sends packets through them",
        ),
        kernel(full, "kernel/bpf-run", "loads programs, on every CPU at once, runs them and unloads them"),
        kernel(
            full,
            "kernel/module",
            "loads two modules in turn, runs their code on every CPU, patches it, and unloads them",
        ),
        // The heavy ones.
        kernel(full, "kernel/preempt", "switches the preemption model: thousands of static calls and keys").heavy(),
        Scenario { cpus: 2, ..kernel(full, "kernel/hotplug", "takes CPU 1 away and gives it back").heavy() },
        Scenario {
            cpus: 2,
            ..kernel(
                full,
                "kernel/hotplug-keys",
                "takes each other CPU away and gives it back, while a static key is flipped",
            )
            .heavy()
        },
        // No text changes.
        kernel(
            full,
            "kernel/membarrier",
            "every command of membarrier(2), with and without registration, while others patch nothing",
        ),
    ]
}

/// Out of the group: under some profile it is reported, and runs under that leave the group out.
pub(super) const fn replaced() -> Scenario {
    Scenario {
        writer: Some(Writer::Other),
        visible: Visible::Sometimes("an old filter may do what the new one does, and a mix anything"),
        ..good(
            "bpf/replaced",
            "replaces the filter of a socket that another CPU, in system calls only, sends packets through",
        )
    }
}
