//! What becomes of a vCPU that a protocol left exposed: which event serializes it at last, what it ran before that, and
//! whether that included anything that the patch had changed. If not, it was *deferred*: some designs mean just that,
//! and rely on an event that comes before the vCPU can meet what was changed (`defer=`).

use crate::coverage::Row;
use icsan_model::addr::{Linear, Seq};
use icsan_model::arch::sync_event::SyncEventId;
use icsan_model::detector::sync_log::SyncAt;
use icsan_model::detector::sync_origin::SyncOrigin;
use icsan_model::memory::PAGE;
use icsan_model::verdict::hazard::Write;
use icsan_symbols::Names;
use icsan_symbols::linux::entries::fits;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Pieces of code that are remembered of a way.
const MAX_PIECES: usize = 4096;

/// Rows of the table.
const MAX_ROWS: usize = 1024;

/// An event by which a design means to end an exposure: an item of `defer=`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Deferral {
    /// The event.
    pub event: SyncEventId,
    /// The function that it has to be in, or to belong to; with `*` at its end, any that begins like that. `None`: it
    /// may be anywhere.
    pub symbol: Option<String>,
}

impl Deferral {
    /// Is it this event?
    #[must_use]
    pub fn includes(&self, at: &SyncAt, names: Names<'_>) -> bool {
        let is_in = |at: Linear, symbol: &str| names.resolve(at.0).is_some_and(|found| fits(symbol, found.name));
        let origin = if let Some(SyncOrigin::Function(entry)) = at.origin { Some(entry) } else { None };
        let here = |symbol: &str| origin.is_some_and(|entry| is_in(entry, symbol)) || is_in(at.pc, symbol);
        self.event == at.event && self.symbol.as_deref().is_none_or(here)
    }
}

/// Number of an exposure, in the order in which they began.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ExposureId(pub u64);

/// A vCPU was left out, and has not serialized since.
#[derive(Debug)]
pub struct Exposure {
    /// Which one.
    pub id: ExposureId,
    /// By whom, and where.
    pub row: Row,
    /// The place in the order of the patch's last store.
    pub last: Seq,
    /// When it began, in time of the host.
    pub began: Instant,
    /// The patch's stores; the last ones, if there are very many.
    pub writes: Vec<Write>,
    /// Where the vCPU was found to execute something that one of them had changed.
    pub met: Option<Linear>,
}

/// A piece of code that was run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Piece {
    /// A function, by its entry.
    Function(Linear),
    /// A page of code that has no name.
    Page(Linear),
}

impl Piece {
    /// The piece that an address is in.
    #[must_use]
    pub fn of(at: Linear, names: Names<'_>) -> Self {
        let function = names.resolve(at.0).map(|found| Self::Function(Linear(at.0.wrapping_sub(found.offset))));
        function.unwrap_or(Self::Page(at.align_down(PAGE)))
    }
}

/// What a vCPU ran from the event by which it had serialized before to the one that ended an exposure.
#[derive(Clone, Default, Debug)]
pub struct Way {
    /// Each piece, and whether some of it was run for the first time after the patch's last store. What was run before
    /// it may have been run again.
    pieces: BTreeMap<Piece, bool>,
    dropped: u64,
}

impl Way {
    /// The vCPU ran this; `after`: for the first time after the last store.
    pub fn add(&mut self, piece: Piece, after: bool) {
        if self.pieces.len() < MAX_PIECES || self.pieces.contains_key(&piece) {
            *self.pieces.entry(piece).or_default() |= after;
        } else {
            self.dropped += 1;
        }
    }

    /// Did it run any of this?
    #[must_use]
    pub fn includes(&self, piece: Piece) -> bool {
        self.pieces.contains_key(&piece)
    }

    /// The pieces in the order of their addresses, functions first.
    pub fn pieces(&self) -> impl Iterator<Item = (Piece, bool)> {
        self.pieces.iter().map(|(piece, after)| (*piece, *after))
    }

    /// How many found no room.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn extend(&mut self, other: &Self) {
        other.pieces().for_each(|(piece, after)| self.add(piece, after));
        self.dropped += other.dropped;
    }
}

/// How an exposure ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// The event.
    pub by: SyncAt,
    /// How long it had lasted, in time of the host.
    pub after: Duration,
    /// What the vCPU ran there before, although the patch had changed it.
    pub met: Option<Linear>,
    /// What the patch had changed in a function (or page) that the vCPU ran.
    pub near: Option<Linear>,
    /// What it ran.
    pub way: Way,
}

/// A row of the table: which protocol's exposures were ended by what.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct EndRow {
    /// The protocol, and where it should have made the vCPU serialize.
    pub row: Row,
    /// What did at last.
    pub by: SyncAt,
}

/// What became of them.
#[derive(Clone, Default, Debug)]
pub struct EndTally {
    /// How many there were.
    pub count: u64,
    /// In how many of them the vCPU had run what was changed.
    pub met: u64,
    /// Does the user mean this event to end them (`defer=`)?
    pub meant: bool,
    /// How long the longest lasted, in time of the host.
    pub longest: Duration,
    /// The first address that was changed in a function that the vCPU ran.
    pub near: Option<Linear>,
    /// All that was run.
    pub way: Way,
}

