//! The rows in which the kernel changes its own text, or a program's, while other CPUs, if there are any, are in user
//! mode and in system calls.
//!
//! Each proves that text changed, or that what it switched on worked; where it did not, or the kernel lacks it, the
//! scenario is skipped, which fails unless `expected-skips.txt` has it.
//!
//! One row of each mechanism (static key, tracepoint, ftrace, kprobe at an entry and as a jump, uprobe, BPF, module) is
//! in every run. Further triggers of the same mechanism are heavy: they read the kernel's text several times each,
//! which is what takes the time.

use crate::table::{Scenario, Visible, Writer, good};
use crate::verdict::Kind::Unserialized;
use crate::verdict::Verdict::{Reported, Unchecked};
use crate::verdict::Verdicts;
use crate::verdict::x86::{FRED, NO_LUCK, SDM_STRICT};

const KERNEL: Verdicts = Verdicts::SILENT
    .but(SDM_STRICT, Unchecked("no INT3 exemption: depends on who meets a breakpoint in the epoch of the old bytes"));

const fn kernel(name: &'static str, what: &'static str) -> Scenario {
    Scenario { full: KERNEL, ..good(name, what).on_one_cpu() }
}

pub(super) const ROWS: &[Scenario] = &[
    // Static keys.
    kernel("kernel/static-keys", "toggles /proc/sys/kernel/sched_schedstats"),
    kernel("kernel/task-delayacct", "toggles /proc/sys/kernel/task_delayacct").heavy(),
    kernel("kernel/numa-balancing", "toggles /proc/sys/kernel/numa_balancing"),
    kernel("kernel/ip-minttl", "sets IP_MINTTL, which a kernel does once a boot").once(),
    kernel("kernel/tcp-tx-delay", "sets TCP_TX_DELAY, which a kernel does once a boot").once().heavy(),
    kernel("kernel/perf-event", "opens a perf event of software, and closes it").heavy(),
    kernel("kernel/rps", "toggles receive packet steering of the loopback device").heavy(),
    kernel("kernel/rps-flows", "toggles receive flow steering").heavy(),
    kernel("kernel/cgroup-cpuset", "makes and removes a control group with a cpuset").heavy(),
    kernel("kernel/cgroup-cpu", "gives a control group a share of CPU time, and takes it away").heavy(),
    kernel("kernel/cgroup-memory", "makes the first control group with a memory controller").once().heavy(),
    kernel("kernel/lru-gen", "toggles the multi-generational LRU").heavy(),
    kernel("kernel/dynamic-debug", "switches debugging messages of the kernel's own files on and off").heavy(),
    kernel("kernel/kfence", "switches KFENCE on, which flips a key of the allocator once a boot, and off")
        .once()
        .heavy(),
    // Tracepoints: a jump label and a static call each.
    kernel("kernel/tracepoint", "enables and disables the tracepoint sched_switch: a jump label and a static call"),
    kernel("kernel/tracepoints-sched", "enables and disables every tracepoint of the scheduler").heavy(),
    kernel(
        "kernel/tracepoints-syscalls",
        "enables and disables the tracepoints at entry and exit of every system call",
    )
    .heavy(),
    kernel("kernel/tracepoints-irq", "enables and disables the tracepoints of every interrupt vector").heavy(),
    // Probes.
    kernel("kernel/ftrace", "switches the function tracer on and off for one function"),
    kernel("kernel/ftrace-syscalls", "switches the function tracer on and off for every system call").heavy(),
    kernel("kernel/kprobe", "plants and removes a kprobe at the entry of a system call"),
    kernel(
        "kernel/kprobe-inside",
        "plants a kprobe inside of that system call, waits until it is a jump, and removes it",
    ),
    kernel("kernel/kretprobe", "plants and removes a probe at the return of that system call").heavy(),
    kernel("kernel/uprobe", "plants and removes a uprobe in a function that another thread runs"),
    // Code that the kernel makes.
    kernel(
        "kernel/bpf-filter",
        "attaches and detaches socket filters, on every CPU at once, and sends packets through them",
    ),
    kernel("kernel/bpf-run", "loads programs, on every CPU at once, runs them and unloads them"),
    kernel("kernel/bpf-dispatcher", "runs XDP programs through the dispatcher, which is patched for each"),
    // Out of the group, since FRED is its point: runs under that profile leave the group out.
    Scenario {
        writer: Some(Writer::Other),
        visible: Visible::Sometimes("an old filter may do what the new one does, and a mix anything"),
        ..good(
            "bpf/replaced",
            "replaces the filter of a socket that another CPU, in system calls only, sends packets through",
        )
        .under(FRED, Reported(Unserialized))
        .under(NO_LUCK, Reported(Unserialized))
    },
    kernel("kernel/module", "loads two modules in turn, runs their code on every CPU, patches it, and unloads them"),
    // The heavy ones.
    kernel("kernel/preempt", "switches the preemption model: thousands of static calls and keys").heavy(),
    Scenario { cpus: 2, ..kernel("kernel/hotplug", "takes CPU 1 away and gives it back").heavy() },
    Scenario {
        cpus: 2,
        ..kernel("kernel/hotplug-keys", "takes each other CPU away and gives it back, while a static key is flipped")
            .heavy()
    },
    Scenario {
        cpus: 2,
        ..kernel(
            "kernel/suspend",
            "the machine sleeps (ACPI S3) and is woken by its clock, twice, beside a static key that is flipped",
        )
        .heavy()
    },
    Scenario {
        append: "maxcpus=1",
        cpus: 2,
        once: true,
        ..kernel("kernel/maxcpus", "boots with one CPU, then starts CPU 1: thousands of LOCK prefixes").heavy()
    },
    // No text changes.
    kernel(
        "kernel/membarrier",
        "every command of membarrier(2), with and without registration, while others patch nothing",
    ),
];
