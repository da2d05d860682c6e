//! What QEMU tells that is tied to no instruction.

use super::Sanitizer;
use crate::qemu::cpu::CurrentVcpu;
use crate::qemu::install::Hooks;
use crate::qemu::process;
use crate::qemu::translation::Translation;
use icsan_model::addr::Vcpu;
use std::sync::atomic::Ordering;

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
        Sanitizer::translate(self, block, vcpu);
    }

    fn failed_exit(&self) -> Option<u8> {
        self.failed_exit_code()
    }

    fn exit(&self) -> Option<u8> {
        Sanitizer::exit(self)
    }
}
