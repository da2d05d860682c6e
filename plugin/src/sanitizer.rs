//! The sanitizer: from translated blocks and executed segments to hazards.

use crate::config::Config;
use crate::light;
use crate::page_filter::PageFilter;
use crate::patching::{Context, Entry};
use crate::qemu::api::Generation;
use crate::qemu::cpu::CurrentCpu;
use crate::qemu::guard;
use crate::qemu::install::{Hooks, Machine};
use crate::qemu::process;
use crate::qemu::scoreboard::{Flag, Slots, VcpuSlots};
use crate::qemu::stores::{Access, StoreWatch};
use crate::qemu::translation::{Instruction, Translation, code_run, host_code};
use crate::recorder::Recorder;
use crate::repair::Repair;
use crate::report::findings::{Evidence, Findings, Origin, Shown};
use crate::report::sink::Sink;
use crate::report::{Counts, Report};
use crate::segment::{CodeTable, Segment};
use crate::store_side::{CodeStore, Looked, StoreSide, Touched};
use crate::vcpu::{Mismatch, VcpuState};
use crate::widen::{Concern, Widening};
use crate::x86;
use icsan_model::addr::{Linear, Phys, Seq, Vcpu};
use icsan_model::architecture::Architecture;
use icsan_model::hazard::{Hazard, Kind};
use icsan_model::history::{Judged, Place};
use icsan_model::light::Conflict;
use icsan_model::memory::PAGE;
use icsan_model::sync_event::SyncEventId;
use icsan_model::sync_log::SyncAt;
use icsan_model::x86::atomicity;
use icsan_symbols::OffsetError;
use parking_lot::{Mutex, MutexGuard};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Segments that can be watched. Each costs 20 bytes in every vCPU's slot table, which QEMU makes for 16 vCPUs at once (so 80 MiB), and some 300 bytes of its own.
/// A Debian kernel's boot has about 60,000. When they run out, what is translated next is not watched, and the report says so.
const MAX_SEGMENTS: u32 = 1 << 18;

/// The longest instruction that ends where a return goes to, in bytes.
const LONGEST_CALL: usize = 7;

/// How long the report waits for a vCPU that is still inside a callback when QEMU exits.
const EXIT_PATIENCE: Duration = Duration::from_secs(2);

/// Beginning of the epoch of a vCPU that has not started.
const NOT_STARTED: u64 = u64::MAX;

/// All code, and what is known of its past.
#[derive(Debug)]
pub struct Code {
    /// The segments.
    pub table: CodeTable,
    /// The store side, unless `writers=off`.
    pub side: Option<StoreSide>,
}

/// ICSAN in one QEMU.
#[derive(Debug)]
pub struct Sanitizer {
    arch: &'static Architecture,
    config: Config,
    machine: Machine,
    slots: Slots,
    pub(crate) code: Mutex<Code>,
    pub(crate) filter: PageFilter,
    points: x86::Points,
    widening: Option<Widening>,
    repair: Option<&'static Repair>,
    vcpus: Box<[Mutex<VcpuState>]>,
    /// When each vCPU's epoch began; `NOT_STARTED` before the vCPU did.
    epoch_starts: Box<[AtomicU64]>,
    /// Host thread of each vCPU that started.
    threads: Mutex<Vec<(Vcpu, i32)>>,
    findings: Mutex<Findings>,
    sink: Mutex<Sink>,
    /// The place of the last event in the order of all stores to code and all serializing events.
    seq: AtomicU64,
    /// API 4: is it settled where memory is?
    places_settled: AtomicBool,
    /// Did the vCPU store to code since it last left its line by an event that the profile does not count? Touched by its own thread only.
    own_stores: Box<[AtomicBool]>,
    /// Is any task inside a protocol function?
    patches_under_way: AtomicBool,
    /// Value of the guest's last marker.
    marker: AtomicU64,
    watching: AtomicBool,
    /// This machine was refused after QEMU had started: there is nothing to report.
    refused: AtomicBool,
    /// Was it ever watching?
    started: AtomicBool,
    blocks: AtomicU64,
}

