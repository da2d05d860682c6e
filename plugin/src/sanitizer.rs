//! The sanitizer: from translated blocks and executed segments to hazards.

use crate::config::Config;
use crate::qemu::cpu::CurrentCpu;
use crate::qemu::guard;
use crate::qemu::install::{Hooks, Machine};
use crate::qemu::process;
use crate::qemu::scoreboard::Slots;
use crate::qemu::translation::{Instruction, Translation, code_run, host_code};
use crate::report::findings::{Evidence, Findings};
use crate::report::sink::Sink;
use crate::report::{Counts, Report};
use crate::segment::{CodeTable, Segment};
use crate::vcpu::{LastSync, Mismatch, VcpuState};
use crate::x86;
use icsan_model::addr::{Linear, Seq, Vcpu};
use icsan_model::architecture::Architecture;
use icsan_model::hazard::Kind;
use icsan_model::light::{Conflict, judge};
use icsan_model::sync_event::SyncEventId;
use icsan_symbols::OffsetError;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Segments that can be watched. Each costs 12 bytes in every vCPU's slot table, which QEMU makes for 16 vCPUs at once (so 48 MiB), and some 300 bytes of its own.
/// A Debian kernel's boot has about 60,000. When they run out, what is translated next is not watched, and the report says so.
const MAX_SEGMENTS: u32 = 1 << 18;

/// A slot's value: the vCPU executed the segment in this epoch, and memory held its bytes.
const EXECUTED: u64 = 1;

/// A slot's value: the vCPU ran the segment, but memory had other bytes. It is no evidence, and need not be looked at again in this epoch.
const OUTLIVED: u64 = 2;

/// How long the report waits for a vCPU that is still inside a callback when QEMU exits.
const EXIT_PATIENCE: Duration = Duration::from_secs(2);

