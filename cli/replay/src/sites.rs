//! Hazards by site: each combination of kind, executing instruction and storing instructions once, with a count.

use icsan_model::addr::{Linear, Seq};
use icsan_model::verdict::hazard::Hazard;
use icsan_model::verdict::kind::Kind;
use std::collections::BTreeMap;

/// How many sites are kept. What comes later is counted, and the report says so.
pub const MAX_SITES: usize = 1 << 16;

/// What makes two hazards the same.
type Key = (Kind, Linear, Vec<Option<Linear>>);

/// A distinct hazard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Site {
    /// The first of its hazards.
    pub hazard: Hazard,
    /// Its place in the order.
    pub seq: Seq,
    /// How many there were.
    pub count: u64,
}

/// All distinct hazards, in the order of their first.
#[derive(Default, Debug)]
pub struct Sites {
    list: Vec<Site>,
    index: BTreeMap<Key, usize>,
    /// Hazards of sites beyond [`MAX_SITES`].
    beyond: u64,
}

impl Sites {
    /// Counts a hazard.
    pub fn add(&mut self, seq: Seq, hazard: &Hazard) {
        let mut writers: Vec<_> = hazard.writes.iter().map(|write| write.pc).collect();
        writers.sort_unstable();
        writers.dedup();
        let key = (hazard.kind, hazard.linear, writers);
        match self.index.get(&key) {
            Some(index) => self.list[*index].count += 1,
            None if self.list.len() == MAX_SITES => self.beyond += 1,
            None => {
                self.index.insert(key, self.list.len());
                self.list.push(Site { hazard: hazard.clone(), seq, count: 1 });
            }
        }
    }

    /// The sites.
    #[must_use]
    pub fn list(&self) -> &[Site] {
        &self.list
    }

    /// How many hazards are in no site, because there were too many sites.
    #[must_use]
    pub const fn beyond(&self) -> u64 {
        self.beyond
    }

    /// Distinct sites by kind, worst first.
    #[must_use]
    pub fn by_kind(&self) -> BTreeMap<Kind, u64> {
        let mut kinds = BTreeMap::new();
        for site in &self.list {
            *kinds.entry(site.hazard.kind).or_default() += 1;
        }
        kinds
    }
}
