//! What a vCPU's own stores do to what it holds: a store through the linear address that it executes from becomes
//! visible at its next taken branch (SDM vol. 3, "Handling Self- and Cross-Modifying Code", option 1).

use crate::addr::{Linear, Seq};
use std::collections::BTreeMap;

/// The own stores of one vCPU in its epoch, by linear chunk.
#[derive(Clone, Debug, Default)]
pub struct OwnStores {
    /// What the next taken branch makes visible: the last one to each chunk.
    pending: BTreeMap<Linear, Seq>,
    /// What a taken branch has made visible: nothing older than this is left of the chunk.
    visible: BTreeMap<Linear, Seq>,
}

impl OwnStores {
    /// It stored to a chunk.
    pub fn store(&mut self, chunk: Linear, at: Seq) {
        later(&mut self.pending, chunk, at);
    }

    /// It took a branch.
    pub fn branch(&mut self) {
        for (chunk, at) in std::mem::take(&mut self.pending) {
            later(&mut self.visible, chunk, at);
        }
    }

    /// Is there anything that a branch would make visible?
    #[must_use]
    pub fn awaits_branch(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The oldest moment that is left of a chunk that was brought in at `since`.
    #[must_use]
    pub fn clip(&self, chunk: Linear, since: Seq) -> Seq {
        self.visible.get(&chunk).map_or(since, |store| since.max(*store))
    }

    /// A serializing event.
    pub fn clear(&mut self) {
        let Self { pending, visible } = self;
        pending.clear();
        visible.clear();
    }
}

fn later(stores: &mut BTreeMap<Linear, Seq>, chunk: Linear, at: Seq) {
    let last = stores.entry(chunk).or_default();
    *last = at.max(*last);
}

/// The chunks of `chunk` bytes that `len` bytes at `linear` touch, by address.
pub fn chunks(linear: Linear, len: u64, chunk: u64) -> impl Iterator<Item = Linear> {
    let first = linear.align_down(chunk);
    let blocks = (linear.0 - first.0 + len).div_ceil(chunk);
    (0..blocks).map(move |block| first.offset(block * chunk))
}
