//! The scenarios, and what ICSAN must say about each.
//!
//! A row says what is true under the full model (`writers=on`). Where the light mode has to say something else, since
//! it sees no store, the row says what and why: a known difference, not a licence.
//!
//! Unless a row says otherwise, the changed bytes of an own-code or hand-over scenario straddle two aligned quadwords,
//! so that AMD's exemption of aligned quadwords does not touch it; only the `cross/` rows are about that exemption.

mod coverage;
mod kernel;
mod module;
mod stores;

use crate::glob::matches_any;
use crate::verdict::Kind::{Alias, Smc, Stale, Torn, Unserialized};
use crate::verdict::Profile::{AmdApm, Coherent, Fred, NoLuck, SdmStrict};
use crate::verdict::Verdict::{Reported, Silent, Unchecked};
use crate::verdict::{Mode, Profile, Verdict, Verdicts};

/// One scenario.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scenario {
    /// Its name: group, slash, name.
    pub name: &'static str,
    /// What it does, in one line.
    pub what: &'static str,
    /// The corrected scenario, for a bad one.
    pub twin: Option<&'static str>,
    /// How many CPUs it needs.
    pub cpus: usize,
    /// What the full model must say.
    pub full: Verdicts,
    /// What the light mode says instead, and why.
    pub light: Option<(Verdicts, &'static str)>,
    /// Does it fail for the guest, too, when the plugin has old instructions executed?
    pub visible: Visible,
    /// Whom a report of the full model must name as a writer; none if that is left open.
    pub writer: Option<Writer>,
    /// Does it take so long that only a run that asks for it includes it?
    pub heavy: bool,
    /// Does a kernel do it once a boot? Then there is one round.
    pub once: bool,
    /// A word that the kernel's command line must have: the scenario gets a boot of its own. Empty for most.
    pub append: &'static str,
}

/// Files that a guest needs for a row, besides its program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Files {
    /// Modules of its kernel: [`MODULES`].
    Modules,
    /// The module that patches itself: `guest-tests/module`.
    Patcher,
}

/// Whether a bad scenario fails for the guest to see where the plugin has the oldest instructions executed
/// (`inject=stale`). A good one never may.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Visible {
    /// In every round, after a good part of the changes.
    Always,
    /// Never, with torn instructions neither (`inject=torn`). Why not.
    Never(&'static str),
    /// A torn instruction does harm. The oldest mostly is none, but may be, where a tick falls in between. What it is
    /// otherwise.
    OnlyTorn(&'static str),
    /// It depends. On what.
    Sometimes(&'static str),
}

/// Who makes the stores of a scenario.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Writer {
    /// The CPU that steers: [`WRITER`].
    Other,
    /// The executor's own CPU.
    Itself,
}

/// Which scenarios are asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Selection<'a> {
    /// Globs over the names, joined by commas.
    pub filter: &'a str,
    /// The heavy ones, too?
    pub heavy: bool,
    /// Those that do not apply: what [`without`] made of them.
    pub without: &'a str,
}

/// Rows that are not to be run, for a guest's command line: their identities, joined by commas.
#[must_use]
pub fn without<'a>(rows: impl IntoIterator<Item = &'a Scenario>) -> String {
    rows.into_iter().map(|row| row.id().to_string()).collect::<Vec<_>>().join(",")
}

impl Selection<'_> {
    /// Is this one asked for?
    #[must_use]
    pub fn includes(&self, row: &Scenario) -> bool {
        let left_out = || self.without.split(',').any(|id| id.parse() == Ok(row.id()));
        matches_any(self.filter, row.name) && (self.heavy || !row.heavy) && !left_out()
    }

    /// The boots that it takes: the word that each has on the kernel's command line, the empty one first.
    #[must_use]
    pub fn boots(&self) -> Vec<&'static str> {
        let mut words: Vec<_> = TABLE.iter().filter(|row| self.includes(row)).map(|row| row.append).collect();
        words.sort_unstable();
        words.dedup();
        words
    }
}

impl Scenario {
    /// What must be said under `profile` in `mode`.
    #[must_use]
    pub fn verdict(&self, mode: Mode, profile: Profile) -> Verdict {
        match (mode, &self.light) {
            (_, _) if profile == NoLuck && !self.is_of_kernel() => Silent,
            (Mode::Light, Some((light, _))) => light.under(profile),
            _ => self.full.under(profile),
        }
    }

