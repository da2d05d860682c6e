//! The store side (`writers=on`): versioned code memory, and what is found in it when a vCPU executes code that
//! changed.
//!
//! Everything here is behind one lock. It is entered at translations, at stores to pages that hold code, and at the
//! executions that need a closer look.

mod settle;

use crate::code::code_table::CodeTable;
use crate::code::places::Places;
use crate::code::segment::Segment;
use crate::gaps::Gap;
use crate::patching::{Context, Patching, TaskName};
use crate::qemu::cpu::CurrentCpu;
use crate::qemu::host_code::{Contents, HostPage};
use crate::qemu::page_walk;
use crate::qemu::scoreboard::VcpuSlots;
use crate::qemu::translation::Instruction;
use crate::recorder::{Past, Recorder};
use crate::vcpu::VcpuState;
use crate::x86::straight::is_straight;
use icsan_model::addr::{Epoch, Linear, Phys, Seq, Vcpu};
use icsan_model::arch::profile::Profile;
use icsan_model::arch::x86::length::X86Length;
use icsan_model::detector::changes::Changes;
use icsan_model::detector::flags::OwnBoard;
use icsan_model::detector::history::{History, Holding, Judged, Place, Question, Ran};
use icsan_model::detector::ledger::{Ledger, Reliance};
use icsan_model::event::Store;
use icsan_model::memory::PAGE;
use icsan_model::verdict::candidates::Candidates;
use icsan_model::verdict::hazard::Write;
use rustc_hash::{FxBuildHasher, FxHashMap};
use std::hash::BuildHasher;
use std::time::Instant;

/// Changed bytes with at least so many unchanged ones between them are taken for different stores.
const APART: usize = 16;

/// The latest changes of a cell of code, which are kept whatever anybody holds: a store may be told of while somebody
/// who executes what was there before it is just about to say so.
const LATEST: usize = 4;

/// Stores after which, at the earliest, what nobody can hold any more is forgotten in all cells.
const FORGET_EVERY: u64 = 4096;

/// Stores to a page, since code in it was last translated, at whose multiples it is asked whether it holds any code
/// still. As many as clear a page by eight bytes each.
const RETIRE_EVERY: u32 = 512;

/// Pages of memory that hold something else than what is known of them, each with a hash of that.
pub type Differing = FxHashMap<Phys, u64>;

/// A store to code, as it was told of.
#[derive(Clone, Copy, Debug)]
pub struct CodeStore<'a> {
    /// Who.
    pub vcpu: Vcpu,
    /// The instruction.
    pub pc: Linear,
    /// Through which address.
    pub linear: Linear,
    /// To which.
    pub phys: Phys,
    /// What; it changes at once, and lies in one page.
    pub bytes: &'a [u8],
}

/// What a change of code means for the segments that it may concern.
pub type Touched = icsan_model::detector::changes::Touched<&'static Segment>;

/// The numbers of the store side.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct StoreCounts {
    /// Stores that changed code, or what lies in a page with code.
    pub stores: u64,
    /// Changes that nobody was seen to make.
    pub unseen: u64,
    /// Pages that held code, and then only data.
    pub retired: u64,
}

/// Reads the name of the task whose `task_struct` is at an address.
pub type TaskNameReader = Box<dyn Fn(&CurrentCpu, u64) -> Option<TaskName> + Send>;

