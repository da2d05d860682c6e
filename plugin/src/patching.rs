//! Patches under way: which task is inside which protocol function, what it stored there, and what its return commits.
//!
//! A protocol function is entered and left by a *task*: it may sleep in it, and come back on another vCPU. An entry is
//! known again at its return by the task, by the address it returns to and by the stack pointer it returns with. In the
//! kernel the stack pointer alone would do, since kernel stacks belong to tasks; programs that were forked have the
//! same one.

mod asked;
mod context;
mod frame;
mod tasks;
mod uncommitted;
mod writer;

use crate::arch::caller::Caller;
use crate::arch::isolation::Isolation;
use crate::arch::linux_abi::LinuxAbi;
use crate::origins::Origins;
use asked::Steps;
pub use asked::{Asked, Asker, Covering, Missing, Poke, Step};
pub use context::{Context, TaskName};
pub use frame::{Awaited, Entry, Meaning};
use frame::{Entered, Frame};
use icsan_model::addr::{Linear, Seq, Vcpu};
use rustc_hash::FxHashMap;
use std::sync::Arc;
pub use tasks::Identity;
use tasks::{Task, Tasks};
use uncommitted::{MAX_STORES, MAX_TASKS, Uncommitted};
pub use writer::Writer;
use writer::Writers;

/// Entries that are remembered at a time. A task that dies inside of a function leaves one behind.
const MAX_FRAMES: usize = 1024;

/// What was stored inside of functions that only queue, by one task.
#[derive(Default, Debug)]
struct Pending {
    stores: Vec<Seq>,
    site: Option<Linear>,
}

/// What a return says.
#[derive(Debug, Default)]
pub struct Left {
    /// The stores that it commits.
    pub committed: Vec<Seq>,
    /// What its function is asked.
    pub asked: Option<Asked>,
}

/// See the module.
#[derive(Debug)]
pub struct Patching {
    linux: &'static LinuxAbi,
    origins: Arc<Origins>,
    tasks: Tasks,
    isolation: Isolation,
    frames: Vec<Frame>,
    /// What the kernel stored inside of functions that only queue.
    pending: FxHashMap<Task, Pending>,
    uncommitted: Uncommitted,
    writers: Writers,
    /// What found no room.
    dropped: u64,
    /// Commits so far, and stores in them.
    commits: (u64, u64),
}

