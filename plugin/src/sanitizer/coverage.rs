//! Coverage of commits: what a patching protocol is asked when it goes on, and what the answer is evidence of.

use super::Sanitizer;
use crate::arch::linux_abi::online_vcpus;
use crate::code::segment::Segment;
use crate::coverage::{Class, Row, Switches};
use crate::exposure::ExposureId;
use crate::gaps::Gap;
use crate::patching::{Asked, Context, Covering};
use crate::qemu::cpu::CurrentCpu;
use crate::report::evidence::{Evidence, Unsynced};
use crate::stores::store_side::StoreSide;
use crate::vcpu::VcpuState;
use icsan_model::addr::{Phys, Seq, Vcpu};
use icsan_model::detector::sync_log::SyncAt;
use icsan_model::verdict::hazard::Write;
use icsan_model::verdict::kind::Kind;
use icsan_symbols::linux::protocol::SyncedCpus;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Stores of one patch that evidence names, and that are looked at for old code that is held: the last ones.
const MAX_STORES: usize = 256;

/// A piece of code that a patch changed, and the place in the order of the change.
type Changed = (&'static Segment, Seq);

/// What a vCPU came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    /// Which one.
    pub vcpu: Vcpu,
    /// What it came to.
    pub class: Class,
    /// The exposure that begins.
    pub exposure: Option<ExposureId>,
}

impl Sanitizer {
    /// An event of the vCPU's, which the protocols may have meant to happen.
    pub(super) fn notes_intended(&self, state: &mut VcpuState, at: &SyncAt, seq: Seq) {
        let linux = self.facts.linux;
        if let Some(cpus) = self.intended.include(at.event, at.pc) {
            state.serialized.intended.happened(cpus, seq);
        }
        if linux.returns_sync.contains(at.event) {
            state.serialized.returned = seq;
        }
        if linux.switches_mapping.contains(at.event) {
            state.serialized.loaded = state.serialized.loads.take().map(|table| (table, seq));
        } else if linux.is_kernel(at.pc) && linux.explicit_syncs.contains(at.event) {
            state.serialized.explicit = seq;
        }
    }

    /// The vCPU runs a function that a protocol interrupts CPUs for, and nothing else: the entry or the return of the
    /// interrupt is what it means to happen. The return comes later; until then the vCPU executes what the interrupt
    /// has left to do.
    pub(super) fn is_interrupted_to_sync(&self, vcpu: Vcpu) {
        if let Some(state) = self.vcpus.get(usize::from(vcpu.0)) {
            state.lock().serialized.intended.happened(SyncedCpus::Others, self.flags.next());
        }
    }

    /// A protocol goes on, and takes these stores for done. Reports each vCPU that it did not make serialize since the
    /// last of them. Called with the code locked, in a callback of the vCPU that patches.
    pub(super) fn judges_coverage(&self, asked: Asked, side: &mut StoreSide, cpu: &CurrentCpu) {
        if !self.watching.load(Ordering::Relaxed) {
            return;
        }
        if let Covering::Membarrier { space } = asked.covering {
            return self.judges_membarrier(Arc::new(asked), space, side, cpu);
        }
        let online = online_vcpus(cpu, &self.config.symbols, self.vcpus.len())
            .filter(|_| asked.covering != Covering::TextPoke || self.intended.are_known());
        let Some(online) = online else {
            Gap::UnknownCoverage.note();
            return;
        };
        // Where every store is snooped at once a protocol need not do anything. A kernel of one CPU asks no other one,
        // and need not ask itself: its own stores are followed by branches.
        if self.config.profile.snoop || online.len() < 2 {
            return;
        }
        let patcher = side.who_stored_last(&asked.stores).unwrap_or(asked.vcpu);
        let asked = Asked { patcher, ..asked };
        let classes = online.into_iter().filter_map(|vcpu| {
            let switches =
                if vcpu == asked.patcher { Switches::Own(self.facts.linux.switches_mapping) } else { Switches::Lucky };
            self.class_of(vcpu, &asked, switches)
        });
        let classes: Vec<Answer> = classes.collect();
        self.judged(&asked, true, classes, side, cpu);
    }

    /// A membarrier returns. Of the process's vCPUs those are judged that are in user mode; the others of them when
    /// they go there. A vCPU that comes to the process later does so by a load of its page table, which counts.
    fn judges_membarrier(&self, asked: Arc<Asked>, space: u64, side: &mut StoreSide, cpu: &CurrentCpu) {
        // Without the kernel's entries it is not known who is in user mode.
        if self.config.symbols.kernel_table().is_none() || self.config.profile.snoop {
            return;
        }
        if !self.origins.known() {
            Gap::UnknownCoverage.note();
            return;
        }
        let (mut classes, patching) = (Vec::new(), side.patching_known());
        let process =
            (0..self.vcpus.len()).map(|vcpu| Vcpu(vcpu as u16)).filter(|vcpu| patching.is_in_process(*vcpu, space));
        for vcpu in process {
            let Some(state) = self.vcpus.get(usize::from(vcpu.0)) else { continue };
            state.lock().asked = Some(Arc::clone(&asked));
            if self.user_modes.awaits(vcpu) {
                classes.extend(self.answers(vcpu, patching.is_isolated(space)).map(|(answer, _)| answer));
            }
        }
        self.judged(&asked, true, classes, side, cpu);
    }

    /// What a vCPU that is in user mode was asked, and what it came to, if no other vCPU took that.
    fn answers(&self, vcpu: Vcpu, isolated: bool) -> Option<(Answer, Arc<Asked>)> {
        let asked = self.vcpus.get(usize::from(vcpu.0))?.lock().asked.take()?;
        self.user_modes.was_asked(vcpu);
        let switches = if vcpu != asked.vcpu || isolated { Switches::Intended } else { Switches::Lucky };
        Some((self.class_of(vcpu, &asked, switches)?, asked))
    }

