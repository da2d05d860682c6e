//! The detector, flags and all, says what the model says.
//!
//! What runs here is what the plugin runs, the flags ([`icsan_model::detector`]) and the history behind them, on a
//! board of plain atomic numbers in place of QEMU's, and on one thread (`fence.rs` has the threads). What the plugin
//! has QEMU for is done here: to know the bytes of a segment (one instruction here), and what was executed near it.

mod board;

use board::{Code, Fences, Own, Shared};
use icsan_model::addr::{Epoch, Linear, Phys, Seq, Vcpu};
use icsan_model::arch::decode::Decode;
use icsan_model::arch::profile::Profile;
use icsan_model::detector::changes::{Changes, Told, Touched};
use icsan_model::detector::flags::{DONE, Flag, Flags, OwnBoard, Rules, Segment};
use icsan_model::detector::history::{Footprint, History, Holding, Place, Question};
use icsan_model::detector::light::CodeRun;
use icsan_model::event::{Event, Store};
use icsan_model::machine::model::Model;
use icsan_model::memory::PAGE;
use icsan_model::testing::strategies::{self, Op, Toy};
use icsan_model::verdict::hazard::{Hazard, Verdict};
use icsan_model::verdict::kind::Kind;
use icsan_model::verdict::last_sync::LastSync;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// More segments than a history here makes.
const SLOTS: usize = 256;

/// One thread needs no fences.
#[derive(Debug)]
struct NoFences;

impl Fences for NoFences {}

struct Cpu {
    own: Own<AtomicU64, NoFences>,
    epoch: Epoch,
    last_sync: Option<LastSync>,
    pages: BTreeMap<Linear, Phys>,
}

struct Fast {
    profile: Profile,
    history: History,
    changes: Changes<Rc<Code<AtomicU64>>>,
    flags: Flags<Shared<AtomicU64, NoFences>>,
    segments: Vec<Rc<Code<AtomicU64>>>,
    cpus: Vec<Cpu>,
    /// Changes that wait for their store, oldest first: place in the order, address, bytes.
    noticed: Vec<(Seq, Phys, Vec<u8>)>,
    /// Stores that were just told of late, by the change that they made.
    late: BTreeMap<Seq, Store>,
    slow: u64,
}

/// What the detector did at an execution.
enum Seen {
    /// It looked: this is its verdict.
    Verdict(Option<Hazard>),
    /// It was not called: what it said last in this epoch still holds.
    Skipped,
}

impl Fast {
    fn new(profile: Profile) -> Self {
        let history = History::new(profile, Toy, usize::from(strategies::VCPUS));
        let board = Shared::new(strategies::VCPUS, SLOTS, NoFences);
        let cpu =
            |vcpu| Cpu { own: board.own(Vcpu(vcpu)), epoch: Epoch::default(), last_sync: None, pages: BTreeMap::new() };
        let cpus = (0..strategies::VCPUS).map(cpu).collect();
        let maintained = profile.incoherent_caches().is_some();
        let rules = Rules { writers: true, snoop: profile.snoop, maintained };
        let flags = board::flags(board, strategies::VCPUS, rules);
        let changes = Changes::new(history.window());
        Self {
            profile,
            history,
            changes,
            flags,
            segments: Vec::new(),
            cpus,
            noticed: Vec::new(),
            late: BTreeMap::new(),
            slow: 0,
        }
    }

    fn cpu(&self, vcpu: Vcpu) -> &Cpu {
        &self.cpus[usize::from(vcpu.0)]
    }

