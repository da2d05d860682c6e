//! The sanitizer: from translated blocks and executed segments to hazards.

mod coverage;
mod executions;
mod exposures;
mod injections;
mod kernels;
mod patches;
mod points;
mod restored;
mod stores;

use crate::HEAP;
use crate::code::code_table::CodeTable;
use crate::config::Config;
use crate::coverage::{CoverageTable, IntendedSyncs};
use crate::exposure::{Deferrals, ExposureId};
use crate::gaps::Gap;
use crate::origins::Origins;
use crate::points::{Points, sink};
use crate::qemu::accelerator::Accelerator;
use crate::qemu::cpu::{CurrentCpu, CurrentVcpu};
use crate::qemu::divert;
use crate::qemu::host_code::Contents;
use crate::qemu::install::{Hooks, Machine};
use crate::qemu::locks::{self, Mutex};
use crate::qemu::scoreboard::Slots;
use crate::qemu::translation::{Instruction, Translation, code_run, host_code};
use crate::qemu::{fence, guard, page_walk, process};
use crate::recorder::Recorder;
use crate::repair::Repair;
use crate::report::evidence::Evidence;
use crate::report::exit_code::{UNPROVEN, exit_code};
use crate::report::findings::Findings;
use crate::report::sink::Sink;
use crate::report::{Counts, Report, panic_text};
use crate::stores::page_filter::PageFilter;
use crate::stores::store_check::StoreCheck;
use crate::stores::store_side::StoreSide;
use crate::user_mode::UserModes;
use crate::vcpu::VcpuState;
use crate::what_if::WhatIf;
use crate::x86;
use icsan_model::addr::{Phys, Seq, Vcpu};
use icsan_model::arch::architecture::Architecture;
use icsan_model::arch::profile::Text;
use icsan_model::arch::sync_event::SyncEventId;
use icsan_model::detector::flags::{Flags, Rules, Segment as _};
use icsan_model::detector::history::Place;
use icsan_model::detector::sync_log::SyncAt;
use icsan_model::memory::PAGE;
use icsan_model::verdict::kind::Kind;
use icsan_symbols::protocol::TEXT_POKE_SYNCS;
use injections::Injecting;
use restored::Restores;
use rustc_hash::FxHashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// The longest instruction that ends where a return goes to, in bytes.
const LONGEST_CALL: usize = 7;

/// How long the report waits for a vCPU that is still inside a callback when QEMU exits.
const EXIT_PATIENCE: Duration = Duration::from_secs(2);

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
    flags: Flags<Slots>,
    pub(crate) code: Mutex<Code>,
    pub(crate) filter: PageFilter,
    points: Points,
    /// What patching protocols mean to happen, and what their commits came to.
    intended: IntendedSyncs,
    coverage: Mutex<CoverageTable>,
    deferrals: Mutex<Deferrals>,
    /// What is to be reported of an exposure if it does not end as the design means it to. Others were reported when
    /// they began.
    undecided: Mutex<FxHashMap<ExposureId, Evidence>>,
    user_modes: UserModes,
    origins: Origins,
    what_if: WhatIf,
    repair: Option<&'static Repair>,
    injecting: Option<Injecting>,
    check: Option<StoreCheck>,
    vcpus: Box<[Mutex<VcpuState>]>,
    /// Host thread of each vCPU that started.
    threads: Mutex<Vec<(Vcpu, i32)>>,
    findings: Mutex<Findings>,
    sink: Mutex<Sink>,
    /// Did the vCPU store to code since it last left its line by an event that the profile does not count? Touched by
    /// its own thread only.
    own_stores: Box<[AtomicBool]>,
    /// With a recording: how many changes it was told of.
    recorded: Option<Arc<AtomicU64>>,
    /// Value of the guest's last marker.
    marker: AtomicU64,
    watching: AtomicBool,
    /// Is there, at a first execution, nothing else to do than to look at the segment? That is: it watches, and neither
    /// records nor repairs.
    looks_at_segments_only: AtomicBool,
    /// States that were restored.
    restores: Restores,
    /// This machine was refused after QEMU had started: there is nothing to report.
    refused: AtomicBool,
    /// Was it ever watching?
    started: AtomicBool,
    blocks: Line<AtomicU64>,
    /// The vCPU on which the guest's kernel panicked.
    panicked: OnceLock<Vcpu>,
}

