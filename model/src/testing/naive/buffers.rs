//! What the vCPUs of the oracle's guest fetched since they last serialized.

use super::{Naive, Times};
use crate::addr::{Linear, Phys, Vcpu};
use crate::event::{Event, Store};
use crate::memory::PAGE;
use std::collections::{BTreeMap, BTreeSet};

/// A run of the trace buffer.
#[derive(Clone, Debug)]
struct Run {
    start: Linear,
    chunks: BTreeMap<Linear, Times>,
}

/// A vCPU's buffers, as sets of moments.
#[derive(Clone, Debug, Default)]
pub(super) struct Buffered {
    /// In the order of filling.
    prefetch: Vec<(Linear, Times)>,
    /// In the order of their beginnings.
    runs: Vec<Run>,
    /// Which run is executed, and where it goes on.
    current: Option<(Linear, Linear)>,
    pub(super) epoch_start: usize,
    /// Own stores since the last taken branch, and all that a branch made visible: chunk and moment.
    unseen: Vec<(Linear, usize)>,
    pub(super) seen: Vec<(Linear, usize)>,
}

impl Naive {
    pub(super) fn stored(&mut self, store: &Store, now: usize) {
        if self.caches().is_some() && store.vcpu.is_some_and(|vcpu| self.off.contains(&vcpu)) {
            self.uncached.insert(now);
        }
        let (chunk, branch, snoop) =
            (u64::from(self.profile.buffers.chunk), self.profile.buffers.own_store_at_branch, self.profile.snoop);
        if let (Some(vcpu), Some(linear), true) = (store.vcpu, store.linear, branch) {
            let chunks = self.chunks(linear, store.bytes.len() as u64);
            self.vcpus.entry(vcpu).or_default().unseen.extend(chunks.into_iter().map(|chunk| (chunk, now)));
        }
        let written: BTreeSet<Phys> = (0..store.bytes.len() as u64).map(|i| store.phys.offset(i)).collect();
        let snapshot = &self.snapshots[now];
        for (vcpu, buffered) in self.vcpus.iter_mut().filter(|_| snoop) {
            buffered.discard(|held| {
                let page = held.align_down(PAGE);
                let phys = snapshot.pages.get(&(*vcpu, page)).map(|phys| phys.offset(held.0 - page.0));
                phys.is_some_and(|phys| (0..chunk).any(|i| written.contains(&phys.offset(i))))
            });
        }
    }

    pub(super) fn attributed(&mut self, at: usize, vcpu: Vcpu, pc: Option<Linear>, through: Option<Linear>) {
        let Some(Some(Event::Store(store))) = self.events.get_mut(at) else { return };
        if store.vcpu.is_some() {
            return;
        }
        *store = Store { vcpu: Some(vcpu), pc, linear: through, ..store.clone() };
        let len = store.bytes.len() as u64;
        if let (Some(linear), true) = (through, self.profile.buffers.own_store_at_branch) {
            let chunks = self.chunks(linear, len);
            self.vcpus.entry(vcpu).or_default().unseen.extend(chunks.into_iter().map(|chunk| (chunk, at)));
        }
    }

    pub(super) fn remapped(&mut self, vcpu: Vcpu, page: Linear, now: usize) {
        let moved = self.phys(vcpu, page, now) != self.phys(vcpu, page, now - 1);
        if self.profile.snoop && moved {
            self.vcpus.entry(vcpu).or_default().discard(|held| held.align_down(PAGE) == page);
        }
    }

    pub(super) fn branched(&mut self, vcpu: Vcpu) {
        let buffered = self.vcpus.entry(vcpu).or_default();
        buffered.prefetch.clear();
        buffered.current = None;
        for (chunk, store) in std::mem::take(&mut buffered.unseen) {
            for run in &mut buffered.runs {
                if let Some(times) = run.chunks.get_mut(&chunk) {
                    times.retain(|time| *time >= store);
                }
            }
            buffered.seen.push((chunk, store));
        }
    }

    pub(super) fn emptied(&mut self, vcpu: Vcpu, now: usize) {
        self.vcpus.insert(vcpu, Buffered { epoch_start: now, ..Buffered::default() });
    }

    pub(super) fn held(&self, vcpu: Vcpu, chunk: Linear) -> Times {
        self.vcpus.get(&vcpu).map_or_else(Times::new, |buffered| buffered.times(chunk))
    }

    pub(super) fn fetched(&mut self, vcpu: Vcpu, linear: Linear, len: u8, now: usize) {
        let buffers = self.profile.buffers;
        let touched: Vec<_> =
            self.chunks(linear, u64::from(len)).into_iter().map(|chunk| (chunk, self.held(vcpu, chunk))).collect();
        let ahead: Vec<_> = self
            .chunks(linear, u64::from(len) + u64::from(buffers.lookahead))
            .into_iter()
            .filter(|chunk| self.phys(vcpu, *chunk, now).is_some())
            .collect();
        let buffered = self.vcpus.entry(vcpu).or_default();
        let start = buffered.current.filter(|(_, next)| *next == linear).map_or(linear, |(start, _)| start);
        buffered.current = Some((start, linear.offset(u64::from(len))));
        if buffered.runs.iter().all(|run| run.start != start) {
            buffered.runs.push(Run { start, chunks: BTreeMap::new() });
        }
        for run in buffered.runs.iter_mut().filter(|run| run.start == start) {
            for (chunk, times) in &touched {
                run.chunks.entry(*chunk).or_default().extend(times.iter().copied().chain([now]));
            }
        }
        let surplus = buffers.trace.map_or(0, |trace| buffered.runs.len().saturating_sub(trace as usize));
        buffered.runs.drain(..surplus);
        for chunk in ahead {
            if buffered.prefetch.iter().all(|(held, _)| *held != chunk) {
                buffered.prefetch.push((chunk, Times::from([now])));
            }
            let room = buffers.prefetch.map_or(usize::MAX, |bytes| (bytes / buffers.chunk) as usize);
            let surplus = buffered.prefetch.len().saturating_sub(room);
            buffered.prefetch.drain(..surplus);
        }
    }
}

impl Buffered {
    /// What is held may be brought in again at this moment.
    pub(super) fn fetches_anew(&mut self, now: usize) {
        let runs = self.runs.iter_mut().flat_map(|run| run.chunks.values_mut());
        for times in runs.chain(self.prefetch.iter_mut().map(|(_, times)| times)) {
            times.insert(now);
        }
    }

    /// All moments that a chunk's bytes may stem from.
    fn times(&self, chunk: Linear) -> Times {
        let prefetched = self.prefetch.iter().filter(|(held, _)| *held == chunk).flat_map(|(_, times)| times);
        let traced = self.runs.iter().filter_map(|run| run.chunks.get(&chunk)).flatten();
        prefetched.chain(traced).copied().collect()
    }

    fn discard(&mut self, hit: impl Fn(Linear) -> bool) {
        self.prefetch.retain(|(chunk, _)| !hit(*chunk));
        for run in &mut self.runs {
            run.chunks.retain(|chunk, _| !hit(*chunk));
        }
    }
}
