//! Executions: which of them need a closer look, and what it finds.

use super::{Code, Sanitizer, light};
use crate::code::segment::Segment;
use crate::code::virtual_aliases;
use crate::patching::Context;
use crate::qemu::cpu::{CurrentCpu, CurrentVcpu};
use crate::qemu::divert::{Divert, MayDivert};
use crate::qemu::hooks::stale_translations;
use crate::qemu::locks::{Mutex, MutexGuard};
use crate::qemu::scoreboard::VcpuSlots;
use crate::qemu::translation::Payload;
use crate::report::evidence::{Evidence, Origin, Shown};
use crate::skipped::Recorded;
use crate::stores::store_side::{Looked, StoreSide};
use crate::vcpu::{Mismatch, VcpuState};
use icsan_model::addr::{Linear, Phys, Seq, Vcpu};
use icsan_model::detector::flags::{DONE, Flag, OwnBoard};
use icsan_model::detector::history::Judged;
use icsan_model::detector::light::Conflict;
use icsan_model::verdict::candidates::Candidates;
use icsan_model::verdict::hazard::Hazard;
use icsan_model::verdict::kind::Kind;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long an execution waits before it looks again whether a store has been told of.
const A_MOMENT: Duration = Duration::from_micros(50);

impl Payload for Segment {
    #[inline(always)]
    fn passes(&'static self, vcpu: &CurrentVcpu) -> bool {
        Sanitizer::the_one().is_some_and(|sanitizer| sanitizer.takes_fast_path(self, vcpu))
    }

    fn fire(&'static self, vcpu: &CurrentVcpu, cpu: &CurrentCpu) {
        if let Some(sanitizer) = Sanitizer::the_one() {
            sanitizer.executes(self, vcpu, cpu);
        }
    }
}

impl MayDivert for Segment {
    fn decide(&'static self, vcpu: &CurrentVcpu, cpu: &CurrentCpu) -> Option<Divert> {
        Sanitizer::the_one()?.executes(self, vcpu, cpu)
    }

    fn decided(&'static self, vcpu: &CurrentVcpu, carried_out: Result<(), &'static str>) {
        if let Some(sanitizer) = Sanitizer::the_one() {
            sanitizer.injected(vcpu, carried_out);
        }
    }
}

impl Sanitizer {
    /// `vcpu` is about to execute `segment`, for the first time in its epoch, or again after something happened to its
    /// bytes, or memory disagreed the last time. With `inject`, answers with what shall be executed instead.
    pub fn executes(
        &'static self,
        segment: &'static Segment,
        current: &CurrentVcpu,
        cpu: &CurrentCpu,
    ) -> Option<Divert> {
        self.begins_anew(current);
        let vcpu = current.id();
        let (state, slots) = (self.vcpus.get(usize::from(vcpu.0))?, self.flags.board().of(current)?);
        slots.reserve();
        if !self.watching.load(Ordering::Relaxed) {
            return None;
        }
        if self.repair.is_some_and(|repair| repair.doubts(vcpu, segment.run().linear())) {
            return None;
        }
        let segment = if segment.may_run_elsewhere() { self.where_it_runs(segment, cpu) } else { segment };
        let skips = || slots.flag(segment.slot) as u64 >= DONE;
        if self.recorded.is_some() && skips() && !self.skipped_may_matter(segment, state, &slots) {
            return None;
        }
        // A recording must have the order in which things were seen.
        let mut recorded = self.recorded.is_some().then(|| self.code.lock());
        // Before memory is looked at: a store in between counts as later.
        let now = self.flags.now();
        if !segment.host.holds() {
            if let Some(repair) = self.repair {
                repair.asks_again(current);
            }
            // Who was told of in this epoch is not asked about again.
            if !skips() {
                self.runs_stale_block(segment, vcpu, state, &slots, cpu);
            }
            // QEMU's lock of a page is taken without the code's.
            drop(recorded);
            if let Some(host) = segment.host.identity() {
                stale_translations::drop_outdated(host, segment.run().bytes().len() as u64);
            }
            return None;
        }
        // From here on nearly every call leaves without a lock.
        if segment.suspected() {
            state.lock().agrees(segment);
        }
        if let Some(Code { table, side: Some(side) }) = recorded.as_deref_mut() {
            side.catch_up(segment, || self.flags.next()).iter().for_each(|touched| self.invalidate(touched));
            let mut state = state.lock();
            let last = state.recorded.last(segment.slot, state.epoch);
            let mut matters =
                || segment.place().is_some_and(|place| side.past().may_matter(segment.run(), place, last.as_ref()));
            if !skips() || matters() {
                let looked = Looked { vcpu, state: &state, slots: &slots, now: self.flags.now() };
                side.record_run(table, segment, &looked, cpu);
            }
            let count = self.recorded.as_ref().map_or(0, |changes| changes.load(Ordering::Relaxed));
            let noted = Recorded { epoch: state.epoch, count, seq: self.flags.now() };
            state.recorded.note(segment.slot, noted);
            if skips() {
                return None;
            }
        }
        let slot = slots.slot(segment.slot)?;
        if self.is_uncontested(segment, &slots) && self.flags.settles(&slots, segment, &slot, now) {
            return None;
        }
        if self.config.writers && segment.place().is_some() {
            let code = recorded.unwrap_or_else(|| self.code.lock());
            self.takes_slow_path(code, segment, (vcpu, now), state, &slots, cpu)
        } else {
            slots.set(&slot, Flag::Executed, now);
            self.judges_conflicts(segment, vcpu, state, &slots, cpu);
            None
        }
    }

