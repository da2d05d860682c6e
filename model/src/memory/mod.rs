//! Versioned code memory, by physical address.
//!
//! Every byte has a list of versions: the values that it had, each with the [`Seq`] of the [`Store`] that made it. A
//! store that writes the value that is there already makes no version, because nobody can tell the difference. Before
//! its first version a byte is *unknown*, and the unknown is never a candidate: the model does not guess. Contents that
//! are merely seen for the first time ([`Memory::contents`]) have no store and are taken to have always been there.
//!
//! Pages hold the present. Versions are undo logs of small cells, made at a cell's first store: code that never changes
//! costs its bytes, and looking back costs as much as the cell changed since then.

pub mod mapping;

use crate::addr::{Linear, Phys, Seq, Vcpu};
use crate::event::Store;
use std::collections::{BTreeMap, BTreeSet};

/// The size of the smallest page of every supported architecture, in bytes. A store and a mapping never cross it.
pub const PAGE: u64 = 4096;

/// Bytes that share one undo log. A power of two. Small, so that a busy neighbour does not lengthen the log of a quiet
/// instruction.
pub const CELL: usize = 16;

/// At so many changes of one cell all but the latest are forgotten, although a vCPU may hold them.
pub const TOO_MANY_VERSIONS: usize = 2048;

/// A store as the memory remembers it.
#[derive(Clone, Debug)]
pub struct Record {
    /// The store itself.
    pub store: Store,
    /// Does its author take the patch that it belongs to for done?
    pub committed: bool,
}

/// One undo step of a cell: what the bytes in `mask` were before `seq`.
#[derive(Clone, Debug)]
struct Change {
    seq: Seq,
    mask: u16,
    known: u16,
    old: [u8; CELL],
}

/// The past of a cell.
#[derive(Clone, Debug, Default)]
struct Log {
    /// The version of each byte that is there now.
    latest: [Seq; CELL],
    /// Oldest first.
    changes: Vec<Change>,
    /// The last change that was forgotten, and the bytes that forgotten ones changed.
    forgotten: (Seq, u16),
}

#[derive(Clone, Debug)]
struct Page {
    bytes: Box<[u8; PAGE as usize]>,
    /// Which bytes are known: 16 bits a cell.
    known: Box<[u16; PAGE as usize / CELL]>,
    /// By the cell's index in the page.
    logs: BTreeMap<usize, Log>,
}

/// All code memory and its past.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    pages: BTreeMap<u64, Page>,
    records: BTreeMap<Seq, Record>,
    /// Everything before this may have been forgotten.
    horizon: Seq,
}

/// Page number, offset in the page.
fn split(phys: Phys) -> (u64, usize) {
    (phys.0 / PAGE, (phys.0 % PAGE) as usize)
}

impl Memory {
    /// Contents that are seen for the first time. Bytes that are known already stay what they are. Bytes beyond the
    /// page's end are ignored.
    pub fn contents(&mut self, phys: Phys, bytes: &[u8]) {
        let (number, start) = split(phys);
        let page = self.pages.entry(number).or_default();
        for (offset, byte) in (start..PAGE as usize).zip(bytes) {
            if page.learn(offset) {
                page.bytes[offset] = *byte;
            }
        }
    }

    /// Applies a store at its place in the order. `seq` must be later than every earlier one. Bytes beyond the page's
    /// end are ignored.
    pub fn store(&mut self, seq: Seq, store: Store) {
        let (number, start) = split(store.phys);
        let page = self.pages.entry(number).or_default();
        let bytes = &store.bytes[..store.bytes.len().min(PAGE as usize - start)];
        let mut written = 0;
        while written < bytes.len() {
            let offset = start + written;
            let count = (CELL - offset % CELL).min(bytes.len() - written);
            page.write(seq, offset, &bytes[written..written + count]);
            written += count;
        }
        self.records.insert(seq, Record { store, committed: false });
    }

    /// The writer of a store that nobody was seen to make has turned out. `false` if the store is not remembered, or
    /// its writer was known.
    pub fn attribute(&mut self, seq: Seq, vcpu: Vcpu, pc: Option<Linear>, linear: Option<Linear>) -> bool {
        let Some(record) = self.records.get_mut(&seq).filter(|record| record.store.vcpu.is_none()) else {
            return false;
        };
        record.store = Store { vcpu: Some(vcpu), pc, linear, ..record.store.clone() };
        true
    }

