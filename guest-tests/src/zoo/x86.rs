//! The zoo of x86-64.

use super::{EXECUTOR, Inject, NO_SYMBOL, Row, Zoo};
use crate::verdict::Kind::{Stale, Torn, Unserialized, Unsynced};
use crate::verdict::Verdict::{Silent, Unchecked};
use crate::verdict::x86::{FRED, LINUX_X86, PTI_BLIND};
use crate::verdict::{COHERENT, Verdicts};

/// The data.
pub const ZOO: Zoo = Zoo {
    folder: "x86",
    image: "bzImage",
    profiles: &[LINUX_X86, FRED],
    keys: &[],
    workloads: WORKLOADS,
    at_boot: &["early", "nops"],
    isolated: &["defer-plain", "defer-entry"],
    bugs: BUGS,
    dead_if_injected: &[],
    // The switch to the kernel's page table serializes those that it leaves out. That is no write of CR3 like others.
    meanings: &[(DEFERS, "defer=mov-cr3-pti")],
};

/// `habitat.c` knows the markers of the first two.
const WORKLOADS: &[(&str, &str)] = &[
    ("early", "the boot CPU patches by text_poke_early(), over and over, under a timer whose interrupt runs the site"),
    ("nops", "the boot CPU joins the NOPs of an alternative, over and over, and runs them"),
    (
        "batch",
        "patches 16 sites by text_poke_queue() and text_poke_finish(); the other CPU watches, and runs one when a missing sync would show",
    ),
    (
        "kprobe",
        "plants and removes a kprobe on a function while the other CPU stands aside; it then runs the function at once",
    ),
    ("key", "flips a static key while the other CPU stands aside; it then runs the code at once"),
    (
        "membarrier-sibling",
        "two threads on one CPU: one changes code through an alias and calls SYNC_CORE, the other runs it",
    ),
    ("membarrier-alone", "a process of one thread changes code through an alias, calls SYNC_CORE and runs it"),
    ("schedstats", "toggles /proc/sys/kernel/sched_schedstats while the other CPU schedules"),
    (
        "everyday",
        "twenty toggles of sched_schedstats, a tracepoint and a kprobe, and twenty changes of a program's code with \
         membarrier(SYNC_CORE), beside loops of \
         sched_yield(2): no executor is made for the bug",
    ),
    ("defer-plain", "flips a static key while the other CPU is in user mode; its next system call runs the code"),
    (
        "defer-entry",
        "patches an instruction at the entry of system calls, before the switch of page tables, while the other CPU \
         is in user mode; its next system call \
         runs it",
    ),
];

const STALE: Verdicts = Verdicts::reported(Stale);
const TORN: Verdicts = Verdicts::reported(Torn);
const UNSERIALIZED: Verdicts = Verdicts::reported(Unserialized);
const UNSYNCED: Verdicts = Verdicts::reported(Unsynced).but(COHERENT, Silent);

const NO_COMMIT: &str = "an INT3 and what it stands for are exempt from each other, and the light mode does not see \
    where the exemption ends";
const NO_MIXES: &str = "no mixes of versions without the store side";
const OWN_STORE: &str = "a CPU's own store, through the address that it runs from, and a branch since: only the store \
    side knows that it is legal";
const NO_WRITER: &str = "neither the writer nor the commit is known";

/// The copy that text_poke() and text_poke_early() end in.
const COPY: &str = "memcpy+*,memcpy_orig+*,text_poke_memcpy+*,__text_poke+*";

/// What patches a batch: text_poke_bp_batch() is part of it.
const BATCH: Option<&str> = Some("text_poke_finish+*");

/// The guest program's function that changes code.
const CHANGE: &str = "*zoo*Returns*change*";

