//! Flags: what each vCPU executed in its current epoch, and since when.
//!
//! For every segment of code and every vCPU there is a **flag** and the moment of a **first fetch**. Generated code
//! tests the flag and calls only if it is below [`DONE`]. What then decides whether there is anything to judge is the
//! **fast path** ([`Flags::fast_path`]): it looks at the flag, the first fetch, and the segment's **last change**, and
//! takes no lock.
//!
//! A store may be told of just then. The storing vCPU *notes the change, fences, and looks for flags*; the executor
//! *sets its flag, fences, and looks for a change*. So one of the two finds the other, and the flag becomes
//! [`Flag::Recheck`]: the next execution of the segment calls again, and is judged. The executor's fence is the light
//! half of an asymmetric one ([`OwnBoard::light`], [`Board::heavy`]), since there are ten thousand executors to a
//! storing vCPU.
//!
//! What the executor looks for is *another last change than before it set its flag*, not one later than its own moment:
//! the number of a store is taken before its change is noted, and an executor in between has a moment that is no
//! earlier.

use crate::addr::{Seq, Vcpu};
use crate::detector::history::Place;
use crate::detector::light::CodeRun;
use crate::fetch::instruction_cache::NEVER;
use std::fmt::Debug;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};

/// Flags from this value on keep the callback from being called.
pub const DONE: u64 = 2;

/// Beginning of the epoch of a vCPU that has not started.
const NOT_STARTED: u64 = u64::MAX;

/// Number of a slot: that of its segment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct SlotId(pub u32);

/// What a vCPU did with a segment in its current epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum Flag {
    /// Nothing.
    Clear = 0,
    /// It executed the segment, and then something happened to the code: the next execution is looked at again.
    Recheck = 1,
    /// It executed the segment.
    Executed = DONE,
    /// It ran a stale translation block: memory had other bytes. That is no evidence, and need not be looked at again
    /// in this epoch.
    StaleBlock = DONE + 1,
}

impl Flag {
    fn of(value: u64) -> Self {
        match value {
            0 => Self::Clear,
            1 => Self::Recheck,
            DONE => Self::Executed,
            _ => Self::StaleBlock,
        }
    }

    /// Did the vCPU execute the segment, with memory's bytes?
    #[must_use]
    pub fn executed(self) -> bool {
        matches!(self, Self::Recheck | Self::Executed)
    }
}

/// An atomic number.
pub trait Word: Debug {
    /// One with this value.
    fn new(value: u64) -> Self;
    /// Its value.
    fn load(&self, order: Ordering) -> u64;
    /// Gives it a value.
    fn store(&self, value: u64, order: Ordering);
    /// Gives it a value if it has that one; sequentially consistent.
    fn replace(&self, from: u64, to: u64);
    /// Raises it to a value if it is lower; sequentially consistent.
    fn raise(&self, to: u64);
    /// One more than it was, which it is from now on; sequentially consistent.
    fn next(&self) -> u64;
}

impl Word for AtomicU64 {
    fn new(value: u64) -> Self {
        Self::new(value)
    }

    #[inline(always)]
    fn load(&self, order: Ordering) -> u64 {
        self.load(order)
    }

    #[inline(always)]
    fn store(&self, value: u64, order: Ordering) {
        self.store(value, order);
    }

    fn replace(&self, from: u64, to: u64) {
        let _ = self.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst);
    }

    fn raise(&self, to: u64) {
        self.fetch_max(to, Ordering::SeqCst);
    }

    fn next(&self) -> u64 {
        self.fetch_add(1, Ordering::SeqCst) + 1
    }
}

/// The last change of a segment, or of what is right behind it. 0: none.
///
/// Where an instruction cache does not see stores, it is the last moment at which a fetch may have brought in anything
/// else than what is there: [`NEVER`] after a store, until maintenance that covers it has taken effect for every vCPU.
/// So a vCPU that fetches such a segment is looked at each time, and nothing else is: the fast path is the same.
#[derive(Debug)]
pub struct LastChange<W>(W);

impl<W: Word> Default for LastChange<W> {
    fn default() -> Self {
        Self(W::new(0))
    }
}

