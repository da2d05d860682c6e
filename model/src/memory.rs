//! Versioned code memory, by physical address.
//!
//! Every byte has a list of versions: the values that it had, each with the [`Seq`] of the [`Store`] that made it. A store that writes the value
//! that is there already makes no version, because nobody can tell the difference. Before its first version a byte is *unknown*, and the
//! unknown is never a candidate: the model does not guess.
//!
//! Versions are kept as undo logs of small cells: the present is read at once, and looking back costs as much as the cell changed since then.

use crate::addr::{Phys, Seq};
use crate::event::Store;
use std::collections::BTreeMap;

/// The size of the smallest page of every supported architecture, in bytes. A store and a mapping never cross it.
pub const PAGE: u64 = 4096;

/// Bytes that share one undo log. A power of two. Small, so that a busy neighbour does not lengthen the log of a quiet instruction.
const CELL: usize = 16;

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

#[derive(Clone, Debug, Default)]
struct Cell {
    known: u16,
    now: [u8; CELL],
    /// The version of each byte that is there now.
    latest: [Seq; CELL],
    /// Oldest first.
    changes: Vec<Change>,
}

/// All code memory and its past.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    cells: BTreeMap<u64, Cell>,
    records: BTreeMap<Seq, Record>,
    /// Everything before this may have been forgotten.
    horizon: Seq,
}

fn split(phys: Phys) -> (u64, usize) {
    (phys.0 / CELL as u64, (phys.0 % CELL as u64) as usize)
}

impl Memory {
    /// Applies a store at its place in the order. `seq` must be later than every earlier one.
    pub fn store(&mut self, seq: Seq, store: Store) {
        let mut written = 0;
        while written < store.bytes.len() {
            let (index, start) = split(store.phys.offset(written as u64));
            let count = (CELL - start).min(store.bytes.len() - written);
            self.cells.entry(index).or_default().write(seq, start, &store.bytes[written..written + count]);
            written += count;
        }
        self.records.insert(seq, Record { store, committed: false });
    }

    /// The byte's value after event `at`; `None` if it was not known then.
    #[must_use]
    pub fn byte(&self, phys: Phys, at: Seq) -> Option<u8> {
        let (index, bit) = split(phys);
        let cell = self.cells.get(&index)?;
        let mask = 1 << bit;
        // The first change after `at` says what was there at `at`; none means that the present is still that.
        let later = cell.changes.iter().rev().take_while(|change| change.seq > at).filter(|change| change.mask & mask != 0).last();
        let (known, value) = later.map_or((cell.known, cell.now[bit]), |change| (change.known, change.old[bit]));
        (known & mask != 0).then_some(value)
    }

    /// The store that made the byte's version after event `at`. `Seq(0)` if there is none.
    #[must_use]
    pub fn version(&self, phys: Phys, at: Seq) -> Seq {
        let (index, bit) = split(phys);
        let Some(cell) = self.cells.get(&index) else { return Seq(0) };
        if cell.latest[bit] <= at {
            return cell.latest[bit];
        }
        cell.changes.iter().rev().find(|change| change.seq <= at && change.mask & (1 << bit) != 0).map_or(Seq(0), |change| change.seq)
    }

    /// The stores that changed the byte after event `after`, newest first.
    pub fn changes(&self, phys: Phys, after: Seq) -> impl Iterator<Item = Seq> {
        let (index, bit) = split(phys);
        let changes = self.cells.get(&index).map_or(&[][..], |cell| &cell.changes);
        changes
            .iter()
            .rev()
            .take_while(move |change| change.seq > after)
            .filter(move |change| change.mask & (1 << bit) != 0)
            .map(|change| change.seq)
    }

    /// The store at that place in the order, if there was one and it is still remembered.
    #[must_use]
    pub fn record(&self, seq: Seq) -> Option<&Record> {
        self.records.get(&seq)
    }

    /// Can `seq` be committed? A forgotten store can: committing it changes nothing, since nobody can hold what was before it.
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
        let mut needed = std::collections::BTreeSet::new();
        for cell in self.cells.values_mut() {
            let past = cell.changes.partition_point(|change| change.seq <= horizon);
            let mut covered = 0u16;
            let mut keep = vec![true; cell.changes.len()];
            for (change, keep) in cell.changes[..past].iter().zip(&mut keep).rev() {
                *keep = change.mask & !covered != 0;
                covered |= change.mask;
            }
            let mut keep = keep.into_iter();
            cell.changes.retain(|_| keep.next() == Some(true));
            needed.extend(cell.changes.iter().map(|change| change.seq));
        }
        self.records.retain(|seq, _| *seq > horizon || needed.contains(seq));
        self.horizon = self.horizon.max(horizon);
    }

    /// How many versions are remembered, in cells: what a bound on memory counts.
    #[must_use]
    pub fn versions(&self) -> usize {
        self.cells.values().map(|cell| cell.changes.len()).sum()
    }
}

impl Cell {
    fn write(&mut self, seq: Seq, start: usize, bytes: &[u8]) {
        let mut change = Change { seq, mask: 0, known: self.known, old: self.now };
        for (bit, byte) in (start..).zip(bytes) {
            if self.known & (1 << bit) == 0 || self.now[bit] != *byte {
                change.mask |= 1 << bit;
                self.now[bit] = *byte;
                self.latest[bit] = seq;
            }
        }
        self.known |= change.mask;
        if change.mask != 0 {
            self.changes.push(change);
        }
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
        assert_eq!(memory.changes(Phys(15), Seq(0)).collect::<Vec<_>>(), [Seq(1)], "writing what is there makes no version");
        assert_eq!(memory.version(Phys(16), Seq(3)), Seq(3));
        assert_eq!(memory.version(Phys(16), Seq(0)), Seq(0));
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
