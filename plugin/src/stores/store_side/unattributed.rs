//! Changes of memory that no store explains: unattributed writes, until the store is told of, if it ever is.

use super::StoreSide;
use crate::code::segment::Segment;
use crate::qemu::host_code::{Contents, HostPage};
use crate::stores::code_store::Touched;
use icsan_model::addr::{Epoch, Phys, Seq, Vcpu};
use icsan_model::arch::maintenance::{Accesses, Domain, Maintenance};
use icsan_model::event::Store;
use icsan_model::memory::{CELL, PAGE};
use rustc_hash::{FxBuildHasher, FxHashMap};
use std::collections::BTreeSet;
use std::hash::BuildHasher;

/// Changed bytes with at least so many unchanged ones between them are taken for different stores.
const APART: usize = 16;

/// Pages of memory that hold something else than what is known of them, each with a hash of that.
pub type Differing = FxHashMap<Phys, u64>;

impl StoreSide {
    /// Compares what is known of memory with what its page holds, from the byte at `phys` on, and everything that the
    /// chunks of these `len` bytes and an older instruction in them may reach. If they differ, the whole page is looked
    /// through: what changed becomes stores that nobody was seen to make. `next` gives the next place in the order.
    pub fn compare(
        &mut self,
        phys: Phys,
        len: u64,
        contents: &impl Contents,
        mut next: impl FnMut() -> Seq,
    ) -> Vec<Touched> {
        let chunk = u64::from(self.profile.buffers.chunk);
        let page = phys.align_down(PAGE);
        let first = phys.align_down(chunk.min(PAGE));
        let end = phys.offset(len + self.history.window()).align_down(chunk).offset(chunk).0.min(page.0 + PAGE);
        let (from, to) = ((first.0 - page.0) as usize, (end - page.0) as usize);
        let Some(known) = self.history.memory().page(page) else { return Vec::new() };
        if contents.holds(from, &known[from..to]) {
            return Vec::new();
        }
        let now = contents.whole();
        let spans = changed_spans(known, &now);
        spans
            .into_iter()
            .map(|span| self.note_unattributed(page.offset(span.start as u64), &now[span], next()))
            .collect()
    }

    /// The pages that hold something else than what is known of them (DMA may have stored there, and no code of theirs
    /// been translated since), with a hash of that.
    #[must_use]
    pub fn differing(&self) -> Differing {
        let differs = |(host, phys): (HostPage, Phys)| {
            let known = self.history.memory().page(phys)?;
            (!host.holds(0, known)).then(|| (phys, FxBuildHasher.hash_one(host.read(0, PAGE as usize))))
        };
        self.map.iter().filter_map(differs).collect()
    }

    /// A state was restored, and no vCPU executes. What is known of memory becomes what memory holds now; who was about
    /// to store what, and who was inside of what, is forgotten.
    pub fn restored(&mut self, next: impl FnMut() -> Seq) -> Vec<Touched> {
        self.patching.forget_tasks();
        self.changes.expect_no_stores();
        self.own_pc.fill(None);
        self.reloaded(next)
    }

    /// Memory was loaded anew, and no vCPU executes. What is known of it becomes what it holds now, and no cache holds
    /// anything else.
    pub fn reloaded(&mut self, mut next: impl FnMut() -> Seq) -> Vec<Touched> {
        let mut touched = Vec::new();
        for (host, phys) in self.map.iter().collect::<Vec<_>>() {
            let Some(known) = self.history.memory().page(phys) else { continue };
            if host.holds(0, known) {
                continue;
            }
            let (known, now) = (known.to_vec(), host.read(0, PAGE as usize));
            for span in changed_spans(&known, &now) {
                let (seq, at) = (next(), phys.offset(span.start as u64));
                let store = Store { vcpu: None, pc: None, linear: None, phys: at, bytes: now[span.clone()].to_vec() };
                touched.push(self.changes.store(&mut self.history, seq, store, Epoch::default()));
            }
        }
        self.caches_are_empty(next);
        touched
    }

    /// No cache holds anything that memory does not: as if one vCPU had maintained all that ever changed.
    fn caches_are_empty(&mut self, mut next: impl FnMut() -> Seq) {
        let Some(caches) = self.profile.incoherent_caches() else { return };
        let vcpu = Vcpu(0);
        let lines = |cell: Phys| {
            (0..CELL as u64)
                .step_by(caches.data_line as usize)
                .map(move |at| cell.offset(at).align_down(caches.data_line))
        };
        let changed: BTreeSet<Phys> = self.history.memory().changed_cells().flat_map(lines).collect();
        for line in changed {
            self.changes.maintain(&mut self.history, next(), vcpu, Maintenance::Clean(line));
        }
        self.changes.barrier(&mut self.history, next(), vcpu, Domain::System, Accesses::All);
        self.changes.maintain(&mut self.history, next(), vcpu, Maintenance::InvalidateAll);
        self.changes.barrier(&mut self.history, next(), vcpu, Domain::System, Accesses::All);
    }

    /// Is a change of the segment an unattributed write of just now, whose store will be told of at any time?
    #[must_use]
    pub fn awaits_store(&self, segment: &'static Segment) -> bool {
        self.changes.awaits_store(&segment, self.began.elapsed())
    }

    /// Memory holds the segment's bytes: what is known of memory and is something else has been changed, and the store
    /// has not been told of.
    pub fn catch_up(&mut self, segment: &Segment, mut next: impl FnMut() -> Seq) -> Vec<Touched> {
        let Some(place) = segment.place() else { return Vec::new() };
        let run = segment.run();
        let bytes: Vec<(Phys, u8)> =
            (0..).zip(run.bytes()).filter_map(|(i, byte)| Some((place.phys(run.linear().offset(i))?, *byte))).collect();
        let memory = self.history.memory();
        let changed: Vec<(Phys, u8)> =
            bytes.into_iter().filter(|(phys, byte)| memory.now(*phys).is_some_and(|known| known != *byte)).collect();
        let adjacent = |a: &(Phys, u8), b: &(Phys, u8)| a.0.offset(1) == b.0 && !b.0.0.is_multiple_of(PAGE);
        let spans = changed.chunk_by(adjacent);
        spans
            .map(|span| {
                self.note_unattributed(span[0].0, &span.iter().map(|(_, byte)| *byte).collect::<Vec<_>>(), next())
            })
            .collect()
    }
}

/// Where the bytes of a page differ: one span for each run of changes that lies [`APART`] from the next.
fn changed_spans(known: &[u8], now: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut spans: Vec<std::ops::Range<usize>> = Vec::new();
    for (at, _) in known.iter().zip(now).enumerate().filter(|(_, (known, now))| known != now) {
        match spans.last_mut() {
            Some(span) if at - span.end < APART => span.end = at + 1,
            _ => spans.push(at..at + 1),
        }
    }
    spans
}
