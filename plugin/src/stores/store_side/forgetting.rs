//! What no vCPU can hold any more is forgotten: old versions of a cell, pages that hold code no more.

use super::StoreSide;
use crate::code::segment::Segment;
use crate::qemu::host_code::HostPage;
use crate::stores::code_store::Touched;
use icsan_model::addr::{Phys, Seq};
use icsan_model::detector::history::{Holding, Place};
use icsan_model::memory::PAGE;

/// The latest changes of a cell of code, which are kept whatever any vCPU holds: a store may be told of while a vCPU
/// that executes what was there before it is just about to say so.
const LATEST: usize = 4;

/// Stores after which, at the earliest, what no vCPU can hold any more is forgotten in all cells.
pub(super) const FORGET_EVERY: u64 = 4096;

/// Stores to a page, since code in it was last translated, at whose multiples it is asked whether it holds any code
/// still. As many as clear a page by eight bytes each.
const RETIRE_EVERY: u32 = 512;

impl StoreSide {
    /// Patches under way need not remember what the history has forgotten.
    fn forget_uncommitted(&mut self) {
        let Self { history, patching, .. } = self;
        patching.forget_stores(|store| history.memory().record(store).is_some());
    }

    /// Forgets what no vCPU can hold. To be called after each store. `horizon` is the oldest beginning of an epoch;
    /// `held` says since when any vCPU holds a segment in its epoch.
    pub fn forget(&mut self, touched: &Touched, horizon: Seq, held: impl Fn(&Segment) -> Option<Seq>) {
        let changed = self.counts.stores + self.counts.unseen;
        if changed >= self.forget_at {
            let cells: Vec<Phys> = self.history.memory().cells_with_more_than(LATEST).collect();
            cells.into_iter().for_each(|cell| self.forget_cell(cell, horizon, &held));
            self.history.forget_before(horizon);
            self.forget_uncommitted();
            // It looks at everything that is remembered: the more is left, the longer until the next time, so that a
            // store pays the same share whatever is left.
            let memory = self.history.memory();
            self.forget_at = changed + FORGET_EVERY.max(4 * (memory.versions() + memory.size().1) as u64);
        }
        let Some(record) = touched.seq.and_then(|seq| self.history.memory().record(seq)) else { return };
        let (phys, len) = (record.store.phys, record.store.bytes.len() as u64);
        for at in [phys, phys.offset(len - 1)] {
            let versions = self.history.memory().cell_versions(at);
            // The longer a cell is, the more rarely it is looked through.
            if versions > LATEST && versions.is_power_of_two() {
                self.forget_cell(at, horizon, &held);
            }
        }
    }

    fn forget_cell(&mut self, at: Phys, horizon: Seq, held: impl Fn(&Segment) -> Option<Seq>) {
        let Self { history, changes, .. } = self;
        history.forget_unheld(at, horizon, LATEST, |first, len| {
            let there = changes.reached(first, len);
            let since = there.iter().filter_map(|segment| held(segment)).min();
            since.map_or(if there.is_empty() { Holding::NeverRan } else { Holding::Nobody }, Holding::Since)
        });
    }

    /// After a store to its page: if the page may hold no code any more, the segments that lie in it. Their code must
    /// have been overwritten, and no vCPU may hold it. (A kernel gives the pages of its initialization, and of programs
    /// that ended, to what needs memory.)
    pub fn looks_dead(&mut self, phys: Phys, held: impl Fn(&Segment) -> Option<Seq>) -> Option<Vec<&'static Segment>> {
        let page = phys.align_down(PAGE);
        self.history.memory().page(page)?;
        let count = self.stores_since.entry(page.0 / PAGE).or_default();
        *count += 1;
        if !count.is_multiple_of(RETIRE_EVERY) {
            return None;
        }
        let there = self.changes.reached(page, PAGE);
        (!there.iter().any(|segment| segment.host.is_there_still() || held(segment).is_some())).then_some(there)
    }

    /// The page holds no code: nothing is known of it from now on.
    pub fn retire(&mut self, phys: Phys) {
        self.history.forget_page(phys);
        self.stores_since.remove(&(phys.0 / PAGE));
        self.counts.retired += 1;
    }

    /// The pages of a segment that is executed although they were retired: QEMU ran a block that it should have
    /// dropped, and memory holds its bytes again.
    pub fn unknown_pages(&self, place: Place) -> Vec<(Phys, HostPage)> {
        let pages = [Some(place.first), place.second].into_iter().flatten().map(|page| page.align_down(PAGE));
        let unknown = pages.filter(|page| self.history.memory().page(*page).is_none());
        unknown.filter_map(|page| Some((page, self.map.host(page)?))).collect()
    }
}
