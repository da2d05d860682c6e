//! The scenarios, and what ICSAN must say about each.
//!
//! A row says what is true under the full model (`writers=on`). Where the light mode has to say something else, since
//! it sees no store, the row says what and why: a known difference, not a licence.
//!
//! Each architecture has a table of its own, in a folder of its name.

pub mod aarch64;
pub mod coverage;
mod kernel;
mod programs;
pub mod x86;

use crate::glob::matches_any;
use crate::verdict::{Mode, Profile, Verdict, Verdicts};

/// One scenario.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scenario {
    /// Its name: group, slash, name.
    pub name: &'static str,
    /// Its place in the table, from 1: the low half of its marker.
    pub id: u16,
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
    /// Which functions its reports must name; none if that is left open.
    pub functions: Option<Functions>,
    /// Which protocol must be told of as unsynced, and how often at least; none if that is left open.
    pub protocol: Option<Protocol>,
    /// Protocol functions of which one at least must have committed something, where commits are asked: a silence is
    /// worth nothing if nobody was. Empty if the kernel commits nothing here.
    pub commits: &'static [&'static str],
    /// Does it take so long that only a run that asks for it includes it?
    pub heavy: bool,
    /// Does a kernel do it once a boot? Then there is one round.
    pub once: bool,
    /// A word that the kernel's command line must have: the scenario gets a boot of its own. Empty for most.
    pub append: &'static str,
    /// Does the executor run while the writer maintains caches? Then which step it comes before is chance, and each of
    /// their kinds is as good as `unsynchronized`.
    pub any_step: bool,
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

/// Functions, by globs over symbols with their offsets. One of the module that patches itself has its name and a colon
/// before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Functions {
    /// Where all that is reported is executed.
    pub executes: &'static str,
    /// Where it is stored.
    pub stores: &'static str,
}

/// A patching protocol that lacks a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Protocol {
    /// Its function, by a glob.
    pub function: &'static str,
    /// How often a vCPU must be told of, at least.
    pub least: u64,
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
    rows.into_iter().map(|row| row.id.to_string()).collect::<Vec<_>>().join(",")
}

impl Selection<'_> {
    /// Is this one asked for?
    #[must_use]
    pub fn includes(&self, row: &Scenario) -> bool {
        let left_out = || self.without.split(',').any(|id| id.parse() == Ok(row.id));
        matches_any(self.filter, row.name) && (self.heavy || !row.heavy) && !left_out()
    }

    /// The boots that it takes of a table: the word that each has on the kernel's command line, the empty one first.
    #[must_use]
    pub fn boots(&self, table: &[Scenario]) -> Vec<&'static str> {
        let mut words: Vec<_> = table.iter().filter(|row| self.includes(row)).map(|row| row.append).collect();
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
            (_, _) if !profile.judges_programs() && !self.is_of_kernel() => Verdict::Silent,
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
}

/// The modules of the guest's kernel that `kernel/module` loads: without dependencies, in Linux 6.1 as in 7.3, and with
/// each kind of place that is patched when a module is loaded. The first is the larger one, so that the second one's
/// text takes its place.
pub const MODULES: [&str; 2] = ["pktgen", "dummy"];

/// Where the guest finds them, as `NAME.ko`.
pub const MODULES_FOLDER: &str = "/modules";

/// The CPU that writes and steers; the vCPU of the same number.
pub const WRITER: usize = 0;

/// The CPU that executes the changed code, given how many there are; the vCPU of the same number.
#[must_use]
pub const fn executor(cpus: usize) -> usize {
    if cpus > 1 { 1 } else { 0 }
}

/// Looks a scenario up by its name.
#[must_use]
pub fn by_name(table: &'static [Scenario], name: &str) -> Option<&'static Scenario> {
    table.iter().find(|row| row.name == name)
}

const fn good(name: &'static str, what: &'static str) -> Scenario {
    Scenario {
        name,
        id: 0,
        what,
        twin: None,
        cpus: 2,
        full: Verdicts::SILENT,
        light: None,
        visible: Visible::Always,
        writer: None,
        functions: None,
        protocol: None,
        commits: &[],
        heavy: false,
        once: false,
        append: "",
        any_step: false,
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

    const fn named(mut self, executes: &'static str, stores: &'static str) -> Self {
        self.functions = Some(Functions { executes, stores });
        self
    }

    const fn unsynced(mut self, function: &'static str, least: u64) -> Self {
        self.protocol = Some(Protocol { function, least });
        self
    }

    const fn commits(mut self, functions: &'static [&'static str]) -> Self {
        self.commits = functions;
        self
    }

    const fn at_any_step(mut self) -> Self {
        self.any_step = true;
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

/// How many rows there are in all.
#[must_use]
pub const fn count(parts: &[&[Scenario]]) -> usize {
    let (mut part, mut count) = (0, 0);
    while part < parts.len() {
        count += parts[part].len();
        part += 1;
    }
    count
}

/// All rows, one after the other, each with its place as its identity: within one build of guest and runner.
///
/// # Panics
/// There are not [`count`] rows.
#[must_use]
pub const fn joined<const COUNT: usize>(parts: &[&[Scenario]]) -> [Scenario; COUNT] {
    let mut table = [good("", ""); COUNT];
    let (mut part, mut row, mut at) = (0, 0, 0);
    while part < parts.len() {
        if row == parts[part].len() {
            (part, row) = (part + 1, 0);
            continue;
        }
        table[at] = parts[part][row];
        table[at].id = at as u16 + 1;
        (row, at) = (row + 1, at + 1);
    }
    assert!(at == COUNT);
    table
}
