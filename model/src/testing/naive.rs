//! The model by brute force, as an oracle for the model and for everything faster. Only with the feature `proptest`.
//!
//! It shares types with the model and nothing else. It keeps a snapshot of the whole guest after every event. A
//! buffer's entry is the *set of moments* that its bytes may stem from, one more with every event; there are no version
//! lists, no ranges of time, no short cuts. Whatever is asked is answered by looking at all snapshots. It costs as much
//! as it sounds.
//!
//! Where instruction caches do not see stores, each moment of fetching stands for all moments before it: what the cache
//! held then may be what memory held at any of them, but each byte is no older than the maintenance that had taken
//! effect by the first fetch allows ([`Naive::floor`]).

mod buffers;
mod caches;
mod compare;
mod question;

pub use compare::compare;

use crate::addr::{Linear, Phys, Vcpu};
use crate::arch::decode::Decode;
use crate::arch::maintenance::Accesses;
use crate::arch::profile::Profile;
use crate::event::{Event, Store};
use crate::memory::PAGE;
use crate::verdict::candidates::Candidate;
use crate::verdict::kind::Kind;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use buffers::Buffered;
use caches::Capture;
use question::Question;

type Times = BTreeSet<usize>;

/// The guest at one moment.
#[derive(Clone, Debug, Default)]
struct Snapshot {
    memory: BTreeMap<Phys, u8>,
    pages: BTreeMap<(Vcpu, Linear), Phys>,
}

/// What the oracle says of an execution.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// What may be executed other than what is in memory, by bytes.
    pub others: BTreeMap<Vec<u8>, Candidate>,
    /// The kind of hazard, if it is one.
    pub kind: Option<Kind>,
}

/// The oracle.
#[derive(Clone, Debug)]
pub struct Naive {
    profile: Profile,
    decoder: Arc<dyn Decode>,
    /// Index n: after event n. The first is empty.
    snapshots: Vec<Snapshot>,
    /// Index n: event n; index 0 is none.
    events: Vec<Option<Event>>,
    committed: BTreeSet<usize>,
    captures: Vec<Capture>,
    /// Which captures took effect, when, and for whom; `None`: for all.
    effective: Vec<(usize, Option<Vcpu>, Capture)>,
    /// The vCPUs whose caches are off, and the stores that were made so.
    off: BTreeSet<Vcpu>,
    uncached: BTreeSet<usize>,
    vcpus: BTreeMap<Vcpu, Buffered>,
}

impl Naive {
    /// An oracle for a guest that has not begun to run.
    #[must_use]
    pub fn new(profile: Profile, decoder: impl Decode + 'static) -> Self {
        Self {
            profile,
            decoder: Arc::new(decoder),
            snapshots: vec![Snapshot::default()],
            events: vec![None],
            committed: BTreeSet::new(),
            captures: Vec::new(),
            effective: Vec::new(),
            off: BTreeSet::new(),
            uncached: BTreeSet::new(),
            vcpus: BTreeMap::new(),
        }
    }

