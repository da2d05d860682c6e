//! A fast detector on top of [`History`] says what the model says.
//!
//! The detector here is the plugin's without QEMU: it knows each run (one instruction here) of each vCPU by a flag and a moment, and looks closer only when it must.

use icsan_model::addr::{Epoch, Linear, Phys, Seq, Vcpu};
use icsan_model::decode::Decode;
use icsan_model::event::Event;
use icsan_model::hazard::{Hazard, Verdict};
use icsan_model::history::{History, Holding, Place, Question, Ran};
use icsan_model::light::CodeRun;
use icsan_model::memory::PAGE;
use icsan_model::model::Model;
use icsan_model::profile::Profile;
use icsan_model::strategies::{self, Op, Toy};
use icsan_model::vcpu::LastSync;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// The flag of a run that the vCPU executed in its epoch: 0 is none.
const LOOK_AGAIN: u8 = 1;
const EXECUTED: u8 = 2;

struct Segment {
    run: CodeRun,
    place: Place,
    last_change: Seq,
}

#[derive(Default)]
struct Cpu {
    epoch: Epoch,
    last_sync: Option<LastSync>,
    pages: BTreeMap<Linear, Phys>,
    /// Flag and moment, by segment.
    slots: BTreeMap<usize, (u8, Seq)>,
}

struct Fast {
    profile: Profile,
    history: History,
    segments: Vec<Segment>,
    cpus: BTreeMap<Vcpu, Cpu>,
    slow: u64,
}

/// What the fast detector did at an execution.
enum Seen {
    /// It looked: this is its verdict.
    Verdict(Option<Hazard>),
    /// It was not called: what it said last in this epoch still holds.
    Skipped,
}

impl Fast {
    fn new(profile: Profile) -> Self {
        let history = History::new(profile, Toy, usize::from(strategies::VCPUS));
        Self { profile, history, segments: Vec::new(), cpus: BTreeMap::new(), slow: 0 }
    }

    fn epoch(&self, vcpu: Vcpu) -> Epoch {
        self.cpus.get(&vcpu).map_or(Epoch::default(), |cpu| cpu.epoch)
    }

    fn near(&self, phys: Phys, len: usize) -> Vec<usize> {
        let window = Toy.max_len() as u64;
        let near = |segment: &Segment| {
            (0..window)
                .filter_map(|i| segment.place.phys(segment.run.linear().offset(i)))
                .any(|at| at >= phys && at < phys.offset(len as u64))
        };
        (0..self.segments.len()).filter(|index| near(&self.segments[*index])).collect()
    }

    fn look_again(&mut self, near: &[usize]) {
        for slots in self.cpus.values_mut().map(|cpu| &mut cpu.slots) {
            for index in near {
                if let Some((flag, _)) = slots.get_mut(index).filter(|(flag, _)| *flag == EXECUTED) {
                    *flag = LOOK_AGAIN;
                }
            }
        }
    }

    fn committed(&mut self, store: Seq) {
        let Some(record) = self.history.memory().record(store) else { return };
        let (phys, len) = (record.store.phys, record.store.bytes.len());
        let near = self.near(phys, len);
        self.look_again(&near);
    }

    /// Forgets what nobody can hold of the cells of these bytes.
    fn forget(&mut self, phys: Phys, len: u64) {
        let horizon = self.cpus.values().map(|cpu| cpu.last_sync.map_or(Seq(0), |sync| sync.seq)).min();
        let horizon = horizon.filter(|_| self.cpus.len() == usize::from(strategies::VCPUS)).unwrap_or(Seq(0));
        for cell in [phys, phys.offset(len - 1)] {
            let Self { history, segments, cpus, .. } = self;
            history.forget_unheld(cell, horizon, 0, |first, len| {
                let touches = |segment: &Segment| {
                    let mut bytes =
                        (0..segment.run.bytes().len() as u64).filter_map(|i| segment.place.phys(segment.run.linear().offset(i)));
                    bytes.any(|at| at >= first && at < first.offset(len))
                };
                let there: BTreeSet<usize> = (0..segments.len()).filter(|index| touches(&segments[*index])).collect();
                let slots = cpus.values().flat_map(|cpu| &cpu.slots);
                let held = slots.filter(|(index, (flag, _))| there.contains(index) && *flag != 0).map(|(_, (_, since))| *since).min();
                held.map_or(if there.is_empty() { Holding::NeverRan } else { Holding::Nobody }, Holding::Since)
            });
        }
    }