    /// With a recording: may an execution matter to its reader that the flag says no to? Without the lock; yes if
    /// anything happened since it was recorded.
    fn skipped_may_matter(&self, segment: &Segment, state: &Mutex<VcpuState>, slots: &VcpuSlots<'_>) -> bool {
        let Some(changes) = &self.recorded else { return false };
        let state = state.lock();
        let last = state.recorded.last(segment.slot, state.epoch);
        let happened = last.is_none_or(|last| last.count != changes.load(Ordering::Relaxed));
        happened && slots.flag(segment.slot) == Flag::Executed
    }

    /// [`Sanitizer::executes`] for most calls: memory holds the code, and nothing happened to it. `false`: it did
    /// nothing, and that is to be called. Without a lock, a call, and anything that could panic: no guard is around it.
    #[inline(always)]
    pub fn takes_fast_path(&self, segment: &'static Segment, current: &CurrentVcpu) -> bool {
        if !self.fast_path_is_open.load(Ordering::Relaxed) || !segment.is_ordinary() {
            return false;
        }
        let Some(slots) = self.flags.board().of(current) else { return false };
        self.flags.fast_path(&slots, segment, segment.host.surely())
    }

    /// Does no other segment contest it in a way that needs the slow path? With the store side one that does lies in a
    /// page that moved, and anything near it may have been fetched from the old place. In the light mode only those
    /// that were executed in this epoch count.
    fn is_uncontested(&self, segment: &Segment, slots: &VcpuSlots<'_>) -> bool {
        let conflicting_ran = || segment.may_conflict(|slot| slots.flag(slot).executed());
        !segment.contested() || self.config.profile.snoop || !self.config.writers && !conflicting_ran()
    }

