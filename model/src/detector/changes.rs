//! What a store that is told of means: nothing, a change, or the explanation of a change that was found in memory
//! before.
//!
//! A store is told of after it was made, so another vCPU may find its bytes first. Such a change becomes a store that
//! nobody was seen to make; if one is told of within a second that covers it and would change nothing, it is put down
//! to the vCPU that made it, late: the version keeps its place in the order, and whoever executed it is looked at
//! again.
//!
//! Everything here is called with the lock of all changes held.

use super::flags::Segment;
use super::reach::Reach;
use crate::addr::{Epoch, Linear, Phys, Seq, Vcpu};
use crate::event::Store;
use crate::history::History;
use crate::memory::Memory;
use std::collections::VecDeque;
use std::ops::Deref;
use std::time::Duration;

/// Changes that were noticed in memory before their store was told of: how many are remembered, and for how long. A
/// store is told of right after it was made; only the host's scheduler can come in between.
const NOTICED: usize = 64;
const NOTICED_FOR: Duration = Duration::from_secs(1);

/// How long an execution waits for the store behind a change that was noticed: without its writer the verdict may be
/// another one (AMD promises that one store inside a quadword is never seen in part, but not that several are not).
const LATE: Duration = Duration::from_millis(20);

/// What remembers changes: a [`History`], or one that is recorded as well.
pub trait Past {
    /// Memory and its past.
    fn memory(&self) -> &Memory;
    /// See [`History::store`].
    fn store(&mut self, seq: Seq, store: Store, epoch: Epoch);
    /// See [`History::attribute`].
    fn attribute(&mut self, seq: Seq, vcpu: Vcpu, pc: Option<Linear>, linear: Option<Linear>, epoch: Epoch);
    /// The author of these stores takes them for done.
    fn commit(&mut self, stores: &[Seq]);
}

impl Past for History {
    fn memory(&self) -> &Memory {
        self.memory()
    }

    fn store(&mut self, seq: Seq, store: Store, epoch: Epoch) {
        self.store(seq, store, epoch);
    }

    fn attribute(&mut self, seq: Seq, vcpu: Vcpu, pc: Option<Linear>, linear: Option<Linear>, epoch: Epoch) {
        self.attribute(seq, vcpu, pc, linear, epoch);
    }

    fn commit(&mut self, stores: &[Seq]) {
        stores.iter().for_each(|store| self.memory_mut().commit(*store));
    }
}

/// What a change of code means for the segments that it may concern: what [`super::flags::Flags::invalidate`] takes.
#[derive(Clone, Debug)]
pub struct Touched<S> {
    /// They were changed, or what is right behind them was.
    pub segments: Vec<S>,
    /// At this place in the order. `None`: nothing changed, but what is known of the change did.
    pub seq: Option<Seq>,
}

impl<S> Default for Touched<S> {
    fn default() -> Self {
        Self { segments: Vec::new(), seq: None }
    }
}

/// What a store that is told of turns out to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Told {
    /// It changed nothing.
    Nothing,
    /// It made the change that was found at this place in the order: to be [attributed](Changes::attribute).
    Late(Seq),
    /// It changes what is known of memory: to be given a place in the order, and [noted](Changes::store).
    Change,
}

/// A change whose store has not been told of.
#[derive(Clone, Copy, Debug)]
struct Noticed {
    seq: Seq,
    phys: Phys,
    len: u64,
    at: Duration,
}

/// Segments by what may change them, and changes that wait for their store.
#[derive(Clone, Debug)]
pub struct Changes<S> {
    reach: Reach<S>,
    noticed: VecDeque<Noticed>,
}

impl<S: Deref<Target: Segment> + Clone> Changes<S> {
    /// No segments; no instruction is longer than `window` bytes.
    #[must_use]
    pub fn new(window: u64) -> Self {
        Self { reach: Reach::new(window), noticed: VecDeque::new() }
    }

    /// A new segment.
    pub fn add(&mut self, segment: &S, memory: &Memory) {
        self.reach.add(segment, memory);
    }