impl<W: Word> LastChange<W> {
    /// Its place in the order.
    #[inline(always)]
    #[must_use]
    pub fn get(&self) -> Seq {
        Seq(self.0.load(Ordering::SeqCst))
    }

    /// There was a change.
    pub fn note(&self, seq: Seq) {
        self.0.raise(seq.0);
    }

    /// What was a change without end ([`NEVER`]) ended at that moment: later fetches find what is there. Called with
    /// the lock of all changes held.
    pub fn settle(&self, seq: Seq) {
        self.0.replace(NEVER.0, seq.0);
    }
}

/// A segment: instructions that are fetched together, at one place.
pub trait Segment {
    /// The atomic number that it is made with.
    type Word: Word;
    /// Its slot.
    fn slot(&self) -> SlotId;
    /// The last store that changed a byte of it, or one behind it that an older and longer instruction may reach.
    fn last_change(&self) -> &LastChange<Self::Word>;
    /// Linear address, bytes, instructions.
    fn run(&self) -> &CodeRun;
    /// Where it is in memory, if that is known.
    fn place(&self) -> Option<Place>;
}

/// Whether memory holds a segment's bytes, to be asked at the right moment. (A closure would do, and does in tests, but
/// cannot be told to be inlined.)
pub trait Holds {
    /// Does it now?
    fn holds(self) -> bool;
}

impl<F: FnOnce() -> bool> Holds for F {
    fn holds(self) -> bool {
        self()
    }
}

/// A segment's flag and first fetch, of one vCPU.
#[derive(Debug)]
pub struct Slot<'a, W> {
    /// The segment.
    pub id: SlotId,
    /// The flag.
    pub flag: &'a W,
    /// The first execution in the last epoch with one; it stays when the flag is cleared. `None` where no store is
    /// watched, and nobody asks.
    pub first_fetch: Option<&'a W>,
}

impl<W: Word> Slot<'_, W> {
    /// The flag.
    #[inline(always)]
    #[must_use]
    pub fn flag(&self) -> Flag {
        Flag::of(self.flag.load(Ordering::Relaxed))
    }

    /// The first execution in the last epoch with one; 0 if there was none.
    #[inline(always)]
    #[must_use]
    pub fn first_fetch(&self) -> Seq {
        Seq(self.first_fetch.map_or(0, |first| first.load(Ordering::Relaxed)))
    }
}

/// Where the flags and first fetches of all vCPUs are.
pub trait Board {
    /// An atomic number.
    type Word: Word;
    /// A slot of a vCPU that has started, to look at, and to turn [`Flag::Executed`] into [`Flag::Recheck`], from any
    /// thread. `None`: the vCPU never had it.
    fn slot(&self, vcpu: Vcpu, id: SlotId) -> Option<Slot<'_, Self::Word>>;
    /// A full fence of the calling thread.
    fn full(&self);
    /// The rare half of the asymmetric fence: a full fence of the calling thread, and of every other one between its
    /// [`OwnBoard::light`]'s two sides.
    fn heavy(&self);
}

/// The slots of the vCPU whose thread it is: nobody else sets or clears them.
pub trait OwnBoard {
    /// An atomic number.
    type Word: Word;
    /// Whose.
    fn vcpu(&self) -> Vcpu;
    /// A slot, found or made. `None`: there is none of that number.
    fn slot(&self, id: SlotId) -> Option<Slot<'_, Self::Word>>;
    /// A slot, if nothing has to be found or made for it.
    fn known(&self, id: SlotId) -> Option<Slot<'_, Self::Word>>;
    /// Adds a slot to the list of those that are set, if there is room.
    fn push(&self, id: SlotId) -> bool;
    /// Makes room in the list for one more.
    fn reserve(&self);
    /// Takes the list, and puts another one in its place.
    fn swap_list(&self, list: SetSlots) -> SetSlots;
    /// The frequent half of the asymmetric fence, between a write and a look.
    fn light(&self);