    /// Is the kernel's code changed, and not a program's?
    #[must_use]
    pub fn is_of_kernel(&self) -> bool {
        self.name.split_once('/').is_some_and(|(group, _)| matches!(group, "kernel" | "module" | "coverage" | "bpf"))
    }

    /// How many rounds it has where each has `repeat`.
    #[must_use]
    pub const fn rounds(&self, repeat: u16) -> u16 {
        if self.once { 1 } else { repeat }
    }

    /// What it needs besides the guest's program.
    #[must_use]
    pub fn needs(&self) -> Option<Files> {
        match self.name.split_once('/') {
            Some(("module" | "coverage", _)) => Some(Files::Patcher),
            Some(("kernel", "module")) => Some(Files::Modules),
            _ => None,
        }
    }

    /// Its place in the table, from 1: the low half of its marker.
    #[must_use]
    pub fn id(&self) -> u16 {
        let index = TABLE.iter().position(|row| row.name == self.name).unwrap_or(usize::MAX - 1);
        (index + 1) as u16
    }
}

/// The modules of the guest's kernel that `kernel/module` loads: without dependencies, in Linux 6.1 as in 7.3, and with
/// each kind of place that is patched when a module is loaded. The first is the larger one, so that the second one's
/// text takes its place.
pub const MODULES: [&str; 2] = ["pktgen", "dummy"];

/// Where the guest finds them, as `NAME.ko`.
pub const MODULES_FOLDER: &str = "/modules";

/// The word on the kernel's command line of boots on a CPU that is open to Meltdown, so that the kernel isolates its
/// page tables, as it does without it.
pub const ISOLATED: &str = "pti=auto";

/// The CPU that writes and steers; the vCPU of the same number.
pub const WRITER: usize = 0;

/// The CPU that executes the changed code, given how many there are; the vCPU of the same number.
#[must_use]
pub const fn executor(cpus: usize) -> usize {
    if cpus > 1 { 1 } else { 0 }
}

/// Looks a scenario up by its marker.
#[must_use]
pub fn by_id(id: u16) -> Option<&'static Scenario> {
    TABLE.get(usize::from(id).checked_sub(1)?)
}

/// Looks a scenario up by its name.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static Scenario> {
    TABLE.iter().find(|row| row.name == name)
}

const fn good(name: &'static str, what: &'static str) -> Scenario {
    Scenario {
        name,
        what,
        twin: None,
        cpus: 2,
        full: Verdicts::SILENT,
        light: None,
        visible: Visible::Always,
        writer: None,
        heavy: false,
        once: false,
        append: "",
    }
}

const fn bad(name: &'static str, twin: &'static str, full: Verdicts, what: &'static str) -> Scenario {
    Scenario { twin: Some(twin), full, writer: Some(Writer::Other), ..good(name, what) }
}

impl Scenario {
    const fn on_one_cpu(mut self) -> Self {
        self.cpus = 1;
        self
    }

    const fn in_light(mut self, verdicts: Verdicts, why: &'static str) -> Self {
        self.light = Some((verdicts, why));
        self
    }

    const fn visible(mut self, visible: Visible) -> Self {
        self.visible = visible;
        self
    }

    const fn by_itself(mut self) -> Self {
        self.writer = Some(Writer::Itself);
        self
    }

    const fn heavy(mut self) -> Self {
        self.heavy = true;
        self
    }

    const fn once(mut self) -> Self {
        self.once = true;
        self
    }

    const fn under(mut self, profile: Profile, verdict: Verdict) -> Self {
        self.full = self.full.but(profile, verdict);
        self
    }
}

const UNSERIALIZED: Verdicts = Verdicts::reported(Unserialized);
/// One store inside an aligned quadword.
const QUADWORD: Verdicts = UNSERIALIZED.but(AmdApm, Silent);
const TORN: Verdicts = Verdicts::all(Reported(Torn))
    .but(Coherent, Unchecked("the two chunks are fetched one after the other, and a store can fall between"));
/// Torn, but nobody runs the code while it is being changed.
const TORN_LATER: Verdicts = Verdicts::reported(Torn);

/// A finding about Linux, which `idle=poll` on the kernel's command line makes certain.
const MIGRATION: Verdicts = Verdicts::all(Unchecked(
    "the IPI that wakes the idle CPU ends in IRET, but a CPU that polls or has not gone idle yet needs none, and nothing serializes",
))
.but(Fred, Reported(Unserialized))
.but(Coherent, Silent);