const BUGS: &[Row] = &[
    Row {
        variant: "kprobes-no-sync",
        workload: "kprobe",
        isolated: false,
        full: STALE,
        light: Some((Verdicts::SILENT, NO_COMMIT)),
        site: "zoo_probed+*",
        writer: COPY,
        function: Some("arch_arm_kprobe+*,arch_disarm_kprobe+*"),
        executor: EXECUTOR,
        everywhere: false,
        unsynced: None,
        deferred: false,
        visible: Some(Inject::Stale),
        why: "arch_arm_kprobe() has returned, the breakpoint counts as planted, and the other CPU may still run the instruction; the same the other way round. \
              What would serialize it is the IPI that is missing",
    },
    Row {
        variant: "early-irq",
        workload: "early",
        isolated: false,
        full: Verdicts::SILENT,
        light: Some((UNSERIALIZED, OWN_STORE)),
        site: "zoo_early_site+*",
        writer: COPY,
        function: Some("text_poke_early+*"),
        executor: 0,
        everywhere: true,
        unsynced: None,
        deferred: false,
        visible: None,
        why: "cannot show: text_poke_early() stores through the address that the code runs from, and memcpy()'s RET is a taken branch before interrupts \
              can come (SDM, option 1). The fix is for what the manual leaves open, as its author says. It would show as smc in a profile without option 1",
    },
    Row {
        variant: "inplace-nops",
        workload: "nops",
        isolated: false,
        full: Verdicts::SILENT,
        light: Some((UNSERIALIZED, OWN_STORE)),
        site: "zoo_nops_site+*",
        writer: "memcpy*,add_nop*,optimize_nops*,apply_alternatives*",
        function: Some("apply_alternatives+*"),
        executor: 0,
        everywhere: true,
        unsynced: None,
        deferred: false,
        visible: None,
        why: "cannot show: own stores through the address that the code runs from, and taken branches since. What an interrupt would meet half-way is what \
              stands in memory at that moment: a broken instruction, but not a stale one",
    },
    Row {
        variant: "membarrier-skips-caller",
        workload: "membarrier-sibling",
        isolated: false,
        full: STALE,
        light: Some((UNSERIALIZED, NO_WRITER)),
        site: NO_SYMBOL,
        writer: CHANGE,
        function: None,
        executor: 0,
        everywhere: false,
        unsynced: None,
        deferred: false,
        visible: Some(Inject::Stale),
        why: "the caller's CPU was left out: its other thread comes by a switch without a CR3 write, returns by SYSRET, and runs what the caller takes for \
              gone",
    },
    Row {
        variant: "membarrier-skips-caller",
        workload: "membarrier-alone",
        isolated: false,
        full: STALE,
        light: Some((UNSERIALIZED, NO_WRITER)),
        site: NO_SYMBOL,
        writer: CHANGE,
        function: None,
        executor: 0,
        everywhere: false,
        unsynced: None,
        deferred: false,
        visible: Some(Inject::Stale),
        why: "a process of one thread is sent home at once: SYSCALL and SYSRET do not serialize",
    },
    Row {
        variant: "batch-no-first-sync",
        workload: "batch",
        isolated: false,
        full: TORN,
        light: Some((Verdicts::SILENT, NO_MIXES)),
        site: STRADDLING,
        writer: COPY,
        function: BATCH,
        executor: EXECUTOR,
        everywhere: true,
        unsynced: None,
        deferred: false,
        visible: Some(Inject::Torn),
        why: "the tails are written while the other CPU may hold the old first byte: of a site that straddles chunks, the old first chunk and the new \
              second one. Sites in one chunk have whole versions only",
    },
    Row {
        variant: "batch-no-second-sync",
        workload: "batch",
        isolated: false,
        full: TORN,
        light: Some((Verdicts::SILENT, NO_MIXES)),
        site: STRADDLING,
        writer: COPY,
        function: BATCH,
        executor: EXECUTOR,
        everywhere: true,
        unsynced: None,
        deferred: false,
        visible: Some(Inject::Torn),
        why: "the first bytes are written while the other CPU may hold an old tail, which it brought in by running on behind the breakpoint: the new first \
              chunk and the old second one",
    },
    Row {
        variant: "batch-no-third-sync",
        workload: "batch",
        isolated: false,
        full: STALE,
        light: Some((Verdicts::SILENT, NO_COMMIT)),
        site: "zoo_whole_*,zoo_split_*",
        writer: COPY,
        function: BATCH,
        executor: EXECUTOR,
        everywhere: true,
        unsynced: None,
        deferred: false,
        visible: Some(Inject::Stale),
        why: "text_poke_bp_batch() has returned, and the other CPU may still run the breakpoint, whose chunk it brought in again behind it",
    },
    Row {
        variant: "static-key-memcpy",
        workload: "key",
        isolated: false,
        full: STALE,
        light: Some((UNSERIALIZED, NO_WRITER)),
        site: "zoo_keyed*+*",
        writer: COPY,
        function: Some("arch_jump_label_transform_queue+*"),
        executor: EXECUTOR,
        everywhere: true,
        unsynced: None,
        deferred: false,
        visible: Some(Inject::Stale),
        why: "no breakpoint and no sync: what the queue function stores itself is committed by the next function that commits, and the other CPU may run the \
              old instruction",
    },
    everyday("kprobes-no-sync", "arch_arm_kprobe,arch_disarm_kprobe", "arch_arm_kprobe() returns, and sent no IPI"),
    everyday(
        "batch-no-first-sync",
        "text_poke_bp_batch",
        "the tails are written, and nothing came after the breakpoints",
    ),
    everyday(
        "batch-no-second-sync",
        "text_poke_bp_batch",
        "the first bytes are written, and nothing came after the tails",
    ),
    everyday(
        "batch-no-third-sync",
        "text_poke_bp_batch",
        "text_poke_bp_batch() returns, and nothing came after the first bytes",
    ),
    Row {
        full: Verdicts::SILENT.but(PTI_BLIND, Unchecked("the event that is meant to serialize does not count")),
        deferred: true,
        ..deferral(
            "defer-plain",
            true,
            "the switch to the kernel's page table serializes before anything is executed that was changed, as it is \
             meant to",
        )
    },
    deferral("defer-entry", true, "the entry is executed before the switch of page tables that is meant to serialize"),
    Row {
        full: STALE,
        site: "zoo_keyed+*",
        function: Some("arch_jump_label_transform_apply+*"),
        unsynced: Some(POKE),
        visible: Some(Inject::Stale),
        ..deferral(
            "defer-plain",
            false,
            "no page table is switched: SYSCALL does not serialize, and the old code is executed",
        )
    },
    Row {
        full: STALE,
        site: "entry_SYSCALL_64+*",
        function: Some("text_poke_bp+*"),
        unsynced: Some(POKE),
        ..deferral("defer-entry", false, "the same, at once")
    },
    Row {
        executor: 0,
        ..everyday(
            "membarrier-skips-caller",
            "membarrier(SYNC_CORE)",
            "membarrier() returns to its caller, whose CPU it left out: SYSCALL and SYSRET do not serialize",
        )
    },
    everyday(
        "static-key-memcpy",
        "text_poke_bp_batch,text_poke_finish,arch_jump_label_transform_apply,arch_jump_label_transform",
        "what the queue functions stored themselves is taken for done by the next function that commits, which made no CPU serialize",
    ),
];

/// Executions of what a commit left out.
const CHANCE: Verdicts = Verdicts::all(Unchecked("whether a CPU comes by in time is chance"));

/// The same bug met by an everyday workload: the commit alone shows it.
const fn everyday(variant: &'static str, site: &'static str, why: &'static str) -> Row {
    Row {
        variant,
        workload: "everyday",
        isolated: false,
        full: UNSYNCED,
        light: Some((CHANCE, NO_COMMIT)),
        site,
        writer: COPY,
        function: None,
        executor: EXECUTOR,
        everywhere: true,
        unsynced: None,
        deferred: false,
        visible: None,
        why,
    }
}

/// The kernel of that design.
const DEFERS: &str = "defer-user";

/// What commits its patches.
const POKE: &str = "text_poke_bp_batch";

/// The design that leaves out CPUs in user mode, as the commits show it.
const fn deferral(workload: &'static str, isolated: bool, why: &'static str) -> Row {
    Row { workload, isolated, ..everyday(DEFERS, POKE, why) }
}

/// The sites that straddle two chunks.
const STRADDLING: &str = "zoo_split_*";