    /// The profile.
    #[must_use]
    pub const fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Applies an event, which must be possible. Answers for an execution.
    pub fn apply(&mut self, event: &Event) -> Option<Answer> {
        let now = self.snapshots.len();
        let mut snapshot = self.snapshots[now - 1].clone();
        match event {
            Event::Contents { phys, bytes } => {
                for (i, byte) in (0..).zip(bytes) {
                    let at = phys.offset(i);
                    // Memory never becomes unknown again, so the present tells.
                    if !snapshot.memory.contains_key(&at) {
                        self.snapshots.iter_mut().chain([&mut snapshot]).for_each(|snapshot| {
                            snapshot.memory.insert(at, *byte);
                        });
                    }
                }
            }
            Event::Store(store) => {
                snapshot
                    .memory
                    .extend(store.bytes.iter().enumerate().map(|(i, byte)| (store.phys.offset(i as u64), *byte)));
            }
            Event::Remap { vcpu, linear, phys } => {
                snapshot.pages.remove(&(*vcpu, *linear));
                snapshot.pages.extend(phys.map(|phys| ((*vcpu, *linear), phys)));
            }
            _ => {}
        }
        self.snapshots.push(snapshot);
        self.events.push(Some(event.clone()));
        // Whatever is held may be brought in anew at any moment.
        for buffered in self.vcpus.values_mut() {
            buffered.fetches_anew(now);
        }
        match event {
            Event::Contents { .. } => {}
            Event::Store(store) => self.stored(store, now),
            Event::Attribute { store, vcpu, pc, linear } => self.attributed(store.0 as usize, *vcpu, *pc, *linear),
            Event::Remap { vcpu, linear, .. } => self.remapped(*vcpu, *linear, now),
            Event::Fetch { vcpu, linear, len } => {
                let answer = self.answer(*vcpu, *linear, *len, now);
                self.fetched(*vcpu, *linear, *len, now);
                return Some(answer);
            }
            Event::Branch { vcpu } => self.branched(*vcpu),
            Event::Sync { vcpu, event, .. } if self.profile.serializes(*event) => self.emptied(*vcpu, now),
            Event::Sync { .. } => {}
            Event::Commit { stores } => self.committed.extend(stores.iter().map(|seq| seq.0 as usize)),
            Event::Reset { vcpu } => self.emptied(*vcpu, now),
            Event::Maintain { vcpu, operation } => self.maintained(*vcpu, *operation, now),
            Event::Barrier { vcpu, domain, accesses: Accesses::All } => self.completed(*vcpu, *domain, now),
            Event::Barrier { .. } => {}
            Event::Caches { vcpu, on: true } => drop(self.off.remove(vcpu)),
            Event::Caches { vcpu, on: false } => drop(self.off.insert(*vcpu)),
        }
        None
    }

    /// The store that made the byte's version at that moment; 0 if none did.
    fn version(&self, phys: Phys, at: usize) -> usize {
        let value = |at: usize| self.snapshots[at].memory.get(&phys);
        (1..=at).rev().find(|seq| value(*seq) != value(*seq - 1)).unwrap_or(0)
    }

    fn store_at(&self, seq: usize) -> Option<&Store> {
        match self.events.get(seq) {
            Some(Some(Event::Store(store))) => Some(store),
            _ => None,
        }
    }

    fn chunk(&self, linear: Linear) -> Linear {
        linear.align_down(u64::from(self.profile.buffers.chunk))
    }

    /// The chunks of `len` bytes, byte for byte.
    fn chunks(&self, linear: Linear, len: u64) -> BTreeSet<Linear> {
        (0..len).map(|i| self.chunk(linear.offset(i))).collect()
    }

    fn phys(&self, vcpu: Vcpu, linear: Linear, at: usize) -> Option<Phys> {
        let page = linear.align_down(PAGE);
        self.snapshots[at].pages.get(&(vcpu, page)).map(|phys| phys.offset(linear.0 - page.0))
    }

    fn byte(&self, vcpu: Vcpu, linear: Linear, at: usize) -> Option<u8> {
        self.snapshots[at].memory.get(&self.phys(vcpu, linear, at)?).copied()
    }

    fn answer(&self, vcpu: Vcpu, linear: Linear, len: u8, now: usize) -> Answer {
        let question = Question { naive: self, vcpu, linear, len: usize::from(len), now };
        let present = Times::from([now]);
        let held = |chunk| {
            let times = self.held(vcpu, chunk);
            if times.is_empty() { present.clone() } else { times }
        };
        let mut others = question.others(&held, false);
        if self.profile.buffers.speculation && !self.profile.snoop {
            let buffered = self.vcpus.get(&vcpu).cloned().unwrap_or_default();
            let speculated = |chunk: Linear| {
                let mut times: Times = (buffered.epoch_start..=now).collect();
                for (_, store) in buffered.seen.iter().filter(|(seen, _)| *seen == chunk) {
                    times.retain(|time| time >= store);
                }
                times
            };
            for (bytes, candidate) in question.others(&speculated, true) {
                others.entry(bytes).or_insert(candidate);
            }
        }
        let kind = others.values().filter(|candidate| !candidate.exempt).filter_map(|candidate| candidate.kind).min();
        Answer { others, kind }
    }
}