const NO_MIXES: &str = "no mixes of versions without the store side";
const NO_COMMIT: &str = "no versions that were never executed, and no commits, without the store side";
const NO_WRITER: &str = "only the store side knows that the writer is the executor itself";

const ALL: &[&[Scenario]] = &[BASIC, stores::ROWS, kernel::ROWS, module::ROWS, coverage::ROWS];

/// Every scenario; a row's place is its identity within one build of guest and runner.
pub const TABLE: &[Scenario] = &{
    const COUNT: usize = {
        let (mut part, mut count) = (0, 0);
        while part < ALL.len() {
            count += ALL[part].len();
            part += 1;
        }
        count
    };
    let mut table = [BASIC[0]; COUNT];
    let (mut part, mut row, mut at) = (0, 0, 0);
    while part < ALL.len() {
        if row == ALL[part].len() {
            (part, row) = (part + 1, 0);
            continue;
        }
        table[at] = ALL[part][row];
        (row, at) = (row + 1, at + 1);
    }
    table
};

const BASIC: &[Scenario] = &[
    // A thread runs code without a system call while another one changes it.
    bad("cross/imm8", "cross/imm8-cpuid", QUADWORD, "changes a 1-byte immediate under a spinning thread"),
    bad("cross/imm32", "cross/imm32-cpuid", QUADWORD, "changes an aligned 4-byte immediate under a spinning thread"),
    bad(
        "cross/imm32-text",
        "cross/imm32-cpuid",
        QUADWORD,
        "the same in the program's own text, made writable: the symbol is patch_target_imm32",
    ),
    bad("cross/imm64", "cross/imm64-cpuid", QUADWORD, "changes an aligned 8-byte immediate under a spinning thread"),
    bad(
        "cross/imm32-split",
        "cross/imm32-split-cpuid",
        TORN,
        "changes an immediate that straddles two chunks under a spinning thread",
    )
    .in_light(UNSERIALIZED, NO_MIXES),
    bad(
        "cross/jmp5",
        "cross/jmp5-cpuid",
        QUADWORD,
        "NOP5 to JMP and back with one aligned 8-byte store under a spinning thread",
    ),
    bad(
        "cross/jmp5-bytes",
        "cross/jmp5-bytes-cpuid",
        TORN,
        "NOP5 to JMP and back byte by byte, across two chunks, under a spinning thread",
    )
    .in_light(UNSERIALIZED, NO_MIXES),
    // The same with a hand-over: the executor stands aside during the store and executes CPUID before it runs the code
    // again.
    good("cross/imm8-cpuid", "1-byte immediate; the executor stands aside and executes CPUID"),
    good("cross/imm32-cpuid", "aligned 4-byte immediate; the executor stands aside and executes CPUID"),
    good("cross/imm64-cpuid", "aligned 8-byte immediate; the executor stands aside and executes CPUID"),
    good("cross/imm32-split-cpuid", "immediate across two chunks; the executor stands aside and executes CPUID"),
    good("cross/jmp5-cpuid", "NOP5 to JMP in one store; the executor stands aside and executes CPUID"),
    good("cross/jmp5-bytes-cpuid", "NOP5 to JMP byte by byte; the executor stands aside and executes CPUID"),
    // Hand-over, by what stands between the store and the execution.
    bad(
        "handover/nothing",
        "handover/iret-to-self",
        UNSERIALIZED,
        "the executor stands aside during the store, then runs the code: a flag does not serialize",
    ),
    bad(
        "handover/fences",
        "handover/iret-to-self",
        UNSERIALIZED,
        "the executor executes MFENCE, LFENCE and a locked instruction: none of them serializes",
    ),
    good("handover/iret-to-self", "the executor executes IRET-to-self in user mode"),
    good("membarrier/sync-core", "the writer calls membarrier(PRIVATE_EXPEDITED_SYNC_CORE), registered"),
    good("membarrier/registered-late", "the same, registered while the executor runs already"),
    good(
        "membarrier/plain",
        "the writer calls membarrier(PRIVATE_EXPEDITED): its IPI ends in IRET, which FRED's ERETU replaces",
    )
    .under(Fred, Reported(Unserialized)),
    bad(
        "membarrier/unregistered",
        "membarrier/sync-core",
        UNSERIALIZED,
        "the writer calls SYNC_CORE unregistered, gets EPERM and goes on",
    ),
    // The INT3 protocol in user space, with a SIGTRAP handler that carries out the new instruction.
    good("int3/complete", "INT3, sync, tail, sync, first byte, sync under a spinning thread that traps")
        .under(SdmStrict, Reported(Unserialized)),
    bad(
        "int3/no-first-sync",
        "int3/complete",
        TORN_LATER,
        "the tail is stored before anybody dropped the old first byte",
    )
    .in_light(Verdicts::SILENT.but(SdmStrict, Reported(Unserialized)), NO_COMMIT)
    .visible(Visible::OnlyTorn(
        "the oldest instruction is the old one as a whole, which may run until the patch is done",
    )),
    bad(
        "int3/no-second-sync",
        "int3/complete",
        TORN_LATER,
        "the first byte is stored before anybody dropped the old tail",
    )
    .in_light(Verdicts::SILENT, NO_COMMIT)
    .visible(Visible::OnlyTorn("the oldest instruction is INT3, whose handler carries out the new one")),
    bad(
        "int3/no-third-sync",
        "int3/complete",
        Verdicts::reported(Stale),
        "the patch is called done while the INT3 may still be executed",
    )
    .in_light(Verdicts::SILENT, NO_COMMIT),
    bad("int3/no-syncs", "int3/complete", TORN_LATER, "all three stores with no sync at all")
        .in_light(UNSERIALIZED, NO_MIXES),
    // A thread changes its own code.
    good("own/jump", "stores through the address it executes from, then calls the code")
        .on_one_cpu()
        .in_light(UNSERIALIZED, NO_WRITER),
    bad("own/no-jump", "own/no-jump-cpuid", Verdicts::reported(Smc), "stores into the very next instruction")
        .on_one_cpu()
        .by_itself()
        .in_light(UNSERIALIZED, NO_WRITER),
    good("own/no-jump-cpuid", "stores into an instruction ahead, with CPUID between").on_one_cpu(),
    bad(
        "own/alias",
        "own/alias-cpuid",
        Verdicts::reported(Alias),
        "stores through a second mapping, then calls the code: a branch is not enough",
    )
    .on_one_cpu()
    .by_itself()
    .in_light(UNSERIALIZED, NO_WRITER),
    good("own/alias-cpuid", "stores through a second mapping, executes CPUID, then calls the code").on_one_cpu(),
    // The same memory at two executable addresses.
    good(
        "views/other",
        "stores through the address it executes from, then calls the code at another address for the first time",
    )
    .on_one_cpu(),
    bad(
        "views/alias",
        "views/alias-cpuid",
        Verdicts::reported(Alias),
        "stores through one executable address, then calls the code at another one",
    )
    .on_one_cpu()
    .by_itself()
    .in_light(UNSERIALIZED, NO_WRITER),
    good("views/alias-cpuid", "the same with CPUID between").on_one_cpu(),
    // Mappings.
    good("mapping/fresh", "new code at an address where nothing was mapped before, handed to another thread"),
    good("mapping/munmap-mmap", "unmaps code that another thread ran and maps other code there"),
    good("mapping/map-fixed", "maps other code over code that another thread ran"),
    good(
        "mapping/mremap",
        "moves a page with other code over code that another thread ran: a change that no store made",
    ),
    good("mapping/mprotect", "makes code that another thread ran writable and not executable, changes it, and back"),
    bad(
        "mapping/pwrite",
        "mapping/pwrite-sync-core",
        UNSERIALIZED,
        "changes code by pwrite() to the memfd that another thread executes from",
    ),
    good(
        "mapping/pwrite-sync-core",
        "the same with membarrier(PRIVATE_EXPEDITED_SYNC_CORE) before the other thread goes on",
    ),
    // A word that says whether the code behind it may be entered (JDK-8310239).
    bad(
        "guard/data",
        "guard/data-cpuid",
        UNSERIALIZED,
        "the executor reads the guard as data, finds it open and enters changed code",
    ),
    bad(
        "guard/immediate",
        "guard/data-cpuid",
        QUADWORD,
        "the guard is an immediate operand: AMD promises what Intel does not",
    ),
    good("guard/data-cpuid", "the executor executes CPUID on the guard's slow path before it enters"),
    // Processes.
    good("process/fork", "a child runs code that its parent ran and then changed through an alias").on_one_cpu(),
    good("process/exec", "a program changes its text, runs it, and executes itself anew").on_one_cpu(),
    Scenario {
        full: MIGRATION,
        ..good("process/migrate", "a thread goes to another CPU, changes its code there and comes back")
    },
    good("process/migrate-registered", "the same, registered for SYNC_CORE: the scheduler serializes"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn is_bad(row: &Scenario) -> bool {
        matches!(row.full.under(Profile::LinuxX86), Verdict::Reported(_))
    }

    #[test]
    fn names_are_unique_and_ids_lead_back() {
        let names: HashSet<_> = TABLE.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), TABLE.len());
        for row in TABLE {
            assert_eq!(by_id(row.id()), Some(row));
            assert_eq!(by_name(row.name), Some(row));
        }
        assert_eq!(by_id(0), None);
        assert_eq!(by_id(TABLE.len() as u16 + 1), None);
    }

    #[test]
    fn every_bad_scenario_has_a_good_twin() {
        for row in TABLE.iter().filter(|row| is_bad(row)) {
            let twin = row.twin.and_then(by_name).unwrap_or_else(|| panic!("{} has no twin", row.name));
            assert!(!is_bad(twin), "{}: its twin {} is bad itself", row.name, twin.name);
            assert!(twin.cpus >= row.cpus, "{}: its twin runs elsewhere", row.name);
            assert!(row.writer.is_some(), "{}: who writes?", row.name);
        }
    }

    #[test]
    fn heavy_rows_and_rows_with_a_boot_of_their_own_are_asked_for() {
        let quick = Selection { filter: "", heavy: false, without: "" };
        assert!(TABLE.iter().any(|row| row.heavy && !quick.includes(row)));
        assert_eq!(quick.boots(), [""]);
        let long = Selection { filter: "kernel/*", heavy: true, without: "" };
        assert_eq!(long.boots(), ["", "maxcpus=1"]);
        assert_eq!(Selection { filter: "kernel/maxcpus", heavy: true, without: "" }.boots(), ["maxcpus=1"]);
        assert_eq!(Selection { filter: "coverage/*", heavy: true, without: "" }.boots(), ["", ISOLATED]);
        assert!(Selection { filter: "kernel/maxcpus", heavy: false, without: "" }.boots().is_empty());
        // One word, which the guest finds again on its command line.
        assert!(TABLE.iter().all(|row| !row.append.contains(char::is_whitespace)));
    }

    #[test]
    fn rows_that_do_not_apply_are_left_out_by_their_identity() {
        let [first, second] = [&TABLE[0], &TABLE[1]];
        let list = without([second, &TABLE[10]]);
        let selection = Selection { filter: "", heavy: true, without: &list };
        assert_eq!(list, "2,11");
        assert!(selection.includes(first) && !selection.includes(second) && !selection.includes(&TABLE[10]));
        assert!(
            selection.includes(&TABLE[11]) && !Selection { without: "", filter: "!*", ..selection }.includes(first)
        );
    }

    #[test]
    fn programs_are_silent_where_they_are_not_judged() {
        let verdict = |name: &str, profile| by_name(name).map(|row| row.verdict(Mode::Full, profile));
        assert_eq!(verdict("cross/imm32-split", NoLuck), Some(Silent));
        assert_eq!(verdict("module/no-ipi", NoLuck), Some(Reported(Unserialized)));
        assert_eq!(verdict("module/ipi-no-sync", NoLuck), Some(Reported(Unserialized)));
        assert_eq!(verdict("module/ipi-no-sync", Profile::LinuxX86), Some(Silent));
    }

    #[test]
    fn the_control_reports_nothing() {
        for row in TABLE {
            for mode in [Mode::Light, Mode::Full] {
                assert!(!matches!(row.verdict(mode, Coherent), Reported(_)), "{}", row.name);
            }
        }
    }

    #[test]
    fn light_reports_only_what_it_can_name() {
        for row in TABLE {
            for (profile, name) in Profile::NAMES {
                let verdict = row.verdict(Mode::Light, profile);
                assert!(matches!(verdict, Silent | Unchecked(_) | Reported(Unserialized)), "{} under {name}", row.name);
            }
        }
    }
}
