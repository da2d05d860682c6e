//! `inject=`: from a choice to what becomes of it.

use super::Sanitizer;
use crate::code::segment::Segment;
use crate::injection::{Inject, Injected, Injections, Trail};
use crate::qemu::cpu::{CurrentCpu, CurrentVcpu};
use crate::qemu::divert::{Divert, FollowsTrail, Trailing};
use crate::qemu::locks::Mutex;
use crate::vcpu::VcpuState;
use icsan_model::addr::{Linear, Vcpu};
use icsan_model::detector::sync_log::SyncAt;
use icsan_model::verdict::candidates::Candidate;
use std::sync::atomic::Ordering;

/// What `inject=` needs.
#[derive(Debug)]
pub(super) struct Injecting {
    inject: Inject,
    pub(super) trailing: Trailing,
    pub(super) known: Mutex<Injections>,
}

impl Injecting {
    /// To be made at installation. `None` outside of QEMU.
    pub(super) fn new(inject: Inject) -> Option<Self> {
        Some(Self { inject, trailing: Trailing::new()?, known: Mutex::default() })
    }
}

impl Sanitizer {
    /// `vcpu` may execute any of `others` in place of a segment's first instruction. Does it?
    pub(super) fn chooses(
        &self,
        segment: &Segment,
        others: &[Candidate],
        vcpu: Vcpu,
        state: &mut VcpuState,
        cpu: &CurrentCpu,
    ) -> Option<Divert> {
        let injecting = self.injecting.as_ref().filter(|_| !others.is_empty())?;
        let (linear, memory) = segment.run().instructions().next()?;
        let mut known = injecting.known.lock();
        let visit = known.visit(vcpu, linear);
        let chosen = injecting.inject.choose(others, vcpu, linear, visit)?;
        match self.platform.carry_out(cpu, &chosen.bytes, linear) {
            Ok(divert) => {
                state.pending = Some(Injected {
                    vcpu,
                    linear,
                    memory: memory.to_vec(),
                    chosen: chosen.bytes.clone(),
                    kind: chosen.kind.filter(|_| !chosen.exempt),
                    epoch: state.epoch,
                    boot: self.config.symbols.boot(),
                    marker: self.marker.load(Ordering::Relaxed),
                });
                Some(divert)
            }
            Err(why) => {
                known.refuse(&chosen.bytes, why);
                None
            }
        }
    }

    /// What `vcpu` chose was carried out, or was not.
    pub fn injected(&self, vcpu: &CurrentVcpu, carried_out: Result<(), &'static str>) {
        let (Some(injecting), Some(state)) = (&self.injecting, self.vcpus.get(usize::from(vcpu.id().0))) else {
            return;
        };
        let mut state = state.lock();
        let Some(injected) = state.pending.take() else { return };
        let mut known = injecting.known.lock();
        match carried_out {
            Err(why) => known.refuse(&injected.chosen, why.to_owned()),
            // A vCPU follows one trail at a time: what it is made to execute meanwhile belongs to it.
            Ok(()) => {
                if let Some(record) = known.add(injected)
                    && state.trail.is_none()
                {
                    state.trail = Some((record, Trail::default()));
                    injecting.trailing.set(vcpu, true);
                }
            }
        }
    }

    /// A vCPU serializes, or QEMU ends: that is the end of its trail, if it follows one.
    pub(super) fn ends_trail(&self, state: &mut VcpuState, end: Option<(&CurrentVcpu, SyncAt)>) {
        let (Some(injecting), Some((record, mut trail))) = (&self.injecting, state.trail.take()) else { return };
        // When QEMU ends this is not the vCPU's own thread, and nothing looks at the flag any more.
        if let Some((vcpu, _)) = end {
            injecting.trailing.set(vcpu, false);
        }
        let mut known = injecting.known.lock();
        trail.end = end.map(|(_, at)| at);
        if let Some(record) = known.trail(record, trail) {
            self.sink.lock().injection(&self.report(), record);
        }
    }
}

impl FollowsTrail for Sanitizer {
    fn get() -> Option<&'static Self> {
        Sanitizer::the_one()
    }

    fn runs_block(&'static self, vcpu: &CurrentVcpu, block: Linear) {
        let Some(state) = self.vcpus.get(usize::from(vcpu.id().0)) else { return };
        if let Some((_, trail)) = &mut state.lock().trail {
            trail.push(block);
        }
    }
}
