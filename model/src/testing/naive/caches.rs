//! What the instruction caches of the oracle's guest may still return, and what was left out.

use super::Naive;
use crate::addr::{Phys, Vcpu};
use crate::arch::maintenance::{Accesses, CacheType, Domain, Maintenance, Needs};
use crate::event::Event;
use crate::verdict::kind::Kind;
use std::collections::BTreeMap;

/// What one invalidation found to be clean: the moment up to which, for each byte of a line, or of all memory.
#[derive(Clone, Debug)]
pub(super) struct Capture {
    by: Vcpu,
    /// Only of the CPU's own cache?
    own: bool,
    /// First byte and length; `None`: everything.
    line: Option<(Phys, u64)>,
    at: usize,
    dirty: BTreeMap<Phys, usize>,
}

impl Naive {
    pub(super) fn caches(&self) -> Option<CacheType> {
        self.profile.incoherent_caches()
    }

    pub(super) fn maintained(&mut self, vcpu: Vcpu, operation: Maintenance, now: usize) {
        let Some(caches) = self.caches() else { return };
        let capture = |line: Option<(Phys, u64)>, own| {
            let of_line = |phys: &Phys| line.is_none_or(|(first, len)| (first.0..first.0 + len).contains(&phys.0));
            let bytes = self.snapshots[now].memory.keys().copied().filter(of_line);
            let clean = |phys| (0..=now).rev().find(|at| self.is_clean(phys, self.version(phys, *at), now));
            let dirty = bytes.map(|phys| (phys, clean(phys).unwrap_or(0))).filter(|(_, clean)| *clean < now).collect();
            Capture { by: vcpu, own, line, at: now, dirty }
        };
        let size = caches.instruction_line;
        match operation {
            Maintenance::Clean(_) => {}
            Maintenance::Invalidate(phys) => {
                self.captures.push(capture(Some((Phys(phys.0 / size * size), size)), false));
            }
            Maintenance::InvalidateAll => self.captures.push(capture(None, false)),
            Maintenance::InvalidateOwn => self.captures.push(capture(None, true)),
            Maintenance::FetchFence => {
                let capture = Capture { by: vcpu, own: true, line: None, at: now, dirty: BTreeMap::new() };
                self.effective.push((now, Some(vcpu), capture));
            }
        }
    }

    /// The vCPU's full barrier: what it captured takes effect.
    pub(super) fn completed(&mut self, vcpu: Vcpu, domain: Domain, now: usize) {
        let of_vcpu = self.captures.iter().filter(|capture| capture.by == vcpu);
        let whom = |capture: &Capture| Some(vcpu).filter(|_| capture.own || domain == Domain::Own);
        self.effective.extend(of_vcpu.map(|capture| (now, whom(capture), capture.clone())));
    }

    /// Is there a barrier of that vCPU, or of any, between two moments that reaches all vCPUs, and waits for stores, or
    /// for everything?
    fn barrier_between(&self, who: Option<Vcpu>, after: usize, until: usize, everything: bool) -> bool {
        (after + 1..=until).any(|seq| match self.events[seq] {
            Some(Event::Barrier { vcpu, domain, accesses }) => {
                let waits = accesses == Accesses::All || accesses == Accesses::Stores && !everything;
                waits && domain != Domain::Own && who.is_none_or(|who| who == vcpu)
            }
            _ => false,
        })
    }

    fn needs_clean(&self, store: usize) -> bool {
        self.caches().is_some_and(|caches| caches.needs != Needs::Invalidate) && !self.uncached.contains(&store)
    }

    /// The cleans of a byte's line after a store, in order: who and when.
    fn cleans(&self, phys: Phys, store: usize) -> Vec<(Vcpu, usize)> {
        let size = self.caches().map_or(1, |caches| caches.data_line);
        let clean = |seq: usize| match self.events[seq] {
            Some(Event::Maintain { vcpu, operation: Maintenance::Clean(line) }) if line.0 / size == phys.0 / size => {
                Some((vcpu, seq))
            }
            _ => None,
        };
        (store + 1..self.events.len()).filter_map(clean).collect()
    }

    /// Was the version that this store made of the byte clean at that moment? 0: before all history.
    fn is_clean(&self, phys: Phys, store: usize, at: usize) -> bool {
        let cleaned =
            || self.cleans(phys, store).iter().any(|(by, seq)| self.barrier_between(Some(*by), *seq, at, true));
        let writer = self.store_at(store).and_then(|store| store.vcpu);
        let complete = || !self.needs_clean(store) && self.barrier_between(writer, store, at, false);
        store == 0 || cleaned() || complete()
    }

    /// The oldest moment whose value of the byte the vCPU's instruction cache may have returned at that moment.
    pub(super) fn floor(&self, vcpu: Vcpu, phys: Phys, at: usize) -> usize {
        if self.caches().is_none() {
            return at;
        }
        let taken = self.effective.iter().filter(|(from, whom, _)| *from <= at && whom.is_none_or(|whom| whom == vcpu));
        let of_byte = taken
            .filter(|(.., capture)| capture.line.is_none_or(|(first, len)| (first.0..first.0 + len).contains(&phys.0)));
        of_byte.map(|(.., capture)| capture.dirty.get(&phys).copied().unwrap_or(capture.at)).max().unwrap_or(0)
    }

    /// What the storing vCPU left out; if nothing, it is the executor's fault.
    pub(super) fn missing(&self, vcpu: Vcpu, phys: Phys, store: usize, now: usize) -> Kind {
        if self.caches().is_none() || self.floor(vcpu, phys, now) >= store {
            return Kind::Unsynchronized;
        }
        let cleans = self.cleans(phys, store);
        if !self.is_clean(phys, store, now) {
            return if self.needs_clean(store) && cleans.is_empty() { Kind::Unclean } else { Kind::Incomplete };
        }
        let size = self.caches().map_or(1, |caches| caches.instruction_line);
        let clean = if self.needs_clean(store) { cleans.last().map_or(0, |(_, seq)| *seq) } else { store };
        let invalidated = (clean + 1..self.events.len()).any(|seq| match self.events[seq] {
            Some(Event::Maintain { vcpu: by, operation }) => match operation {
                Maintenance::Clean(_) => false,
                Maintenance::Invalidate(line) => line.0 / size == phys.0 / size,
                Maintenance::InvalidateAll => true,
                Maintenance::InvalidateOwn | Maintenance::FetchFence => by == vcpu,
            },
            _ => false,
        });
        if invalidated { Kind::Incomplete } else { Kind::Uninvalidated }
    }
}