    /// Has any of these bytes, all in one page, changed after that event?
    #[must_use]
    pub fn changed_after(&self, phys: Phys, len: u64, since: Seq) -> bool {
        self.last_change(phys, len) > since
    }

    /// The store that last changed any of these bytes, all in one page. `Seq(0)` if none did.
    #[must_use]
    pub fn last_change(&self, phys: Phys, len: u64) -> Seq {
        self.cells(phys, len).flat_map(|(log, bits)| log.latest[bits].iter().copied()).max().unwrap_or(Seq(0))
    }

    /// Was any change after that event of any of these bytes, all in one page, forgotten?
    #[must_use]
    pub fn forgot_after(&self, phys: Phys, len: u64, since: Seq) -> bool {
        self.cells(phys, len)
            .any(|(log, mut bits)| log.forgotten.0 > since && bits.any(|bit| log.forgotten.1 >> bit & 1 != 0))
    }

    /// The logs of these bytes, all in one page, each with the bytes of its cell.
    fn cells(&self, phys: Phys, len: u64) -> impl Iterator<Item = (&Log, std::ops::Range<usize>)> {
        let (number, start) = split(phys);
        let end = start + len as usize;
        let page = self.pages.get(&number).filter(|page| len > 0 && !page.logs.is_empty());
        let logs = page.into_iter().flat_map(move |page| page.logs.range(start / CELL..=(end - 1) / CELL));
        logs.map(move |(cell, log)| {
            (log, start.max(cell * CELL) - cell * CELL..end.min((cell + 1) * CELL) - cell * CELL)
        })
    }

    /// Those of these bytes, all in one page, that were ever changed, each with the store that changed it last.
    pub fn changed_bytes(&self, phys: Phys, len: u64) -> impl Iterator<Item = (Phys, Seq)> {
        let (number, start) = split(phys);
        let end = start + len as usize;
        let page = self.pages.get(&number).filter(|page| len > 0 && !page.logs.is_empty());
        let logs = page.into_iter().flat_map(move |page| page.logs.range(start / CELL..=(end - 1) / CELL));
        let bytes = logs.flat_map(|(cell, log)| (cell * CELL..).zip(log.latest));
        bytes
            .filter(move |(at, seq)| (start..end).contains(at) && *seq > Seq(0))
            .map(move |(at, seq)| (Phys(number * PAGE + at as u64), seq))
    }

    /// The first bytes of all cells that were ever changed.
    pub fn changed_cells(&self) -> impl Iterator<Item = Phys> {
        let cells = |(number, page): (&u64, &Page)| {
            let first = number * PAGE;
            page.logs.keys().map(move |cell| Phys(first + (cell * CELL) as u64)).collect::<Vec<_>>()
        };
        self.pages.iter().flat_map(cells)
    }

    /// Are all of these bytes, all in one page, known?
    #[must_use]
    pub fn knows(&self, phys: Phys, len: u64) -> bool {
        let (number, offset) = split(phys);
        let known =
            |page: &Page| (offset..offset + len as usize).all(|at| page.known[at / CELL] >> (at % CELL) & 1 != 0);
        self.pages.get(&number).is_some_and(known)
    }

    /// The byte's value after event `at`; `None` if it was not known then.
    #[must_use]
    pub fn byte(&self, phys: Phys, at: Seq) -> Option<u8> {
        let (number, offset) = split(phys);
        let page = self.pages.get(&number)?;
        let mask = 1 << (offset % CELL);
        let present = (page.known[offset / CELL], page.bytes[offset]);
        // The first change after `at` says what was there at `at`; none means that the present is still that.
        let later = page.log(offset).and_then(|log| {
            log.changes
                .iter()
                .rev()
                .take_while(|change| change.seq > at)
                .filter(|change| change.mask & mask != 0)
                .last()
        });
        let (known, value) = later.map_or(present, |change| (change.known, change.old[offset % CELL]));
        (known & mask != 0).then_some(value)
    }

    /// The byte's value now; `None` if it is not known.
    #[must_use]
    pub fn now(&self, phys: Phys) -> Option<u8> {
        let (number, offset) = split(phys);
        let page = self.pages.get(&number)?;
        (page.known[offset / CELL] >> (offset % CELL) & 1 != 0).then(|| page.bytes[offset])
    }