    /// A vCPU tells of a store. What becomes of it is found out by brute force as well, and must be the same. Answers
    /// with what happens in the end.
    fn tell(&mut self, event: &Event) -> Vec<Event> {
        let late = matches!(event, Event::Attribute { .. });
        let told = match event {
            Event::Store(store) if store.vcpu.is_some() => store.clone(),
            Event::Attribute { store, vcpu, pc, linear } => {
                let Some((_, phys, bytes)) = self.noticed.iter().find(|(seq, ..)| seq == store) else {
                    return Vec::new();
                };
                Store { vcpu: Some(*vcpu), pc: *pc, linear: *linear, phys: *phys, bytes: bytes.clone() }
            }
            _ => return vec![event.clone()],
        };
        let memory = self.history.memory();
        let end = told.phys.0 + told.bytes.len() as u64;
        let byte = |at: Phys| memory.byte(at, Seq(u64::MAX));
        let stored = |at: Phys| (told.phys.0..end).contains(&at.0).then(|| told.bytes[(at.0 - told.phys.0) as usize]);
        let explained = |phys: Phys, len: usize| {
            (0..len as u64).map(|i| phys.offset(i)).all(|at| stored(at).is_some() && stored(at) == byte(at))
        };
        let changes = (0..).zip(&told.bytes).any(|(i, new)| byte(told.phys.offset(i)) != Some(*new));
        let late_ones: Vec<Seq> = self
            .noticed
            .iter()
            .filter(|(_, phys, bytes)| explained(*phys, bytes.len()))
            .map(|(seq, ..)| *seq)
            .collect();
        let expected = Told { late: late_ones, changes };
        assert_eq!(self.changes.tell(memory, told.phys, &told.bytes, Duration::ZERO), expected);
        let mut events = Vec::new();
        for seq in expected.late {
            let (_, phys, _) = self.noticed.remove(self.noticed.iter().position(|(known, ..)| *known == seq).unwrap());
            let linear = told.linear.map(|linear| linear.offset(phys.0 - told.phys.0));
            events.push(Event::Attribute { store: seq, vcpu: told.vcpu.unwrap(), pc: told.pc, linear });
            self.late.insert(seq, told.clone());
        }
        // What was overwritten before it was told of late is nothing that the guest stores now.
        if changes && !late {
            events.push(event.clone());
        }
        events
    }

    fn touch(&mut self, touched: &Touched<Rc<Code<AtomicU64>>>) {
        self.flags.invalidate(&touched.segments, touched.seq);
    }

    /// Forgets what nobody can hold of the cells of these bytes.
    fn forget(&mut self, phys: Phys, len: u64) {
        let horizon = self.flags.horizon();
        for cell in [phys, phys.offset(len - 1)] {
            let Self { history, changes, flags, .. } = self;
            history.forget_unheld(cell, horizon, 0, |first, len| {
                let there = changes.reached(first, len);
                let held = there.iter().filter_map(|segment| flags.held_since(segment.slot())).min();
                held.map_or(if there.is_empty() { Holding::NeverRan } else { Holding::Nobody }, Holding::Since)
            });
        }
    }

    /// An event, which takes the next place in the order.
    fn apply(&mut self, event: &Event, seq: Seq) -> Option<Seen> {
        if !self.serializes(event) {
            assert_eq!(self.flags.next(), seq);
        }
        let Self { history, changes, .. } = self;
        match event {
            Event::Contents { phys, bytes } => {
                history.memory_mut().contents(*phys, bytes);
                let segments = changes.reached(*phys, bytes.len() as u64);
                self.touch(&Touched { segments, seq: None });
            }
            Event::Store(store) => {
                let touched = match store.vcpu {
                    Some(vcpu) => changes.store(history, seq, store.clone(), self.cpus[usize::from(vcpu.0)].epoch),
                    None => {
                        self.noticed.push((seq, store.phys, store.bytes.clone()));
                        changes.notice(history, store.phys, &store.bytes, seq, Duration::ZERO)
                    }
                };
                self.touch(&touched);
                self.forget(store.phys, store.bytes.len() as u64);
            }
            Event::Attribute { store, vcpu, .. } => {
                let told = self.late.remove(store).expect("it was told of");
                let touched = changes.attribute(history, *store, &told, self.cpus[usize::from(vcpu.0)].epoch);
                self.touch(&touched);
            }
            Event::Commit { stores } => {
                let touched = changes.commit(history, stores);
                self.touch(&touched);
            }
            Event::Maintain { vcpu, operation } => changes.maintain(history, seq, *vcpu, *operation),
            // As for a plugin, which looks at few of them.
            Event::Barrier { vcpu, .. } if !history.cache().awaits_barrier(*vcpu) => {}
            Event::Barrier { vcpu, domain, accesses } => changes.barrier(history, seq, *vcpu, *domain, *accesses),
            Event::Caches { vcpu, on } => history.caches(*vcpu, *on),
            Event::Branch { vcpu } => {
                let epoch = self.cpus[usize::from(vcpu.0)].epoch;
                if history.awaits_branch(*vcpu, epoch) {
                    history.branch(*vcpu, epoch);
                }
            }
            Event::Sync { vcpu, event: id, pc } if self.serializes(event) => {
                self.serialize(*vcpu, LastSync { event: Some(*id), pc: Some(*pc), seq });
            }
            Event::Sync { .. } => {}
            Event::Reset { vcpu } => self.serialize(*vcpu, LastSync { event: None, pc: None, seq }),
            Event::Remap { vcpu, linear, phys } => {
                let pages = &mut self.cpus[usize::from(vcpu.0)].pages;
                pages.remove(linear);
                pages.extend(phys.map(|phys| (*linear, phys)));
            }
            Event::Fetch { vcpu, linear, len } => return Some(self.execute(*vcpu, *linear, *len, seq)),
        }
        None
    }

