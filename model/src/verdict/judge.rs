//! The judgement on candidates: what separates each from memory, whether an exemption covers it, and what kind of
//! hazard is left.

use crate::addr::{Linear, Seq};
use crate::arch::exemption::Exemption;
use crate::arch::maintenance::Caches;
use crate::event::Store;
use crate::fetch::window::View;
use crate::verdict::candidates::{Candidate, Found};
use crate::verdict::kind::Kind;
use std::collections::BTreeSet;

/// One execution, as far as the judgement needs it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Judge<'a> {
    pub view: View<'a>,
    pub linear: Linear,
    pub memory: &'a [u8],
    pub exemptions: &'a [Exemption],
    pub caches: Caches,
}

impl Judge<'_> {
    /// Makes a candidate of what was found.
    pub fn candidate(&self, found: Found, speculative: bool) -> Candidate {
        let separating = self.separating(&found);
        let separated_by: BTreeSet<Seq> = separating.iter().flat_map(|(_, stores)| stores).copied().collect();
        let lacks_commit =
            separated_by.iter().any(|seq| self.view.memory.record(*seq).is_some_and(|record| record.committed));
        let covered = found.whole
            && self.exemptions.iter().any(|exemption| self.covers(*exemption, &found, &separating, &separated_by));
        let kind = if speculative {
            Kind::Speculative
        } else if !found.whole {
            Kind::Torn
        } else if lacks_commit {
            Kind::Stale
        } else {
            match self.caches {
                Caches::Coherent => self.worst(&separating),
                Caches::Maintained(_) => self.missing(&separating),
            }
        };
        Candidate {
            kind: Some(kind),
            exempt: covered && !lacks_commit,
            lacks_commit,
            whole: found.whole,
            speculative,
            separated_by: separated_by.into_iter().collect(),
            versions: found.versions,
            bytes: found.bytes,
        }
    }

    /// For each byte that differs from memory now, its address and the stores that changed it since.
    fn separating(&self, found: &Found) -> Vec<(Linear, Vec<Seq>)> {
        let mut differing = Vec::new();
        for (i, (byte, until)) in found.bytes.iter().zip(&found.until).enumerate() {
            let linear = self.linear.offset(i as u64);
            let (phys, now) = self.view.byte_now(linear);
            if now != Some(*byte) {
                differing.push((
                    linear,
                    phys.map_or_else(Vec::new, |phys| self.view.memory.changes(phys, *until).collect()),
                ));
            }
        }
        differing
    }

    fn covers(
        &self,
        exemption: Exemption,
        found: &Found,
        separating: &[(Linear, Vec<Seq>)],
        all: &BTreeSet<Seq>,
    ) -> bool {
        match exemption {
            Exemption::Breakpoint(_) => exemption.covers_breakpoint(self.memory, &found.bytes),
            Exemption::Listed(_) => exemption.covers_listed(self.memory, &found.bytes),
            // One store, seen to be made by a CPU (a writer that was not seen may have made several), to every byte
            // that differs.
            Exemption::AlignedStore(block) => {
                let only = all
                    .iter()
                    .next()
                    .filter(|_| all.len() == 1 && separating.iter().all(|(_, stores)| stores.len() == 1));
                only.and_then(|seq| self.view.memory.record(*seq))
                    .is_some_and(|record| record.store.vcpu.is_some() && in_one_block(&record.store, u64::from(block)))
            }
        }
    }

    /// The kind that the worst of these stores makes it; the address is that of the byte which they changed.
    fn worst(&self, separating: &[(Linear, Vec<Seq>)]) -> Kind {
        let kinds =
            separating.iter().flat_map(|(linear, stores)| stores.iter().map(|seq| self.kind_of_store(*linear, *seq)));
        kinds.min().unwrap_or(Kind::Unserialized)
    }

    /// The kind that the oldest of these stores makes it: the first step that is missing after it.
    fn missing(&self, separating: &[(Linear, Vec<Seq>)]) -> Kind {
        let oldest = separating.iter().flat_map(|(_, stores)| stores).min();
        let missing = oldest.into_iter().flat_map(|oldest| {
            let touched = separating.iter().filter(|(_, stores)| stores.contains(oldest));
            touched.filter_map(|(linear, _)| {
                let phys = self.view.mapping.translate(*linear)?;
                Some(self.view.cache.missing(self.view.vcpu, phys, *oldest, self.view.memory, self.view.now))
            })
        });
        missing.min().unwrap_or(Kind::Unsynchronized)
    }

    fn kind_of_store(&self, linear: Linear, seq: Seq) -> Kind {
        let Some(record) = self.view.memory.record(seq).filter(|record| record.store.vcpu == Some(self.view.vcpu))
        else {
            return Kind::Unserialized;
        };
        let at = self.view.mapping.translate(linear).map(|phys| phys.0.wrapping_sub(record.store.phys.0));
        // An own store through an address that was not seen is not known to be through this one.
        if at.zip(record.store.linear).is_some_and(|(at, through)| through.offset(at) == linear) {
            Kind::Smc
        } else {
            Kind::Alias
        }
    }
}

fn in_one_block(store: &Store, block: u64) -> bool {
    let last = store.phys.offset(store.bytes.len() as u64 - 1);
    block.is_power_of_two() && store.phys.align_down(block) == last.align_down(block)
}

/// The kind of the hazard that these candidates make, if they make one.
pub(crate) fn kind(candidates: &[Candidate]) -> Option<Kind> {
    candidates.iter().filter(|candidate| !candidate.exempt).filter_map(|candidate| candidate.kind).min()
}