    /// The page that holds this byte, as it is now; bytes that are not known are 0. `None` if nothing of it is known.
    #[must_use]
    pub fn page(&self, phys: Phys) -> Option<&[u8; PAGE as usize]> {
        Some(&self.pages.get(&split(phys).0)?.bytes)
    }

    /// The store that made the byte's version after event `at`. `Seq(0)` if there is none.
    #[must_use]
    pub fn version(&self, phys: Phys, at: Seq) -> Seq {
        let Some((bit, log)) = self.log(phys) else { return Seq(0) };
        if log.latest[bit] <= at {
            return log.latest[bit];
        }
        log.changes
            .iter()
            .rev()
            .find(|change| change.seq <= at && change.mask & (1 << bit) != 0)
            .map_or(Seq(0), |change| change.seq)
    }

    /// The stores that changed the byte after event `after`, newest first.
    pub fn changes(&self, phys: Phys, after: Seq) -> impl Iterator<Item = Seq> {
        let (bit, changes) = self.log(phys).map_or((0, &[][..]), |(bit, log)| (bit, &log.changes[..]));
        changes
            .iter()
            .rev()
            .take_while(move |change| change.seq > after)
            .filter(move |change| change.mask & (1 << bit) != 0)
            .map(|change| change.seq)
    }

    fn log(&self, phys: Phys) -> Option<(usize, &Log)> {
        let (number, offset) = split(phys);
        Some((offset % CELL, self.pages.get(&number)?.log(offset)?))
    }

    /// The store at that place in the order, if there was one and it is still remembered.
    #[must_use]
    pub fn record(&self, seq: Seq) -> Option<&Record> {
        self.records.get(&seq)
    }

    /// Can `seq` be committed? A forgotten store can: committing it changes nothing, since nobody can hold what was
    /// before it.
    #[must_use]
    pub fn is_store(&self, seq: Seq) -> bool {
        self.records.contains_key(&seq) || seq <= self.horizon
    }

    /// The author of this store takes it for done.
    pub fn commit(&mut self, seq: Seq) {
        if let Some(record) = self.records.get_mut(&seq) {
            record.committed = true;
        }
    }

    /// Forgets what was before event `horizon`, except for who made the versions that were there at that moment.
    ///
    /// From then on only times from `horizon` on may be asked for.
    pub fn forget_before(&mut self, horizon: Seq) {
        self.forget_before_each(horizon, |_| horizon);
    }

    /// The same, where a cell's past may be needed from an earlier moment on: the answer for its first byte.
    pub fn forget_before_each(&mut self, horizon: Seq, needed_from: impl Fn(Phys) -> Seq) {
        let mut needed = BTreeSet::new();
        for (number, page) in &mut self.pages {
            for (cell, log) in &mut page.logs {
                log.forget_before(horizon.min(needed_from(Phys(number * PAGE + (cell * CELL) as u64))));
                needed.extend(log.changes.iter().map(|change| change.seq));
            }
        }
        self.records.retain(|seq, _| *seq > horizon || needed.contains(seq));
        self.horizon = self.horizon.max(horizon);
    }

    /// Forgets what the cell that holds this byte was before event `horizon`: for a cell that changes often, and of
    /// which nobody can hold anything older. Who made the versions is forgotten at the next
    /// [`Memory::forget_unneeded`]. What was forgotten and is asked for all the same shows in [`Memory::forgot_after`].
    pub fn forget_cell_before(&mut self, phys: Phys, horizon: Seq) {
        if let Some(log) = self.log_mut(phys) {
            log.forget_before(horizon);
        }
    }

    /// Forgets all but the latest `keep` changes of the cell that holds this byte, and who made the versions that are
    /// there now.
    pub fn keep_latest(&mut self, phys: Phys, keep: usize) {
        if let Some(log) = self.log_mut(phys) {
            let horizon = log.changes.len().checked_sub(keep + 1).map(|last| log.changes[last].seq);
            horizon.into_iter().for_each(|horizon| log.forget_before(horizon));
        }
    }

    fn log_mut(&mut self, phys: Phys) -> Option<&mut Log> {
        let (number, offset) = split(phys);
        self.pages.get_mut(&number)?.logs.get_mut(&(offset / CELL))
    }

