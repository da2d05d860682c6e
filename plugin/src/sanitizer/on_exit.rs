//! The end: what is still to be decided, the summary, and QEMU's exit code.

use super::Sanitizer;
use crate::HEAP;
use crate::gaps::Gap;
use crate::qemu::accelerator::Accelerator;
use crate::qemu::{guard, hooks, locks, process};
use crate::repair::Repair;
use crate::report::Counts;
use crate::report::exit_code::{UNPROVEN, exit_code};
use icsan_model::addr::Vcpu;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long the report waits for a vCPU that is still inside a callback when QEMU exits.
const EXIT_PATIENCE: Duration = Duration::from_secs(2);

impl Sanitizer {
    /// QEMU's exit code if the end goes wrong.
    pub(super) fn failed_exit_code(&self) -> Option<u8> {
        (!self.refused.load(Ordering::Relaxed)).then(|| exit_code(self.config.exitcode, false, false)).flatten()
    }

    /// QEMU is about to exit: writes the report. Answers with the exit code that QEMU's own gives way to, if one does.
    pub(super) fn exit(&self) -> Option<u8> {
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
        counts.hooks = hooks::counts();
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
            return self.failed_exit_code();
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