/// ICSAN in one QEMU.
#[derive(Debug)]
pub struct Sanitizer {
    arch: &'static Architecture,
    config: Config,
    machine: Machine,
    slots: Slots,
    code: Mutex<CodeTable>,
    points: x86::Points,
    vcpus: Box<[Mutex<VcpuState>]>,
    /// Host thread of each vCPU that started.
    threads: Mutex<Vec<(Vcpu, i32)>>,
    findings: Mutex<Findings>,
    sink: Mutex<Sink>,
    /// Counts serializing events of all vCPUs.
    seq: AtomicU64,
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
        let vcpus = (0..machine.max_vcpus.max(1)).map(|_| Mutex::default()).collect();
        let watching = AtomicBool::new(config.start.is_none());
        let started = AtomicBool::new(config.start.is_none());
        let sanitizer: &'static Self = Box::leak(Box::new(Self {
            arch,
            config,
            machine,
            slots,
            code: Mutex::new(CodeTable::new(MAX_SEGMENTS)),
            points: x86::Points::default(),
            vcpus,
            threads: Mutex::default(),
            findings: Mutex::default(),
            sink: Mutex::new(sink),
            seq: AtomicU64::new(0),
            marker: AtomicU64::new(0),
            watching,
            refused: AtomicBool::new(false),
            started,
            blocks: AtomicU64::new(0),
        }));
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

    /// `vcpu` is about to execute `segment`, for the first time in its epoch (or memory disagreed the last time).
    pub fn executes(&'static self, segment: &'static Segment, vcpu: Vcpu, cpu: &CurrentCpu) {
        let (Some(state), Some(slots)) = (self.vcpus.get(usize::from(vcpu.0)), self.slots.of(vcpu)) else { return };
        if !self.watching.load(Ordering::Relaxed) {
            return;
        }
        if !segment.host.holds() {
            // The slot stays clear, so that the next execution comes here, too; and the old bytes are no evidence of anything that the guest did.
            segment.suspect();
            let mut state = state.lock();
            if state.mismatch(segment) == Mismatch::Outlived {
                slots.set(segment.slot, OUTLIVED);
                let evidence = self.evidence(&state, vcpu, cpu, outlived(segment));
                drop(state);
                self.found(Kind::Emulator, evidence);
            }
            return;
        }
        // From here on nearly every call leaves without a lock.
        if segment.suspected() {
            state.lock().agrees(segment);
        }
        slots.set(segment.slot, EXECUTED);
        let rivals = segment.rivals(|slot| slots.get(slot) == EXECUTED);
        if rivals.is_empty() || self.config.profile.snoop {
            // The vCPU ran nothing else here in this epoch; or every store empties every buffer at once, and nothing older can be left.
            return;
        }
        let mut state = state.lock();
        let earlier = rivals.iter().map(|rival| rival.run());
        let findings = judge(segment.run(), earlier, self.config.profile.exemptions);
        state.exempt += findings.exempt;
        let evidence: Vec<Evidence> = findings.conflicts.into_iter().map(|conflict| self.evidence(&state, vcpu, cpu, conflict)).collect();
        drop(state);
        for evidence in evidence {
            self.found(Kind::Unserialized, evidence);
        }
    }

    fn evidence(&self, state: &VcpuState, vcpu: Vcpu, cpu: &CurrentCpu, conflict: Conflict) -> Evidence {
        Evidence {
            vcpu,
            physical: cpu.physical(conflict.linear.0),
            conflict,
            last_sync: state.last_sync,
            epoch: state.epoch,
            marker: self.marker.load(Ordering::Relaxed),
        }
    }

    fn found(&self, kind: Kind, evidence: Evidence) {
        let mut findings = self.findings.lock();
        let Some(hazard) = findings.add(kind, evidence, &self.config) else { return };
        self.sink.lock().hazard(&self.report(), hazard);
    }

    /// `vcpu` is about to complete an event of the table.
    pub fn synchronizes(&self, vcpu: Vcpu, event: SyncEventId, pc: Linear) {
        if !self.config.profile.serializes(event) {
            return;
        }
        let Some(state) = self.vcpus.get(usize::from(vcpu.0)) else { return };
        let mut state = state.lock();
        let seq = Seq(self.seq.fetch_add(1, Ordering::Relaxed) + 1);
        state.epoch = state.epoch.next();
        state.last_sync = Some(LastSync { event, pc, seq });
        if let Some(count) = state.syncs.get_mut(usize::from(event.0)) {
            *count += 1;
        }
        if let Some(slots) = self.slots.of(vcpu) {
            slots.clear();
        }
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

    fn watch_segments(&'static self, instructions: &[Instruction<'_>]) {
        let mut code = self.code.lock();
        let changed: Vec<bool> =
            instructions.iter().map(|instruction| code.changed(instruction.linear, instruction.bytes(), instruction.host())).collect();
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
            if let Some(segment) = code.intern(code_run(part), host_code(part, x86::PAGE), self) {
                part[0].on_execute_while_clear(&self.slots, segment.slot, segment);
            }
            start = end;
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
        let instructions = block.instructions();
        if instructions.iter().any(|instruction| instruction.bytes().is_empty()) {
            return;
        }
        // First the segments: on one instruction callbacks fire in the order of their registration, and a serializing instruction belongs to the epoch that it ends.
        self.watch_segments(&instructions);
        for instruction in &instructions {
            self.points.instrument(instruction, self);
        }
    }

    fn exit(&self) {
        if self.refused.load(Ordering::Relaxed) {
            return;
        }
        let mut counts = Counts { blocks: self.blocks.load(Ordering::Relaxed), ..Counts::default() };
        match self.code.try_lock_for(EXIT_PATIENCE) {
            Some(code) => counts.dropped += code.dropped(),
            None => counts.complete = false,
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
        counts.dropped += findings.dropped();
        counts.complete &= counts.dropped == 0;
        sink.finish(&self.report(), &findings, &counts, fault);
        if self.config.exitcode != 0 && findings.unsuppressed() > 0 {
            process::exit_now(self.config.exitcode);
        }
    }
}