impl Patching {
    /// Nothing under way, on an architecture with that Linux. `origins` know what is interrupted.
    #[must_use]
    pub fn new(vcpus: usize, linux: &'static LinuxAbi, origins: Arc<Origins>) -> Self {
        Self {
            linux,
            origins,
            tasks: Tasks::new(vcpus),
            isolation: Isolation::new(linux.user_half),
            frames: Vec::new(),
            pending: FxHashMap::default(),
            uncommitted: Uncommitted::default(),
            writers: Writers::default(),
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

    /// A state was restored, or another kernel began: who runs where, and is inside of what, is not known any more.
    pub fn forget_tasks(&mut self) {
        self.tasks.forget();
        self.isolation = Isolation::new(self.linux.user_half);
        self.frames.clear();
        self.pending.clear();
        self.uncommitted.clear();
    }

    /// The vCPU runs the task `to` from now on, and ran `from` so far.
    pub fn switch(&mut self, vcpu: Vcpu, from: Option<u64>, to: u64) {
        self.sees(vcpu, Identity { task: from.filter(|_| self.tasks.who(vcpu).identity.task.is_none()), space: None });
        self.tasks.set(vcpu, Identity { task: Some(to), space: None });
    }

    /// The vCPU is in the address space `to` from now on, and was in `from` so far.
    pub fn enter_space(&mut self, vcpu: Vcpu, from: Option<u64>, to: u64) {
        self.sees(vcpu, Identity { task: None, space: from.filter(|_| self.tasks.who(vcpu).identity.space.is_none()) });
        self.tasks.set(vcpu, Identity { task: None, space: Some(to) });
    }

    /// The registers of a vCPU say who runs there. If that was not known, it is the one that was there all the time: no
    /// switch would have gone unnoticed.
    pub fn sees(&mut self, vcpu: Vcpu, seen: Identity) {
        let before = self.tasks.who(vcpu);
        self.tasks.set(vcpu, seen);
        let now = self.tasks.who(vcpu);
        if before.identity.task.is_none() && now.identity.task.is_some() {
            let there = self
                .frames
                .iter_mut()
                .filter(|frame| frame.entered == Entered::Kernel && frame.who.is_kernel_task(before));
            there.for_each(|frame| frame.who.identity.task = now.identity.task);
        }
        if before.identity.space.is_none() && now.identity.space.is_some() {
            let there =
                self.frames.iter_mut().filter(|frame| frame.who.vcpu == vcpu && frame.who.identity.space.is_none());
            there.for_each(|frame| frame.who.identity.space = now.identity.space);
            self.uncommitted.rename(before.process(), now.process());
        }
    }

    /// The same, where to look costs something: `sees` is told what is known already.
    pub fn looks(&mut self, vcpu: Vcpu, sees: impl FnOnce(Identity) -> Identity) {
        self.sees(vcpu, sees(self.tasks.who(vcpu).identity));
    }

    /// Where a vCPU is. `name` looks the task's name up.
    pub fn context(
        &mut self,
        vcpu: Vcpu,
        privilege: Option<u8>,
        name: impl FnOnce(u64) -> Option<TaskName>,
    ) -> Context {
        Context { space: self.tasks.who(vcpu).identity.space, privilege, task: self.tasks.name(vcpu, name) }
    }

    /// A task enters a protocol function. Answers with what the function around it is asked: if this is the first store
    /// of its next step.
    pub fn enter(&mut self, entry: Entry) -> Option<Asked> {
        let entered = if self.linux.is_kernel(entry.entry) { Entered::Kernel } else { Entered::Program };
        let (vcpu, poke) = (entry.vcpu, entry.meaning.poke);
        if entered == Entered::Kernel {
            self.origins.enters_function(entry.stack);
        }
        self.push(entry, entered, Vec::new());
        self.pokes(vcpu, poke?)
    }

    /// A task is about to make a store of a protocol.
    fn pokes(&mut self, vcpu: Vcpu, poke: Poke) -> Option<Asked> {
        let who = self.tasks.who(vcpu);
        let theirs = |frame: &Frame| frame.entered == Entered::Kernel && frame.who.is_kernel_task(who);
        let Some(frame) = self.frames.iter_mut().rfind(|frame| theirs(frame) && frame.meaning.covers.is_some()) else {
            if self.frames.iter().any(|frame| theirs(frame) && frame.meaning.queues)
                && let Some(pending) = self.pending_of(who.best())
            {
                pending.site.get_or_insert(poke.at);
            }
            return None;
        };
        let between = if frame.meaning.steps { frame.steps.next(poke) } else { None };
        let Some((ended, begun)) = between else {
            frame.site.get_or_insert(poke.at);
            return None;
        };
        let (function, chain) = ((Asker::Function(frame.entry), frame.meaning.covers?), Arc::clone(&frame.chain));
        let (stores, site) = (std::mem::take(&mut frame.unasked), frame.site.replace(poke.at));
        self.asks(vcpu, function, Missing::Between(ended, begun), stores, site, chain)
    }

    /// The question about these stores. No other function is asked about them.
    fn asks(
        &mut self,
        vcpu: Vcpu,
        (asker, covering): (Asker, Covering),
        missing: Missing,
        mut stores: Vec<Seq>,
        site: Option<Linear>,
        chain: Arc<[Caller]>,
    ) -> Option<Asked> {
        stores.sort_unstable();
        stores.dedup();
        self.frames.iter_mut().for_each(|frame| frame.unasked.retain(|store| stores.binary_search(store).is_err()));
        let context = self.tasks.context(vcpu);
        (!stores.is_empty()).then_some(Asked { vcpu, asker, covering, missing, stores, site, chain, context })
    }

    fn push(&mut self, entry: Entry, entered: Entered, stores: Vec<Seq>) {
        let linux = self.linux;
        let who = self.tasks.who(entry.vcpu);
        if entered != Entered::Kernel {
            who.identity.space.into_iter().for_each(|space| self.isolation.sees_user_mode(space));
        }
        let Entry { entry, returns_to, stack, meaning, chain, .. } = entry;
        let (site, steps) = (None, Steps::default());
        let unasked = if meaning.covers.is_some() { stores.clone() } else { Vec::new() };
        let new = Frame {
            who,
            entered,
            entry,
            returns_to,
            stack,
            meaning,
            stores,
            unasked,
            site,
            steps,
            chain: chain.into(),
        };
        // The same call again, in a loop: its return was not seen (its code was translated before the kernel's place
        // was known).
        let same = |frame: &Frame| frame.entry == entry && frame.is_left(linux, who, returns_to, stack);
        let again = self.frames.iter().position(same).unwrap_or(self.frames.len());
        // What serves a task that waits is called through a pointer, and no function ends in a jump to it: what is
        // there with the same return was left, and that return was not seen (who calls through a pointer may have been
        // translated before a task waited there).
        let may_be_jumped_to = meaning.serves.is_none();
        let mut at = 0..;
        self.frames.retain(|frame| {
            let before = at.next().is_some_and(|at| at < again);
            let tail = may_be_jumped_to && frame.is_left(linux, who, returns_to, stack);
            // Whatever the same task entered deeper in its stack has been left some other way.
            before && (!frame.is_on_stack_of(who) || frame.stack > stack || tail)
                || !before && !tail && !frame.is_on_stack_of(who)
        });
        if self.frames.len() >= MAX_FRAMES {
            self.frames.remove(0);
            self.dropped += 1;
        }
        self.frames.push(new);
    }

    /// Does the vCPU use the page table of the process that `space` is of, in the kernel or in user mode?
    #[must_use]
    pub fn is_in_process(&self, vcpu: Vcpu, space: u64) -> bool {
        self.tasks.who(vcpu).identity.space.is_some_and(|loaded| self.isolation.is_one_process(space, loaded))
    }

    /// Does user mode run on this table as on the user's half of a pair, so that the kernel leaves by a CR3 write?
    #[must_use]
    pub fn is_isolated(&self, space: u64) -> bool {
        self.isolation.is_user_half(space)
    }

    /// The protocol function of the kernel's that the vCPU's task entered last, of those that it is in.
    #[must_use]
    pub fn innermost(&self, vcpu: Vcpu) -> Option<Linear> {
        let who = self.tasks.who(vcpu);
        // Of two at one place of the stack the first ended in a jump to the second (`text_poke` to `__text_poke`).
        let theirs =
            self.frames.iter().rev().filter(|frame| frame.entered == Entered::Kernel && frame.who.is_kernel_task(who));
        theirs.min_by_key(|frame| frame.stack).map(|frame| frame.entry)
    }

    /// The set of addresses that tasks in a protocol function return to.
    #[must_use]
    pub fn awaited(&self) -> Awaited {
        Awaited(self.frames.iter().fold(0, |set, frame| set | Awaited::bit(frame.returns_to)))
    }

    /// Does any task wait to return to this address?
    #[must_use]
    pub fn awaits(&self, returns_to: Linear) -> bool {
        self.frames.iter().any(|frame| frame.returns_to == returns_to)
    }

    /// A vCPU is at `here` with that stack pointer: if that is a return, the stores that it commits, and what its
    /// function is asked. With `failed` the function says that it did nothing.
    pub fn leave(&mut self, vcpu: Vcpu, here: Linear, stack: u64, failed: bool) -> Left {
        let (linux, who) = (self.linux, self.tasks.who(vcpu));
        // The latest: a task that died inside may have left another.
        let Some(index) = self.frames.iter().rposition(|frame| frame.is_left(linux, who, here, stack)) else {
            return Left::default();
        };
        let last = self.frames[index].who;
        let (mut committed, mut unasked) = (Vec::new(), Vec::new());
        let (mut site, mut covers) = (None, None);
        // The function, those that it ended in by a jump, and those that were left some other way.
        let (left, rest) = std::mem::take(&mut self.frames).into_iter().partition(|frame| {
            frame.is_on_stack_of(last) && frame.stack <= stack || frame.is_left(linux, who, here, stack)
        });
        self.frames = rest;
        let left: Vec<Frame> = left;
        for frame in left {
            let theirs = frame.entered != Entered::Kernel || frame.is_on_stack_of(last);
            if frame.meaning.commits && theirs && frame.is_left(linux, who, here, stack) && !failed {
                committed.extend(frame.stores);
                if let Some(covering) = frame.meaning.covers {
                    // The innermost is the last one.
                    let asker = match frame.entered {
                        Entered::SystemCall => Asker::Membarrier,
                        Entered::Kernel | Entered::Program => Asker::Function(frame.entry),
                    };
                    covers = Some(((asker, covering), frame.chain));
                    unasked.extend(frame.unasked);
                    site = frame.site.or(site);
                }
            }
        }
        let by_kernel =
            covers.as_ref().is_some_and(|((_, covering), _)| !matches!(covering, Covering::Membarrier { .. }));
        if let Some(pending) = by_kernel.then(|| self.pending.remove(&last.best())).flatten() {
            committed.extend(&pending.stores);
            unasked.extend(pending.stores);
            site = pending.site.or(site);
        }
        committed.sort_unstable();
        committed.dedup();
        if !committed.is_empty() {
            self.commits.0 += 1;
            self.commits.1 += committed.len() as u64;
        }
        let asked =
            covers.and_then(|(function, chain)| self.asks(vcpu, function, Missing::AtTheEnd, unasked, site, chain));
        Left { committed, asked }
    }

    /// A user task asks the kernel to serialize all threads of its address space: what it stored so far is committed by
    /// the return.
    pub fn enter_membarrier(&mut self, vcpu: Vcpu, returns_to: Linear, stack: u64) {
        let who = self.tasks.who(vcpu);
        // What was stored before its task was known stands under its address space.
        let stores = [who.best(), who.process()].into_iter().flat_map(|task| self.uncommitted.take(task)).collect();
        let covers = who.identity.space.map(|space| Covering::Membarrier { space });
        let meaning = Meaning { commits: true, covers, ..Meaning::default() };
        let entry = Entry { vcpu, entry: returns_to, returns_to, stack, meaning, chain: Vec::new() };
        self.push(entry, Entered::SystemCall, stores);
    }

    /// A task stored to code; `user`: with user privileges. `remembered`: does the history remember a store? To commit
    /// one that it has forgotten changes nothing.
    pub fn store(&mut self, seq: Seq, vcpu: Vcpu, user: bool, context: Context, remembered: impl Fn(Seq) -> bool) {
        let who = self.tasks.who(vcpu);
        let task = who.best();
        if user {
            who.identity.space.into_iter().for_each(|space| self.isolation.sees_user_mode(space));
        }
        let mut function = None;
        let mut chain: Arc<[Caller]> = Arc::default();
        let (mut commits, mut queues, mut pokes, mut serves) = (false, false, false, None);
        let (isolation, origins) = (self.isolation, &*self.origins);
        for frame in self.frames.iter_mut().filter(|frame| frame.includes(who, user, isolation, origins)) {
            let Meaning { commits: theirs, queues: only_queues, poke, serves: waits, .. } = frame.meaning;
            commits |= theirs;
            queues |= only_queues;
            pokes |= poke.is_some();
            serves = serves.or(waits);
            self.dropped += u64::from(theirs && !frame.takes(seq));
            if function.is_none() {
                (function, chain) = (Some(frame.entry), Arc::clone(&frame.chain));
            }
        }
        // The task that waits for it stands still meanwhile; two of them come one after the other.
        for frame in self.frames.iter_mut().filter(|frame| Some(frame.entry) == serves && frame.meaning.commits) {
            commits = true;
            self.dropped += u64::from(!frame.takes(seq));
        }
        if queues && pokes && !commits && !user {
            self.queued(task, seq);
        }
        if user {
            self.dropped += u64::from(self.uncommitted.add(task, seq, remembered));
        }
        self.writers.add(seq, Writer { function, chain, context });
    }

    /// A task stored to code that may be executed, inside of a function that only queues.
    fn queued(&mut self, task: Task, seq: Seq) {
        match self.pending_of(task) {
            Some(pending) if pending.stores.len() < MAX_STORES => pending.stores.push(seq),
            _ => self.dropped += 1,
        }
    }

    /// What a task stored inside of functions that only queue; `None`: there is no room for one more task.
    fn pending_of(&mut self, task: Task) -> Option<&mut Pending> {
        let room = self.pending.len() < MAX_TASKS || self.pending.contains_key(&task);
        room.then(|| self.pending.entry(task).or_default())
    }

    /// Forgets the stores that are not `remembered` by the history any more: to commit them changes nothing.
    pub fn forget_stores(&mut self, remembered: impl Fn(Seq) -> bool) {
        self.frames.iter_mut().for_each(|frame| frame.stores.retain(|store| remembered(*store)));
        self.uncommitted.forget(remembered);
    }

    /// Who made a store, if it was lately.
    #[must_use]
    pub fn writer(&self, seq: Seq) -> Option<&Writer> {
        self.writers.of(seq)
    }
}

#[cfg(test)]
mod tests;
