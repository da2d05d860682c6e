//! The hazards so far, each distinct one once.

use super::Report;
use super::evidence::{Evidence, Unsynced};
use super::groups::{Cause, GroupId, Groups};
use super::known::known_finding;
use crate::arch::known_finding::KnownFinding;
use crate::exposure::{Ended, ExposureId};
use crate::patching::{Asker, Missing};
use icsan_model::addr::Linear;
use icsan_model::verdict::kind::Kind;
use std::collections::{BTreeMap, HashMap};

/// Distinct hazards that are kept. More are counted as dropped.
const MAX_HAZARDS: usize = 10_000;

/// One distinct hazard: the evidence of its first occurrence, and how often it happened.
#[derive(Clone, Debug)]
pub struct Hazard {
    /// Which rule is broken.
    pub kind: Kind,
    /// The first occurrence.
    pub evidence: Evidence,
    /// How often it happened.
    pub count: u64,
    /// Why the user does not want to hear of it, if so.
    pub suppressed: Option<String>,
    /// The finding that it is, if it is a known one.
    pub known: Option<&'static KnownFinding>,
    /// Does it count? It does not if it is suppressed, or known and the user did not ask for those.
    pub counts: bool,
    /// The group that it is in, if it counts and the guest is to blame for it.
    pub group: Option<GroupId>,
    /// Is it the first of its group?
    pub leads: bool,
}

impl Hazard {
    /// Is it one more site of a cause that was told of?
    #[must_use]
    pub fn is_one_more(&self) -> bool {
        self.group.is_some() && !self.leads
    }
}

/// Hazards are the same if kind, executing site and writing site are; of a protocol that did not make a CPU serialize,
/// if the function, the place where, the first site and the CPU's class are. Markers keep guest tests apart, and in
/// another boot an address is another place.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Key {
    kind: Kind,
    site: Linear,
    writer: Option<Linear>,
    marker: u64,
    boot: usize,
    unsynced: Option<(Asker, Missing, Class)>,
}

/// What kind of vCPU was not made to serialize.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Class {
    patches: bool,
    lucky: bool,
}

impl Key {
    fn of(kind: Kind, evidence: &Evidence) -> Self {
        let class =
            |unsynced: &Unsynced| Class { patches: evidence.vcpu == unsynced.patcher, lucky: unsynced.luck.is_some() };
        let unsynced = evidence.unsynced.as_deref().map(|unsynced| (unsynced.asker, unsynced.missing, class(unsynced)));
        let writer = if unsynced.is_none() { evidence.writer() } else { None };
        Self { kind, site: evidence.linear, writer, marker: evidence.marker, boot: evidence.boot, unsynced }
    }
}

/// All of them, in the order of their first occurrence.
#[derive(Debug, Default)]
pub struct Findings {
    hazards: Vec<Hazard>,
    index: HashMap<Key, usize>,
    groups: Groups,
    dropped: u64,
}

impl Findings {
    /// Adds an occurrence; gives the hazard if it is a new one.
    pub fn add(&mut self, kind: Kind, evidence: Evidence, report: &Report<'_>) -> Option<&Hazard> {
        let config = report.config;
        let key = Key::of(kind, &evidence);
        if let Some(hazard) = self.index.get(&key).and_then(|index| self.hazards.get_mut(*index)) {
            hazard.count += 1;
            if hazard.evidence.injected.is_none() {
                hazard.evidence.injected = evidence.injected;
            }
            return None;
        }
        if self.hazards.len() >= MAX_HAZARDS {
            self.dropped += 1;
            return None;
        }
        let symbols = config.symbols.names_of(evidence.boot);
        let symbol = symbols.resolve(evidence.linear.0).map(|resolved| resolved.name);
        let suppressed = config.suppressions.reason(kind.name(), symbol).map(str::to_owned);
        let known = suppressed.is_none().then(|| known_finding(kind, &evidence, symbols, report.platform)).flatten();
        let is_noted = evidence.unsynced.as_ref().is_some_and(|unsynced| unsynced.luck.is_some()) && !config.luck;
        let counts = suppressed.is_none() && (known.is_none() || config.known) && !is_noted;
        let at = self.hazards.len();
        let grouped =
            (counts && kind != Kind::Emulator).then(|| self.groups.add(Cause::of(kind, &evidence, symbols), at));
        self.index.insert(key, at);
        let (group, leads) = (grouped.map(|(group, _)| group), grouped.is_some_and(|(_, leads)| leads));
        self.hazards.push(Hazard { kind, evidence, count: 1, suppressed, known, counts, group, leads });
        self.hazards.last()
    }

    /// An exposure has ended. Answers with the hazard that told of it first.
    pub fn exposure_ended(&mut self, id: ExposureId, ended: Ended) -> Option<&Hazard> {
        let told = |hazard: &&mut Hazard| {
            hazard.evidence.unsynced.as_ref().is_some_and(|unsynced| unsynced.exposure == Some(id))
        };
        let hazard = self.hazards.iter_mut().rev().find(told)?;
        hazard.evidence.unsynced.as_mut()?.ended = Some(Box::new(ended));
        Some(hazard)
    }

    /// The hazards.
    #[must_use]
    pub fn hazards(&self) -> &[Hazard] {
        &self.hazards
    }

    /// Those that count and that the guest is to blame for, by cause, in the order of their first occurrence: each with
    /// its hazards.
    pub fn groups(&self) -> impl Iterator<Item = (GroupId, &Cause, Vec<&Hazard>)> {
        let hazards = |members: &[usize]| members.iter().filter_map(|index| self.hazards.get(*index)).collect();
        self.groups.all().map(move |(id, cause, members)| (id, cause, hazards(members)))
    }

    /// How many occurrences were not kept.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Distinct hazards that count, by kind.
    #[must_use]
    pub fn by_kind(&self) -> BTreeMap<&'static str, u64> {
        let mut kinds = BTreeMap::new();
        for hazard in self.hazards.iter().filter(|hazard| hazard.counts) {
            *kinds.entry(hazard.kind.name()).or_default() += 1;
        }
        kinds
    }

    /// How many distinct hazards that count the guest is to blame for.
    #[must_use]
    pub fn to_blame(&self) -> usize {
        self.hazards.iter().filter(|hazard| hazard.group.is_some()).count()
    }

    /// How many distinct hazards are suppressed.
    #[must_use]
    pub fn suppressed(&self) -> usize {
        self.hazards.iter().filter(|hazard| hazard.suppressed.is_some()).count()
    }

    /// How many distinct hazards are known findings, whether they count or not.
    #[must_use]
    pub fn known(&self) -> usize {
        self.hazards.iter().filter(|hazard| hazard.known.is_some()).count()
    }
}