/// What became of all exposures.
#[derive(Clone, Default, Debug)]
pub struct Deferrals {
    rows: BTreeMap<EndRow, EndTally>,
    began: u64,
    ended: u64,
    dropped: u64,
}

impl Deferrals {
    /// One begins.
    pub fn begin(&mut self) -> ExposureId {
        self.began += 1;
        ExposureId(self.began)
    }

    /// One begins that there is no room for.
    pub fn drop_one(&mut self) {
        self.dropped += 1;
    }

    /// One has ended.
    pub fn end(&mut self, row: Row, ended: &Ended, meant: bool) {
        self.ended += 1;
        let key = EndRow { row, by: ended.by };
        if self.rows.len() >= MAX_ROWS && !self.rows.contains_key(&key) {
            self.dropped += 1;
            return;
        }
        let tally = self.rows.entry(key).or_default();
        tally.count += 1;
        tally.met += u64::from(ended.met.is_some());
        tally.meant = meant;
        tally.longest = tally.longest.max(ended.after);
        tally.near = tally.near.or(ended.near);
        tally.way.extend(&ended.way);
    }

    /// The rows, in a stable order.
    pub fn rows(&self) -> impl Iterator<Item = (&EndRow, &EndTally)> {
        self.rows.iter()
    }

    /// How many have not ended.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.began - self.ended
    }

    /// How many found no room.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped + self.rows.values().map(|tally| tally.way.dropped()).sum::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::x86::LINUX;
    use crate::patching::{Asker, Missing};
    use icsan_model::arch::x86::events;
    use icsan_symbols::{SymbolTable, Symbolizer};

    fn at(pc: u64, origin: Option<u64>) -> SyncAt {
        SyncAt {
            event: events::MOV_CR3,
            pc: Linear(pc),
            origin: origin.map(|entry| SyncOrigin::Function(Linear(entry))),
        }
    }

    fn ended(by: SyncAt, met: Option<Linear>, pieces: &[(u64, bool)]) -> Ended {
        let mut way = Way::default();
        pieces.iter().for_each(|(entry, after)| way.add(Piece::Function(Linear(*entry)), *after));
        Ended { by, after: Duration::from_micros(7), met, near: None, way }
    }

    #[test]
    fn exposures_are_counted_by_what_ends_them() {
        let row = Row { boot: 1, asker: Asker::Membarrier, missing: Missing::AtTheEnd };
        let mut table = Deferrals::default();
        assert_eq!([table.begin(), table.begin(), table.begin()], [ExposureId(1), ExposureId(2), ExposureId(3)]);
        table.end(row, &ended(at(5, None), None, &[(1, false), (2, true)]), true);
        table.end(row, &ended(at(5, None), Some(Linear(9)), &[(1, true), (3, false)]), true);
        assert_eq!((table.open(), table.dropped()), (1, 0));
        table.drop_one();
        assert_eq!((table.open(), table.dropped()), (1, 1), "one that is not followed");
        let rows: Vec<_> = table.rows().collect();
        let [(key, tally)] = rows[..] else { panic!("{rows:?}") };
        assert_eq!((key.by, tally.count, tally.met, tally.longest), (at(5, None), 2, 1, Duration::from_micros(7)));
        let pieces: Vec<_> = tally.way.pieces().collect();
        let function = |entry| Piece::Function(Linear(entry));
        assert_eq!(pieces, [(function(1), true), (function(2), true), (function(3), false)]);
    }

    #[test]
    fn a_way_has_a_bound() {
        let mut way = Way::default();
        (0..MAX_PIECES as u64 + 3).for_each(|entry| way.add(Piece::Function(Linear(entry)), false));
        assert_eq!((way.pieces().count(), way.dropped()), (MAX_PIECES, 3));
    }

    #[test]
    fn a_design_names_its_events() {
        let map = "ffffffff81000000 T _stext\nffffffff81000100 T entry\nffffffff81000200 T switch\nffffffff82000080 T \
            entry_SYSCALL_64\nffffffff82001000 T _etext\n";
        let symbols = Symbolizer::new(vec![SymbolTable::parse(map.as_bytes()).unwrap()], LINUX.kernel.kaslr);
        symbols.learn_offset("entry_SYSCALL_64", 0xffff_ffff_8200_0080).unwrap();
        let names = symbols.names();
        let deferral = |symbol: Option<&str>| Deferral { event: events::MOV_CR3, symbol: symbol.map(str::to_owned) };
        let (entry, switch) = (0xffff_ffff_8100_0117, 0xffff_ffff_8100_0200);
        assert!(deferral(None).includes(&at(entry, None), names));
        assert!(deferral(Some("entry")).includes(&at(entry, None), names));
        assert!(!deferral(Some("switch")).includes(&at(entry, None), names));
        assert!(deferral(Some("swi*")).includes(&at(entry, Some(switch)), names), "what it belongs to");
        assert!(!deferral(None).includes(&SyncAt { event: events::IRET, ..at(entry, None) }, names));
        assert_eq!(Piece::of(Linear(entry), names), Piece::Function(Linear(0xffff_ffff_8100_0100)));
        assert_eq!(Piece::of(Linear(0x5555_1234), names), Piece::Page(Linear(0x5555_1000)));
    }
}
