//! What a store that is told of means: nothing, a change, or the explanation of a change that was found in memory
//! before.
//!
//! A store is told of after it was made, so another vCPU may find its bytes first. Such a change becomes a store that
//! nobody was seen to make; if one is told of within a second that covers it and stored these very bytes, it is put
//! down to the vCPU that made it, late: the version keeps its place in the order, and each vCPU that executed it is
//! looked at again.
//!
//! And another vCPU may have stored there again before the store is told of. So what is known of its bytes is made what
//! memory holds, whatever was told ([`Changes::settle`]).
//!
//! Everything here is called with the lock of all changes held.

use super::flags::Segment;
use super::reach::Reach;
use crate::addr::{Epoch, Linear, Phys, Seq, Vcpu};
use crate::arch::maintenance::{Accesses, Domain, Maintenance};
use crate::detector::history::History;
use crate::event::Store;
use crate::fetch::instruction_cache::Raised;
use crate::memory::Memory;
use std::collections::VecDeque;
use std::ops::Deref;
use std::time::Duration;

/// Changes that were noticed in memory before their store was told of: how many are remembered, and for how long. A
/// store is told of right after it was made; only the host's scheduler can come in between.
const NOTICED: usize = 64;
/// How long such a change is remembered.
pub const NOTICED_FOR: Duration = Duration::from_secs(1);

/// How long an execution waits for the store behind a change that was noticed: without its writer the verdict may be
/// another one (AMD promises that one store inside a quadword is never seen in part, but not that several are not).
pub const LATE: Duration = Duration::from_millis(20);

/// What remembers changes: a [`History`], or one that is recorded as well.
pub trait Past {
    /// It.
    fn history(&self) -> &History;
    /// Memory and its past.
    fn memory(&self) -> &Memory {
        self.history().memory()
    }
    /// See [`History::maintain`].
    fn maintain(&mut self, seq: Seq, vcpu: Vcpu, operation: Maintenance) -> Raised;
    /// See [`History::barrier`].
    fn barrier(&mut self, seq: Seq, vcpu: Vcpu, domain: Domain, accesses: Accesses) -> Raised;
    /// See [`History::store`].
    fn store(&mut self, seq: Seq, store: Store, epoch: Epoch);
    /// See [`History::attribute`].
    fn attribute(&mut self, seq: Seq, vcpu: Vcpu, pc: Option<Linear>, linear: Option<Linear>, epoch: Epoch);
    /// The author of these stores takes them for done.
    fn commit(&mut self, stores: &[Seq]);
}

impl Past for History {
    fn history(&self) -> &History {
        self
    }

    fn maintain(&mut self, seq: Seq, vcpu: Vcpu, operation: Maintenance) -> Raised {
        self.maintain(seq, vcpu, operation)
    }

    fn barrier(&mut self, seq: Seq, vcpu: Vcpu, domain: Domain, accesses: Accesses) -> Raised {
        self.barrier(seq, vcpu, domain, accesses)
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
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Told {
    /// It made the changes that were found at these places in the order: to be [attributed](Changes::attribute).
    pub late: Vec<Seq>,
    /// It changes what is known of memory: to be given a place in the order, and [noted](Changes::store).
    pub changes: bool,
}

/// A store that was told of: who made it, by which instruction, and through which address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ToldOf {
    /// Who.
    pub vcpu: Vcpu,
    /// The instruction.
    pub pc: Linear,
    /// The first byte.
    pub linear: Linear,
}

/// A store that was told of and noted, and what memory holds at its bytes, all of one page.
#[derive(Clone, Copy, Debug)]
pub struct Settling<'a> {
    /// The store.
    pub told: ToldOf,
    /// Its first byte.
    pub phys: Phys,
    /// What was known of its bytes before it was noted.
    pub before: &'a [u8],
    /// What memory holds now.
    pub now: &'a [u8],
}

/// What became of a store's bytes.
#[derive(Clone, Debug)]
pub struct Settled<S> {
    /// For each run of bytes that memory holds otherwise than noted, in their order: whom that concerns.
    pub touched: Vec<Touched<S>>,
    /// How many of them another vCPU's store explains that was told of before.
    pub explained: usize,
}

