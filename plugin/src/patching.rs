//! Patches under way: which task is inside which protocol function, what it stored there, and what its return commits.
//!
//! A protocol function is entered and left by a *task*: it may sleep in it, and come back on another vCPU. An entry is known again at its return by the address it
//! returns to and by the stack pointer it returns with, since kernel stacks belong to tasks. Which task a vCPU runs is told by `__switch_to`, and by
//! the per-CPU pointer to the current task at each entry.

use crate::x86::stack::Caller;
use icsan_model::addr::{Linear, Seq, Vcpu};
use icsan_model::memory::PAGE;
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::sync::Arc;

/// Entries that are remembered at a time. A task that dies inside of a function leaves one behind.
const MAX_FRAMES: usize = 1024;

/// Stores of one task, or of one address space, that are remembered for a commit to come.
const MAX_STORES: usize = 1 << 16;

/// Tasks whose stores are remembered.
const MAX_TASKS: usize = 256;

/// Writers of stores that are remembered.
const MAX_WRITERS: usize = 1 << 16;

/// Who runs on a vCPU: the address of its `task_struct`, or, where that is not known, its address space.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Task {
    /// The kernel's word.
    Struct(u64),
    /// The physical address of the page table.
    Space(u64),
    /// Nothing is known.
    Vcpu(Vcpu),
}

/// A task's name, as its `task_struct` says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TaskName {
    /// Thread id.
    pub pid: u32,
    /// Command name.
    pub comm: Arc<str>,
}

/// Where somebody was when something happened.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Context {
    /// Physical address of the page table (CR3 without its flags).
    pub space: Option<u64>,
    /// Privilege level, where it could be read.
    pub cpl: Option<u8>,
    /// The running task.
    pub task: Option<TaskName>,
}

/// Who made a store.
#[derive(Clone, Debug)]
pub struct Writer {
    /// Entry of the outermost protocol function that the task was in.
    pub function: Option<Linear>,
    /// Who had called it.
    pub chain: Arc<[Caller]>,
    /// Where it ran.
    pub context: Context,
}

/// A set of addresses, as a word that can be looked at without a lock: what is in it is found, and seldom anything else.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Awaited(pub u64);

impl Awaited {
    fn bit(address: Linear) -> u64 {
        1 << ((address.0 ^ address.0 >> 6 ^ address.0 >> 12) % 64)
    }

    /// May the address be in it?
    #[inline]
    #[must_use]
    pub fn may_include(self, address: Linear) -> bool {
        self.0 & Self::bit(address) != 0
    }
}

/// An entry that has not been left.
#[derive(Debug)]
struct Frame {
    task: Task,
    entry: Linear,
    returns_to: Linear,
    /// The stack pointer after the return.
    stack: u64,
    commits: bool,
    stores: Vec<Seq>,
    chain: Arc<[Caller]>,
}

impl Frame {
    /// Is somebody with that stack pointer at `here` behind the call? Programs' addresses are those of translations, which processes share that have the code elsewhere: of
    /// those only the place in the page counts ([`crate::views`]).
    fn is_left(&self, here: Linear, stack: u64) -> bool {
        let user = (self.returns_to.0 | here.0) >> 63 == 0;
        let same = self.returns_to == here || user && (self.returns_to.0 ^ here.0).is_multiple_of(PAGE);
        same && self.stack == stack
    }
}

/// What a vCPU runs.
#[derive(Clone, Default, Debug)]
struct Running {
    task: Option<u64>,
    space: Option<u64>,
    /// Its name, looked up at most once after each switch.
    name: Option<Option<TaskName>>,
}

/// See the module.
#[derive(Debug)]
pub struct Patching {
    running: Vec<Running>,
    frames: Vec<Frame>,
    /// What user tasks stored to code and did not commit, by task.
    user_stores: FxHashMap<Task, VecDeque<Seq>>,
    /// User stores since all were looked through the last time, and how many were left then.
    since_sweep: usize,
    left_by_sweep: usize,
    writers: FxHashMap<Seq, Writer>,
    writer_order: VecDeque<Seq>,
    /// What found no room.
    dropped: u64,
    /// Commits so far, and stores in them.
    commits: (u64, u64),
}

/// An entry to a protocol function.
#[derive(Clone, Debug)]
pub struct Entry {
    /// On which vCPU.
    pub vcpu: Vcpu,
    /// The function's address.
    pub entry: Linear,
    /// Where it returns to.
    pub returns_to: Linear,
    /// The stack pointer after the return.
    pub stack: u64,
    /// Does its return commit?
    pub commits: bool,
    /// Who called it.
    pub chain: Vec<Caller>,
}

