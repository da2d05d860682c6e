//! The bug zoo: kernels with one bug each, what they are made to do, and what ICSAN must say.
//!
//! A row says what is true under the full model, by the commits of the known protocol functions; where the light mode
//! has to say something else, the row says what and why, as in [`crate::table`]. A bug that a profile cannot show has a
//! row as well: silent, and the reason.

use crate::verdict::Kind::{Stale, Torn, Unserialized, Unsynced};
use crate::verdict::Verdict::{Silent, Unchecked};
use crate::verdict::x86::{LINUX_X86, PTI_BLIND};
use crate::verdict::{COHERENT, Mode, Profile, Verdict, Verdicts};

/// The CPU that runs what is patched, where that is not the writer's own.
pub const EXECUTOR: usize = 1;

/// How many vCPUs: a writer and an executor.
pub const CPUS: usize = 2;

/// The kernel without a patch.
pub const HEALTHY: &str = "healthy";

/// What a kernel is made to do. A workload's place, from 1, is its marker; `habitat.c` knows the first two.
pub const WORKLOADS: &[(&str, &str)] = &[
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

/// The workloads that are also run with page tables isolated.
pub const DEFERRALS: &[&str] = &["defer-plain", "defer-entry"];

/// The workloads that the kernel carries out while it boots; it is asked for them by a word of its own on the command
/// line.
pub const AT_BOOT: &[&str] = &["early", "nops"];

/// What the line of a workload begins with that says how often the guest saw something else than what was patched:
/// `WORKLOAD: WRONG of LOOKED` follows.
pub const VISIBLE: &str = "# visible: ";

/// Which old instruction a bug lets a CPU execute so that the guest sees it: what `inject=` is set to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Inject {
    /// The oldest.
    Stale,
    /// One that never stood in memory.
    Torn,
}

impl Inject {
    /// As the plugin's key has it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Stale => "stale",
            Self::Torn => "torn",
        }
    }
}

/// A workload's marker.
#[must_use]
pub fn workload_id(name: &str) -> u16 {
    WORKLOADS.iter().position(|(known, _)| *known == name).map_or(u16::MAX, |index| index as u16 + 1)
}

/// One bug, under one workload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    /// The kernel: its patch in `guest-tests/zoo/`.
    pub variant: &'static str,
    /// The workload.
    pub workload: &'static str,
    /// Are page tables isolated? Then it has a boot of its own.
    pub isolated: bool,
    /// What the full model must say.
    pub full: Verdicts,
    /// What the light mode says instead, and why.
    pub light: Option<(Verdicts, &'static str)>,
    /// Where it must be reported: globs over the symbol, joined by commas. Of what is unsynced: over the protocol
    /// function's name.
    pub site: &'static str,
    /// Which function's stores it must be put down to, where stores are seen: globs over the symbol.
    pub writer: &'static str,
    /// Which of the known patching functions they must have been made for: globs over the outermost one; none: for none
    /// of them.
    pub function: Option<&'static str>,
    /// Who executes it: the vCPU.
    pub executor: usize,
    /// Is the bug one of all patches of a kind, so that it may be met at other places, and while the kernel boots?
    pub everywhere: bool,
    /// The protocol function that must be unsynced, too, whatever is executed: globs.
    pub unsynced: Option<&'static str>,
    /// Is it silent since an event that is meant to ([`meaning`]) serializes who was left out, in time? Then that must
    /// have been seen.
    pub deferred: bool,
    /// With what the guest sees it. `None`: nothing is reported, and nothing is to be seen. The healthy kernel must
    /// bear both.
    pub visible: Option<Inject>,
    /// Why it is reported, or silent.
    pub why: &'static str,
}

impl Row {
    /// The workload, and what is special about the boot.
    #[must_use]
    pub fn label(&self) -> String {
        format!("{}{}", self.workload, if self.isolated { ", isolated" } else { "" })
    }