    /// Sets a flag. The first one in an epoch is the first fetch, at `now`. `false`: there is no room in the list
    /// ([`OwnBoard::reserve`]), and nothing was done.
    #[inline(always)]
    fn set(&self, slot: &Slot<'_, Self::Word>, value: Flag, now: Seq) -> bool {
        if slot.flag.load(Ordering::Relaxed) == Flag::Clear as u64 {
            if !self.push(slot.id) {
                return false;
            }
            if let Some(first) = slot.first_fetch {
                first.store(now.0, Ordering::Relaxed);
            }
        }
        slot.flag.store(value as u64, Ordering::Release);
        true
    }

    /// A segment's flag.
    fn flag(&self, id: SlotId) -> Flag {
        self.slot(id).map_or(Flag::Clear, |slot| slot.flag())
    }

    /// The first execution of a segment in the last epoch with one; 0 if it never ran.
    fn first_fetch(&self, id: SlotId) -> Seq {
        self.slot(id).map_or(Seq(0), |slot| slot.first_fetch())
    }
}

/// The slots of a vCPU whose flag is set.
#[derive(Debug, Default)]
pub struct SetSlots {
    /// The first `used` are set. (A push into room that is there takes no call: this is done at every first execution.)
    room: Vec<SlotId>,
    used: usize,
}

impl SetSlots {
    /// Adds one, if there is room.
    #[inline(always)]
    pub fn push(&mut self, id: SlotId) -> bool {
        let Some(place) = self.room.get_mut(self.used) else { return false };
        *place = id;
        self.used += 1;
        true
    }

    /// Makes room for one more.
    pub fn reserve(&mut self) {
        if self.used == self.room.len() {
            self.room.resize((2 * self.used).max(64), SlotId(0));
        }
    }

    /// Those that were added.
    fn iter(&self) -> impl Iterator<Item = SlotId> {
        self.room[..self.used].iter().copied()
    }

    /// Takes all out.
    fn drain(&mut self) -> impl Iterator<Item = SlotId> {
        let used = std::mem::take(&mut self.used);
        self.room[..used].iter().copied()
    }
}

/// What all vCPUs write often, in a cache line of its own.
#[derive(Debug)]
#[repr(align(128))]
struct Line<T>(T);

/// What decides whether there is anything to judge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rules {
    /// Are stores watched?
    pub writers: bool,
    /// Is every store snooped at once ([`crate::arch::profile::Profile::snoop`])? Then nothing ever is.
    pub snoop: bool,
    /// Do fetches find what was stored only after maintenance
    /// ([`crate::arch::profile::Profile::incoherent_caches`])?
    pub maintained: bool,
}

/// The flags of all vCPUs, and the one order of all stores to code and all serializing events.
#[derive(Debug)]
pub struct Flags<B: Board> {
    board: B,
    rules: Rules,
    /// When each vCPU's epoch began.
    epochs: Box<[B::Word]>,
    /// Does the vCPU execute anything at present?
    runs: Box<[B::Word]>,
    /// The last place in the order.
    seq: Line<B::Word>,
}

impl<B: Board> Flags<B> {
    /// Of so many vCPUs, none of which has started.
    pub fn new(board: B, vcpus: usize, rules: Rules) -> Self {
        Self {
            board,
            rules,
            epochs: (0..vcpus).map(|_| B::Word::new(NOT_STARTED)).collect(),
            runs: (0..vcpus).map(|_| B::Word::new(0)).collect(),
            seq: Line(B::Word::new(0)),
        }
    }

    /// Do fetches find what was stored only after maintenance?
    pub fn maintained(&self) -> bool {
        self.rules.maintained
    }

    /// Where they are.
    #[inline(always)]
    pub fn board(&self) -> &B {
        &self.board
    }

    /// The last place in the order that was given.
    #[inline(always)]
    pub fn now(&self) -> Seq {
        Seq(self.seq.0.load(Ordering::SeqCst))
    }

    /// The next place in the order.
    pub fn next(&self) -> Seq {
        Seq(self.seq.0.next())
    }

    /// A vCPU starts, if it has not yet.
    pub fn start(&self, vcpu: Vcpu) {
        if let Some(epoch) = self.epochs.get(usize::from(vcpu.0)) {
            epoch.replace(NOT_STARTED, 0);
        }
        self.runs(vcpu, true);
    }

