//! Coverage of commits: what a patching protocol is asked when it goes on, and what the answer is evidence of.

use super::Sanitizer;
use crate::coverage::{Class, Row};
use crate::gaps::Gap;
use crate::patching::{Asked, Context, Covering};
use crate::qemu::cpu::CurrentCpu;
use crate::report::findings::Evidence;
use crate::report::unsynced::Unsynced;
use crate::segment::Segment;
use crate::store_side::StoreSide;
use crate::x86;
use icsan_model::addr::{Phys, Seq, Vcpu};
use icsan_model::hazard::Write;
use std::ops::Range;
use std::sync::atomic::Ordering;

/// Stores of one patch that evidence names, and that are looked at for old code that is held: the last ones.
const MAX_STORES: usize = 256;

/// A piece of code that a patch changed, and the place in the order of the change.
type Changed = (&'static Segment, Seq);

impl Sanitizer {
    /// The kernel's place is known: `range_of` says where its functions are.
    pub fn learns_intended(&self, range_of: impl Fn(&str) -> Option<Range<u64>>) {
        self.intended.learn(range_of);
    }

    /// A protocol goes on, and takes these stores for done. Answers with evidence of each vCPU that it did not make
    /// serialize since the last of them. Called with the code locked, in a callback of the vCPU that patches.
    pub(super) fn judges_coverage(&self, asked: Asked, side: &mut StoreSide, cpu: &CurrentCpu) -> Vec<Evidence> {
        let Some(last) = asked.stores.last().copied().filter(|_| self.watching.load(Ordering::Relaxed)) else { return Vec::new() };
        let online = x86::online_vcpus(cpu, &self.config.symbols, self.vcpus.len())
            .filter(|_| asked.covering != Covering::TextPoke || self.intended.are_known());
        let Some(online) = online else {
            Gap::UnknownCoverage.note();
            return Vec::new();
        };
        // Where every store is snooped at once a protocol need not do anything.
        if self.config.profile.snoop {
            return Vec::new();
        }
        // A kernel of one CPU asks nobody else, and need not ask itself: its own stores are followed by branches.
        if online.len() < 2 {
            return Vec::new();
        }
        let class = |vcpu: Vcpu| {
            let switches = (vcpu == asked.vcpu).then(x86::switches_mapping);
            Some((vcpu, Class::of(&self.vcpus.get(usize::from(vcpu.0))?.lock(), last, asked.covering, switches)))
        };
        let classes: Vec<(Vcpu, Class)> = online.into_iter().filter_map(class).collect();
        let row = Row { boot: self.config.symbols.boot(), function: asked.function, missing: asked.missing };
        self.coverage.lock().add(row, classes.iter().map(|(_, class)| *class));
        let bad: Vec<_> = classes.into_iter().filter(|(_, class)| matches!(class, Class::Lucky(_) | Class::Exposed)).collect();
        if bad.is_empty() {
            return Vec::new();
        }
        let from = asked.stores.len().saturating_sub(MAX_STORES);
        let writes: Vec<Write> = asked.stores[from..].iter().filter_map(|seq| Write::of(side.past().memory(), *seq)).collect();
        let changed: Vec<Changed> = side.changed_by(&writes);
        self.flags.fence();
        bad.into_iter().map(|(vcpu, class)| self.evidence_of_coverage((vcpu, class), &asked, &writes, &changed, side, cpu)).collect()
    }

    fn evidence_of_coverage(
        &self,
        (vcpu, class): (Vcpu, Class),
        asked: &Asked,
        writes: &[Write],
        changed: &[Changed],
        side: &StoreSide,
        cpu: &CurrentCpu,
    ) -> Evidence {
        let holds = |(segment, change): &&Changed| self.flags.holds_since(vcpu, segment.slot).is_some_and(|since| since < *change);
        let (last_sync, last_origin, epoch) = self.vcpus.get(usize::from(vcpu.0)).map_or_else(Default::default, |state| {
            let state = state.lock();
            (state.last_sync, state.last_origin, state.epoch)
        });
        let code = changed.first().map(|(segment, _)| segment.run().linear());
        let linear = asked.site.or(code).unwrap_or(asked.function);
        let unsynced = Unsynced {
            function: asked.function,
            covering: asked.covering,
            missing: asked.missing,
            patcher: asked.vcpu,
            luck: if let Class::Lucky(by) = class { Some(by) } else { None },
            sleeps: !self.flags.is_running(vcpu),
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
            memory: x86::instruction_at(cpu, linear).unwrap_or_default(),
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
