//! The sanitizer: from translated blocks and executed segments to hazards.

mod coverage;
mod exposures;
mod kernels;
mod light;
mod machine_events;
mod on_execution;
mod on_exit;
mod on_injection;
mod on_maintenance;
mod on_protocol;
mod on_store;
mod on_translation;
mod points;
mod restored;
pub mod starting;

use crate::arch::platform::{Facts, Platform};
use crate::code::code_table::CodeTable;
use crate::config::Config;
use crate::coverage::{CoverageTable, IntendedSyncs};
use crate::exposure::{Deferrals, ExposureId};
use crate::origins::Origins;
use crate::patching::TaskName;
use crate::points::{Points, sink};
use crate::qemu::accelerator::Accelerator;
use crate::qemu::cpu::{CurrentCpu, CurrentVcpu};
use crate::qemu::divert;
use crate::qemu::hooks::{self, trapped_stores};
use crate::qemu::install::Machine;
use crate::qemu::locks::Mutex;
use crate::qemu::scoreboard::Slots;
use crate::qemu::{fence, host_address, page_walk, process};
use crate::recorder::Recorder;
use crate::repair::Repair;
use crate::report::evidence::Evidence;
use crate::report::findings::Findings;
use crate::report::sink::Sink;
use crate::report::{Report, panic_text};
use crate::stores::page_filter::PageFilter;
use crate::stores::store_check::StoreCheck;
use crate::stores::store_side::StoreSide;
use crate::user_mode::UserModes;
use crate::vcpu::VcpuState;
use crate::what_if::WhatIf;
use icsan_model::addr::{Linear, Vcpu};
use icsan_model::arch::sync_event::SyncEventId;
use icsan_model::detector::flags::{Flags, Rules};
use icsan_model::detector::sync_log::SyncAt;
use icsan_model::verdict::kind::Kind;
use on_injection::Injecting;
use on_maintenance::Maintaining;
use restored::Restores;
use rustc_hash::FxHashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

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
    platform: &'static dyn Platform,
    /// The platform's, for what is met too often to ask it.
    facts: &'static Facts,
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
    origins: Arc<Origins>,
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
    /// What vCPUs do so that fetches see stores.
    maintaining: Maintaining,
    /// With a recording: how many changes it was told of.
    recorded: Option<Arc<AtomicU64>>,
    /// The last value of a register by which kernels tell their place that said nothing of it.
    says_nothing: AtomicU64,
    /// Value of the guest's last marker.
    marker: AtomicU64,
    watching: AtomicBool,
    /// Is there, at a first execution, nothing else to do than to look at the segment? That is: it watches, and neither
    /// records nor repairs.
    fast_path_is_open: AtomicBool,
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
    pub fn new(platform: &'static dyn Platform, config: Config, machine: Machine) -> Result<&'static Self, String> {
        let facts = platform.facts();
        let (arch, linux) = (facts.arch, facts.linux);
        let mut sink = Sink::open(config.report.as_deref()).map_err(|error| error.to_string())?;
        let count = machine.max_vcpus.max(1);
        fence::prepare();
        page_walk::prepare(machine.generation);
        host_address::prepare();
        let slots = Slots::new(count, config.writers).ok_or("QEMU gave no scoreboard")?;
        let maintained = config.profile.incoherent_caches().is_some();
        let rules = Rules { writers: config.writers, snoop: config.profile.snoop, maintained };
        let flags = Flags::new(slots, count, rules);
        let vcpus = (0..count).map(|_| Mutex::default()).collect();
        let layout = config.symbols.kernel_table().and_then(|table| table.layout().copied());
        let name = move |cpu: &CurrentCpu, task: u64| TaskName::read(cpu, layout.as_ref()?, task);
        // Where QEMU's own functions are hooked nothing is left to repair.
        let repair = if config.repair && !hooks::are_on() {
            Some(
                Repair::new(machine.generation, count, facts)
                    .map_err(|why| format!("emulator=repair is not possible here: {why}"))?,
            )
        } else {
            None
        };
        if let Some(key) = config.inject.map(|_| "inject").or(config.serialize.then_some("serialize=emulate")) {
            divert::prepare(machine.generation, || platform.prepare_to_carry_out())
                .map_err(|why| format!("{key} is not possible here: {why}"))?;
        }
        let injecting = config.inject.and_then(Injecting::new);
        let check = config.check.then(StoreCheck::default);
        // Last, since what stood in these files is lost from here on: a command line that is refused leaves them alone.
        let recorder = Recorder::open(&config, arch, count).map_err(|error| error.to_string())?;
        sink.start(&Report { platform, arch, config: &config, machine: &machine, hooks: hooks::state() })
            .map_err(|error| error.to_string())?;
        let recorded = recorder.as_ref().map(Recorder::changes);
        let origins = Arc::new(Origins::new(count));
        let side = config.writers.then(|| {
            let (name, origins) = (Box::new(name), Arc::clone(&origins));
            let mut side = StoreSide::new(config.profile, platform, count, recorder, name, origins);
            if maintained && platform.starts_uncached() {
                (0..count).for_each(|vcpu| side.past().caches(Vcpu(vcpu as u16), false));
            }
            side
        });
        let watching = AtomicBool::new(config.start.is_none());
        let started = AtomicBool::new(config.start.is_none());
        let quiet = watching.load(Ordering::Relaxed) && repair.is_none() && config.record.is_none();
        let what_if = WhatIf::new(&config.without_at, &config.profile, facts);
        let sanitizer: &'static Self = Box::leak(Box::new(Self {
            platform,
            facts,
            config,
            machine,
            flags,
            code: Mutex::new(Code { table: CodeTable::new(facts.counter_is_linear_from), side }),
            filter: if check.is_some() { PageFilter::of_all_stores() } else { PageFilter::new(count) },
            points: Points::default(),
            intended: IntendedSyncs::new(arch, linux.kernel.protocol.text_poke_syncs),
            coverage: Mutex::default(),
            deferrals: Mutex::default(),
            undecided: Mutex::default(),
            user_modes: UserModes::new(count),
            origins,
            what_if,
            repair,
            injecting,
            check,
            vcpus,
            threads: Mutex::default(),
            findings: Mutex::default(),
            sink: Mutex::new(sink),
            own_stores: (0..count).map(|_| AtomicBool::new(false)).collect(),
            maintaining: Maintaining::new(count),
            recorded,
            says_nothing: AtomicU64::new(0),
            marker: AtomicU64::new(0),
            fast_path_is_open: AtomicBool::new(quiet),
            watching,
            restores: Restores::new(count),
            refused: AtomicBool::new(false),
            started,
            blocks: Line(AtomicU64::new(0)),
            panicked: OnceLock::new(),
        }));
        let _ = THE_ONE.set(sanitizer);
        if sanitizer.config.writers {
            trapped_stores::tell(sanitizer);
        }
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
        let Self { platform, facts, config, machine, .. } = self;
        Report { platform: *platform, arch: facts.arch, config, machine, hooks: hooks::state() }
    }

    fn found(&self, kind: Kind, evidence: Evidence) {
        let mut findings = self.findings.lock();
        let Some(hazard) = findings.add(kind, evidence, &self.report()) else { return };
        self.sink.lock().hazard(&self.report(), hazard);
    }

    /// `vcpu` is about to complete an event of the table.
    pub fn synchronizes(&self, current: &CurrentVcpu, at: SyncAt) {
        let SyncAt { event, pc, .. } = at;
        self.begins_anew(current);
        let vcpu = current.id();
        self.restores.executes(vcpu);
        if self.facts.changes_mapping.contains(event) {
            self.filter.forget(vcpu);
            if self.facts.changes_mapping_of_all.contains(event) {
                self.filter.forget_all();
                self.maintaining.changes_mapping(vcpu);
            }
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

    /// The vCPU comes to an entry from an interrupt or exception, which returns to `from`.
    pub fn entered(&self, vcpu: &CurrentVcpu, from: Option<Linear>) {
        if let Some(event) = self.facts.entry {
            self.synchronizes(vcpu, SyncAt { event, pc: from.unwrap_or_default(), origin: None });
        }
    }

    /// An event that does not count is still a branch, if it is a return.
    fn leaves_line(&self, vcpu: Vcpu, event: SyncEventId) {
        let Some(state) = self.vcpus.get(usize::from(vcpu.0)) else { return };
        // A vCPU that made no store of its own to code since has nothing that a branch would make visible.
        let pending = || self.own_stores.get(usize::from(vcpu.0)).is_some_and(|own| own.swap(false, Ordering::Relaxed));
        if self.facts.returns.contains(event)
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
        self.fast_path_is_open.store(on && self.repair.is_none() && self.config.record.is_none(), Ordering::Relaxed);
        self.started.fetch_or(on, Ordering::Relaxed);
    }
}