    /// The first bytes of all cells that have more than so many versions.
    pub fn cells_with_more_than(&self, versions: usize) -> impl Iterator<Item = Phys> {
        let in_page = move |(number, page): (&u64, &Page)| {
            let long = page.logs.iter().filter(move |(_, log)| log.changes.len() > versions);
            let first = number * PAGE;
            long.map(move |(cell, _)| Phys(first + (cell * CELL) as u64)).collect::<Vec<_>>()
        };
        self.pages.iter().flat_map(in_page)
    }

    /// Forgets the page that holds this byte: nothing is known of it from now on.
    pub fn forget_page(&mut self, phys: Phys) {
        self.pages.remove(&split(phys).0);
    }

    /// Forgets the stores of which no version is left. Committing or attributing such a store changes nothing any more.
    pub fn forget_unneeded(&mut self) {
        let logs = self.pages.values().flat_map(|page| page.logs.values());
        let needed: BTreeSet<Seq> = logs.flat_map(|log| log.changes.iter().map(|change| change.seq)).collect();
        self.records.retain(|seq, _| needed.contains(seq));
    }

    /// How many versions the cell that holds this byte has.
    #[must_use]
    pub fn cell_versions(&self, phys: Phys) -> usize {
        self.log(phys).map_or(0, |(_, log)| log.changes.len())
    }

    /// How many versions are remembered, in cells: what a bound on memory counts.
    #[must_use]
    pub fn versions(&self) -> usize {
        self.pages.values().flat_map(|page| page.logs.values()).map(|log| log.changes.len()).sum()
    }

    /// How many pages are known, and how many stores remembered.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        (self.pages.len(), self.records.len())
    }
}

impl Default for Page {
    fn default() -> Self {
        Self { bytes: Box::new([0; PAGE as usize]), known: Box::new([0; PAGE as usize / CELL]), logs: BTreeMap::new() }
    }
}

impl Page {
    /// Marks a byte as known; answers whether it was not.
    fn learn(&mut self, offset: usize) -> bool {
        let known = &mut self.known[offset / CELL];
        let mask = 1 << (offset % CELL);
        let unknown = *known & mask == 0;
        *known |= mask;
        unknown
    }

    fn log(&self, offset: usize) -> Option<&Log> {
        self.logs.get(&(offset / CELL))
    }

    /// Writes bytes that lie in one cell.
    fn write(&mut self, seq: Seq, offset: usize, bytes: &[u8]) {
        let (cell, start) = (offset / CELL, offset % CELL);
        let now = &mut self.bytes[cell * CELL..][..CELL];
        let known = &mut self.known[cell];
        let mut change = Change { seq, mask: 0, known: *known, old: [0; CELL] };
        change.old.copy_from_slice(now);
        for (bit, byte) in (start..).zip(bytes) {
            if *known & (1 << bit) == 0 || now[bit] != *byte {
                change.mask |= 1 << bit;
                now[bit] = *byte;
            }
        }
        if change.mask == 0 {
            return;
        }
        *known |= change.mask;
        let log = self.logs.entry(cell).or_default();
        (0..CELL).filter(|bit| change.mask >> bit & 1 != 0).for_each(|bit| log.latest[bit] = seq);
        log.changes.push(change);
    }
}