impl Sanitizer {
    /// Makes the one sanitizer of this process. It lives for ever: QEMU's code points into it.
    ///
    /// # Errors
    /// One line: the report cannot be written, or there is no QEMU around.
    pub fn new(arch: &'static Architecture, config: Config, machine: Machine) -> Result<&'static Self, String> {
        let sink = Sink::open(config.report.as_deref()).map_err(|error| error.to_string())?;
        let slots = Slots::new(MAX_SEGMENTS).ok_or("QEMU gave no scoreboard")?;
        let count = machine.max_vcpus.max(1);
        let vcpus = (0..count).map(|_| Mutex::default()).collect();
        let layout = config.symbols.kernel_table().and_then(|table| table.layout().copied());
        let name = move |cpu: &CurrentCpu, task: u64| x86::task_name(cpu, layout.as_ref()?, task);
        let recorder = Recorder::open(&config, arch, count).map_err(|error| error.to_string())?;
        let side = config.writers.then(|| StoreSide::new(config.profile, count, recorder, Box::new(name)));
        let repair = if config.repair {
            Some(Repair::new(machine.generation, count).map_err(|why| format!("emulator=repair is not possible here: {why}"))?)
        } else {
            None
        };
        let widening = config.widen.and_then(|widen| Widening::new(widen, count));
        let watching = AtomicBool::new(config.start.is_none());
        let started = AtomicBool::new(config.start.is_none());
        let sanitizer: &'static Self = Box::leak(Box::new(Self {
            arch,
            config,
            machine,
            slots,
            code: Mutex::new(Code { table: CodeTable::new(MAX_SEGMENTS), side }),
            filter: PageFilter::new(count),
            epoch_starts: (0..count).map(|_| AtomicU64::new(NOT_STARTED)).collect(),
            points: x86::Points::default(),
            widening,
            repair,
            vcpus,
            threads: Mutex::default(),
            findings: Mutex::default(),
            sink: Mutex::new(sink),
            seq: AtomicU64::new(0),
            places_settled: AtomicBool::new(false),
            own_stores: (0..count).map(|_| AtomicBool::new(false)).collect(),
            patches_under_way: AtomicBool::new(false),
            marker: AtomicU64::new(0),
            watching,
            refused: AtomicBool::new(false),
            started,
            blocks: AtomicU64::new(0),
        }));
        if sanitizer.config.writers {
            let _ = THE_ONE.set(sanitizer);
        }
        sanitizer.sink.lock().start(&sanitizer.report());
        Ok(sanitizer)
    }

    /// What the user chose.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    fn report(&self) -> Report<'_> {
        Report { arch: self.arch, config: &self.config, machine: &self.machine }
    }

    /// `vcpu` is about to execute `segment`, for the first time in its epoch, or again after something happened to its bytes, or memory disagreed the last time.
    pub fn executes(&'static self, segment: &'static Segment, vcpu: Vcpu, cpu: &CurrentCpu) {
        let (Some(state), Some(slots)) = (self.vcpus.get(usize::from(vcpu.0)), self.slots.of(vcpu)) else { return };
        if !self.watching.load(Ordering::Relaxed) {
            return;
        }
        if self.repair.is_some_and(|repair| repair.doubts(vcpu, segment.run().linear())) {
            return;
        }
        // A recording must have the order in which things were seen.
        let mut recorded = self.config.record.is_some().then(|| self.code.lock());
        if !segment.host.holds() {
            self.outlives(segment, vcpu, state, &slots, cpu);
            return;
        }
        // From here on nearly every call leaves without a lock.
        if segment.suspected() {
            state.lock().agrees(segment);
        }
        if let Some(Code { table, side: Some(side) }) = recorded.as_deref_mut() {
            side.record_run(table, segment, vcpu, &state.lock(), cpu, || self.next()).iter().for_each(|touched| self.touch(touched));
        }
        let now = Seq(self.seq.load(Ordering::SeqCst));
        let flag = slots.flag(segment.slot);
        let changed = flag == Flag::LookAgain || segment.last_change() > slots.since(segment.slot);
        if !changed && !segment.contested() || self.config.profile.snoop {
            slots.set(segment.slot, Flag::Executed, now);
            // A store that was told of while this was decided makes it fire again, by whichever side comes second.
            slots.publish();
            if segment.last_change() > now {
                slots.set(segment.slot, Flag::LookAgain, now);
            }
            return;
        }
        if self.config.writers && segment.place().is_some() {
            let code = recorded.unwrap_or_else(|| self.code.lock());
            self.looks_closer(code, segment, vcpu, state, &slots, cpu);
        } else {
            slots.set(segment.slot, Flag::Executed, now);
            self.looks_at_rivals(segment, vcpu, state, &slots, cpu);
        }
    }

    /// QEMU runs a block whose bytes memory does not hold.
    fn outlives(&self, segment: &'static Segment, vcpu: Vcpu, state: &Mutex<VcpuState>, slots: &VcpuSlots<'_>, cpu: &CurrentCpu) {
        // The slot stays clear, so that the next execution comes here, too; and the old bytes are no evidence of anything that the guest did.
        segment.suspect();
        let mut state = state.lock();
        if state.mismatch(segment) == Mismatch::Outlived {
            slots.set(segment.slot, Flag::Outlived, Seq(0));
            let evidence = self.evidence_of_light(&state, vcpu, cpu, light::found(&outlived(segment), self.config.profile.buffers.chunk));
            drop(state);
            self.found(Kind::Emulator, evidence);
        }
    }

    /// The light mode's judgement.
    fn looks_at_rivals(&self, segment: &'static Segment, vcpu: Vcpu, state: &Mutex<VcpuState>, slots: &VcpuSlots<'_>, cpu: &CurrentCpu) {
        let (found, exempt) = light::judge(segment, slots, self.config.profile.exemptions, self.config.profile.buffers.chunk);
        if found.is_empty() && exempt == 0 {
            return;
        }
        let mut state = state.lock();
        state.exempt += exempt;
        let evidence: Vec<Evidence> = found.into_iter().map(|found| self.evidence_of_light(&state, vcpu, cpu, found)).collect();
        drop(state);
        evidence.into_iter().for_each(|evidence| self.found(Kind::Unserialized, evidence));
    }

    /// The store side's judgement.
    fn looks_closer(
        &'static self,
        mut code: MutexGuard<'_, Code>,
        segment: &'static Segment,
        vcpu: Vcpu,
        state: &Mutex<VcpuState>,
        slots: &VcpuSlots<'_>,
        cpu: &CurrentCpu,
    ) {
        let Code { table, side } = &mut *code;
        let (Some(side), Some(place)) = (side, segment.place()) else { return };
        let moved = segment.contested() && !segment.rivals(|slot| slots.flag(slot).executed()).is_empty();
        // A page that moved did so after whatever was executed at its old place.
        let now = if moved { self.next() } else { Seq(self.seq.load(Ordering::SeqCst)) };
        let mut state = state.lock();
        let judged = side.judge(table, segment, place, &Looked { vcpu, state: &state, slots, now }, cpu);
        // Set before the lock is let go of: whatever happens to these bytes from now on finds the flag.
        slots.set(segment.slot, Flag::Executed, now);
        let mut hazards = Vec::new();
        for Judged { verdict, .. } in judged {
            state.exempt += verdict.exempt as u64;
            state.incomplete += u64::from(!verdict.complete);
            hazards.extend(verdict.hazard.map(|hazard| (hazard.kind, self.evidence_of_hazard(*hazard, side, cpu))));
        }
        drop(state);
        drop(code);
        hazards.into_iter().for_each(|(kind, evidence)| self.found(kind, evidence));
    }

    fn evidence_of_light(&self, state: &VcpuState, vcpu: Vcpu, cpu: &CurrentCpu, found: light::Found) -> Evidence {
        Evidence {
            vcpu,
            linear: found.linear,
            physical: cpu.physical(found.linear.0).map(Phys),
            memory: found.memory,
            candidates: found.candidates,
            writes: None,
            writers: Vec::new(),
            context: Context::default(),
            chain: Vec::new(),
            moved: false,
            last_sync: state.last_sync,
            epoch: state.epoch,
            marker: self.marker.load(Ordering::Relaxed),
        }
    }

    fn evidence_of_hazard(&self, hazard: Hazard, side: &mut StoreSide, cpu: &CurrentCpu) -> Evidence {
        let memory = Shown { bytes: hazard.memory.clone(), origin: Origin::Memory };
        let others = hazard.candidates.into_iter().map(|candidate| {
            let before = candidate.separated_by.first().copied();
            let kind = candidate.kind.unwrap_or(hazard.kind);
            let origin = Origin::Versions { versions: candidate.versions, before, kind, exempt: candidate.exempt };
            Shown { bytes: candidate.bytes, origin }
        });
        Evidence {
            vcpu: hazard.vcpu,
            linear: hazard.linear,
            physical: Some(hazard.phys),
            candidates: std::iter::once(memory).chain(others).collect(),
            memory: hazard.memory,
            writers: hazard.writes.iter().map(|write| side.patching_known().writer(write.seq).cloned()).collect(),
            context: side.context(hazard.vcpu, x86::privilege(cpu), cpu),
            chain: x86::callers_now(cpu, &self.config.symbols),
            writes: Some(hazard.writes),
            moved: hazard.remapped.is_some(),
            last_sync: hazard.last_sync,
            epoch: hazard.epoch,
            marker: self.marker.load(Ordering::Relaxed),
        }
    }

    /// The next place in the order.
    fn next(&self) -> Seq {
        Seq(self.seq.fetch_add(1, Ordering::SeqCst) + 1)
    }

    /// The vCPUs that have started.
    fn started_vcpus(&self) -> impl Iterator<Item = Vcpu> {
        (0..).map(Vcpu).zip(&self.epoch_starts).filter(|(_, start)| start.load(Ordering::Relaxed) != NOT_STARTED).map(|(vcpu, _)| vcpu)
    }

    /// Something happened to the bytes of these segments: whoever executed them in its epoch looks again when it executes them the next time.
    fn touch(&self, touched: &Touched) {
        for segment in &touched.segments {
            if let Some(seq) = touched.seq {
                segment.changed_at(seq);
            }
            self.started_vcpus().for_each(|vcpu| self.slots.look_again(vcpu, segment.slot));
        }
    }

    /// Whom the change of these segments by `writer` may concern, for `widen`.
    fn concerns(&self, touched: &Touched, writer: Vcpu, concern: &mut Concern) {
        let now = Seq(self.seq.load(Ordering::Relaxed));
        for segment in &touched.segments {
            concern.changed();
            for vcpu in self.started_vcpus().filter(|vcpu| *vcpu != writer) {
                let held = self.slots.held_since(vcpu, segment.slot).is_some();
                concern.ran(vcpu, if held { now } else { self.slots.last_ran(vcpu, segment.slot) }, now);
            }
        }
    }

    /// `vcpu` stored to a page that may hold code. Answers with whom that may concern, if `widen` asks.
    fn stores_to_code(&self, vcpu: Vcpu, pc: Linear, linear: Linear, phys: Phys, bytes: &[u8], cpu: &CurrentCpu) -> Concern {
        let mut concern = Concern::default();
        let Some(state) = self.vcpus.get(usize::from(vcpu.0)) else { return concern };
        let mut code = self.code.lock();
        let Code { table, side } = &mut *code;
        let Some(side) = side else { return concern };
        let state = state.lock();
        if let Some(own) = self.own_stores.get(usize::from(vcpu.0)) {
            own.store(true, Ordering::Relaxed);
        }
        // The second page of a store that crosses into it, if it is to be known.
        let mut second = None;
        for part in atomicity::parts(linear.0, bytes.len() as u64) {
            let at = linear.offset(part.start as u64);
            let to = if at.align_down(PAGE) == linear.align_down(PAGE) {
                phys.offset(part.start as u64)
            } else {
                let page = at.align_down(PAGE);
                let rest = &bytes[(page.0 - linear.0) as usize..];
                let page = *second.get_or_insert_with(|| cpu.physical(page.0).map(Phys).or_else(|| side.page_that_became(rest)));
                let Some(page) = page else { continue };
                page.offset(at.0 % PAGE)
            };
            let touched = side.store(
                table,
                &CodeStore { vcpu, pc, linear: at, phys: to, continued: part.start > 0, bytes: &bytes[part] },
                &state,
                cpu,
                || self.next(),
            );
            self.touch(&touched);
            if self.widening.is_some() && self.watching.load(Ordering::Relaxed) {
                self.concerns(&touched, vcpu, &mut concern);
            }
            let horizon = self.epoch_starts.iter().map(|start| start.load(Ordering::Relaxed)).min().unwrap_or(0);
            side.forget(&touched, Seq(horizon), |segment| self.held_since(segment));
        }
        concern
    }

    /// On API 4 stores show where the guest's memory is in the host's.
    fn proves_places(&self, phys: Phys, access: &Access<'_>) {
        if self.machine.generation > Generation::V4 || self.places_settled.load(Ordering::Relaxed) {
            return;
        }
        let mut code = self.code.lock();
        let Some(side) = &mut code.side else { return };
        if let Some(value) = access.value().filter(|_| side.places().on_trial()) {
            side.places().prove(phys, value.bytes());
            self.places_settled.store(!side.places().on_trial(), Ordering::Relaxed);
        }
    }

    /// Since when any vCPU holds a segment in its epoch.
    fn held_since(&self, segment: &Segment) -> Option<Seq> {
        self.started_vcpus().filter_map(|vcpu| self.slots.held_since(vcpu, segment.slot)).min()
    }

    fn found(&self, kind: Kind, evidence: Evidence) {
        let mut findings = self.findings.lock();
        let Some(hazard) = findings.add(kind, evidence, &self.config) else { return };
        self.sink.lock().hazard(&self.report(), hazard);
    }

    /// `vcpu` is about to complete an event of the table.
    pub fn synchronizes(&self, vcpu: Vcpu, event: SyncEventId, pc: Linear) {
        if x86::may_change_mapping(event) {
            self.filter.forget(vcpu);
        }
        let mut recorded = self.config.record.is_some().then(|| self.code.lock());
        if let Some(side) = recorded.as_mut().and_then(|code| code.side.as_mut()) {
            side.past().sync(vcpu, event, pc);
        }
        if !self.config.profile.serializes(event) {
            drop(recorded);
            self.leaves_line(vcpu, event);
            return;
        }
        let Some(state) = self.vcpus.get(usize::from(vcpu.0)) else { return };
        let mut state = state.lock();
        let seq = self.next();
        state.serialize(SyncAt { event, pc }, seq);
        if let Some(slots) = self.slots.of(vcpu) {
            slots.clear();
        }
        if let Some(repair) = self.repair {
            repair.next_epoch(vcpu);
        }
        if let Some(start) = self.epoch_starts.get(usize::from(vcpu.0)) {
            start.store(seq.0, Ordering::Relaxed);
        }
    }

    /// An event that the profile does not count is still a branch, if it is a return.
    fn leaves_line(&self, vcpu: Vcpu, event: SyncEventId) {
        let Some(state) = self.vcpus.get(usize::from(vcpu.0)) else { return };
        // Whoever made no store of its own to code since has nothing that a branch would make visible.
        let pending = self.own_stores.get(usize::from(vcpu.0)).is_some_and(|own| own.swap(false, Ordering::Relaxed));
        if pending
            && event == icsan_model::x86::events::IRET
            && let Some(side) = &mut self.code.lock().side
        {
            side.branched(vcpu, &state.lock());
        }
    }

    /// `vcpu` runs another task from now on.
    pub fn runs_task(&self, vcpu: Vcpu, task: u64) {
        if let Some(side) = &mut self.code.lock().side {
            side.patching().switch(vcpu, task);
        }
    }

    /// `vcpu` enters the address space of this page table.
    pub fn enters_space(&self, vcpu: Vcpu, space: u64) {
        if let Some(side) = &mut self.code.lock().side {
            side.patching().enter_space(vcpu, space);
        }
    }

    /// A task enters a protocol function.
    pub fn enters_function(&self, entry: Entry) {
        if let Some(side) = &mut self.code.lock().side {
            side.patching().enter(entry);
            self.patches_under_way.store(true, Ordering::Relaxed);
        }
    }

    /// A user task asks for the serialization of all its threads; it goes on at `returns_to`.
    pub fn calls_membarrier(&self, vcpu: Vcpu, returns_to: Linear, stack: u64) {
        if let Some(side) = &mut self.code.lock().side {
            side.patching().enter_membarrier(vcpu, returns_to, stack);
            self.patches_under_way.store(true, Ordering::Relaxed);
        }
    }

    /// Is anybody inside a protocol function?
    pub fn patches_under_way(&self) -> bool {
        self.patches_under_way.load(Ordering::Relaxed)
    }

    /// Does anybody inside a protocol function return to this address?
    pub fn awaits_return(&self, here: Linear) -> bool {
        self.patches_under_way() && self.code.lock().side.as_ref().is_some_and(|side| side.patching_known().awaits(here))
    }

    /// Somebody is where a protocol function may return to.
    pub fn returns_to(&self, here: Linear, stack: u64, failed: bool) {
        let mut code = self.code.lock();
        let Some(side) = &mut code.side else { return };
        let committed = side.patching().leave(here, stack, failed);
        if !committed.is_empty() {
            let touched = side.commit(&committed);
            self.touch(&touched);
        }
        self.patches_under_way.store(side.patching().under_way(), Ordering::Relaxed);
    }

    /// The guest executed a marker.
    pub fn mark(&self, vcpu: Vcpu, value: u64) {
        self.marker.store(value, Ordering::Relaxed);
        self.sink.lock().marker(vcpu, value);
    }

    /// Watching begins or ends.
    pub fn watch(&self, on: bool) {
        self.watching.store(on, Ordering::Relaxed);
        self.started.fetch_or(on, Ordering::Relaxed);
    }

    /// The kernel's `symbol` was seen at a runtime address.
    pub fn kernel_symbol_at(&self, symbol: &str, runtime: u64) {
        if self.config.symbols.kernel_table().is_some() {
            self.symbol_evidence(self.config.symbols.learn_offset(symbol, runtime).map(drop));
        }
    }

    /// One of these symbols was seen at a runtime address, if the kernel has any of them.
    pub fn kernel_symbol_among(&self, symbols: &[&str], runtime: u64) {
        self.symbol_evidence(self.config.symbols.confirm(symbols, runtime));
    }

    fn symbol_evidence(&self, evidence: Result<(), OffsetError>) {
        if let Err(error) = evidence
            && self.sink.lock().first_symbol_error()
        {
            process::say(&format!("{error}; no kernel symbols in this report"));
        }
    }

    fn watch_segments(&'static self, block: &Translation<'_>, instructions: &[Instruction<'_>]) {
        let mut code = self.code.lock();
        let place = self.place(&mut code, instructions, &block.cpu());
        if let Some(repair) = self.repair {
            // The end of an instruction may be all that is in the second page.
            place.and_then(|place| place.second).inspect(|second| self.filter.mark(*second));
            repair.watch(block, instructions, place);
        }
        let Code { table, side } = &mut *code;
        let changed: Vec<bool> =
            instructions.iter().map(|instruction| table.changed(instruction.linear, instruction.bytes(), instruction.host())).collect();
        let mut start = 0;
        for end in 1..=instructions.len() {
            let cut = end == instructions.len()
                || changed[end - 1]
                || changed[end]
                || x86::may_synchronize(instructions[end - 1].bytes(), &self.config.profile);
            if !cut {
                continue;
            }
            let part = &instructions[start..end];
            let page = part[0].linear.align_down(PAGE);
            // The block's second page is the only one that a later part may begin in.
            let place = place.and_then(|place| match place.second {
                Some(second) if page != place.page => Some(Place { page, first: second, second: None }),
                _ => (page == place.page).then_some(place),
            });
            if let Some((segment, new)) = table.intern(code_run(part), host_code(part, x86::PAGE), place, self) {
                if let Some(side) = side.as_mut().filter(|_| new) {
                    side.add(segment);
                }
                let registers = self.config.writers && segment.last_change() != Seq(0);
                part[0].on_execute_unless_done(&self.slots, segment.slot, segment, registers);
            }
            start = end;
        }
    }

    /// Finds out where a block lies, makes the contents of its pages known, and notes what changed there unseen.
    fn place(&self, code: &mut Code, instructions: &[Instruction<'_>], cpu: &CurrentCpu) -> Option<Place> {
        let side = code.side.as_mut()?;
        let place = side.place(instructions, cpu)?;
        for instruction in instructions {
            let (Some(phys), Some(host)) = (place.phys(instruction.linear), instruction.host_page(PAGE)) else { continue };
            self.filter.mark(phys);
            side.learn_page(phys, host);
            let len = (instruction.bytes().len() as u64).min(PAGE - instruction.linear.0 % PAGE);
            for touched in side.compare(phys, len, host, || self.next()) {
                self.touch(&touched);
            }
        }
        Some(place)
    }
}

static THE_ONE: OnceLock<&'static Sanitizer> = OnceLock::new();

impl StoreWatch for Sanitizer {
    fn get() -> Option<&'static Self> {
        THE_ONE.get().copied()
    }

    #[inline]
    fn stored(&'static self, vcpu: Vcpu, pc: Linear, linear: Linear, access: &Access<'_>) {
        let len = access.len();
        let crosses = linear.0 % PAGE + len > PAGE;
        if self.filter.is_plain(vcpu, linear) && !crosses {
            return;
        }
        let Some(phys) = access.physical() else { return };
        if !self.filter.may_hold_code(phys) && !crosses {
            self.filter.note_plain(vcpu, linear);
            if let Some(repair) = self.repair {
                repair.proves_ram(phys, access);
            }
            self.proves_places(phys, access);
            return;
        }
        if let Some(repair) = self.repair {
            repair.stored(linear, phys, access);
        }
        let Some(value) = access.value() else { return };
        let concern = self.stores_to_code(vcpu, pc, linear, phys, value.bytes(), &access.cpu());
        if let Some(widening) = &self.widening {
            widening.after_store(vcpu, &concern);
        }
    }
}