impl Patching {
    /// Nothing under way.
    #[must_use]
    pub fn new(vcpus: usize) -> Self {
        Self {
            running: vec![Running::default(); vcpus],
            frames: Vec::new(),
            user_stores: FxHashMap::default(),
            since_sweep: 0,
            left_by_sweep: 0,
            writers: FxHashMap::default(),
            writer_order: VecDeque::new(),
            dropped: 0,
            commits: (0, 0),
        }
    }

    /// What found no room: a commit, or the name of a writer, may be missing.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Commits so far, and the stores in them.
    #[must_use]
    pub fn commits(&self) -> (u64, u64) {
        self.commits
    }

    fn running(&mut self, vcpu: Vcpu) -> Option<&mut Running> {
        self.running.get_mut(usize::from(vcpu.0))
    }

    /// The vCPU runs this task from now on.
    pub fn switch(&mut self, vcpu: Vcpu, task: u64) {
        if let Some(running) = self.running(vcpu)
            && running.task != Some(task)
        {
            running.task = Some(task);
            running.name = None;
        }
    }

    /// The vCPU is in this address space from now on.
    pub fn enter_space(&mut self, vcpu: Vcpu, space: u64) {
        if let Some(running) = self.running(vcpu) {
            running.space = Some(space);
        }
    }

    /// Who runs on a vCPU.
    #[must_use]
    pub fn task(&self, vcpu: Vcpu) -> Task {
        match self.running.get(usize::from(vcpu.0)) {
            Some(Running { task: Some(task), .. }) => Task::Struct(*task),
            Some(Running { space: Some(space), .. }) => Task::Space(*space),
            _ => Task::Vcpu(vcpu),
        }
    }

    /// Where a vCPU is. `name` looks the task's name up.
    pub fn context(&mut self, vcpu: Vcpu, cpl: Option<u8>, name: impl FnOnce(u64) -> Option<TaskName>) -> Context {
        let Some(running) = self.running(vcpu) else { return Context::default() };
        let task = running.task;
        let named = running.name.get_or_insert_with(|| task.and_then(name)).clone();
        Context { space: running.space, cpl, task: named }
    }

    /// A task enters a protocol function.
    pub fn enter(&mut self, entry: Entry) {
        let task = self.task(entry.vcpu);
        let Entry { entry, returns_to, stack, commits, chain, .. } = entry;
        // The same call again, in a loop: its return was not seen (its code was translated before the kernel's place was known).
        let same = |frame: &Frame| (frame.task, frame.stack, frame.returns_to, frame.entry) == (task, stack, returns_to, entry);
        if let Some(index) = self.frames.iter().position(same) {
            let mut at = 0..;
            self.frames.retain(|frame| at.next().is_some_and(|at| at < index) || frame.task != task);
        }
        // Whatever the same task entered deeper in its stack has been left some other way.
        self.frames.retain(|frame| frame.task != task || frame.stack > stack || (frame.stack == stack && frame.returns_to == returns_to));
        if self.frames.len() >= MAX_FRAMES {
            self.frames.remove(0);
            self.dropped += 1;
        }
        self.frames.push(Frame { task, entry, returns_to, stack, commits, stores: Vec::new(), chain: chain.into() });
    }

    /// The set of addresses that anybody in a protocol function returns to.
    #[must_use]
    pub fn awaited(&self) -> Awaited {
        Awaited(self.frames.iter().fold(0, |set, frame| set | Awaited::bit(frame.returns_to)))
    }

    /// Does anybody wait to return to this address?
    #[must_use]
    pub fn awaits(&self, returns_to: Linear) -> bool {
        self.frames.iter().any(|frame| frame.returns_to == returns_to)
    }

    /// Somebody is at `here` with that stack pointer: if that is a return, the stores that it commits. With `failed` the function says that it did nothing.
    pub fn leave(&mut self, here: Linear, stack: u64, failed: bool) -> Vec<Seq> {
        let Some(index) = self.frames.iter().position(|frame| frame.is_left(here, stack)) else { return Vec::new() };
        let task = self.frames[index].task;
        let mut committed = Vec::new();
        // The function, those that it ended in by a jump, and those that were left some other way.
        let (left, rest) = std::mem::take(&mut self.frames).into_iter().partition(|frame| frame.task == task && frame.stack <= stack);
        self.frames = rest;
        let left: Vec<Frame> = left;
        for frame in left {
            if frame.commits && frame.is_left(here, stack) && !failed {
                committed.extend(frame.stores);
            }
        }
        committed.sort_unstable();
        committed.dedup();
        if !committed.is_empty() {
            self.commits.0 += 1;
            self.commits.1 += committed.len() as u64;
        }
        committed
    }