impl Log {
    fn forget_before(&mut self, horizon: Seq) {
        let past = self.changes.partition_point(|change| change.seq <= horizon);
        let mut covered = 0u16;
        let mut keep = vec![true; self.changes.len()];
        for (change, keep) in self.changes[..past].iter().zip(&mut keep).rev() {
            *keep = change.mask & !covered != 0;
            covered |= change.mask;
            if !*keep {
                self.forgotten = (self.forgotten.0.max(change.seq), self.forgotten.1 | change.mask);
            }
        }
        let mut keep = keep.into_iter();
        self.changes.retain(|_| keep.next() == Some(true));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(phys: u64, bytes: &[u8]) -> Store {
        Store { vcpu: None, pc: None, linear: None, phys: Phys(phys), bytes: bytes.to_vec() }
    }

    #[test]
    fn a_byte_has_its_value_of_every_moment() {
        let mut memory = Memory::default();
        memory.store(Seq(1), store(14, &[1, 2, 3, 4]));
        memory.store(Seq(3), store(15, &[2, 9]));
        memory.store(Seq(4), store(16, &[3]));
        let read = |at| (13..19).map(|phys| memory.byte(Phys(phys), Seq(at))).collect::<Vec<_>>();
        assert_eq!(read(0), [None; 6]);
        assert_eq!(read(2), [None, Some(1), Some(2), Some(3), Some(4), None]);
        assert_eq!(read(3), [None, Some(1), Some(2), Some(9), Some(4), None]);
        assert_eq!(read(9), [None, Some(1), Some(2), Some(3), Some(4), None]);
        assert_eq!(memory.changes(Phys(16), Seq(0)).collect::<Vec<_>>(), [Seq(4), Seq(3), Seq(1)]);
        assert_eq!(
            memory.changes(Phys(15), Seq(0)).collect::<Vec<_>>(),
            [Seq(1)],
            "writing what is there makes no version"
        );
        assert_eq!(memory.version(Phys(16), Seq(3)), Seq(3));
        assert_eq!(memory.version(Phys(16), Seq(0)), Seq(0));
    }

    #[test]
    fn contents_have_always_been_there() {
        let mut memory = Memory::default();
        memory.store(Seq(1), store(1, &[7]));
        memory.contents(Phys(0), &[1, 2, 3]);
        let read = |at| (0..4).map(|phys| memory.byte(Phys(phys), Seq(at))).collect::<Vec<_>>();
        assert_eq!(read(0), [Some(1), None, Some(3), None], "what was known already is not seen for the first time");
        assert_eq!(read(1), [Some(1), Some(7), Some(3), None]);
        assert_eq!((memory.version(Phys(0), Seq(1)), memory.versions()), (Seq(0), 1));
        assert_eq!(memory.now(Phys(2)), Some(3));
    }

    #[test]
    fn a_writer_may_turn_out_late_and_once() {
        let mut memory = Memory::default();
        memory.store(Seq(1), store(1, &[7]));
        assert!(memory.attribute(Seq(1), Vcpu(2), Some(Linear(9)), None));
        assert!(!memory.attribute(Seq(1), Vcpu(3), None, None) && !memory.attribute(Seq(2), Vcpu(3), None, None));
        assert_eq!(memory.record(Seq(1)).unwrap().store.vcpu, Some(Vcpu(2)));
    }

    #[test]
    fn what_was_forgotten_is_known_to_be() {
        let mut memory = Memory::default();
        for (seq, byte) in [(1, 1), (2, 2), (3, 3), (4, 4)] {
            memory.store(Seq(seq), store(0, &[byte]));
        }
        memory.store(Seq(5), store(17, &[7]));
        assert_eq!(memory.cells_with_more_than(1).collect::<Vec<_>>(), [Phys(0)]);
        memory.keep_latest(Phys(15), 1);
        // The change at 3 says who made what was there before 4.
        assert_eq!((memory.cell_versions(Phys(0)), memory.byte(Phys(0), Seq(2))), (2, Some(2)));
        assert_eq!([1, 2, 3].map(|since| memory.forgot_after(Phys(0), 1, Seq(since))), [true, false, false]);
        assert!(!memory.forgot_after(Phys(1), 15, Seq(0)) && !memory.forgot_after(Phys(16), 4, Seq(0)), "other bytes");
        assert!(
            memory.changed_after(Phys(0), 1, Seq(3))
                && !memory.changed_after(Phys(1), 16, Seq(0))
                && memory.changed_after(Phys(1), 17, Seq(0))
        );
        memory.forget_page(Phys(5));
        assert_eq!((memory.page(Phys(0)), memory.versions()), (None, 0));
    }

    #[test]
    fn forgetting_keeps_the_present_of_the_horizon() {
        let mut memory = Memory::default();
        for (seq, byte) in [(1, 1), (2, 2), (3, 3), (4, 4)] {
            memory.store(Seq(seq), store(0, &[byte]));
        }
        memory.store(Seq(5), store(1, &[7]));
        memory.forget_before(Seq(2));
        assert_eq!(memory.version(Phys(0), Seq(2)), Seq(2));
        assert_eq!(memory.byte(Phys(0), Seq(2)), Some(2));
        assert_eq!(memory.byte(Phys(0), Seq(3)), Some(3));
        assert!(memory.record(Seq(1)).is_none() && memory.is_store(Seq(1)));
        assert_eq!(memory.versions(), 4);
    }
}