    fn serializes(&self, event: &Event) -> bool {
        match event {
            Event::Sync { event, .. } => self.profile.serializes(*event),
            Event::Reset { .. } => true,
            _ => false,
        }
    }

    fn serialize(&mut self, vcpu: Vcpu, sync: LastSync) {
        let cpu = &mut self.cpus[usize::from(vcpu.0)];
        cpu.epoch = cpu.epoch.next();
        cpu.last_sync = Some(sync);
        assert_eq!(self.flags.begin_epoch(&cpu.own), sync.seq);
    }

    fn intern(&mut self, vcpu: Vcpu, linear: Linear, len: u8) -> Rc<Code<AtomicU64>> {
        let pages = &self.cpu(vcpu).pages;
        let page = linear.align_down(PAGE);
        let place = Place { page, first: pages[&page], second: pages.get(&page.offset(PAGE)).copied() };
        let memory = self.history.memory();
        let byte = |i| {
            place.phys(linear.offset(i)).and_then(|phys| memory.now(phys)).expect("the guest executes what is known")
        };
        let bytes: Vec<u8> = (0..u64::from(len)).map(byte).collect();
        let run = CodeRun::new(linear, &bytes, &[len]);
        if let Some(known) = self.segments.iter().find(|segment| segment.run == run && segment.place == Some(place)) {
            return Rc::clone(known);
        }
        let segment = Rc::new(Code::new(self.segments.len() as u32, run, Some(place)));
        self.changes.add(&segment, &self.history);
        self.segments.push(Rc::clone(&segment));
        segment
    }

    fn execute(&mut self, vcpu: Vcpu, linear: Linear, len: u8, now: Seq) -> Seen {
        let segment = self.intern(vcpu, linear, len);
        let cpu = &self.cpus[usize::from(vcpu.0)];
        // What QEMU's generated code tests.
        if cpu.own.flag(segment.slot) as u64 >= DONE {
            return Seen::Skipped;
        }
        let contested =
            self.segments.iter().any(|other| other.place != segment.place && other.run.contradicts(&segment.run));
        if (!contested || self.profile.snoop) && self.flags.fast_path(&cpu.own, &*segment, || true) {
            return Seen::Verdict(None);
        }
        self.slow += 1;
        let chunk = u64::from(self.profile.buffers.chunk);
        let (first, end) =
            (linear.align_down(chunk), linear.offset(Toy.max_len() as u64 - 1).align_down(chunk).offset(chunk));
        let near = |other: &&Rc<Code<AtomicU64>>| {
            let start = other.run.linear();
            start.0 < end.0 && start.0 + other.run.bytes().len() as u64 > first.0
        };
        let executed = self.segments.iter().filter(near).filter(|other| cpu.own.flag(other.slot).executed());
        let footprints: Vec<Footprint<'_>> = executed
            .filter_map(|other| {
                Some(Footprint { run: &other.run, place: other.place?, since: cpu.own.first_fetch(other.slot) })
            })
            .collect();
        let place = segment.place.expect("it was interned with one");
        let question = Question {
            vcpu,
            run: &segment.run,
            place,
            footprints: &footprints,
            last_sync: cpu.last_sync,
            epoch: cpu.epoch,
            now,
        };
        let judged = self.history.judge(&question);
        let slot = cpu.own.slot(segment.slot).expect("there are enough");
        cpu.own.reserve();
        cpu.own.set(&slot, Flag::Executed, now);
        Seen::Verdict(judged.into_iter().find_map(|judged| judged.verdict.hazard).map(|hazard| *hazard))
    }
}