    /// A user task asks the kernel to serialize all threads of its address space: what it stored so far is committed by the return.
    pub fn enter_membarrier(&mut self, vcpu: Vcpu, returns_to: Linear, stack: u64) {
        let task = self.task(vcpu);
        let stores = self.user_stores.remove(&task).unwrap_or_default();
        self.enter(Entry { vcpu, entry: returns_to, returns_to, stack, commits: true, chain: Vec::new() });
        if let Some(frame) = self.frames.last_mut() {
            frame.stores.extend(stores);
        }
    }

    /// A task stored to code; `user`: with user privileges. `remembered`: does the history remember a store? To commit one that it has forgotten changes nothing.
    pub fn store(&mut self, seq: Seq, vcpu: Vcpu, user: bool, context: Context, remembered: impl Fn(Seq) -> bool) {
        let task = self.task(vcpu);
        let mut function = None;
        let mut chain: Arc<[Caller]> = Arc::default();
        for frame in self.frames.iter_mut().filter(|frame| frame.task == task) {
            if frame.commits && frame.stores.len() < MAX_STORES {
                frame.stores.push(seq);
            } else if frame.commits {
                self.dropped += 1;
            }
            if function.is_none() {
                (function, chain) = (Some(frame.entry), Arc::clone(&frame.chain));
            }
        }
        if user {
            self.since_sweep += 1;
            if self.user_stores.len() >= MAX_TASKS && !self.user_stores.contains_key(&task) {
                self.make_room(&remembered);
            }
            let stores = self.user_stores.entry(task).or_default();
            if stores.len() >= MAX_STORES {
                stores.pop_front();
            }
            stores.push_back(seq);
        }
        if self.writer_order.len() >= MAX_WRITERS
            && let Some(oldest) = self.writer_order.pop_front()
        {
            self.writers.remove(&oldest);
        }
        self.writer_order.push_back(seq);
        self.writers.insert(seq, Writer { function, chain, context });
    }

    /// Makes room for the stores of one more user task. To look through all stores is put off until as many more have been made as were left the last time, so that a store pays the
    /// same share whatever is remembered.
    fn make_room(&mut self, remembered: &impl Fn(Seq) -> bool) {
        if self.since_sweep >= self.left_by_sweep {
            self.forget_stores(remembered);
            self.since_sweep = 0;
            self.left_by_sweep = self.user_stores.values().map(VecDeque::len).sum();
        }
        if self.user_stores.len() < MAX_TASKS {
            return;
        }
        // The one that stored nothing for the longest time.
        let idle = self.user_stores.iter().min_by_key(|(_, stores)| stores.back().copied()).map(|(idle, _)| *idle);
        let stores = idle.and_then(|idle| self.user_stores.remove(&idle));
        self.dropped += u64::from(stores.is_some_and(|stores| stores.into_iter().any(remembered)));
    }

    /// Forgets the stores that are not `remembered` by the history any more: to commit them changes nothing.
    pub fn forget_stores(&mut self, remembered: impl Fn(Seq) -> bool) {
        self.frames.iter_mut().for_each(|frame| frame.stores.retain(|store| remembered(*store)));
        self.user_stores.values_mut().for_each(|stores| stores.retain(|store| remembered(*store)));
        self.user_stores.retain(|_, stores| !stores.is_empty());
    }