/// See the module.
pub struct StoreSide {
    history: Past,
    profile: Profile,
    changes: Changes<&'static Segment>,
    /// What times are counted from.
    began: Instant,
    places: Places,
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
    pub fn new(profile: Profile, vcpus: usize, recorder: Option<Recorder>, task_name: TaskNameReader) -> Self {
        let history = Past::new(History::new(profile, X86Length, vcpus), recorder);
        Self {
            changes: Changes::new(history.window()),
            began: Instant::now(),
            history,
            profile,
            places: Places::default(),
            own_pc: vec![None; vcpus],
            task_name,
            ledger: Ledger::default(),
            ended: Vec::new(),
            patching: Patching::new(vcpus),
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

    /// Where the vCPU of a hazard is.
    pub fn context(&mut self, vcpu: Vcpu, cpl: Option<u8>, cpu: &CurrentCpu) -> Context {
        let Self { patching, task_name, .. } = self;
        patching.context(vcpu, cpl, |task| task_name(cpu, task))
    }

    /// A vCPU has made a store: who ran there.
    fn note_writer(&mut self, seq: Seq, store: &CodeStore<'_>, cpu: &CurrentCpu) {
        let Self { history, patching, task_name, .. } = self;
        let context = patching.context(store.vcpu, None, |task| task_name(cpu, task));
        // The upper half of the address space is the kernel's. (Firmware and boot loaders run in the lower half, and
        // make no system calls.)
        let user = store.pc.0 >> 63 == 0;
        let memory = history.memory();
        patching.store(seq, store.vcpu, user, context, |store| memory.record(store).is_some());
    }

    /// Patches under way need not remember what the history has forgotten.
    fn forget_uncommitted(&mut self) {
        let Self { history, patching, .. } = self;
        patching.forget_stores(|store| history.memory().record(store).is_some());
    }

    /// Where a block lies. `None`: not to be told. What cannot be told is noted as a gap.
    pub fn place(&mut self, instructions: &[Instruction<'_>], cpu: &CurrentCpu) -> Option<Place> {
        let first = instructions.first()?;
        let page = first.linear.align_down(PAGE);
        let next = page.offset(PAGE);
        let walk = |linear: Linear| cpu.physical(linear.0).map(Phys);
        let mut find =
            |instruction: &Instruction<'_>, linear| self.places.find(instruction.host_page(PAGE)?, || walk(linear));
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

    /// Compares what is known of memory with what its page holds, from the byte at `phys` on, and everything that the
    /// chunks of these `len` bytes and an older instruction in them may reach. If they differ, the whole page is looked
    /// through: what changed becomes stores that nobody was seen to make. `next` gives the next place in the order.
    pub fn compare(
        &mut self,
        phys: Phys,
        len: u64,
        contents: &impl Contents,
        mut next: impl FnMut() -> Seq,
    ) -> Vec<Touched> {
        let chunk = u64::from(self.profile.buffers.chunk);
        let page = phys.align_down(PAGE);
        let first = phys.align_down(chunk.min(PAGE));
        let end = phys.offset(len + self.history.window()).align_down(chunk).offset(chunk).0.min(page.0 + PAGE);
        let (from, to) = ((first.0 - page.0) as usize, (end - page.0) as usize);
        let Some(known) = self.history.memory().page(page) else { return Vec::new() };
        if contents.holds(from, &known[from..to]) {
            return Vec::new();
        }
        let now = contents.whole();
        let spans = changed_spans(known, &now);
        spans.into_iter().map(|span| self.notice(page.offset(span.start as u64), &now[span], next())).collect()
    }

    /// The pages that hold something else than what is known of them (DMA may have stored there, and no code of theirs
    /// been translated since), with a hash of that.
    #[must_use]
    pub fn differing(&self) -> Differing {
        let differs = |(host, phys): (HostPage, Phys)| {
            let known = self.history.memory().page(phys)?;
            (!host.holds(0, known)).then(|| (phys, FxBuildHasher.hash_one(host.read(0, PAGE as usize))))
        };
        self.places.iter().filter_map(differs).collect()
    }

    /// A state was restored, and nobody executes. What is known of memory becomes what memory holds now; who was about
    /// to store what, and who was inside of what, is forgotten.
    pub fn restored(&mut self, mut next: impl FnMut() -> Seq) -> Vec<Touched> {
        self.patching.forget_tasks();
        self.changes.expect_no_stores();
        self.own_pc.fill(None);
        let mut touched = Vec::new();
        for (host, phys) in self.places.iter().collect::<Vec<_>>() {
            let Some(known) = self.history.memory().page(phys) else { continue };
            if host.holds(0, known) {
                continue;
            }
            let (known, now) = (known.to_vec(), host.read(0, PAGE as usize));
            for span in changed_spans(&known, &now) {
                let (seq, at) = (next(), phys.offset(span.start as u64));
                let store = Store { vcpu: None, pc: None, linear: None, phys: at, bytes: now[span.clone()].to_vec() };
                touched.push(self.changes.store(&mut self.history, seq, store, Epoch::default()));
            }
        }
        touched
    }

    /// Was a change of the segment just noticed, so that its store will be told of any moment?
    #[must_use]
    pub fn awaits_store(&self, segment: &'static Segment) -> bool {
        self.changes.awaits_store(&segment, self.began.elapsed())
    }

    /// A new segment: stores to it find it from now on, and it knows of the last one before.
    pub fn add(&mut self, segment: &'static Segment) {
        self.changes.add(&segment, self.history.history());
    }

    /// Before a store to pages that hold code is looked at: it shows whether the vCPU has taken a branch since its last
    /// one.
    pub fn arrives(&mut self, table: &CodeTable, vcpu: Vcpu, pc: Linear, state: &VcpuState, slots: &VcpuSlots<'_>) {
        self.branch_before(vcpu, state, slots, pc, table);
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

    fn note_own(&mut self, vcpu: Vcpu, pc: Linear) {
        if let Some(own) = self.own_pc.get_mut(usize::from(vcpu.0)) {
            *own = Some(pc);
        }
    }

    /// The vCPU is at `here`: did it take a branch since its last own store?
    fn branch_before(&mut self, vcpu: Vcpu, state: &VcpuState, slots: &VcpuSlots<'_>, here: Linear, table: &CodeTable) {
        let Some(Some(from)) = self.own_pc.get(usize::from(vcpu.0)).copied() else { return };
        if !self.history.awaits_branch(vcpu, state.epoch) {
            return;
        }
        let straight = is_straight(from, here, |at| table.instruction(at, |slot| slots.flag(slot).executed()));
        if !straight {
            self.history.branch(vcpu, state.epoch);
        }
    }

    /// The vCPU left the line that it executes in a way that no branch instruction shows: an interrupt that was
    /// handled.
    pub fn branched(&mut self, vcpu: Vcpu, state: &VcpuState) {
        if self.history.awaits_branch(vcpu, state.epoch) {
            self.history.branch(vcpu, state.epoch);
        }
    }

    /// The history, and the recording of it.
    pub fn past(&mut self) -> &mut Past {
        &mut self.history
    }

    /// With a recording: a vCPU is about to execute a segment whose bytes memory holds.
    pub fn record_run(&mut self, table: &CodeTable, segment: &'static Segment, looked: &Looked<'_>, cpu: &CurrentCpu) {
        let Looked { vcpu, state, slots, .. } = *looked;
        let Some(place) = segment.place() else { return self.history.run(vcpu, segment.run(), None) };
        self.branch_before(vcpu, state, slots, segment.run().linear(), table);
        let place = self.window_place(segment, place, vcpu, cpu);
        self.history.run(vcpu, segment.run(), Some(place));
    }

    /// Memory holds the segment's bytes: what is known of memory and is something else has been changed, and the store
    /// has not been told of.
    pub fn catch_up(&mut self, segment: &Segment, mut next: impl FnMut() -> Seq) -> Vec<Touched> {
        let Some(place) = segment.place() else { return Vec::new() };
        let run = segment.run();
        let bytes: Vec<(Phys, u8)> =
            (0..).zip(run.bytes()).filter_map(|(i, byte)| Some((place.phys(run.linear().offset(i))?, *byte))).collect();
        let memory = self.history.memory();
        let changed: Vec<(Phys, u8)> =
            bytes.into_iter().filter(|(phys, byte)| memory.now(*phys).is_some_and(|known| known != *byte)).collect();
        let adjacent = |a: &(Phys, u8), b: &(Phys, u8)| a.0.offset(1) == b.0 && !b.0.0.is_multiple_of(PAGE);
        let spans = changed.chunk_by(adjacent);
        spans
            .map(|span| self.notice(span[0].0, &span.iter().map(|(_, byte)| *byte).collect::<Vec<_>>(), next()))
            .collect()
    }

    /// Where a segment lies, with the page that an instruction in it might reach into.
    fn window_place(&self, segment: &Segment, place: Place, vcpu: Vcpu, cpu: &CurrentCpu) -> Place {
        let next = place.page.offset(PAGE);
        if place.second.is_some() || segment.run().last().offset(self.history.window()) <= next {
            return place;
        }
        let second = cpu.physical(next.0).map(Phys).or_else(|| self.history.recorded_page(vcpu, next));
        Place { second, ..place }
    }

    /// A vCPU is about to execute a segment that needs a closer look. With `choices`, answers also with what it may
    /// execute as the segment's first instruction.
    pub fn judge(
        &mut self,
        table: &CodeTable,
        segment: &'static Segment,
        place: Place,
        looked: &Looked<'_>,
        cpu: &CurrentCpu,
        choices: bool,
    ) -> (Vec<Judged>, Option<Candidates>) {
        let Looked { vcpu, state, slots, now } = *looked;
        self.branch_before(vcpu, state, slots, segment.run().linear(), table);
        let place = self.window_place(segment, place, vcpu, cpu);
        let chunk = u64::from(self.profile.buffers.chunk);
        let start = segment.run().linear().align_down(chunk);
        let end = segment.run().last().offset(self.history.window() - 1).align_down(chunk).offset(chunk);
        let near = table.touching(start, end.0.wrapping_sub(start.0));
        let ran: Vec<Ran<'_>> = near
            .iter()
            .filter(|other| slots.flag(other.slot).executed())
            .filter_map(|other| {
                Some(Ran { run: other.run(), place: other.place()?, since: slots.first_fetch(other.slot) })
            })
            .collect();
        let question = Question {
            vcpu,
            run: segment.run(),
            place,
            ran: &ran,
            last_sync: state.last_sync,
            epoch: state.epoch,
            now,
        };
        let judged = self.history.judge(&question);
        let candidates = choices.then(|| self.history.candidates(&question)).flatten();
        self.rely(segment, place, &near, &judged, looked);
        (judged, candidates)
    }

    /// Enters into the ledger what made the execution safe, where it was.
    fn rely(
        &mut self,
        segment: &'static Segment,
        place: Place,
        near: &[&'static Segment],
        judged: &[Judged],
        looked: &Looked<'_>,
    ) {
        let Looked { state, slots, .. } = *looked;
        let memory = self.history.memory();
        for (linear, bytes) in segment.run().instructions() {
            let phys = |i: u64| place.phys(linear.offset(i));
            let changed = (0..bytes.len() as u64)
                .filter_map(|i| Some(memory.version(phys(i)?, Seq(u64::MAX))))
                .max()
                .unwrap_or(Seq(0));
            let dangerous = judged.iter().any(|judged| judged.linear == linear && judged.verdict.hazard.is_some());
            if changed == Seq(0) || dangerous {
                continue;
            }
            // When did the vCPU last execute anything here?
            let end = linear.offset(bytes.len() as u64);
            let here = near.iter().filter(|other| {
                let start = other.run().linear();
                start < end
                    && start.offset(other.run().bytes().len() as u64) > linear
                    && other.place().and_then(|place| place.phys(linear)) == phys(0)
            });
            let last = here.map(|other| slots.first_fetch(other.slot)).max().unwrap_or(Seq(0));
            if last == Seq(0) || last >= changed || last < state.serialized.reset_at {
                continue;
            }
            let events = state.serialized.log.since(last);
            let by = state.serialized.log.first_since(changed).or_else(|| state.serialized.log.first_since(last));
            if let (Some(by), Some(site)) = (by, phys(0)) {
                let function = self.patching.writer(changed).and_then(|writer| writer.function);
                let writer = function.or_else(|| memory.record(changed).and_then(|record| record.store.pc));
                self.ledger.add(site, Reliance { writer, by, events });
            }
        }
    }

    /// Forgets what no vCPU can hold. To be called after each store. `horizon` is the oldest beginning of an epoch;
    /// `held` says since when anybody holds a segment in his.
    pub fn forget(&mut self, touched: &Touched, horizon: Seq, held: impl Fn(&Segment) -> Option<Seq>) {
        let changed = self.counts.stores + self.counts.unseen;
        if changed >= self.forget_at {
            let cells: Vec<Phys> = self.history.memory().cells_with_more_than(LATEST).collect();
            cells.into_iter().for_each(|cell| self.forget_cell(cell, horizon, &held));
            self.history.forget_before(horizon);
            self.forget_uncommitted();
            // It looks at everything that is remembered: the more is left, the longer until the next time, so that a
            // store pays the same share whatever is left.
            let memory = self.history.memory();
            self.forget_at = changed + FORGET_EVERY.max(4 * (memory.versions() + memory.size().1) as u64);
        }
        let Some(record) = touched.seq.and_then(|seq| self.history.memory().record(seq)) else { return };
        let (phys, len) = (record.store.phys, record.store.bytes.len() as u64);
        for at in [phys, phys.offset(len - 1)] {
            let versions = self.history.memory().cell_versions(at);
            // The longer a cell is, the more rarely it is looked through.
            if versions > LATEST && versions.is_power_of_two() {
                self.forget_cell(at, horizon, &held);
            }
        }
    }

    fn forget_cell(&mut self, at: Phys, horizon: Seq, held: impl Fn(&Segment) -> Option<Seq>) {
        let Self { history, changes, .. } = self;
        history.forget_unheld(at, horizon, LATEST, |first, len| {
            let there = changes.reached(first, len);
            let since = there.iter().filter_map(|segment| held(segment)).min();
            since.map_or(if there.is_empty() { Holding::NeverRan } else { Holding::Nobody }, Holding::Since)
        });
    }

    /// After a store to its page: if the page may hold no code any more, the segments that lie in it. Their code must
    /// have been overwritten, and nobody may hold it. (A kernel gives the pages of its initialization, and of programs
    /// that ended, to whoever needs memory.)
    pub fn looks_dead(&mut self, phys: Phys, held: impl Fn(&Segment) -> Option<Seq>) -> Option<Vec<&'static Segment>> {
        let page = phys.align_down(PAGE);
        self.history.memory().page(page)?;
        let count = self.stores_since.entry(page.0 / PAGE).or_default();
        *count += 1;
        if !count.is_multiple_of(RETIRE_EVERY) {
            return None;
        }
        let there = self.changes.reached(page, PAGE);
        (!there.iter().any(|segment| segment.host.is_there_still() || held(segment).is_some())).then_some(there)
    }

    /// The page holds no code: nothing is known of it from now on.
    pub fn retire(&mut self, phys: Phys) {
        self.history.forget_page(phys);
        self.stores_since.remove(&(phys.0 / PAGE));
        self.counts.retired += 1;
    }

    /// The pages of a segment that is executed although they were retired: QEMU ran a block that it should have
    /// dropped, and memory holds its bytes again.
    pub fn unknown_pages(&self, place: Place) -> Vec<(Phys, HostPage)> {
        let pages = [Some(place.first), place.second].into_iter().flatten().map(|page| page.align_down(PAGE));
        let unknown = pages.filter(|page| self.history.memory().page(*page).is_none());
        unknown.filter_map(|page| Some((page, self.places.host(page)?))).collect()
    }
}

/// Where the bytes of a page differ: one span for each run of changes that lies [`APART`] from the next.
fn changed_spans(known: &[u8], now: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut spans: Vec<std::ops::Range<usize>> = Vec::new();
    for (at, _) in known.iter().zip(now).enumerate().filter(|(_, (known, now))| known != now) {
        match spans.last_mut() {
            Some(span) if at - span.end < APART => span.end = at + 1,
            _ => spans.push(at..at + 1),
        }
    }
    spans
}

/// Who looks closer, and when.
#[derive(Clone, Copy, Debug)]
pub struct Looked<'a> {
    /// Who.
    pub vcpu: Vcpu,
    /// Its state.
    pub state: &'a VcpuState,
    /// Its slots.
    pub slots: &'a VcpuSlots<'a>,
    /// This moment, later than whatever the vCPU executed so far if the segment has rivals.
    pub now: Seq,
}