    /// The segment's code at the linear address that the vCPU executes it at. Where that cannot be told it is the one
    /// that it was translated at.
    fn where_it_runs(&'static self, segment: &'static Segment, cpu: &CurrentCpu) -> &'static Segment {
        let translated = segment.run().linear();
        let shift =
            self.facts.counter.read(cpu).map_or(0, |counter| virtual_aliases::shift(translated, Linear(counter)));
        if shift == 0 {
            return segment;
        }
        let mut code = self.code.lock();
        let Code { table, side } = &mut *code;
        let Some((there, new)) = table.shifted(segment, shift, |slot| self.flags.board().reserve(slot)) else {
            return segment;
        };
        if let Some(side) = side.as_mut().filter(|_| new) {
            side.add(there);
        }
        there
    }

    /// QEMU runs a block whose bytes memory does not hold.
    fn runs_stale_block(
        &self,
        segment: &'static Segment,
        vcpu: Vcpu,
        state: &Mutex<VcpuState>,
        slots: &VcpuSlots<'_>,
        cpu: &CurrentCpu,
    ) {
        // The slot stays clear, so that the next execution comes here, too; and the old bytes are no evidence of
        // anything that the guest did.
        segment.suspect();
        let mut state = state.lock();
        if state.mismatch(segment) == Mismatch::StaleBlock {
            if let Some(slot) = slots.slot(segment.slot) {
                slots.set(&slot, Flag::StaleBlock, Seq(0));
            }
            let evidence = self.evidence_of_light(
                &state,
                vcpu,
                cpu,
                light::found(&stale_block(segment), self.config.profile.buffers.chunk, self.platform),
            );
            drop(state);
            self.found(Kind::Emulator, evidence);
        }
    }

    /// The light mode's judgement.
    fn judges_conflicts(
        &self,
        segment: &'static Segment,
        vcpu: Vcpu,
        state: &Mutex<VcpuState>,
        slots: &VcpuSlots<'_>,
        cpu: &CurrentCpu,
    ) {
        let (found, exempt) = light::judge(
            segment,
            slots,
            self.config.profile.exemptions,
            self.config.profile.buffers.chunk,
            self.platform,
        );
        if found.is_empty() && exempt == 0 {
            return;
        }
        let mut state = state.lock();
        state.exempt += exempt;
        let evidence: Vec<Evidence> =
            found.into_iter().map(|found| self.evidence_of_light(&state, vcpu, cpu, found)).collect();
        drop(state);
        let kind = light::kind(&self.config.profile);
        evidence.into_iter().for_each(|evidence| self.found(kind, evidence));
    }

    /// The slow path: the store side's judgement. The vCPU comes with a place in the order from before memory was found
    /// to hold the segment.
    fn takes_slow_path(
        &'static self,
        mut code: MutexGuard<'_, Code>,
        segment: &'static Segment,
        (vcpu, before): (Vcpu, Seq),
        state: &Mutex<VcpuState>,
        slots: &VcpuSlots<'_>,
        cpu: &CurrentCpu,
    ) -> Option<Divert> {
        // A recording has the order in which things were seen: it may not wait for what happened before.
        while self.recorded.is_none() && code.side.as_ref().is_some_and(|side| side.awaits_store(segment)) {
            MutexGuard::unlocked(&mut code, || std::thread::sleep(A_MOMENT));
        }
        let Code { table, side } = &mut *code;
        let (side, place) = (side.as_mut()?, segment.place()?);
        for (page, host) in side.unknown_pages(place) {
            self.filter.mark(page);
            side.learn_page(page, &host);
        }
        let moved = segment.contested() && !segment.conflicting(|slot| slots.flag(slot).executed()).is_empty();
        // A page that moved did so after whatever was executed at its old place.
        let now = if moved { self.flags.next() } else { self.flags.now() };
        let mut state = state.lock();
        let looked = Looked { vcpu, state: &state, slots, now };
        let (judged, candidates) = side.judge(table, segment, place, &looked, cpu, self.injecting.is_some());
        let others = candidates.as_ref().map_or(&[][..], Candidates::others);
        // Set before the lock is let go of: whatever happens to these bytes from now on finds the flag. Who has a
        // choice has it every time.
        let since = if moved { now } else { before };
        slots.set(&slots.slot(segment.slot)?, if others.is_empty() { Flag::Executed } else { Flag::Recheck }, since);
        let divert = self.chooses(segment, others, vcpu, &mut state, cpu);
        let mut hazards = Vec::new();
        for Judged { linear, verdict } in judged {
            state.exempt += verdict.exempt as u64;
            verdict.hazard.iter().for_each(|hazard| state.meets(hazard));
            // Where a hazard was found, all that is missing are more candidates of it.
            state.incomplete += u64::from(!verdict.complete && verdict.hazard.is_none());
            let injected = state
                .pending
                .as_ref()
                .filter(|injected| injected.linear == linear)
                .map(|injected| injected.chosen.clone());
            let all_candidates = verdict.complete;
            hazards.extend(verdict.hazard.map(|hazard| {
                let evidence = self.evidence_of_hazard(*hazard, side, cpu);
                (evidence.0, Evidence { injected, all_candidates, last_origin: state.last_origin, ..evidence.1 })
            }));
        }
        drop(state);
        drop(code);
        hazards.into_iter().for_each(|(kind, evidence)| self.found(kind, evidence));
        divert
    }

    fn evidence_of_light(&self, state: &VcpuState, vcpu: Vcpu, cpu: &CurrentCpu, found: light::Found) -> Evidence {
        Evidence {
            vcpu,
            linear: found.linear,
            physical: cpu.physical(found.linear.0).map(Phys),
            memory: found.memory,
            candidates: found.candidates,
            injected: None,
            all_candidates: true,
            writes: None,
            writers: Vec::new(),
            context: Context::default(),
            chain: Vec::new(),
            moved: false,
            last_sync: state.last_sync,
            last_origin: state.last_origin,
            epoch: state.epoch,
            boot: self.config.symbols.boot(),
            marker: self.marker.load(Ordering::Relaxed),
            unsynced: None,
        }
    }

    fn evidence_of_hazard(&self, hazard: Hazard, side: &mut StoreSide, cpu: &CurrentCpu) -> (Kind, Evidence) {
        let memory = Shown { bytes: hazard.memory.clone(), origin: Origin::Memory };
        let others = hazard.candidates.into_iter().map(|candidate| {
            let before = candidate.separated_by.first().copied();
            let kind = candidate.kind.unwrap_or(hazard.kind);
            let origin = Origin::Versions { versions: candidate.versions, before, kind, exempt: candidate.exempt };
            Shown { bytes: candidate.bytes, origin }
        });
        let kind = hazard.kind;
        let evidence = Evidence {
            vcpu: hazard.vcpu,
            linear: hazard.linear,
            physical: Some(hazard.phys),
            injected: None,
            all_candidates: true,
            candidates: std::iter::once(memory).chain(others).collect(),
            memory: hazard.memory,
            writers: hazard.writes.iter().map(|write| side.patching_known().writer(write.seq).cloned()).collect(),
            context: side.context(hazard.vcpu, self.platform.privilege(cpu), cpu),
            chain: self.platform.callers(cpu, &self.config.symbols),
            writes: Some(hazard.writes),
            moved: hazard.remapped.is_some(),
            last_sync: hazard.last_sync,
            last_origin: None,
            epoch: hazard.epoch,
            boot: self.config.symbols.boot(),
            marker: self.marker.load(Ordering::Relaxed),
            unsynced: None,
        };
        (kind, evidence)
    }
}

/// A stale translation block, in the form of a conflict: what it runs is the older version.
fn stale_block(segment: &Segment) -> Conflict {
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