    /// Who made a store, if it was lately.
    #[must_use]
    pub fn writer(&self, seq: Seq) -> Option<&Writer> {
        self.writers.get(&seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(vcpu: u16, entry: u64, returns_to: u64, stack: u64, commits: bool) -> Entry {
        Entry { vcpu: Vcpu(vcpu), entry: Linear(entry), returns_to: Linear(returns_to), stack, commits, chain: Vec::new() }
    }

    fn store(patching: &mut Patching, seq: u64, vcpu: u16) {
        patching.store(Seq(seq), Vcpu(vcpu), false, Context::default(), |_| true);
    }

    #[test]
    fn a_task_that_sleeps_and_migrates_commits_its_own_stores() {
        let mut patching = Patching::new(2);
        patching.switch(Vcpu(0), 100);
        patching.switch(Vcpu(1), 200);
        patching.enter(entry(0, 1, 10, 0x8000, true));
        store(&mut patching, 1, 0);
        // It sleeps; another task runs there, then it comes back on the other vCPU.
        patching.switch(Vcpu(0), 300);
        store(&mut patching, 2, 0);
        store(&mut patching, 3, 1);
        patching.switch(Vcpu(1), 100);
        store(&mut patching, 4, 1);
        assert!(patching.leave(Linear(10), 0x9000, false).is_empty(), "another stack");
        assert!(patching.awaits(Linear(10)));
        assert_eq!(patching.leave(Linear(10), 0x8000, false), [Seq(1), Seq(4)]);
        assert!(!patching.awaits(Linear(10)));
        assert_eq!(patching.writer(Seq(4)).unwrap().function, Some(Linear(1)));
        assert_eq!(patching.writer(Seq(2)).unwrap().function, None);
    }

    #[test]
    fn what_ends_in_a_jump_is_left_with_what_it_jumped_to() {
        let mut patching = Patching::new(1);
        patching.enter(entry(0, 1, 10, 0x8000, false));
        patching.enter(entry(0, 2, 10, 0x8000, true));
        patching.enter(entry(0, 3, 30, 0x7f00, false));
        store(&mut patching, 5, 0);
        assert_eq!(patching.writer(Seq(5)).unwrap().function, Some(Linear(1)), "the outermost is named");
        assert!(patching.leave(Linear(30), 0x7f00, false).is_empty(), "it does not commit");
        assert_eq!(patching.leave(Linear(10), 0x8000, false), [Seq(5)]);
        assert!(patching.leave(Linear(10), 0x8000, false).is_empty());
    }

    #[test]
    fn a_loop_whose_returns_are_not_seen_leaves_one_entry() {
        let mut patching = Patching::new(1);
        for _ in 0..3 {
            patching.enter(entry(0, 1, 10, 0x8000, false));
            patching.enter(entry(0, 2, 10, 0x8000, true));
        }
        assert_eq!((patching.frames.len(), patching.dropped()), (2, 0));
    }

    #[test]
    fn tasks_that_stored_long_ago_make_room() {
        let mut patching = Patching::new(1);
        let looked = std::cell::Cell::new(0);
        let mut store = |seq: u64, task: u64, forgotten: u64| {
            patching.switch(Vcpu(0), task);
            patching.store(Seq(seq), Vcpu(0), true, Context::default(), |store| {
                looked.set(looked.get() + 1);
                store.0 > forgotten
            });
            (patching.user_stores.len(), patching.dropped())
        };
        for task in 0..MAX_TASKS as u64 {
            store(1 + task, 100 + task, 0);
        }
        assert_eq!(store(1000, 1, 7), (MAX_TASKS - 6, 0), "what was forgotten needs no commit");
        for task in 2..8 {
            store(1000 + task, task, 7);
        }
        assert_eq!(looked.get(), MAX_TASKS, "only who needs room looks");
        assert_eq!(store(2000, 10, 7), (MAX_TASKS, 1), "and then the one that has been idle for the longest time goes");
        assert_eq!(store(2001, 11, 9), (MAX_TASKS, 1), "which is no loss if its stores were forgotten");
        // A task after the other, each of which stores once: all are looked through once in as many stores as are left.
        looked.set(0);
        for task in 0..10 * MAX_TASKS as u64 {
            store(3000 + task, 1000 + task, 0);
        }
        assert!(looked.get() <= 25 * MAX_TASKS, "{} for {} stores", looked.get(), 10 * MAX_TASKS);
    }

    #[test]
    fn membarrier_commits_what_the_task_stored_before_it() {
        let mut patching = Patching::new(2);
        patching.enter_space(Vcpu(0), 0x1000);
        patching.enter_space(Vcpu(1), 0x2000);
        patching.store(Seq(1), Vcpu(0), true, Context::default(), |_| true);
        patching.store(Seq(2), Vcpu(1), true, Context::default(), |_| true);
        patching.enter_membarrier(Vcpu(0), Linear(50), 0x100);
        assert_eq!(patching.leave(Linear(50), 0x100, false), [Seq(1)]);
        patching.store(Seq(3), Vcpu(0), true, Context::default(), |_| true);
        patching.enter_membarrier(Vcpu(0), Linear(50), 0x100);
        assert!(patching.leave(Linear(50), 0x100, true).is_empty(), "it failed");
        patching.store(Seq(4), Vcpu(0), true, Context::default(), |_| true);
        patching.enter_membarrier(Vcpu(0), Linear(0x7000_0050), 0x100);
        assert!(
            patching.leave(Linear(0x5000_0051), 0x100, false).is_empty() && patching.leave(Linear(0x5000_0050), 0x108, false).is_empty()
        );
        assert_eq!(patching.leave(Linear(0x5000_0050), 0x100, false), [Seq(4)], "translated in another process");
    }
}