/// A change whose store has not been told of.
#[derive(Clone, Copy, Debug)]
struct Noticed {
    seq: Seq,
    phys: Phys,
    len: u64,
    at: Duration,
    /// If it was found right after another store to these bytes: that one, and those of the bytes, as bits, that no
    /// store explains so far.
    after: Option<(ToldOf, u16)>,
}

impl Noticed {
    /// The store after which it was found, if no other vCPU's explains it.
    fn unexplained(&self) -> Option<ToldOf> {
        self.after.filter(|(_, open)| *open != 0).map(|(told, _)| told)
    }
}

/// Segments by what may change them, and changes that wait for their store.
#[derive(Clone, Debug)]
pub struct Changes<S> {
    reach: Reach<S>,
    noticed: VecDeque<Noticed>,
    /// Stores after which memory held something else than was noted of them, and that no other vCPU's store explained
    /// in time.
    untrue: Vec<ToldOf>,
}

impl<S: Deref<Target: Segment> + Clone> Changes<S> {
    /// No segments; no instruction is longer than `window` bytes.
    #[must_use]
    pub fn new(window: u64) -> Self {
        Self { reach: Reach::new(window), noticed: VecDeque::new(), untrue: Vec::new() }
    }

    /// A new segment.
    pub fn add(&mut self, segment: &S, past: &History) {
        self.reach.add(segment, past);
    }

    /// A maintenance instruction, at its place in the order.
    pub fn maintain(&mut self, past: &mut impl Past, seq: Seq, vcpu: Vcpu, operation: Maintenance) {
        let raised = past.maintain(seq, vcpu, operation);
        self.settle_segments(past, &raised);
    }

    /// A barrier, at its place in the order.
    pub fn barrier(&mut self, past: &mut impl Past, seq: Seq, vcpu: Vcpu, domain: Domain, accesses: Accesses) {
        let raised = past.barrier(seq, vcpu, domain, accesses);
        self.settle_segments(past, &raised);
    }

    /// Fetches may find more than before: segments whose every fetch finds what is there are judged no more, once they
    /// were from now on.
    fn settle_segments(&self, past: &impl Past, raised: &Raised) {
        let settle = |segment: &S| {
            if let Some(moment) = self.reach.settled(segment, past.history()) {
                segment.last_change().settle(moment);
            }
        };
        let size = past.history().line();
        raised.lines.iter().flat_map(|line| self.reached(*line, size)).for_each(|segment| settle(&segment));
        if raised.all {
            self.reach.all().for_each(settle);
        }
    }

    /// The segments that a change of these bytes concerns.
    #[must_use]
    pub fn reached(&self, phys: Phys, len: u64) -> Vec<S> {
        self.reach.reached(phys, len)
    }

    /// A change of memory that no store explains so far. `clock`: the time since some moment.
    pub fn notice(&mut self, past: &mut impl Past, phys: Phys, bytes: &[u8], seq: Seq, clock: Duration) -> Touched<S> {
        self.notice_after(past, phys, bytes, None, (seq, clock))
    }

