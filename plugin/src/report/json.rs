//! The objects of the JSON Lines report, schema 1. Addresses are strings `0x…`, bytes are hex strings.

use super::deferrals::DeferralObject;
use super::evidence::{Evidence, Origin, Shown};
use super::findings::{Findings, Hazard};
use super::groups::{Cause, CodePage, GroupId};
use super::hex::{hex, hex_bytes};
use super::injections::{InjectionCounts, InjectionObject};
use super::ledger::ReliedOn;
use super::objects::{ContextObject, LastSyncObject, chain, context};
use super::unsynced::{CoverageObject, UnsyncedObject};
use super::{Counts, MemoryCounts, Report};
use crate::injection::{Injections, Record};
use crate::patching::Writer;
use crate::qemu::hooks::HookCounts;
use crate::repair::RepairCounts;
use crate::stores::store_check::CheckCounts;
use icsan_model::addr::{Linear, Vcpu};
use icsan_model::verdict::hazard::Write;
use serde::Serialize;
use std::collections::BTreeMap;

/// Version of the schema: changes that break readers raise it.
pub const SCHEMA: u32 = 1;

/// One line.
#[derive(Serialize, Debug)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Object<'a> {
    /// First line: what was asked for, and of whom.
    Start(Start<'a>),
    /// The guest executed a marker.
    Marker(Marker),
    /// One distinct hazard.
    Hazard(HazardObject<'a>),
    /// One distinct injected execution.
    Injection(InjectionObject),
    /// Last line. A report without it was cut off.
    Summary(Summary<'a>),
}

/// See [`Object::Start`].
#[derive(Serialize, Debug)]
#[allow(missing_docs)]
pub struct Start<'a> {
    pub schema: u32,
    pub profile: &'a str,
    pub with: &'a [String],
    pub without: &'a [String],
    pub arch: &'a str,
    pub qemu: &'a str,
    pub api: i32,
    pub vcpus: usize,
    pub writers: bool,
    /// `on`; `off`: they are not wanted; `refused`: they are not possible here.
    pub hooks: &'static str,
    pub chunk: u32,
}

/// See [`Object::Marker`].
#[derive(Serialize, Debug)]
#[allow(missing_docs)]
pub struct Marker {
    pub value: String,
    pub vcpu: u16,
}

/// See [`Object::Hazard`].
#[derive(Serialize, Debug)]
#[allow(missing_docs)]
pub struct HazardObject<'a> {
    pub kind: &'static str,
    pub rule: String,
    pub vcpu: u16,
    pub pc: String,
    pub symbol: Option<String>,
    pub paddr: Option<String>,
    pub len: usize,
    pub memory: String,
    pub memory_text: String,
    pub candidates: Vec<CandidateObject>,
    /// `false`: there may be more candidates than were looked at. Left out if there are not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub all_candidates: Option<bool>,
    /// Was the vCPU made to execute another one than memory's at any of its executions?
    pub injected: bool,
    /// Which, the first time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub executed: Option<String>,
    /// Who wrote. Empty: not known, or a page moved.
    pub writes: Vec<WriteObject>,
    /// `seen`, `unseen` (no CPU was seen to make the last store), `moved` (a page was remapped), `unknown` (stores are
    /// not watched).
    pub writer: &'static str,
    /// Who called the executing function: best effort, innermost first, `?` where it is a guess.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub chain: Vec<String>,
    /// Where the executor is.
    pub context: Option<ContextObject>,
    pub last_sync: Option<LastSyncObject>,
    pub epoch: u64,
    /// In which boot, from 1, if there were several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot: Option<usize>,
    pub marker: String,
    pub count: u64,
    pub suppressed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'a str>,
    /// Where it is explained, if it is a known finding. It then counts only if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub known: Option<&'static str>,
    /// Its group; `null`: it does not count. Only the first of a group has call chains and writers' contexts.
    pub group: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<&'static str>,
    /// Of the kind `unsynced`: the protocol, and what it did not do. `pc` is then the first address that it patched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unsynced: Option<Box<UnsyncedObject>>,
}

/// One byte string that the vCPU may execute.
#[derive(Serialize, Debug)]
#[allow(missing_docs)]
pub struct CandidateObject {
    pub bytes: String,
    pub text: String,
    /// For each byte the store that made it (0: before all history); in the light mode, where it comes from.
    pub versions: Versions,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<&'static str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub exempt: bool,
}

