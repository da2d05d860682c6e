//! The objects of the JSON Lines report, schema 1. Addresses are strings `0x…`, bytes are hex strings.

use super::findings::{Findings, Hazard};
use super::{Counts, Report};
use crate::x86::text::disassemble;
use icsan_model::addr::Vcpu;
use icsan_model::light::Origin;
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
    /// Who wrote. Empty: not known.
    pub writes: [(); 0],
    pub writer: &'static str,
    pub last_sync: Option<LastSyncObject>,
    pub epoch: u64,
    pub marker: String,
    pub count: u64,
    pub suppressed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<&'static str>,
}

/// One byte string that the vCPU may execute.
#[derive(Serialize, Debug)]
#[allow(missing_docs)]
pub struct CandidateObject {
    pub bytes: String,
    pub text: String,
    pub versions: Vec<&'static str>,
}

/// The vCPU's last serializing event.
#[derive(Serialize, Debug)]
#[allow(missing_docs)]
pub struct LastSyncObject {
    pub event: &'static str,
    pub pc: String,
    pub symbol: Option<String>,
    pub seq: u64,
}

/// See [`Object::Summary`].
#[derive(Serialize, Debug)]
#[allow(missing_docs)]
pub struct Summary<'a> {
    pub hazards: BTreeMap<&'static str, u64>,
    pub suppressed: usize,
    pub exempt: u64,
    /// The ledger needs the store side.
    pub reliance: Option<()>,
    pub blocks: u64,
    pub serializing: BTreeMap<&'static str, u64>,
    /// Stores are not watched in the light mode.
    pub stores: Option<()>,
    pub epochs: u64,
    pub dropped: u64,
    pub complete: bool,
    pub kaslr: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
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
            writers: false,
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
        let symbols = &report.config.symbols;
        let symbol = |address: u64| symbols.resolve(address).map(|resolved| resolved.to_string());
        let conflict = &evidence.conflict;
        let text = |bytes: &[u8]| disassemble(bytes, conflict.linear.0, symbols);
        Self::Hazard(HazardObject {
            kind: hazard.kind.name(),
            rule: super::text::rule(hazard.kind, report.arch),
            vcpu: evidence.vcpu.0,
            pc: hex(conflict.linear.0),
            symbol: symbol(conflict.linear.0),
            paddr: evidence.physical.map(hex),
            len: conflict.memory.len(),
            memory: hex_bytes(&conflict.memory),
            memory_text: text(&conflict.memory),
            candidates: report
                .candidates(conflict)
                .into_iter()
                .map(|candidate| CandidateObject {
                    text: text(&candidate.bytes),
                    bytes: hex_bytes(&candidate.bytes),
                    versions: vec![match candidate.origin {
                        Origin::Memory => "memory",
                        Origin::Earlier => "executed earlier in this epoch",
                        Origin::Mix => "chunks of both",
                    }],
                })
                .collect(),
            writes: [],
            writer: "unknown",
            last_sync: evidence.last_sync.map(|sync| LastSyncObject {
                event: report.arch.event_name(sync.event),
                pc: hex(sync.pc.0),
                symbol: symbol(sync.pc.0),
                seq: sync.seq.0,
            }),
            epoch: evidence.epoch.0,
            marker: hex(evidence.marker),
            count: hazard.count,
            suppressed: hazard.suppressed.is_some(),
            reason: hazard.suppressed.as_deref(),
            note: super::text::note(hazard.kind),
        })
    }

    /// The last line.
    #[must_use]
    pub fn summary(report: &Report<'_>, findings: &Findings, counts: &Counts, fault: Option<&'a str>) -> Self {
        Self::Summary(Summary {
            hazards: findings.by_kind(),
            suppressed: findings.suppressed(),
            exempt: counts.exempt,
            reliance: None,
            blocks: counts.blocks,
            serializing: super::text::events_met(report, counts).into_iter().collect(),
            stores: None,
            epochs: counts.epochs,
            dropped: counts.dropped,
            complete: counts.complete,
            kaslr: report.config.symbols.offset().map(hex),
            fault,
            note: counts.nothing_watched.clone(),
        })
    }
}

fn hex(value: u64) -> String {
    format!("{value:#x}")
}

fn hex_bytes(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
