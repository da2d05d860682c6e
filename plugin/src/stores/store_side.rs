//! The store side (`writers=on`): versioned code memory, and what is found in it when a vCPU executes code that
//! changed.
//!
//! Everything here is behind one lock. It is entered at translations, at stores to pages that hold code, and at the
//! executions that need a closer look.

mod forgetting;
mod judging;
mod own_branch;
mod settle;
mod unattributed;
mod unseen;

use super::code_store::{CodeStore, StoreCounts, Touched};
use crate::arch::platform::Platform;
use crate::code::physical_map::PhysicalMap;
use crate::code::segment::Segment;
use crate::gaps::Gap;
use crate::origins::Origins;
use crate::patching::{Context, Patching, TaskName};
use crate::qemu::cpu::CurrentCpu;
use crate::qemu::host_code::{Contents, HostPage};
use crate::qemu::page_walk;
use crate::qemu::translation::Instruction;
use crate::recorder::{Past, Recorder};
use crate::vcpu::VcpuState;
use forgetting::FORGET_EVERY;
use icsan_model::addr::{Linear, Phys, Seq, Vcpu};
use icsan_model::arch::maintenance::{Accesses, Domain, Maintenance};
use icsan_model::arch::profile::Profile;
use icsan_model::detector::changes::Changes;
use icsan_model::detector::history::{History, Place};
use icsan_model::detector::ledger::Ledger;
use icsan_model::event::Store;
use icsan_model::memory::PAGE;
use icsan_model::verdict::hazard::Write;
pub use judging::Looked;
use rustc_hash::FxHashMap;
use std::sync::Arc;
use std::time::Instant;
pub use unattributed::Differing;
pub use unseen::Unseen;

/// Reads the name of the task whose `task_struct` is at an address.
pub type TaskNameReader = Box<dyn Fn(&CurrentCpu, u64) -> Option<TaskName> + Send>;

/// See the module.
pub struct StoreSide {
    history: Past,
    profile: Profile,
    platform: &'static dyn Platform,
    changes: Changes<&'static Segment>,
    /// What times are counted from.
    began: Instant,
    map: PhysicalMap,
    /// The last own store of each vCPU that a branch would make visible.
    own_pc: Vec<Option<Linear>>,
    /// Reads a task's name from guest memory.
    task_name: TaskNameReader,
    ledger: Ledger,
    /// Those of the kernels that ended, by boot.
    ended: Vec<(usize, Ledger)>,
    patching: Patching,
    counts: StoreCounts,
    /// How many changes there will have been when the next forgetting is due.
    forget_at: u64,
    /// Stores to each page since code in it was last translated.
    stores_since: FxHashMap<u64, u32>,
}

impl std::fmt::Debug for StoreSide {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreSide").field("counts", &self.counts).finish_non_exhaustive()
    }
}

impl StoreSide {
    /// A store side that has seen nothing.
    #[must_use]
    pub fn new(
        profile: Profile,
        platform: &'static dyn Platform,
        vcpus: usize,
        recorder: Option<Recorder>,
        task_name: TaskNameReader,
        origins: Arc<Origins>,
    ) -> Self {
        let facts = platform.facts();
        let history = Past::new(History::new(profile, facts.decoder, vcpus), recorder);
        Self {
            changes: Changes::new(history.window()),
            began: Instant::now(),
            history,
            profile,
            platform,
            map: PhysicalMap::default(),
            own_pc: vec![None; vcpus],
            task_name,
            ledger: Ledger::default(),
            ended: Vec::new(),
            patching: Patching::new(vcpus, facts.linux, origins),
            counts: StoreCounts::default(),
            forget_at: FORGET_EVERY,
            stores_since: FxHashMap::default(),
        }
    }

    /// The numbers.
    #[must_use]
    pub fn counts(&self) -> StoreCounts {
        self.counts
    }

    /// The ledgers, by boot; `boot` is the one that runs.
    pub fn ledgers(&self, boot: usize) -> impl Iterator<Item = (usize, &Ledger)> {
        self.ended.iter().map(|(boot, ledger)| (*boot, ledger)).chain([(boot, &self.ledger)])
    }

    /// The kernel of this boot has ended: its tasks and patches are gone, and its addresses mean something else.
    pub fn kernel_ended(&mut self, boot: usize) {
        self.patching.forget_tasks();
        let ledger = std::mem::take(&mut self.ledger);
        if ledger.rows().next().is_some() {
            self.ended.push((boot, ledger));
        }
    }

    /// Patches under way.
    pub fn patching(&mut self) -> &mut Patching {
        &mut self.patching
    }

    /// Patches under way.
    #[must_use]
    pub fn patching_known(&self) -> &Patching {
        &self.patching
    }

    /// The author of these stores takes them for done. Answers with the segments that they changed.
    pub fn commit(&mut self, stores: &[Seq]) -> Touched {
        self.changes.commit(&mut self.history, stores)
    }

    /// A vCPU maintains caches. `seq` is the next place in the order.
    pub fn maintain(&mut self, vcpu: Vcpu, operation: Maintenance, seq: Seq) {
        self.changes.maintain(&mut self.history, seq, vcpu, operation);
    }

    /// A vCPU carries out a barrier; `next` gives the next place in the order. Answers whether a further one of its
    /// might complete anything.
    pub fn barrier(&mut self, vcpu: Vcpu, domain: Domain, accesses: Accesses, next: impl FnOnce() -> Seq) -> bool {
        let awaits = |side: &Self| side.history.history().cache().awaits_barrier(vcpu);
        if awaits(self) {
            self.changes.barrier(&mut self.history, next(), vcpu, domain, accesses);
        }
        awaits(self)
    }