    /// The vCPUs that have started.
    pub fn started(&self) -> impl Iterator<Item = Vcpu> {
        (0..)
            .map(Vcpu)
            .zip(&self.epochs)
            .filter(|(_, epoch)| epoch.load(Ordering::Relaxed) != NOT_STARTED)
            .map(|(vcpu, _)| vcpu)
    }

    /// When the oldest epoch began.
    pub fn horizon(&self) -> Seq {
        Seq(self.epochs.iter().map(|epoch| epoch.load(Ordering::Relaxed)).min().unwrap_or(0))
    }

    /// A vCPU runs, or sleeps, from now on. Called by its own thread, which executes nothing while it sleeps.
    pub fn runs(&self, vcpu: Vcpu, runs: bool) {
        if let Some(known) = self.runs.get(usize::from(vcpu.0)) {
            known.store(u64::from(runs), Ordering::SeqCst);
            self.board.full();
        }
    }

    /// Does a vCPU execute anything at present, as far as it said so ([`Flags::runs`])?
    pub fn is_running(&self, vcpu: Vcpu) -> bool {
        self.runs.get(usize::from(vcpu.0)).is_some_and(|runs| runs.load(Ordering::SeqCst) != 0)
    }

    /// To be called by a vCPU's thread between something that others shall see when they execute the next time, and a
    /// look at what they executed: a [`Board::heavy`], unless no other vCPU runs. Flags of one that sleeps are visible,
    /// and it sees what was written before it said that it runs. Answers whether others run.
    pub fn fence(&self) -> bool {
        self.board.full();
        let others = self.runs.iter().filter(|runs| runs.load(Ordering::SeqCst) != 0).nth(1).is_some();
        if others {
            self.board.heavy();
        }
        others
    }

    /// A vCPU is about to execute a segment, about which nothing is known but its own flag, first fetch and last
    /// change. Is there nothing to judge? Then it executed the segment from now on. `false`: nothing was done, and the
    /// execution is to be looked at more closely. `holds`: does memory hold the segment's bytes? Without a lock, and
    /// where [`OwnBoard::known`] is enough, without a call.
    #[inline(always)]
    pub fn fast_path<S: Segment<Word = B::Word>>(
        &self,
        own: &impl OwnBoard<Word = B::Word>,
        segment: &S,
        holds: impl Holds,
    ) -> bool {
        let Some(slot) = own.known(segment.slot()) else { return false };
        // Before memory is looked at: a store in between counts as later.
        let now = self.now();
        holds.holds() && self.settles(own, segment, &slot, now)
    }

    /// [`Flags::fast_path`] once memory was found to hold the segment, a moment after `now`.
    #[inline(always)]
    pub fn settles<S: Segment<Word = B::Word>>(
        &self,
        own: &impl OwnBoard<Word = B::Word>,
        segment: &S,
        slot: &Slot<'_, B::Word>,
        now: Seq,
    ) -> bool {
        if !self.rules.writers {
            return own.set(slot, Flag::Executed, now);
        }
        let last_change = segment.last_change().get();
        let changed = slot.flag() == Flag::Recheck || last_change > slot.first_fetch();
        if changed && !self.rules.snoop || !own.set(slot, Flag::Executed, now) {
            return false;
        }
        own.light();
        if segment.last_change().get() != last_change {
            slot.flag.store(Flag::Recheck as u64, Ordering::Release);
        }
        true
    }

    /// What the vCPU executed in its current epoch: each segment once, with the moment of its first fetch.
    pub fn executed(&self, own: &impl OwnBoard<Word = B::Word>) -> Vec<(SlotId, Seq)> {
        let set = own.swap_list(SetSlots::default());
        let slots = set.iter().filter_map(|id| own.known(id).or_else(|| own.slot(id)));
        let executed = slots.filter(|slot| slot.flag().executed()).map(|slot| (slot.id, slot.first_fetch())).collect();
        own.swap_list(set);
        executed
    }