    fn apply(&mut self, event: &Event, seq: Seq) -> Option<Seen> {
        match event {
            Event::Contents { phys, bytes } => {
                self.history.memory_mut().contents(*phys, bytes);
                let near = self.near(*phys, bytes.len());
                self.look_again(&near);
            }
            Event::Store(store) => {
                let epoch = store.vcpu.map_or(Epoch::default(), |vcpu| self.epoch(vcpu));
                self.history.store(seq, store.clone(), epoch);
                let near = self.near(store.phys, store.bytes.len());
                for index in &near {
                    self.segments[*index].last_change = seq;
                }
                self.look_again(&near);
                self.forget(store.phys, store.bytes.len() as u64);
            }
            Event::Attribute { store, vcpu, pc, linear } => {
                self.history.attribute(*store, *vcpu, *pc, *linear, self.epoch(*vcpu));
                self.committed(*store);
            }
            Event::Commit { stores } => {
                for store in stores {
                    self.history.memory_mut().commit(*store);
                    self.committed(*store);
                }
            }
            Event::Branch { vcpu } => {
                let epoch = self.epoch(*vcpu);
                if self.history.awaits_branch(*vcpu, epoch) {
                    self.history.branch(*vcpu, epoch);
                }
            }
            Event::Sync { vcpu, event, pc } if self.profile.serializes(*event) => {
                self.serialize(*vcpu, LastSync { event: Some(*event), pc: Some(*pc), seq });
            }
            Event::Sync { .. } => {}
            Event::Reset { vcpu } => self.serialize(*vcpu, LastSync { event: None, pc: None, seq }),
            Event::Remap { vcpu, linear, phys } => {
                let pages = &mut self.cpus.entry(*vcpu).or_default().pages;
                pages.remove(linear);
                pages.extend(phys.map(|phys| (*linear, phys)));
            }
            Event::Fetch { vcpu, linear, len } => return Some(self.execute(*vcpu, *linear, *len, seq)),
        }
        None
    }

    fn serialize(&mut self, vcpu: Vcpu, sync: LastSync) {
        let cpu = self.cpus.entry(vcpu).or_default();
        cpu.epoch = cpu.epoch.next();
        cpu.last_sync = Some(sync);
        cpu.slots.values_mut().for_each(|(flag, _)| *flag = 0);
    }

    fn intern(&mut self, vcpu: Vcpu, linear: Linear, len: u8) -> usize {
        let pages = &self.cpus[&vcpu].pages;
        let page = linear.align_down(PAGE);
        let place = Place { page, first: pages[&page], second: pages.get(&page.offset(PAGE)).copied() };
        let memory = self.history.memory();
        let byte = |i| place.phys(linear.offset(i)).and_then(|phys| memory.now(phys)).expect("the guest executes what is known");
        let bytes: Vec<u8> = (0..u64::from(len)).map(byte).collect();
        let run = CodeRun::new(linear, &bytes, &[len]);
        if let Some(index) = self.segments.iter().position(|segment| segment.run == run && segment.place == place) {
            return index;
        }
        let window = (0..Toy.max_len() as u64).filter_map(|i| place.phys(linear.offset(i)));
        let last_change = window.filter_map(|phys| memory.changes(phys, Seq(0)).next()).max().unwrap_or(Seq(0));
        self.segments.push(Segment { run, place, last_change });
        self.segments.len() - 1
    }

    fn execute(&mut self, vcpu: Vcpu, linear: Linear, len: u8, now: Seq) -> Seen {
        let index = self.intern(vcpu, linear, len);
        let segment = &self.segments[index];
        let cpu = &self.cpus[&vcpu];
        let (flag, before) = cpu.slots.get(&index).copied().unwrap_or((0, Seq(0)));
        if flag == EXECUTED {
            return Seen::Skipped;
        }
        let chunk = u64::from(self.profile.buffers.chunk);
        let (first, end) = (linear.align_down(chunk), linear.offset(Toy.max_len() as u64 - 1).align_down(chunk).offset(chunk));
        let ran: Vec<Ran<'_>> = cpu
            .slots
            .iter()
            .filter(|(_, (flag, _))| *flag != 0)
            .map(|(index, (_, since))| (&self.segments[*index], *since))
            .filter(|(other, _)| {
                let start = other.run.linear();
                start.0 < end.0 && start.0 + other.run.bytes().len() as u64 > first.0
            })
            .map(|(other, since)| Ran { run: &other.run, place: other.place, since })
            .collect();
        let displaced = ran.iter().any(|ran| {
            let elsewhere = |at: Linear| ran.place.phys(at).zip(segment.place.phys(at)).is_some_and(|(there, here)| there != here);
            elsewhere(linear) || elsewhere(linear.align_down(PAGE).offset(PAGE))
        });
        let mut hazard = None;
        if !self.profile.snoop && (flag == LOOK_AGAIN || segment.last_change > before || displaced) {
            self.slow += 1;
            let question =
                Question { vcpu, run: &segment.run, place: segment.place, ran: &ran, last_sync: cpu.last_sync, epoch: cpu.epoch, now };
            let judged = self.history.judge(&question);
            hazard = judged.into_iter().find_map(|judged| judged.verdict.hazard).map(|hazard| *hazard);
        }
        let since = if flag == 0 { now } else { before };
        self.cpus.entry(vcpu).or_default().slots.insert(index, (EXECUTED, since));
        Seen::Verdict(hazard)
    }
}