/// See [`CandidateObject`].
#[derive(Serialize, Debug)]
#[serde(untagged)]
#[allow(missing_docs)]
pub enum Versions {
    Stores(Vec<u64>),
    Words([&'static str; 1]),
}

/// A store that separates a candidate from memory.
#[derive(Serialize, Debug)]
#[allow(missing_docs)]
pub struct WriteObject {
    pub seq: u64,
    pub vcpu: Option<u16>,
    pub pc: Option<String>,
    pub symbol: Option<String>,
    pub linear: Option<String>,
    pub paddr: String,
    pub old: Option<String>,
    pub new: String,
    /// The outermost function of a patching protocol that the writer was in, and who had called that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub chain: Vec<String>,
    pub context: Option<ContextObject>,
}

/// See [`Object::Summary`].
#[derive(Serialize, Debug)]
#[allow(missing_docs)]
pub struct Summary<'a> {
    pub hazards: BTreeMap<&'static str, u64>,
    pub suppressed: usize,
    /// Distinct sites that are known findings. They are not in `hazards`, unless that was asked for.
    pub known: usize,
    /// The hazards of one cause.
    pub groups: Vec<GroupObject>,
    pub exempt: u64,
    /// The ledger; `null` in the light mode.
    pub reliance: Option<Vec<ReliedOn>>,
    pub blocks: u64,
    pub serializing: BTreeMap<&'static str, u64>,
    /// Stores to pages with code; `null` in the light mode.
    pub stores: Option<u64>,
    /// Changes of code that nobody was seen to make.
    pub unseen: Option<u64>,
    /// Events that did not count for where they were, with `without=EVENT@SYMBOL` or `profile=no-luck`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<u64>,
    /// How many states were restored (`loadvm`), if any.
    #[serde(skip_serializing_if = "is_zero")]
    pub restored: u64,
    /// What was executed instead of what is in memory, with `inject`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub injected: Option<InjectionCounts>,
    /// What was done about QEMU's own outdated blocks, with `emulator=repair`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub emulator: Option<Emulator>,
    /// What hooks in QEMU's own functions did, where there are some.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hooks: Option<HookObject>,
    /// How many stores were compared with memory, with `check=stores`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checked: Option<Checked>,
    /// How often a patching protocol, or a membarrier, committed stores.
    pub commits: Option<u64>,
    /// What made the online CPUs serialize at the commits of patching protocols; `null` in the light mode.
    pub coverage: Option<Vec<CoverageObject>>,
    /// What ended the exposures of CPUs that a protocol left out; `null` in the light mode.
    pub deferrals: Option<Vec<DeferralObject>>,
    pub epochs: u64,
    pub memory: &'a MemoryCounts,
    pub dropped: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub dropped_by: BTreeMap<&'static str, u64>,
    pub complete: bool,
    /// The guest's kernel panicked: on this vCPU. That makes no report incomplete.
    pub guest_panic: Option<GuestPanic>,
    pub kaslr: Option<String>,
    /// The same of each boot, if there were several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boots: Option<Vec<Option<String>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Hazards of one cause.
#[derive(Serialize, Debug)]
#[allow(missing_docs)]
pub struct GroupObject {
    pub group: usize,
    pub kind: &'static str,
    /// The storing function, or the address of the storing instruction; `null`: not known.
    pub writer: Option<String>,
    /// On whose behalf.
    pub function: Option<String>,
    /// The page that is executed: its physical address, where that is known, else its linear one; `null`: no execution.
    pub page: Option<String>,
    pub sites: usize,
    pub executions: u64,
    pub marker: String,
}

/// See [`Summary`].
#[derive(Serialize, Debug)]
#[allow(missing_docs)]
pub struct GuestPanic {
    pub vcpu: u16,
}

/// What was done about blocks that may have been older than memory.
#[derive(Serialize, Debug)]
pub struct Emulator {
    /// How often one was about to be executed.
    pub suspect: u64,
    /// Dropped and translated again.
    pub repaired: u64,
    /// Executed; such executions are no evidence.
    pub gave_up: u64,
}

/// See [`Summary::hooks`].
#[derive(Serialize, Debug)]
pub struct HookObject {
    /// Stores after which QEMU's blocks were dropped once more, since one was being decoded while the store was made.
    pub dropped_again: u64,
    /// Instructions that were translated without QEMU's note of their accesses' values.
    pub without_notes: u64,
}

/// What `check=stores` found.
#[derive(Serialize, Debug)]
pub struct Checked {
    /// Stores to pages with code.
    pub code: u64,
    /// Other ones.
    pub data: u64,
    /// Stores after which memory held something else.
    pub untrue: u64,
    /// Other ones of which that may be another vCPU's doing.
    pub unsettled: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl<'a> Object<'a> {
    /// The first line.
    #[must_use]
    pub fn start(report: &Report<'a>) -> Self {
        Self::Start(Start {
            schema: SCHEMA,
            profile: report.config.profile.name,
            with: &report.config.with,
            without: &report.config.without,
            arch: report.arch.name,
            qemu: report.machine.generation.qemu(),
            api: report.machine.generation as i32,
            vcpus: report.machine.vcpus,
            writers: report.config.writers,
            hooks: report.hooks.name(),
            chunk: report.config.profile.buffers.chunk,
        })
    }

    /// A marker.
    #[must_use]
    pub fn marker(vcpu: Vcpu, value: u64) -> Self {
        Self::Marker(Marker { value: hex(value), vcpu: vcpu.0 })
    }

    /// A hazard, with the count as it stands.
    #[must_use]
    pub fn hazard(report: &Report<'_>, hazard: &'a Hazard) -> Self {
        let evidence = &hazard.evidence;
        let symbols = report.config.symbols.names_of(evidence.boot);
        let symbol = |address: u64| symbols.resolve(address).map(|resolved| resolved.to_string());
        let text = |bytes: &[u8]| report.platform.text(bytes, evidence.linear.0, symbols);
        Self::Hazard(HazardObject {
            kind: hazard.kind.name(),
            rule: super::text::rule(hazard.kind, report.arch),
            vcpu: evidence.vcpu.0,
            pc: hex(evidence.linear.0),
            symbol: symbol(evidence.linear.0),
            paddr: evidence.physical.map(|phys| hex(phys.0)),
            len: evidence.memory.len(),
            memory: hex_bytes(&evidence.memory),
            memory_text: text(&evidence.memory),
            candidates: evidence.candidates.iter().map(|shown| candidate(shown, text(&shown.bytes))).collect(),
            all_candidates: (!evidence.all_candidates).then_some(false),
            injected: evidence.injected.is_some(),
            executed: evidence.injected.as_deref().map(hex_bytes),
            writes: writes(evidence, hazard.is_one_more(), &symbol),
            writer: match &evidence.writes {
                None => "unknown",
                Some(writes) if writes.last().is_some_and(|write| write.vcpu.is_some()) => "seen",
                Some(writes) if writes.is_empty() && evidence.moved => "moved",
                Some(_) => "unseen",
            },
            chain: if hazard.is_one_more() { Vec::new() } else { chain(&evidence.chain, &symbol) },
            context: context(&evidence.context),
            last_sync: evidence.last_sync.map(|sync| LastSyncObject {
                event: sync.event.map_or("reset", |event| report.arch.event_name(event)),
                pc: sync.pc.map(|pc| hex(pc.0)),
                symbol: sync.pc.and_then(|pc| symbol(pc.0)),
                origin: evidence.last_origin.map(|origin| super::origin_name(symbols, origin)),
                seq: Some(sync.seq.0),
            }),
            epoch: evidence.epoch.0,
            boot: (report.config.symbols.boot() > 1).then_some(evidence.boot),
            marker: hex(evidence.marker),
            count: hazard.count,
            suppressed: hazard.suppressed.is_some(),
            reason: hazard.suppressed.as_deref(),
            known: hazard.known.map(|known| known.page),
            group: hazard.group.map(|group| group.0),
            note: super::text::note(report, hazard),
            unsynced: evidence
                .unsynced
                .as_ref()
                .map(|unsynced| Box::new(unsynced.object(report, hazard.is_one_more(), symbols))),
        })
    }

    /// An injected execution, with the count as it stands.
    #[must_use]
    pub fn injection(report: &Report<'_>, record: &Record) -> Self {
        Self::Injection(super::injections::object(report, record))
    }

    /// The last line.
    #[must_use]
    pub fn summary(
        report: &Report<'_>,
        findings: &Findings,
        injections: Option<&Injections>,
        counts: &'a Counts,
        fault: Option<&'a str>,
    ) -> Self {
        Self::Summary(Summary {
            hazards: findings.by_kind(),
            suppressed: findings.suppressed(),
            known: findings.known(),
            groups: groups(report, findings),
            exempt: counts.exempt,
            reliance: counts.ledger.as_ref().map(|ledger| super::ledger::rows(report, ledger)),
            blocks: counts.blocks,
            serializing: super::text::events_met(report, counts).into_iter().collect(),
            stores: counts.stores.map(|stores| stores.stores),
            unseen: counts.stores.map(|stores| stores.unseen),
            refused: counts.refused,
            restored: counts.restored,
            injected: injections.map(|injections| super::injections::counts(report, injections)),
            emulator: counts.emulator.map(|RepairCounts { suspect, repaired, gave_up }| Emulator {
                suspect,
                repaired,
                gave_up,
            }),
            hooks: counts
                .hooks
                .map(|HookCounts { dropped_again, without_notes }| HookObject { dropped_again, without_notes }),
            checked: counts.checked.map(|CheckCounts { code, data, untrue, unsettled }| Checked {
                code,
                data,
                untrue,
                unsettled,
            }),
            commits: counts.commits.map(|(commits, _)| commits),
            coverage: super::unsynced::rows(report, counts),
            deferrals: super::deferrals::rows(report, counts),
            epochs: counts.epochs,
            memory: &counts.memory,
            dropped: counts.dropped,
            dropped_by: counts.dropped_by.clone(),
            complete: counts.complete,
            guest_panic: counts.panicked.map(|vcpu| GuestPanic { vcpu: vcpu.0 }),
            kaslr: report.config.symbols.offset().map(hex),
            boots: (report.config.symbols.boot() > 1)
                .then(|| report.config.symbols.offsets().into_iter().map(|offset| offset.map(hex)).collect()),
            fault,
            note: counts.nothing_watched.clone(),
        })
    }
}

fn candidate(shown: &Shown, text: String) -> CandidateObject {
    let (versions, kind, exempt) = match &shown.origin {
        Origin::Memory => (Versions::Words(["memory"]), None, false),
        Origin::Earlier => (Versions::Words(["executed earlier in this epoch"]), None, false),
        Origin::Mix => (Versions::Words(["chunks of both"]), None, false),
        Origin::Versions { versions, kind, exempt, .. } => {
            (Versions::Stores(versions.iter().map(|seq| seq.0).collect()), Some(kind.name()), *exempt)
        }
    };
    CandidateObject { bytes: hex_bytes(&shown.bytes), text, versions, kind, exempt }
}

fn groups(report: &Report<'_>, findings: &Findings) -> Vec<GroupObject> {
    let name = |address: Linear| {
        report.config.symbols.resolve(address.0).map_or_else(|| hex(address.0), |resolved| resolved.name.to_owned())
    };
    let group = |(group, cause, hazards): (GroupId, &Cause, Vec<&Hazard>)| GroupObject {
        group: group.0,
        kind: cause.kind.name(),
        writer: cause.stores.map(name),
        function: cause.behalf.map(name),
        page: match cause.page {
            CodePage::Physical(page) | CodePage::Linear(page) => Some(hex(page)),
            CodePage::Whatever => None,
        },
        sites: hazards.len(),
        executions: hazards.iter().map(|hazard| hazard.count).sum(),
        marker: hex(cause.marker),
    };
    findings.groups().map(group).collect()
}

/// `short`: without what the first of the group has said.
fn writes(evidence: &Evidence, short: bool, symbol: &impl Fn(u64) -> Option<String>) -> Vec<WriteObject> {
    let writers = evidence.writers.iter().map(Option::as_ref).chain(std::iter::repeat(None));
    let object = |(write, writer): (&Write, Option<&Writer>)| WriteObject {
        seq: write.seq.0,
        vcpu: write.vcpu.map(|vcpu| vcpu.0),
        pc: write.pc.map(|pc| hex(pc.0)),
        symbol: write.pc.and_then(|pc| symbol(pc.0)),
        linear: write.linear.map(|linear| hex(linear.0)),
        paddr: hex(write.phys.0),
        old: write.old.as_deref().map(hex_bytes),
        new: hex_bytes(&write.new),
        function: writer
            .and_then(|writer| writer.function)
            .map(|function| symbol(function.0).unwrap_or_else(|| hex(function.0))),
        chain: writer.filter(|_| !short).map(|writer| chain(&writer.chain, symbol)).unwrap_or_default(),
        context: writer.filter(|_| !short).and_then(|writer| context(&writer.context)),
    };
    evidence.writes.iter().flatten().zip(writers).map(object).collect()
}