    /// Does it have a boot of its own? With everyday work some of these kernels die, which is their bug.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.is_of_commits() || self.unsynced.is_some()
    }

    /// Is it about what a commit shows, and not about what the guest executes?
    #[must_use]
    pub fn is_of_commits(&self) -> bool {
        matches!(self.full.under(LINUX_X86), Verdict::Reported(Unsynced))
    }

    /// What must be said under `profile` in `mode`.
    #[must_use]
    pub fn verdict(&self, mode: Mode, profile: Profile) -> Verdict {
        match (mode, &self.light) {
            (Mode::Light, Some((light, _))) => light.under(profile),
            _ => self.full.under(profile),
        }
    }
}

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

/// The bugs; the healthy kernel is silent under every workload.
pub const BUGS: &[Row] = &[
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

/// A key of the plugin's that says what a kernel means, if there is one.
#[must_use]
pub fn meaning(variant: &str) -> Option<&'static str> {
    // The switch to the kernel's page table serializes those that it leaves out. That is no write of CR3 like others.
    (variant == DEFERS).then_some("defer=mov-cr3-pti")
}

/// The design that leaves out CPUs in user mode, as the commits show it.
const fn deferral(workload: &'static str, isolated: bool, why: &'static str) -> Row {
    Row { workload, isolated, ..everyday(DEFERS, POKE, why) }
}

/// Code that a program of the guest generated has no symbol.
pub const NO_SYMBOL: &str = "";

/// The sites that straddle two chunks.
const STRADDLING: &str = "zoo_split_*";

/// The kernels, the healthy one first.
#[must_use]
pub fn variants() -> Vec<&'static str> {
    let mut names = vec![HEALTHY];
    for row in BUGS {
        if !names.contains(&row.variant) {
            names.push(row.variant);
        }
    }
    names
}

/// What one kernel is made to do, and what must be said of it.
#[must_use]
pub fn rows(variant: &str) -> Vec<Row> {
    if variant != HEALTHY {
        return BUGS.iter().filter(|row| row.variant == variant).copied().collect();
    }
    let healthy = |isolated: bool, (workload, why): &(&'static str, &'static str)| Row {
        variant: HEALTHY,
        workload,
        isolated,
        full: Verdicts::SILENT,
        light: None,
        site: "",
        writer: "",
        function: None,
        executor: 0,
        everywhere: false,
        unsynced: None,
        deferred: false,
        visible: None,
        why,
    };
    let isolated = WORKLOADS.iter().filter(|(workload, _)| DEFERRALS.contains(workload)).map(|row| healthy(true, row));
    WORKLOADS.iter().map(|row| healthy(false, row)).chain(isolated).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::x86::FRED;

    #[test]
    fn the_healthy_kernel_does_everything_and_is_silent() {
        let rows = rows(HEALTHY);
        assert_eq!(rows.len(), WORKLOADS.len() + DEFERRALS.len());
        for row in rows {
            for mode in [Mode::Light, Mode::Full] {
                assert_eq!(row.verdict(mode, FRED), Verdict::Silent, "{}", row.workload);
            }
        }
    }

    #[test]
    fn every_bug_has_a_patch_and_a_workload() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("zoo");
        for row in BUGS {
            assert!(folder.join(format!("{}.patch", row.variant)).is_file(), "{}", row.variant);
            assert!(workload_id(row.workload) <= WORKLOADS.len() as u16, "{}", row.workload);
        }
        let patches = std::fs::read_dir(&folder)
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|e| e == "patch"));
        assert_eq!(patches.count() + 1, variants().len());
    }

    #[test]
    fn the_kernel_marks_the_workloads_that_it_carries_out_itself() {
        let source = include_str!("../zoo/habitat.c");
        for name in AT_BOOT {
            let marker = crate::marker::Marker { scenario: workload_id(name), round: 1, attempt: 1 };
            assert!(source.contains(&format!("mark({marker});\n\t\t{name}();")), "{name}");
        }
    }
}