    /// The segments that these stores changed, each once, with the first of its changes.
    pub fn changed_by(&self, writes: &[Write]) -> Vec<(&'static Segment, Seq)> {
        let mut changed = Vec::new();
        for Write { seq, phys, new, .. } in writes {
            changed.extend(self.changes.reached(*phys, new.len() as u64).into_iter().map(|segment| (segment, *seq)));
        }
        changed.sort_by_key(|(segment, seq)| (segment.slot.0, *seq));
        changed.dedup_by_key(|(segment, _)| segment.slot.0);
        changed
    }

    /// The vCPU that made a store, if the history remembers that.
    #[must_use]
    pub fn stored_by(&self, store: Seq) -> Option<Vcpu> {
        self.history.memory().record(store).and_then(|record| record.store.vcpu)
    }

    /// Where the vCPU of a hazard is.
    pub fn context(&mut self, vcpu: Vcpu, privilege: Option<u8>, cpu: &CurrentCpu) -> Context {
        let Self { patching, task_name, .. } = self;
        patching.context(vcpu, privilege, |task| task_name(cpu, task))
    }

    /// Where the host has the code of a page.
    #[must_use]
    pub fn host(&self, phys: Phys) -> Option<HostPage> {
        self.map.host(phys.align_down(PAGE))
    }

    /// A vCPU has made a store: who ran there.
    fn note_writer(&mut self, seq: Seq, store: &CodeStore<'_>, cpu: &CurrentCpu) {
        let Self { history, patching, task_name, platform, .. } = self;
        let context = patching.context(store.vcpu, None, |task| task_name(cpu, task));
        let user = !platform.facts().linux.is_kernel(store.pc);
        let memory = history.memory();
        patching.store(seq, store.vcpu, user, context, |store| memory.record(store).is_some());
    }

    /// Where a block lies. `None`: not to be told. What cannot be told is noted as a gap.
    pub fn place(&mut self, instructions: &[Instruction<'_>], cpu: &CurrentCpu) -> Option<Place> {
        let first = instructions.first()?;
        let page = first.linear.align_down(PAGE);
        let next = page.offset(PAGE);
        let walk = |linear: Linear| cpu.physical(linear.0).map(Phys);
        let mut find = |instruction: &Instruction<'_>, linear| {
            let host = instruction.host_page(PAGE)?;
            // A debugger's walk, which API 4 has, does not find what may be executed and not read.
            let guess = self.map.guess(host);
            self.map.find(host, || walk(linear).or_else(|| guess.filter(|guess| host.is_at(*guess))))
        };
        let at = find(first, page).filter(|_| page_walk::is_possible());
        let begins_there = instructions.iter().find(|instruction| instruction.linear.align_down(PAGE) == next);
        let reaches =
            instructions.last().is_some_and(|last| last.linear.0.wrapping_add(last.bytes().len() as u64 - 1) >= next.0);
        let second = match begins_there {
            Some(instruction) => find(instruction, next),
            None if reaches => walk(next),
            None => None,
        };
        if at.is_none() || reaches && second.is_none() {
            Gap::UnknownPlace.note();
        }
        at.map(|first| Place { page, first, second })
    }

    /// Makes the contents of a page known that holds code; `true` if they were not.
    pub fn learn_page(&mut self, phys: Phys, contents: &impl Contents) -> bool {
        self.stores_since.remove(&(phys.0 / PAGE));
        if self.history.memory().page(phys).is_some() {
            return false;
        }
        self.history.contents(phys.align_down(PAGE), &contents.whole());
        true
    }

    /// A new segment: stores to it find it from now on, and it knows of the last one before.
    pub fn add(&mut self, segment: &'static Segment) {
        self.changes.add(&segment, self.history.history());
    }

    /// A store to a page that holds code. `next` gives the next place in the order.
    pub fn store(
        &mut self,
        store: &CodeStore<'_>,
        state: &VcpuState,
        cpu: &CurrentCpu,
        next: impl FnOnce() -> Seq,
    ) -> Touched {
        let CodeStore { vcpu, pc, linear, phys, bytes } = *store;
        if self.history.memory().page(phys).is_none() {
            return Touched::default();
        }
        let told = self.changes.tell(self.history.memory(), phys, bytes, self.began.elapsed());
        let made = Store { vcpu: Some(vcpu), pc: Some(pc), linear: Some(linear), phys, bytes: bytes.to_vec() };
        let mut touched = Touched::default();
        // Its change may have been noticed before it was told of.
        for seq in told.late {
            touched.segments.extend(self.changes.attribute(&mut self.history, seq, &made, state.epoch).segments);
            self.counts.unseen = self.counts.unseen.saturating_sub(1);
            self.noted(seq, store, cpu);
        }
        if told.changes {
            let seq = next();
            touched.segments.extend(self.changes.store(&mut self.history, seq, made, state.epoch).segments);
            touched.seq = Some(seq);
            self.noted(seq, store, cpu);
        }
        touched.segments.sort_by_key(|segment| segment.slot.0);
        touched.segments.dedup_by_key(|segment| segment.slot.0);
        touched
    }

    /// The store is, or explains, the change at that place in the order.
    fn noted(&mut self, seq: Seq, store: &CodeStore<'_>, cpu: &CurrentCpu) {
        self.counts.stores += 1;
        self.note_own(store.vcpu, store.pc);
        self.note_writer(seq, store, cpu);
    }

    /// The history, and the recording of it.
    pub fn past(&mut self) -> &mut Past {
        &mut self.history
    }
}