/// The model and the detector, side by side.
struct Both {
    model: Model,
    fast: Fast,
}

impl Both {
    fn new(profile: Profile) -> Self {
        Self {
            model: Model::new(profile, Toy, usize::from(strategies::VCPUS)).expect("a good profile"),
            fast: Fast::new(profile),
        }
    }

    /// The next event, as the detector takes it. Answers for an execution.
    fn apply(&mut self, event: &Event) -> Option<(Verdict, Seen)> {
        let mut answer = None;
        for mut event in self.fast.tell(event) {
            if let Event::Commit { stores } = &mut event {
                stores.retain(|store| self.model.memory().record(*store).is_some());
            }
            let verdict = self.model.apply(&event).expect("the guest does what can be");
            answer = self.fast.apply(&event, verdict.seq).map(|seen| (verdict, seen));
        }
        answer
    }
}

fn served(profile: Profile) -> Profile {
    let buffers = icsan_model::arch::profile::Buffers { lookahead: 0, prefetch: None, trace: None, ..profile.buffers };
    Profile { buffers, ..profile }
}

fn bytes(hazard: &Hazard) -> BTreeSet<(Vec<u8>, bool)> {
    hazard.candidates.iter().map(|candidate| (candidate.bytes.clone(), candidate.exempt)).collect()
}

fn config() -> ProptestConfig {
    // What it is to find takes luck: a cell that changes while nobody, or only a neighbour, holds it.
    ProptestConfig {
        failure_persistence: None,
        cases: ProptestConfig::default().cases.max(5000),
        ..ProptestConfig::default()
    }
}

