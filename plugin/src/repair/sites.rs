//! Sites: the places of blocks that were watched for being outdated, each with a number that fits into a word beside a
//! block's version. So what QEMU's generated code holds of a block is one word, and nothing is kept for each
//! translation.

use super::numbers::{Part, SUSPECT, VERSION_BITS};
use crate::qemu::locks::Mutex;
use icsan_model::addr::{Linear, Phys};
use rustc_hash::FxHashMap;
use std::sync::OnceLock;

/// Sites that can be told apart: those that `64 - VERSION_BITS` bits number.
pub const MAX_SITES: u32 = 1 << (u64::BITS - VERSION_BITS);

/// What tells sites apart: where the block begins, where its parts are in memory, with their lengths in bytes, and the
/// lines of which page they have ([`super::numbers::Lines::id`]).
pub type Key = (Linear, [Option<(Phys, u64)>; 2], [Option<usize>; 2]);

/// The place of a block.
#[derive(Debug)]
pub struct Site {
    /// Its first byte.
    pub block: Linear,
    /// Its length in bytes.
    pub len: u64,
    /// The lines that it touches, by page.
    pub parts: [Option<Part>; 2],
    /// Its first byte in guest memory, and in the host's.
    pub at: (Phys, usize),
}

/// Number of a site.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SiteId(pub u32);

/// A version of a block: what its callback is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Word(u64);

impl Word {
    /// A site and a version, which is the number of a store or [`SUSPECT`].
    #[must_use]
    pub fn new(site: SiteId, version: u64) -> Self {
        Self(u64::from(site.0) << VERSION_BITS | version & SUSPECT)
    }

    /// As it was registered.
    #[must_use]
    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// As it is registered.
    #[must_use]
    pub fn bits(self) -> u64 {
        self.0
    }

    /// The site.
    #[must_use]
    pub fn site(self) -> SiteId {
        SiteId((self.0 >> VERSION_BITS) as u32)
    }

    /// The version.
    #[must_use]
    pub fn version(self) -> u64 {
        self.0 & SUSPECT
    }
}

/// All sites. They are found by number without a lock, in callbacks.
#[derive(Debug)]
pub struct Sites {
    ids: Mutex<FxHashMap<Key, SiteId>>,
    /// Made when they are needed.
    pieces: Box<[OnceLock<Piece>]>,
    limit: u32,
}

/// Sites that get their room together.
const PIECE: usize = 1 << 10;
type Piece = Box<[OnceLock<Site>]>;

impl Sites {
    /// Room for `limit` sites, [`MAX_SITES`] at most.
    #[must_use]
    pub fn new(limit: u32) -> Self {
        let limit = limit.min(MAX_SITES);
        Self {
            ids: Mutex::default(),
            pieces: (0..(limit as usize).div_ceil(PIECE)).map(|_| OnceLock::new()).collect(),
            limit,
        }
    }

    /// A site's number; `site` makes it if it is new. `None`: no room.
    pub fn number(&self, key: Key, site: impl FnOnce() -> Site) -> Option<SiteId> {
        let mut ids = self.ids.lock();
        if let Some(id) = ids.get(&key) {
            return Some(*id);
        }
        let id = SiteId(u32::try_from(ids.len()).ok().filter(|next| *next < self.limit)?);
        let piece =
            self.pieces.get(id.0 as usize / PIECE)?.get_or_init(|| (0..PIECE).map(|_| OnceLock::new()).collect());
        let _ = piece.get(id.0 as usize % PIECE)?.set(site());
        ids.insert(key, id);
        Some(id)
    }

    /// The site of that number.
    #[must_use]
    pub fn get(&self, id: SiteId) -> Option<&Site> {
        self.pieces.get(id.0 as usize / PIECE)?.get()?.get(id.0 as usize % PIECE)?.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(block: u64) -> Site {
        Site { block: Linear(block), len: 4, parts: [None, None], at: (Phys(block), 0) }
    }

    #[test]
    fn a_word_holds_a_site_and_a_version() {
        for (id, version) in [(0, 0), (MAX_SITES - 1, 7), (5, SUSPECT), (MAX_SITES - 1, SUSPECT - 1)] {
            let word = Word::from_bits(Word::new(SiteId(id), version).bits());
            assert_eq!((word.site(), word.version()), (SiteId(id), version));
        }
    }

    #[test]
    fn a_site_has_one_number_and_there_are_so_many() {
        let sites = Sites::new(PIECE as u32 + 2);
        let key = |block: u64| (Linear(block), [Some((Phys(block), 4)), None], [Some(0), None]);
        for block in 0..PIECE as u64 + 2 {
            assert_eq!(sites.number(key(block), || site(block)), Some(SiteId(block as u32)));
        }
        assert_eq!(sites.number(key(3), || site(99)), Some(SiteId(3)));
        let (block, spans, _) = key(3);
        assert_eq!(
            sites.number((block, spans, [Some(1), None]), || site(3)),
            None,
            "the page has other lines now: another one"
        );
        assert_eq!(sites.get(SiteId(PIECE as u32)).map(|site| site.block), Some(Linear(PIECE as u64)));
        assert_eq!(sites.number(key(1 << 20), || site(0)), None, "full");
        assert!(sites.get(SiteId(PIECE as u32 + 2)).is_none() && sites.get(SiteId(MAX_SITES)).is_none());
    }
}