    /// The vCPU completes a serializing event: nothing that it executed counts any more.
    pub fn begin_epoch(&self, own: &impl OwnBoard<Word = B::Word>) -> Seq {
        let seq = self.next();
        let mut set = own.swap_list(SetSlots::default());
        for slot in set.drain().filter_map(|id| own.known(id).or_else(|| own.slot(id))) {
            slot.flag.store(Flag::Clear as u64, Ordering::Release);
        }
        own.swap_list(set);
        if let Some(epoch) = self.epochs.get(usize::from(own.vcpu().0)) {
            epoch.store(seq.0, Ordering::Relaxed);
        }
        seq
    }

    /// Something happened to the bytes of these segments: a vCPU that executed them in its epoch is looked at again
    /// when it executes them the next time. `seq`: they changed at this place in the order; `None`: nothing changed,
    /// but what is known of a change did. Called by a vCPU's thread that holds the lock of all changes.
    pub fn invalidate<T: Deref<Target: Segment<Word = B::Word>>>(&self, segments: &[T], seq: Option<Seq>) {
        // Where no flag says that a vCPU executed a segment, the fence is spared if it is looked at with the lock held,
        // as it is: that is, if its last first fetch was before the last change. (A page that is overwritten byte by
        // byte changes each of its segments many times in a row.) A flag that is set under the lock is seen here
        // without the fence, and one that the fast path sets needs such a fetch.
        let may_have = |vcpu: Vcpu, id: SlotId, change: Seq| {
            self.board.slot(vcpu, id).is_some_and(|slot| slot.flag() == Flag::Executed || slot.first_fetch() >= change)
        };
        let ran_since =
            |id: SlotId, change: Seq| change == Seq(0) || self.started().any(|vcpu| may_have(vcpu, id, change));
        let mut ran: Vec<SlotId> = Vec::new();
        for segment in segments {
            let before = segment.last_change().get();
            let noted = seq.map(|seq| if self.rules.maintained { NEVER } else { seq });
            noted.into_iter().for_each(|seq| segment.last_change().note(seq));
            if ran_since(segment.slot(), before) {
                ran.push(segment.slot());
            }
        }
        if ran.is_empty() {
            return;
        }
        self.fence();
        for id in ran {
            for slot in self.started().filter_map(|vcpu| self.board.slot(vcpu, id)) {
                slot.flag.replace(Flag::Executed as u64, Flag::Recheck as u64);
            }
        }
    }

    /// A vCPU that executed one of these segments in its epoch is looked at again when it executes it the next time.
    /// Called while no vCPU executes anything.
    pub fn recheck(&self, segments: impl Iterator<Item = SlotId> + Clone) {
        for vcpu in self.started() {
            for slot in segments.clone().filter_map(|id| self.board.slot(vcpu, id)) {
                slot.flag.replace(Flag::Executed as u64, Flag::Recheck as u64);
            }
        }
    }

    /// May these segments be forgotten, since no vCPU holds any of them? From now on a vCPU that executes one finds
    /// that it changed. Called as [`Flags::invalidate`] is.
    pub fn lets_go<T: Deref<Target: Segment<Word = B::Word>>>(&self, segments: &[T]) -> bool {
        segments.iter().for_each(|segment| segment.last_change().note(self.next()));
        // A vCPU that is just about to execute one of them after all finds that it changed, or is found here to execute
        // it.
        self.fence();
        !segments.iter().any(|segment| self.held_since(segment.slot()).is_some())
    }

    /// Since when any vCPU holds a segment in its epoch, as of the last [`Flags::fence`].
    pub fn held_since(&self, id: SlotId) -> Option<Seq> {
        self.started().filter_map(|vcpu| self.holds_since(vcpu, id)).min()
    }

    /// Since when a vCPU holds a segment, if it executed it in its current epoch. Called by any vCPU's thread, after a
    /// [`Flags::fence`] that follows whatever it is that the vCPU shall have seen if the answer does not count it.
    pub fn holds_since(&self, vcpu: Vcpu, id: SlotId) -> Option<Seq> {
        let slot = self.board.slot(vcpu, id)?;
        let since = || slot.first_fetch.map_or(0, |first| first.load(Ordering::SeqCst));
        Flag::of(slot.flag.load(Ordering::SeqCst)).executed().then(|| Seq(since()))
    }
}