/// On a history whose pages stay where they are.
fn says_the_same(profile: Profile, ops: Vec<Op>) -> Result<(), TestCaseError> {
    // With speculation a page counts as mapped for the whole epoch; so the first epochs begin after the setting up.
    let resets = (0..strategies::VCPUS).map(Op::Reset);
    let still: Vec<Op> = resets.chain(ops).filter(|op| !matches!(op, Op::Remap(..))).collect();
    let mut both = Both::new(profile);
    let mut last: BTreeMap<(Vcpu, Linear), Option<Hazard>> = BTreeMap::new();
    for event in strategies::events(&still) {
        let Some((verdict, seen)) = both.apply(&event) else { continue };
        let Event::Fetch { vcpu, linear, .. } = event else { continue };
        let seq = verdict.seq;
        let unmoved = |hazard: Hazard| Hazard { remapped: None, ..hazard };
        let mut hazard = verdict.hazard.as_deref().cloned().map(unmoved);
        match seen {
            Seen::Verdict(said) => {
                let said = said.map(unmoved);
                // The detector forgets cell by cell, so of a store it may know a part.
                let writes = || said.iter().flat_map(|said| &said.writes);
                let known = |seq| writes().any(|write| write.seq == seq && write.old.is_some());
                for write in hazard.iter_mut().flat_map(|hazard| &mut hazard.writes) {
                    write.old.take_if(|_| !known(write.seq));
                }
                prop_assert_eq!(&said, &hazard, "at {}", seq);
                last.insert((vcpu, linear), said);
            }
            // A taken branch or maintenance may have taken candidates away since; nothing may have come. (What
            // the storing vCPU has left out may have become another step.)
            Seen::Skipped => {
                if let Some(hazard) = hazard {
                    let said = last.get(&(vcpu, linear)).cloned().flatten();
                    prop_assert!(
                        said.as_ref().is_some_and(|said| {
                            let step = |kind| (Kind::Unclean..=Kind::Unsynchronized).contains(&kind);
                            let milder = said.kind <= hazard.kind || step(said.kind) && step(hazard.kind);
                            milder && bytes(said).is_superset(&bytes(&hazard))
                        }),
                        "at {}: {:?}",
                        seq,
                        said
                    );
                }
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn it_says_what_the_model_says(profile in strategies::profile(), ops in strategies::history(60)) {
        says_the_same(served(profile), ops)?;
    }

    /// With instruction caches that do not see stores, and maintenance.
    #[test]
    fn it_says_what_the_model_says_of_maintenance(
        profile in strategies::maintained_profile(),
        ops in strategies::maintained_history(40),
    ) {
        says_the_same(served(profile), ops)?;
    }

    /// With pages that move under it, it may miss, but it never invents a candidate.
    #[test]
    fn it_says_no_more_than_the_model(profile in strategies::profile(), ops in strategies::history(60)) {
        // Whether a candidate was whole in a time of which nothing is known is not known, either, and exemptions ask
        // for that.
        let mut profile = Profile { exemptions: &[], ..served(profile) };
        profile.buffers.speculation = false;
        // That a page is gone, or went and came back, is not seen (limit 2 of the history).
        let mut moved = BTreeSet::new();
        let once = |op: &Op| !matches!(op, Op::Remap(vcpu, page, phys) if *phys > 2 || !moved.insert((*vcpu, *page)));
        let seen: Vec<Op> = ops.into_iter().filter(once).collect();
        let mut both = Both::new(profile);
        for event in strategies::events(&seen) {
            if let Some((verdict, Seen::Verdict(Some(said)))) = both.apply(&event) {
                let seq = verdict.seq;
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
    let profile = icsan_model::arch::x86::X86_64.default_profile();
    let mut both = Both::new(*profile);
    events.iter().for_each(|event| drop(both.apply(event)));
    // The toy guest's contents are stores, so each run is looked at once; never again.
    assert_eq!(both.fast.slow, 4);
}

/// Code that was stored is looked at in each epoch until its maintenance is done, once more after that, and then never.
#[test]
fn it_looks_closer_only_until_the_maintenance_is_done() {
    let profile = *icsan_model::arch::aarch64::AARCH64.profile("arm64-base").expect("it is there");
    let mut both = Both::new(profile);
    let (mut guest, events) = strategies::Guest::new();
    for event in &events {
        both.apply(event);
    }
    let mut steps = |both: &mut Both, ops: &[Op]| {
        let before = both.fast.slow;
        for op in ops {
            let event = guest.step(op).expect("possible");
            both.apply(&event);
        }
        both.fast.slow - before
    };
    let epoch = [Op::Fetch(0, 0, 20), Op::Fetch(0, 0, 20), Op::Reset(0)];
    let publish = [
        Op::Store(1, 0, 20, vec![3]),
        Op::Maintain(1, 0, 0, 20),
        Op::Barrier(1, 0),
        Op::Maintain(1, 1, 0, 20),
        Op::Barrier(1, 0),
    ];
    // The toy guest's contents are stores that nobody maintains.
    assert_eq!([(); 3].map(|()| steps(&mut both, &epoch)), [1; 3]);
    assert_eq!(steps(&mut both, &publish), 0);
    assert_eq!([(); 3].map(|()| steps(&mut both, &epoch)), [1, 0, 0]);
    assert_eq!(steps(&mut both, &[&[Op::Store(1, 0, 20, vec![4])], &publish[1..3]].concat()), 0);
    assert_eq!([(); 3].map(|()| steps(&mut both, &epoch)), [1, 1, 1], "no invalidate");
    // A CPU's own is of use to it alone, so another CPU is still looked at.
    steps(&mut both, &[Op::Maintain(0, 3, 0, 0), Op::Barrier(0, 0)]);
    assert_eq!([(); 2].map(|()| steps(&mut both, &epoch)), [1, 1]);
    steps(&mut both, &[Op::Maintain(2, 2, 0, 0), Op::Barrier(2, 0)]);
    assert_eq!([(); 3].map(|()| steps(&mut both, &epoch)), [1, 0, 0]);
}