/// What all vCPUs write often, in a cache line of its own: what lies beside it is read on every store of the guest.
#[derive(Debug)]
#[repr(align(128))]
struct Line<T>(T);

impl<T> std::ops::Deref for Line<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

static THE_ONE: OnceLock<&'static Sanitizer> = OnceLock::new();

impl Sanitizer {
    /// Makes the one sanitizer of this process. It lives for ever: QEMU's code points into it.
    ///
    /// # Errors
    /// One line: the report cannot be written, or there is no QEMU around.
    pub fn new(arch: &'static Architecture, config: Config, machine: Machine) -> Result<&'static Self, String> {
        let mut sink = Sink::open(config.report.as_deref()).map_err(|error| error.to_string())?;
        let count = machine.max_vcpus.max(1);
        fence::prepare();
        page_walk::prepare(machine.generation);
        let slots = Slots::new(count, config.writers).ok_or("QEMU gave no scoreboard")?;
        let maintained = config.profile.incoherent_caches().is_some();
        let rules = Rules { writers: config.writers, snoop: config.profile.snoop, maintained };
        let flags = Flags::new(slots, count, rules);
        let vcpus = (0..count).map(|_| Mutex::default()).collect();
        let layout = config.symbols.kernel_table().and_then(|table| table.layout().copied());
        let name = move |cpu: &CurrentCpu, task: u64| x86::task_name(cpu, layout.as_ref()?, task);
        let repair = if config.repair {
            Some(
                Repair::new(machine.generation, count)
                    .map_err(|why| format!("emulator=repair is not possible here: {why}"))?,
            )
        } else {
            None
        };
        if let Some(key) = config.inject.map(|_| "inject").or(config.serialize.then_some("serialize=emulate")) {
            divert::prepare(machine.generation).map_err(|why| format!("{key} is not possible here: {why}"))?;
        }
        let injecting = config.inject.and_then(Injecting::new);
        let check = config.check.then(StoreCheck::default);
        // Last, since what stood in these files is lost from here on: a command line that is refused leaves them alone.
        let recorder = Recorder::open(&config, arch, count).map_err(|error| error.to_string())?;
        sink.start(&Report { arch, config: &config, machine: &machine }).map_err(|error| error.to_string())?;
        let recorded = recorder.as_ref().map(Recorder::changes);
        let side = config.writers.then(|| StoreSide::new(config.profile, count, recorder, Box::new(name)));
        let watching = AtomicBool::new(config.start.is_none());
        let started = AtomicBool::new(config.start.is_none());
        let quiet = watching.load(Ordering::Relaxed) && repair.is_none() && config.record.is_none();
        let what_if = WhatIf::new(&config.without_at, &config.profile);
        let sanitizer: &'static Self = Box::leak(Box::new(Self {
            arch,
            config,
            machine,
            flags,
            code: Mutex::new(Code { table: CodeTable::default(), side }),
            filter: if check.is_some() { PageFilter::of_all_stores() } else { PageFilter::new(count) },
            points: Points::default(),
            intended: IntendedSyncs::new(arch, TEXT_POKE_SYNCS),
            coverage: Mutex::default(),
            deferrals: Mutex::default(),
            undecided: Mutex::default(),
            user_modes: UserModes::new(count),
            origins: Origins::new(count),
            what_if,
            repair,
            injecting,
            check,
            vcpus,
            threads: Mutex::default(),
            findings: Mutex::default(),
            sink: Mutex::new(sink),
            own_stores: (0..count).map(|_| AtomicBool::new(false)).collect(),
            recorded,
            marker: AtomicU64::new(0),
            looks_at_segments_only: AtomicBool::new(quiet),
            watching,
            restores: Restores::new(count),
            refused: AtomicBool::new(false),
            started,
            blocks: Line(AtomicU64::new(0)),
            panicked: OnceLock::new(),
        }));
        let _ = THE_ONE.set(sanitizer);
        sink::tell(sanitizer);
        if let Some(why) = Accelerator::get().blind() {
            process::say(&format!("nothing is watched: {why}"));
        }
        Ok(sanitizer)
    }

    /// The one of this process, once it was made. A callback finds it by no pointer of its payload's.
    #[inline]
    #[must_use]
    pub fn the_one() -> Option<&'static Self> {
        THE_ONE.get().copied()
    }

    /// What the user chose.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    fn report(&self) -> Report<'_> {
        Report { arch: self.arch, config: &self.config, machine: &self.machine }
    }

    fn found(&self, kind: Kind, evidence: Evidence) {
        let mut findings = self.findings.lock();
        let Some(hazard) = findings.add(kind, evidence, &self.config) else { return };
        self.sink.lock().hazard(&self.report(), hazard);
    }

    /// `vcpu` is about to complete an event of the table.
    pub fn synchronizes(&self, current: &CurrentVcpu, at: SyncAt) {
        let SyncAt { event, pc, .. } = at;
        self.begins_anew(current);
        let vcpu = current.id();
        self.restores.executes(vcpu);
        if x86::may_change_mapping(event) {
            self.filter.forget(vcpu);
        }
        let mut recorded = self.config.record.is_some().then(|| self.code.lock());
        if let Some(side) = recorded.as_mut().and_then(|code| code.side.as_mut()) {
            side.past().sync(vcpu, event, pc);
        }
        if !self.config.profile.serializes(event) || !self.what_if.counts(&at, &self.config.symbols) {
            drop(recorded);
            self.leaves_line(vcpu, event);
            return;
        }
        let Some((vcpu, slots)) = self.vcpus.get(usize::from(vcpu.0)).zip(self.flags.board().of(current)) else {
            return;
        };
        let mut state = vcpu.lock();
        while !state.exposures.is_empty() {
            // The code is locked before a vCPU's state is; meanwhile another exposure may begin.
            drop(state);
            match &mut recorded {
                Some(code) => self.ends_exposures(current, at, code),
                None => self.ends_exposures(current, at, &mut self.code.lock()),
            }
            state = vcpu.lock();
        }
        let seq = self.flags.begin_epoch(&slots);
        state.serialize(at, seq);
        self.notes_intended(&mut state, &at, seq);
        self.ends_trail(&mut state, Some((current, at)));
        if let Some(repair) = self.repair {
            repair.next_epoch(current);
        }
    }

    /// An event that does not count is still a branch, if it is a return.
    fn leaves_line(&self, vcpu: Vcpu, event: SyncEventId) {
        let Some(state) = self.vcpus.get(usize::from(vcpu.0)) else { return };
        // Whoever made no store of its own to code since has nothing that a branch would make visible.
        let pending = || self.own_stores.get(usize::from(vcpu.0)).is_some_and(|own| own.swap(false, Ordering::Relaxed));
        if x86::returns(event)
            && pending()
            && let Some(side) = &mut self.code.lock().side
        {
            side.branched(vcpu, &state.lock());
        }
    }

    /// The guest executed a marker.
    pub fn mark(&self, vcpu: Vcpu, value: u64) {
        self.marker.store(value, Ordering::Relaxed);
        self.sink.lock().marker(vcpu, value);
    }

    /// The guest's kernel gives up. The first time the user is told.
    pub fn panics(&self, vcpu: Vcpu) {
        if self.panicked.set(vcpu).is_ok() {
            process::say(&panic_text(vcpu));
        }
    }

    /// Watching begins or ends.
    pub fn watch(&self, on: bool) {
        self.watching.store(on, Ordering::Relaxed);
        self.looks_at_segments_only
            .store(on && self.repair.is_none() && self.config.record.is_none(), Ordering::Relaxed);
        self.started.fetch_or(on, Ordering::Relaxed);
    }

    fn watch_segments(&'static self, block: &Translation<'_>, instructions: &[Instruction<'_>]) {
        let mut code = self.code.lock();
        let place = self.place(&mut code, instructions, &block.cpu());
        if let Some(repair) = self.repair {
            repair.watch(block, instructions, place);
        }
        // A block lies in one half of the address space.
        if self.config.profile.text == Text::Kernel
            && instructions.first().is_none_or(|first| first.linear.0 >> 63 == 0)
        {
            return;
        }
        let Code { table, side } = &mut *code;
        let changed = |at: &Instruction<'_>, table: &CodeTable| table.changed(at.linear, at.bytes(), at.host());
        let mut start = 0;
        let mut last_changed = instructions.first().is_some_and(|first| changed(first, table));
        for end in 1..=instructions.len() {
            let next_changed = instructions.get(end).is_some_and(|next| changed(next, table));
            let serializes = x86::may_synchronize(instructions[end - 1].bytes(), &self.config.profile);
            let cut = end == instructions.len() || last_changed || next_changed || serializes;
            last_changed = next_changed;
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
            let run = code_run(part);
            let host = host_code(part, &run, x86::PAGE);
            if let Some((segment, new)) = table.intern(run, host, place, |slot| self.flags.board().reserve(slot)) {
                if let Some(side) = side.as_mut().filter(|_| new) {
                    side.add(segment);
                }
                let registers =
                    segment.may_run_elsewhere() || self.config.writers && segment.last_change().get() != Seq(0);
                // With a recording those executions are looked at as well that a flag says no to.
                match (self.injecting.is_some(), self.recorded.is_some()) {
                    (false, false) => {
                        part[0].on_execute_unless_done(self.flags.board(), segment.slot, segment, registers)
                    }
                    (false, true) => part[0].on_execute(segment, registers),
                    (true, false) => part[0].may_divert_unless_done(self.flags.board(), segment.slot, segment),
                    (true, true) => part[0].may_divert(segment),
                }
            }
            start = end;
        }
    }

    /// Finds out where a block lies, makes the contents of its pages known, and notes what changed there unseen.
    fn place(&self, code: &mut Code, instructions: &[Instruction<'_>], cpu: &CurrentCpu) -> Option<Place> {
        let side = code.side.as_mut()?;
        let place = side.place(instructions, cpu)?;
        // A block's first page, and its second, if an instruction begins there.
        for part in instructions.chunk_by(|a, b| a.linear.align_down(PAGE) == b.linear.align_down(PAGE)) {
            let (first, last) = (&part[0], &part[part.len() - 1]);
            let (Some(phys), Some(host)) = (place.phys(first.linear), first.host_page(PAGE)) else { continue };
            let len = (last.linear.0 - first.linear.0 + last.bytes().len() as u64).min(PAGE - first.linear.0 % PAGE);
            self.learn(side, phys, len, &host);
        }
        // Of an instruction that crosses into the next page there is no host pointer to its end, and nothing else of
        // the block is there.
        let (last, next) = (instructions.last()?, place.page.offset(PAGE));
        if let Some(second) = place.second
            && last.linear < next
            && let Some(contents) = cpu.bytes::<{ PAGE as usize }>(next.0)
        {
            self.learn(side, second, (last.linear.0 + last.bytes().len() as u64).saturating_sub(next.0), &contents);
        }
        Some(place)
    }

    /// `len` bytes from `phys` on, in a page with these contents, are code.
    fn learn(&self, side: &mut StoreSide, phys: Phys, len: u64, contents: &impl Contents) {
        self.filter.mark(phys);
        side.learn_page(phys, contents);
        for touched in side.compare(phys, len, contents, || self.flags.next()) {
            self.touch(&touched);
        }
    }
}

impl Hooks for &'static Sanitizer {
    fn vcpu_start(&self, vcpu: Vcpu) {
        self.flags.start(vcpu);
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

    fn vcpu_runs(&self, vcpu: &CurrentVcpu, runs: bool) {
        // What it remembers of pages goes by how it mapped them: INIT, or an interrupt into system management mode, may
        // have come while it slept.
        self.filter.forget(vcpu.id());
        self.restores.runs(vcpu.id(), runs);
        if runs {
            self.wakes(vcpu);
        }
        self.flags.runs(vcpu.id(), runs);
    }

    fn flushed(&self) {
        Sanitizer::flushed(self);
    }

    fn stands_still(&self, stopped: bool) {
        Sanitizer::stands_still(self, stopped);
    }

    fn translate(&self, block: &Translation<'_>, vcpu: Option<&CurrentVcpu>) {
        self.blocks.fetch_add(1, Ordering::Relaxed);
        if let Some(vcpu) = vcpu {
            self.begins_anew(vcpu);
            self.restores.executes(vcpu.id());
        }
        let instructions = block.instructions();
        if let (Some(injecting), Some(first)) = (&self.injecting, instructions.first()) {
            block.follow::<Sanitizer>(&injecting.trailing, first.linear);
        }
        if instructions.iter().any(|instruction| instruction.bytes().is_empty()) {
            return;
        }
        // First the segments: on one instruction callbacks fire in the order of their registration, and a serializing
        // instruction belongs to the epoch that it ends.
        self.watch_segments(block, &instructions);
        for (index, instruction) in instructions.iter().enumerate() {
            let before = (index == 0 && self.config.writers).then(|| instruction.bytes_before(LONGEST_CALL, PAGE));
            self.points.instrument(instruction, before.as_deref(), *self);
            if self.config.writers && x86::may_store(instruction.bytes()) {
                instruction.on_store::<Sanitizer>();
            }
        }
    }

    fn failed_exit(&self) -> Option<u8> {
        (!self.refused.load(Ordering::Relaxed)).then(|| exit_code(self.config.exitcode, false, false)).flatten()
    }

    fn exit(&self) -> Option<u8> {
        if self.refused.load(Ordering::Relaxed) {
            return None;
        }
        let mut counts = Counts {
            blocks: self.blocks.load(Ordering::Relaxed),
            panicked: self.panicked.get().copied(),
            ..Counts::default()
        };
        match self.code.try_lock_for(EXIT_PATIENCE) {
            Some(mut code) => {
                counts.drop(&[("segments", code.table.dropped())]);
                counts.memory.tables.insert("segments", code.table.segments());
                if let Some(side) = &mut code.side {
                    counts.drop(&[("recording", u64::from(!side.past().finish()))]);
                    self.finish_check(side, &mut counts);
                    counts.add_stores(side, self.config.symbols.boot());
                    for (vcpu, state) in self.vcpus.iter().enumerate() {
                        if let Some(mut state) = state.try_lock_for(EXIT_PATIENCE) {
                            self.leaves_exposures(Vcpu(vcpu as u16), &mut state, side);
                        }
                    }
                    counts.coverage = Some(self.coverage.lock().clone());
                    let deferrals = self.deferrals.lock().clone();
                    counts.drop(&[("exposures", deferrals.dropped())]);
                    counts.deferrals = Some(deferrals);
                }
            }
            None => counts.drop(&[("code", 1)]),
        }
        counts.restored = self.restores.count();
        counts.emulator = self.repair.map(Repair::counts);
        counts.drop(&self.points.dropped());
        counts.drop(&[("origins", self.what_if.unknown())]);
        counts.refused = self.what_if.refused();
        for state in &self.vcpus {
            match state.try_lock_for(EXIT_PATIENCE) {
                Some(mut state) => {
                    self.ends_trail(&mut state, None);
                    counts.add(&state);
                }
                None => counts.drop(&[("vcpus", 1)]),
            }
        }
        for gap in Gap::ALL {
            counts.drop(&[(gap.name(), gap.count())]);
        }
        let fault = guard::fault();
        counts.complete &= fault.is_none();
        if let Some(start) = self.config.start.as_deref().filter(|_| !self.started.load(Ordering::Relaxed)) {
            counts.note_never_started(start);
        }
        counts.note_nothing_watched(Accelerator::get());
        let (Some(findings), Some(mut sink)) =
            (self.findings.try_lock_for(EXIT_PATIENCE), self.sink.try_lock_for(EXIT_PATIENCE))
        else {
            process::say("a vCPU did not let go of the report; it is not written");
            return self.failed_exit();
        };
        counts.drop(&[("hazards", findings.dropped())]);
        counts.complete &= counts.dropped == 0;
        (counts.memory.held, counts.memory.most) = (HEAP.allocated(), HEAP.max_allocated());
        let injections = self.injecting.as_ref().and_then(|injecting| injecting.known.try_lock_for(EXIT_PATIENCE));
        let written = sink.finish(&self.report(), &findings, injections.as_deref(), &counts, fault);
        if let Some(waits) = locks::waits() {
            process::say(&waits);
        }
        let code = exit_code(self.config.exitcode, findings.to_blame() > 0, counts.complete && written);
        if let Some(code) = code {
            let why = if code == UNPROVEN {
                "the report proves nothing, since it is not complete"
            } else {
                "there was a hazard"
            };
            process::say(&format!("exit code {code}: {why}"));
        }
        code
    }
}