    /// The vCPU goes to user mode.
    #[inline]
    pub fn goes_to_user_mode(&self, vcpu: Vcpu, cpu: &CurrentCpu) {
        if self.user_modes.enters(vcpu) {
            self.is_asked(vcpu, cpu);
        }
    }

    #[cold]
    fn is_asked(&self, vcpu: Vcpu, cpu: &CurrentCpu) {
        let mut code = self.code.lock();
        let Some(side) = &mut code.side else { return };
        let space = || match self.vcpus.get(usize::from(vcpu.0))?.lock().asked.as_deref()?.covering {
            Covering::Membarrier { space } => Some(space),
            Covering::TextPoke | Covering::By(_) => None,
        };
        let Some(space) = space() else { return };
        // It runs another process now. If it comes back, then by a load of this one's page table, which counts.
        if !side.patching_known().is_in_process(vcpu, space) {
            self.vcpus.get(usize::from(vcpu.0)).into_iter().for_each(|state| state.lock().asked = None);
            self.user_modes.was_asked(vcpu);
            return;
        }
        if let Some((answer, asked)) = self.answers(vcpu, side.patching_known().is_isolated(space)) {
            self.judged(&asked, false, vec![answer], side, cpu);
        }
    }

    fn row(&self, asked: &Asked) -> Row {
        Row { boot: self.config.symbols.boot(), asker: asked.asker, missing: asked.missing }
    }

    /// What a vCPU came to. If it is exposed, that begins now.
    fn class_of(&self, vcpu: Vcpu, asked: &Asked, switches: Switches) -> Option<Answer> {
        let last = *asked.stores.last()?;
        let mut state = self.vcpus.get(usize::from(vcpu.0))?.lock();
        let class = Class::of(&state.serialized, last, asked.covering, switches);
        // Under the same lock: the event that ends it comes later, and finds it.
        let exposure =
            if class == Class::Exposed { self.begins_exposure(&mut state, self.row(asked), last) } else { None };
        let deferred =
            matches!(class, Class::Lucky(_)) && state.serialized.log.kept_since(last).any(|at| self.is_deferral(&at));
        Some(Answer { vcpu, class: if deferred { Class::Deferred } else { class }, exposure })
    }

    /// Counts what a protocol came to; `new`: its commit, or step, has not been counted yet. Reports each vCPU that it
    /// did not make serialize.
    fn judged(&self, asked: &Asked, new: bool, answers: Vec<Answer>, side: &mut StoreSide, cpu: &CurrentCpu) {
        self.coverage.lock().add(self.row(asked), new, answers.iter().map(|answer| answer.class));
        let bad: Vec<_> =
            answers.into_iter().filter(|answer| matches!(answer.class, Class::Lucky(_) | Class::Exposed)).collect();
        if bad.is_empty() {
            return;
        }
        let from = asked.stores.len().saturating_sub(MAX_STORES);
        let writes: Vec<Write> =
            asked.stores[from..].iter().filter_map(|seq| Write::of(side.past().memory(), *seq)).collect();
        let changed: Vec<Changed> = side.changed_by(&writes);
        self.flags.fence();
        for answer in bad {
            let evidence = self.evidence_of_coverage(answer, asked, &writes, &changed, side, cpu);
            if let Some(evidence) = self.goes_on_exposed(answer, &writes, evidence) {
                self.found(Kind::Unsynced, evidence);
            }
        }
    }

    fn evidence_of_coverage(
        &self,
        Answer { vcpu, class, exposure }: Answer,
        asked: &Asked,
        writes: &[Write],
        changed: &[Changed],
        side: &StoreSide,
        cpu: &CurrentCpu,
    ) -> Evidence {
        let holds = |(segment, change): &&Changed| {
            self.flags.holds_since(vcpu, segment.slot).is_some_and(|since| since < *change)
        };
        let (last_sync, last_origin, epoch) =
            self.vcpus.get(usize::from(vcpu.0)).map_or_else(Default::default, |state| {
                let state = state.lock();
                (state.last_sync, state.last_origin, state.epoch)
            });
        let code = changed.first().map(|(segment, _)| segment.run().linear());
        let linear = asked.site.or(code).or(asked.asker.function()).unwrap_or_default();
        let unsynced = Unsynced {
            asker: asked.asker,
            covering: asked.covering,
            missing: asked.missing,
            goes_on: asked.vcpu,
            patcher: asked.patcher,
            luck: if let Class::Lucky(by) = class { Some(by) } else { None },
            exposure,
            ended: None,
            sleeps: !self.flags.is_running(vcpu),
            user_mode: self.origins.known().then(|| self.user_modes.is_in_user_mode(vcpu)),
            held: changed.iter().filter(holds).count(),
            changed: changed.len(),
            stores: asked.stores.len(),
            chain: asked.chain.clone(),
            context: asked.context.clone(),
        };
        Evidence {
            vcpu,
            linear,
            physical: cpu.physical(linear.0).map(Phys),
            memory: self.platform.instruction_at(cpu, linear).unwrap_or_default(),
            candidates: Vec::new(),
            all_candidates: true,
            injected: None,
            writes: Some(writes.to_vec()),
            writers: writes.iter().map(|write| side.patching_known().writer(write.seq).cloned()).collect(),
            context: Context::default(),
            chain: Vec::new(),
            moved: false,
            last_sync,
            last_origin,
            epoch,
            boot: self.config.symbols.boot(),
            marker: self.marker.load(Ordering::Relaxed),
            unsynced: Some(Box::new(unsynced)),
        }
    }
}