/// The events that the model accepts, with its verdicts; the places of stores are as they are in the answer.
fn model_verdicts(profile: Profile, events: &[Event]) -> (Vec<(Event, Seq)>, Vec<Verdict>) {
    let mut model = Model::new(profile, Toy, usize::from(strategies::VCPUS)).expect("a good profile");
    let mut accepted = Vec::new();
    let mut verdicts = Vec::new();
    for event in events {
        if let Ok(verdict) = model.apply(event) {
            accepted.push((event.clone(), verdict.seq));
            verdicts.push(verdict);
        }
    }
    (accepted, verdicts)
}

fn served(profile: Profile) -> Profile {
    let buffers = icsan_model::profile::Buffers { lookahead: 0, prefetch: None, trace: None, ..profile.buffers };
    Profile { buffers, ..profile }
}

fn bytes(hazard: &Hazard) -> BTreeSet<(Vec<u8>, bool)> {
    hazard.candidates.iter().map(|candidate| (candidate.bytes.clone(), candidate.exempt)).collect()
}

fn config() -> ProptestConfig {
    // What it is to find takes luck: a cell that changes while nobody, or only a neighbour, holds it.
    ProptestConfig { failure_persistence: None, cases: ProptestConfig::default().cases.max(5000), ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn it_says_what_the_model_says(profile in strategies::profile(), ops in strategies::history(60)) {
        let profile = served(profile);
        // With speculation a page counts as mapped for the whole epoch; so the first epochs begin after the setting up.
        let resets = (0..strategies::VCPUS).map(Op::Reset);
        let still: Vec<Op> = resets.chain(ops).filter(|op| !matches!(op, Op::Remap(..))).collect();
        let events = strategies::events(&still);
        let (accepted, verdicts) = model_verdicts(profile, &events);
        let mut fast = Fast::new(profile);
        let mut last: BTreeMap<(Vcpu, Linear), Option<Hazard>> = BTreeMap::new();
        for ((event, seq), verdict) in accepted.iter().zip(&verdicts) {
            let Some(seen) = fast.apply(event, *seq) else { continue };
            let Event::Fetch { vcpu, linear, .. } = event else { continue };
            let unmoved = |hazard: Hazard| Hazard { remapped: None, ..hazard };
            let hazard = verdict.hazard.as_deref().cloned().map(unmoved);
            match seen {
                Seen::Verdict(said) => {
                    let said = said.map(unmoved);
                    prop_assert_eq!(&said, &hazard, "at {}", seq);
                    last.insert((*vcpu, *linear), said);
                }
                // A taken branch may have taken candidates away since; nothing may have come.
                Seen::Skipped => if let Some(hazard) = hazard {
                    let said = last.get(&(*vcpu, *linear)).cloned().flatten();
                    prop_assert!(said.as_ref().is_some_and(|said| bytes(said).is_superset(&bytes(&hazard)) && said.kind <= hazard.kind), "at {}: {:?}", seq, said);
                },
            }
        }
    }

    /// With pages that move under it, it may miss, but it never invents a candidate.
    #[test]
    fn it_says_no_more_than_the_model(profile in strategies::profile(), ops in strategies::history(60)) {
        // Whether a candidate was whole in a time of which nothing is known is not known, either, and exemptions ask for that.
        let mut profile = Profile { exemptions: &[], ..served(profile) };
        profile.buffers.speculation = false;
        // That a page is gone, or went and came back, is not seen (limit 2 of the history).
        let mut moved = BTreeSet::new();
        let once = |op: &Op| !matches!(op, Op::Remap(vcpu, page, phys) if *phys > 2 || !moved.insert((*vcpu, *page)));
        let seen: Vec<Op> = ops.into_iter().filter(once).collect();
        let events = strategies::events(&seen);
        let (accepted, verdicts) = model_verdicts(profile, &events);
        let mut fast = Fast::new(profile);
        for ((event, seq), verdict) in accepted.iter().zip(&verdicts) {
            if let Some(Seen::Verdict(Some(said))) = fast.apply(event, *seq) {
                let Some(hazard) = &verdict.hazard else { return Err(TestCaseError::fail(format!("at {seq}: {said:?}"))) };
                let known: BTreeSet<_> = hazard.candidates.iter().map(|candidate| &candidate.bytes).collect();
                prop_assert!(said.candidates.iter().all(|candidate| known.contains(&candidate.bytes)), "at {}: {:?} {:?}", seq, said, hazard);
            }
        }
    }
}

#[test]
fn it_looks_closer_only_where_code_changed() {
    let (_, mut events) = strategies::Guest::new();
    let vcpu = Vcpu(0);
    for _ in 0..3 {
        for byte in 0..4 {
            events.push(Event::Fetch { vcpu, linear: strategies::code(0, byte), len: 1 + byte % 5 });
        }
        events.push(Event::Reset { vcpu });
    }
    let profile = icsan_model::x86::X86_64.default_profile();
    let mut fast = Fast::new(*profile);
    for (event, seq) in events.iter().zip(1..) {
        fast.apply(event, Seq(seq));
    }
    // The toy guest's contents are stores, so each run is looked at once; never again.
    assert_eq!(fast.slow, 4);
}
