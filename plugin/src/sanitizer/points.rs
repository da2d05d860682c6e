//! The sanitizer is whom the points tell.

use super::Sanitizer;
use crate::arch::platform::Platform;
use crate::config::Config;
use crate::origins::Origins;
use crate::patching::Entry;
use crate::points::sink::{RangeOf, Sees, Sink};
use crate::qemu::cpu::{CurrentCpu, CurrentVcpu};
use crate::user_mode::UserModes;
use icsan_model::addr::{Linear, Vcpu};
use icsan_model::arch::maintenance::{Accesses, Domain, Maintenance};
use icsan_model::detector::sync_log::SyncAt;
use icsan_model::detector::sync_origin::SyncOrigin;
use icsan_symbols::linux::kaslr::PlaceEvidence;

impl Sink for Sanitizer {
    fn platform(&self) -> &'static dyn Platform {
        self.platform
    }

    fn config(&self) -> &Config {
        &self.config
    }

    fn origins(&self) -> &Origins {
        &self.origins
    }

    fn user_modes(&self) -> &UserModes {
        &self.user_modes
    }

    fn synchronizes(&self, vcpu: &CurrentVcpu, at: SyncAt) {
        Sanitizer::synchronizes(self, vcpu, at);
    }

    fn entered(&self, vcpu: &CurrentVcpu, from: Option<Linear>) {
        Sanitizer::entered(self, vcpu, from);
    }

    fn maintains(&self, vcpu: Vcpu, operation: Maintenance, cpu: &CurrentCpu) {
        Sanitizer::maintains(self, vcpu, operation, cpu);
    }

    fn completes(&self, vcpu: Vcpu, barrier: (Domain, Accesses), cpu: &CurrentCpu) {
        Sanitizer::completes(self, vcpu, barrier, cpu);
    }

    fn stores_unseen(&self, vcpu: &CurrentVcpu, pc: Linear, linear: Linear, len: u64, cpu: &CurrentCpu) {
        Sanitizer::stores_unseen(self, vcpu, pc, linear, len, cpu);
    }

    fn caches(&self, vcpu: Vcpu, on: bool) {
        Sanitizer::caches(self, vcpu, on);
    }

    fn goes_to_user_mode(&self, vcpu: Vcpu, cpu: &CurrentCpu) {
        Sanitizer::goes_to_user_mode(self, vcpu, cpu);
    }

    fn enters_space(&self, vcpu: Vcpu, from: Option<u64>, to: u64) -> Option<SyncOrigin> {
        Sanitizer::enters_space(self, vcpu, from, to)
    }

    fn runs_task(&self, vcpu: Vcpu, from: Option<u64>, to: u64) {
        Sanitizer::runs_task(self, vcpu, from, to);
    }

    fn enters_function(&self, entry: Entry, sees: Sees<'_>, cpu: &CurrentCpu) {
        Sanitizer::enters_function(self, entry, sees, cpu);
    }

    fn calls_membarrier(&self, vcpu: Vcpu, sees: Sees<'_>, returns_to: Linear, stack: u64) {
        Sanitizer::calls_membarrier(self, vcpu, sees, returns_to, stack);
    }

    fn returns_to(&self, vcpu: Vcpu, sees: Sees<'_>, here: Linear, how: (u64, bool), cpu: &CurrentCpu) {
        Sanitizer::returns_to(self, vcpu, sees, here, how, cpu);
    }

    fn awaits_return(&self, here: Linear) -> bool {
        Sanitizer::awaits_return(self, here)
    }

    fn kernel_place(&self, evidence: &PlaceEvidence, runtime: u64, pc: Linear) {
        Sanitizer::kernel_place(self, evidence, runtime, pc);
    }

    fn is_interrupted_to_sync(&self, vcpu: Vcpu) {
        Sanitizer::is_interrupted_to_sync(self, vcpu);
    }

    fn learns_intended(&self, range_of: RangeOf<'_>) {
        self.intended.learn(range_of);
    }

    fn was_reset(&self, vcpu: &CurrentVcpu) {
        Sanitizer::was_reset(self, vcpu);
    }

    fn mark(&self, vcpu: Vcpu, value: u64) {
        Sanitizer::mark(self, vcpu, value);
    }

    fn watch(&self, on: bool) {
        Sanitizer::watch(self, on);
    }

    fn panics(&self, vcpu: Vcpu) {
        Sanitizer::panics(self, vcpu);
    }
}
