//! What QEMU tells that is tied to no instruction.

use super::Sanitizer;
use crate::qemu::cpu::{CurrentCpu, CurrentVcpu};
use crate::qemu::entries;
use crate::qemu::hooks::trapped_stores;
use crate::qemu::machine_events::MachineEvents;
use crate::qemu::process;
use crate::qemu::translation::Translation;
use icsan_model::addr::Linear;
use std::sync::atomic::Ordering;

impl MachineEvents for &'static Sanitizer {
    fn wants_entries(&self) -> bool {
        self.facts.entry.is_some()
    }

    fn vcpu_start(&self, current: &CurrentVcpu, _cpu: &CurrentCpu) {
        let vcpu = current.id();
        self.flags.start(vcpu);
        if self.wants_entries() && !entries::are_told_by_api() && !self.platform.watch_entries(vcpu) {
            entries::are_not_told();
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

    fn entered(&self, vcpu: &CurrentVcpu, from: Linear) {
        Sanitizer::entered(self, vcpu, Some(from));
    }

    fn privilege_changed(&self, vcpu: &CurrentVcpu, cpu: &CurrentCpu) {
        let comes_in = |counter| self.platform.is_vector(Linear(counter), cpu);
        if self.facts.counter.read(cpu).is_some_and(comes_in) {
            Sanitizer::entered(self, vcpu, self.platform.interrupted(cpu));
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
        trapped_stores::flushed();
        Sanitizer::flushed(self);
    }

    fn stands_still(&self, stopped: bool) {
        Sanitizer::stands_still(self, stopped);
    }

    fn translate(&self, block: &Translation<'_>, vcpu: Option<&CurrentVcpu>) {
        Sanitizer::translate(self, block, vcpu);
    }

    fn failed_exit(&self) -> Option<u8> {
        self.failed_exit_code()
    }

    fn exit(&self) -> Option<u8> {
        Sanitizer::exit(self)
    }
}