/// A block that outlived its bytes, in the form of a conflict: what it runs is the older version.
fn outlived(segment: &Segment) -> Conflict {
    let bytes = segment.run().bytes();
    let now = segment.host.read(bytes);
    let mut offset = 0;
    for (linear, old) in segment.run().instructions() {
        let memory = &now[offset..offset + old.len()];
        offset += old.len();
        if memory != old {
            return Conflict { linear, memory: memory.to_vec(), older: vec![old.to_vec()] };
        }
    }
    // Memory went back in the meantime: name the whole segment.
    Conflict { linear: segment.run().linear(), memory: now, older: vec![bytes.to_vec()] }
}

impl Hooks for &'static Sanitizer {
    fn vcpu_start(&self, vcpu: Vcpu) {
        if let Some(start) = self.epoch_starts.get(usize::from(vcpu.0)) {
            let _ = start.compare_exchange(NOT_STARTED, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
        let thread = process::thread_id();
        let mut threads = self.threads.lock();
        threads.push((vcpu, thread));
        if threads.iter().any(|(other, same)| *other != vcpu && *same == thread) {
            process::say(
                "several vCPUs share one host thread (thread=single or -icount): QEMU then calls plugins with wrong vCPU numbers and corrupts the guest; \
                 use -accel tcg,thread=multi, or -smp 1",
            );
            self.refused.store(true, Ordering::Relaxed);
            process::refuse();
        }
    }

    fn translate(&self, block: &Translation<'_>) {
        self.blocks.fetch_add(1, Ordering::Relaxed);
        if let Some(widening) = &self.widening {
            block.count(widening.blocks());
        }
        let instructions = block.instructions();
        if instructions.iter().any(|instruction| instruction.bytes().is_empty()) {
            return;
        }
        // First the segments: on one instruction callbacks fire in the order of their registration, and a serializing instruction belongs to the epoch that it ends.
        self.watch_segments(block, &instructions);
        for (index, instruction) in instructions.iter().enumerate() {
            let before = (index == 0 && self.config.writers).then(|| instruction.bytes_before(LONGEST_CALL, PAGE));
            self.points.instrument(instruction, before.as_deref(), self);
            if self.config.writers {
                instruction.on_store::<Sanitizer>();
            }
        }
    }

    fn exit(&self) {
        if self.refused.load(Ordering::Relaxed) {
            return;
        }
        let mut counts = Counts { blocks: self.blocks.load(Ordering::Relaxed), ..Counts::default() };
        match self.code.try_lock_for(EXIT_PATIENCE) {
            Some(mut code) => {
                counts.drop(&[("segments", code.table.dropped())]);
                if let Some(side) = &mut code.side {
                    counts.complete &= side.past().finish();
                    counts.add_stores(side);
                }
            }
            None => counts.complete = false,
        }
        counts.emulator = self.repair.map(Repair::counts);
        if let Some(widening) = &self.widening {
            let (widened, whole) = widening.counts(EXIT_PATIENCE);
            counts.widened = Some(widened);
            counts.complete &= whole;
        }
        for state in &self.vcpus {
            match state.try_lock_for(EXIT_PATIENCE) {
                Some(state) => counts.add(&state),
                None => counts.complete = false,
            }
        }
        let fault = guard::fault();
        counts.complete &= fault.is_none();
        if let Some(start) = self.config.start.as_deref().filter(|_| !self.started.load(Ordering::Relaxed)) {
            counts.note_never_started(start);
        }
        counts.note_nothing_watched(process::runs_kvm());
        let (Some(findings), Some(mut sink)) = (self.findings.try_lock_for(EXIT_PATIENCE), self.sink.try_lock_for(EXIT_PATIENCE)) else {
            process::say("a vCPU did not let go of the report; it is not written");
            return;
        };
        counts.drop(&[("hazards", findings.dropped())]);
        counts.complete &= counts.dropped == 0;
        sink.finish(&self.report(), &findings, &counts, fault);
        if self.config.exitcode != 0 && findings.unsuppressed() > 0 {
            process::exit_now(self.config.exitcode);
        }
    }
}