    /// The segments that a change of these bytes concerns.
    #[must_use]
    pub fn reached(&self, phys: Phys, len: u64) -> Vec<S> {
        self.reach.reached(phys, len)
    }

    /// A change of memory that no store explains so far. `clock`: the time since some moment.
    pub fn notice(&mut self, past: &mut impl Past, phys: Phys, bytes: &[u8], seq: Seq, clock: Duration) -> Touched<S> {
        let store = Store { vcpu: None, pc: None, linear: None, phys, bytes: bytes.to_vec() };
        past.store(seq, store, Epoch::default());
        if self.noticed.len() == NOTICED {
            self.noticed.pop_front();
        }
        let len = bytes.len() as u64;
        self.noticed.push_back(Noticed { seq, phys, len, at: clock });
        Touched { segments: self.reached(phys, len), seq: Some(seq) }
    }

    /// A state was restored: stores that were not told of never will be.
    pub fn expect_no_stores(&mut self) {
        self.noticed.clear();
    }

    /// Was a change of the segment just noticed, so that its store will be told of any moment?
    #[must_use]
    pub fn awaits_store(&self, segment: &S, clock: Duration) -> bool {
        let fresh = |noticed: &&Noticed| clock.saturating_sub(noticed.at) < LATE;
        self.noticed.iter().filter(fresh).any(|noticed| self.reach.reaches(segment, noticed.phys, noticed.len))
    }

    /// A store of these bytes, all in one page, is told of.
    pub fn tell(&mut self, memory: &Memory, phys: Phys, bytes: &[u8], clock: Duration) -> Told {
        if (0..).zip(bytes).any(|(i, byte)| memory.now(phys.offset(i)) != Some(*byte)) {
            return Told::Change;
        }
        self.noticed.retain(|noticed| clock.saturating_sub(noticed.at) < NOTICED_FOR);
        let end = phys.0 + bytes.len() as u64;
        let inside = |noticed: &Noticed| phys <= noticed.phys && noticed.phys.0 + noticed.len <= end;
        let found = self.noticed.iter().rposition(inside).and_then(|index| self.noticed.remove(index));
        found.map_or(Told::Nothing, |noticed| Told::Late(noticed.seq))
    }

    /// A store, at its place in the order; `epoch` is that of the vCPU that made it.
    pub fn store(&mut self, past: &mut impl Past, seq: Seq, store: Store, epoch: Epoch) -> Touched<S> {
        let (phys, len) = (store.phys, store.bytes.len() as u64);
        past.store(seq, store, epoch);
        Touched { segments: self.reached(phys, len), seq: Some(seq) }
    }

    /// This store, as it was told of, turned out to have made the change at `seq`; `epoch` is that of the vCPU that
    /// made it. See [`History::attribute`].
    pub fn attribute(&mut self, past: &mut impl Past, seq: Seq, told: &Store, epoch: Epoch) -> Touched<S> {
        let (Some(vcpu), Some((phys, len))) = (told.vcpu, extent(past.memory(), seq)) else { return Touched::default() };
        let linear = told.linear.map(|linear| Linear(linear.0.wrapping_add(phys.0.wrapping_sub(told.phys.0))));
        past.attribute(seq, vcpu, told.pc, linear, epoch);
        Touched { segments: self.reached(phys, len), seq: None }
    }

    /// The author of these stores takes them for done.
    pub fn commit(&mut self, past: &mut impl Past, stores: &[Seq]) -> Touched<S> {
        past.commit(stores);
        let extents = stores.iter().filter_map(|store| extent(past.memory(), *store));
        let mut segments: Vec<S> = extents.flat_map(|(phys, len)| self.reached(phys, len)).collect();
        segments.sort_by_key(|segment| segment.slot());
        segments.dedup_by_key(|segment| segment.slot());
        Touched { segments, seq: None }
    }
}

/// Which bytes a store that is remembered stored.
fn extent(memory: &Memory, store: Seq) -> Option<(Phys, u64)> {
    memory.record(store).map(|record| (record.store.phys, record.store.bytes.len() as u64))
}