    fn notice_after(
        &mut self,
        past: &mut impl Past,
        phys: Phys,
        bytes: &[u8],
        after: Option<ToldOf>,
        (seq, at): (Seq, Duration),
    ) -> Touched<S> {
        let store = Store { vcpu: None, pc: None, linear: None, phys, bytes: bytes.to_vec() };
        past.store(seq, store, Epoch::default());
        if self.noticed.len() == NOTICED {
            let oldest = self.noticed.pop_front();
            self.untrue.extend(oldest.and_then(|oldest| oldest.unexplained()));
        }
        let len = bytes.len() as u64;
        let after = after.map(|told| (told, u16::MAX >> (16 - len.clamp(1, 16))));
        self.noticed.push_back(Noticed { seq, phys, len, at, after });
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

    /// A store of these bytes, all in one page, is told of. The changes that it explains lie within it, and what they
    /// left there is what it stored.
    pub fn tell(&mut self, memory: &Memory, phys: Phys, bytes: &[u8], clock: Duration) -> Told {
        let mut told = Told {
            late: Vec::new(),
            changes: (0..).zip(bytes).any(|(i, byte)| memory.now(phys.offset(i)) != Some(*byte)),
        };
        if self.noticed.is_empty() {
            return told;
        }
        self.forget(|noticed| clock.saturating_sub(noticed.at) < NOTICED_FOR);
        let end = phys.0 + bytes.len() as u64;
        self.noticed.retain_mut(|noticed| {
            let explained = |i: u64| {
                let at = noticed.phys.offset(i);
                (phys.0..end).contains(&at.0) && memory.now(at) == Some(bytes[(at.0 - phys.0) as usize])
            };
            let whole = (0..noticed.len).all(explained);
            if let Some((_, open)) = &mut noticed.after {
                *open = (0..noticed.len.min(16)).filter(|i| explained(*i)).fold(*open, |open, i| open & !(1 << i));
            }
            told.late.extend(whole.then_some(noticed.seq));
            !whole
        });
        told
    }

    /// After a store was told of and noted: what is known of its bytes becomes what memory holds. Where that is
    /// something else, another vCPU stored there in between: its store has been told of already (memory holds again
    /// what was known before), or will be. `next` gives the next place in the order.
    pub fn settle(
        &mut self,
        past: &mut impl Past,
        settling: Settling<'_>,
        clock: Duration,
        mut next: impl FnMut() -> Seq,
    ) -> Settled<S> {
        let Settling { told, phys, before, now } = settling;
        let mut settled = Settled { touched: Vec::new(), explained: 0 };
        let differs = |at: &usize| past.memory().now(phys.offset(*at as u64)).is_some_and(|known| known != now[*at]);
        let differing: Vec<usize> = (0..now.len()).filter(differs).collect();
        for span in differing.chunk_by(|a, b| a + 1 == *b).map(|span| span[0]..span[span.len() - 1] + 1) {
            let (at, len) = (phys.offset(span.start as u64), span.len() as u64);
            let again = now[span.clone()] == before[span.clone()];
            let earlier = again.then(|| overtaken(past.memory(), at, len, told.vcpu)).flatten();
            let seq = next();
            settled.touched.push(match earlier {
                Some(earlier) => {
                    settled.explained += 1;
                    self.store(past, seq, Store { phys: at, bytes: now[span].to_vec(), ..earlier }, Epoch::default())
                }
                None => {
                    let after = ToldOf { linear: told.linear.offset(span.start as u64), ..told };
                    self.notice_after(past, at, &now[span], Some(after), (seq, clock))
                }
            });
        }
        settled
    }

    /// Stores after which memory held something else than is noted of them, and no store of another vCPU that came in
    /// between has been told of for so long. Each is given once.
    pub fn untrue(&mut self, patience: Duration, clock: Duration) -> Vec<ToldOf> {
        if !self.noticed.is_empty() {
            self.forget(|noticed| noticed.after.is_none() || clock.saturating_sub(noticed.at) < patience);
        }
        std::mem::take(&mut self.untrue)
    }

    /// How many stores wait for that.
    #[must_use]
    pub fn unsettled(&self) -> usize {
        self.noticed.iter().filter_map(Noticed::unexplained).count()
    }

    fn forget(&mut self, keep: impl Fn(&Noticed) -> bool) {
        let Self { noticed, untrue, .. } = self;
        noticed.retain(|noticed| {
            let kept = keep(noticed);
            untrue.extend(noticed.unexplained().filter(|_| !kept));
            kept
        });
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
        let (Some(vcpu), Some((phys, len))) = (told.vcpu, extent(past.memory(), seq)) else {
            return Touched::default();
        };
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

/// The store of another vCPU than this one that put these bytes there before the last store to them was told of.
fn overtaken(memory: &Memory, phys: Phys, len: u64, vcpu: Vcpu) -> Option<Store> {
    let last = memory.last_change(phys, len);
    let before = memory.record(memory.version(phys, Seq(last.0.checked_sub(1)?)))?;
    let offset = phys.0.wrapping_sub(before.store.phys.0);
    let covers = offset.checked_add(len).is_some_and(|end| end <= before.store.bytes.len() as u64);
    let another = before.store.vcpu.is_some_and(|other| other != vcpu);
    (covers && another)
        .then(|| Store { linear: before.store.linear.map(|linear| linear.offset(offset)), ..before.store.clone() })
}

/// Which bytes a store that is remembered stored.
fn extent(memory: &Memory, store: Seq) -> Option<(Phys, u64)> {
    memory.record(store).map(|record| (record.store.phys, record.store.bytes.len() as u64))
}
