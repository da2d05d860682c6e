//! What each linear page of one vCPU was mapped to, and when.
//!
//! Code mapped where nothing was mapped before cannot be stale, since there was nothing to bring in: an unmapped page
//! contributes no candidate. (It takes a CR3 write to get into an address space, and that serializes; this covers the
//! pages that come later.)

use crate::addr::{Linear, Phys, Seq};
use crate::memory::PAGE;
use std::collections::BTreeMap;

/// A stretch of time in which a page did not move: `from` to `to`, both included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Placement {
    /// The first moment.
    pub from: Seq,
    /// The last moment.
    pub to: Seq,
    /// The physical page, if there was one.
    pub phys: Option<Phys>,
}

/// The translations of one vCPU and their past.
#[derive(Clone, Debug, Default)]
pub struct Mapping {
    /// By linear page; each change with its place in the order, oldest first.
    pages: BTreeMap<Linear, Vec<(Seq, Option<Phys>)>>,
    /// A time without a physical page is one of which nothing is known.
    sketchy: bool,
}

impl Mapping {
    /// An empty mapping in which a page that was unmapped for a time was somewhere unknown: that time contributes
    /// nothing, not even that there was nothing.
    #[must_use]
    pub fn sketchy() -> Self {
        Self { sketchy: true, ..Self::default() }
    }

    /// From event `seq` on, `page` is mapped to `phys`. Answers whether that is a change.
    pub fn remap(&mut self, seq: Seq, page: Linear, phys: Option<Phys>) -> bool {
        let history = self.pages.entry(page).or_default();
        let changed = history.last().and_then(|(_, phys)| *phys) != phys;
        if changed {
            history.push((seq, phys));
        }
        changed
    }

    /// The physical address of a byte, now.
    #[must_use]
    pub fn translate(&self, linear: Linear) -> Option<Phys> {
        let page = linear.align_down(PAGE);
        let (_, phys) = self.pages.get(&page)?.last()?;
        phys.map(|phys| phys.offset(linear.0 - page.0))
    }

    /// Where `page` was between `from` and `to`, oldest first, without gaps (but for [sketchy](Mapping::sketchy) ones).
    #[must_use]
    pub fn placements(&self, page: Linear, from: Seq, to: Seq) -> Vec<Placement> {
        let history = self.pages.get(&page).map_or(&[][..], Vec::as_slice);
        let first = history.partition_point(|(seq, _)| *seq <= from);
        let mut placements =
            vec![Placement { from, to, phys: first.checked_sub(1).and_then(|index| history[index].1) }];
        for (seq, phys) in history[first..].iter().take_while(|(seq, _)| *seq <= to) {
            if let Some(last) = placements.last_mut() {
                last.to = Seq(seq.0 - 1);
            }
            placements.push(Placement { from: *seq, to, phys: *phys });
        }
        if self.sketchy {
            let last = placements.len() - 1;
            let mut index = 0..;
            placements.retain(|placement| index.next() == Some(last) || placement.phys.is_some());
        }
        placements
    }

    /// The last time that `page` moved, if that was after `after`.
    #[must_use]
    pub fn moved_after(&self, page: Linear, after: Seq) -> Option<Seq> {
        let (seq, _) = self.pages.get(&page)?.last()?;
        (*seq > after).then_some(*seq)
    }

    /// The linear pages that are mapped to this physical page now.
    pub fn pages_of(&self, phys: Phys) -> impl Iterator<Item = Linear> {
        self.pages
            .iter()
            .filter(move |(_, history)| history.last().and_then(|(_, phys)| *phys) == Some(phys))
            .map(|(page, _)| *page)
    }

    /// Forgets what was before event `horizon`.
    pub fn forget_before(&mut self, horizon: Seq) {
        for history in self.pages.values_mut() {
            let past = history.partition_point(|(seq, _)| *seq <= horizon);
            history.drain(..past.saturating_sub(1));
        }
        self.pages.retain(|_, history| !matches!(history[..], [] | [(_, None)]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placements_have_no_gaps() {
        let page = Linear(PAGE);
        let mut mapping = Mapping::default();
        assert!(!mapping.remap(Seq(1), page, None), "it was unmapped before");
        assert!(mapping.remap(Seq(2), page, Some(Phys(0))));
        assert!(!mapping.remap(Seq(3), page, Some(Phys(0))));
        assert!(mapping.remap(Seq(5), page, Some(Phys(PAGE))));
        let placement = |from, to, phys: Option<u64>| Placement { from: Seq(from), to: Seq(to), phys: phys.map(Phys) };
        assert_eq!(
            mapping.placements(page, Seq(0), Seq(9)),
            [placement(0, 1, None), placement(2, 4, Some(0)), placement(5, 9, Some(PAGE))]
        );
        assert_eq!(mapping.placements(page, Seq(3), Seq(4)), [placement(3, 4, Some(0))]);
        assert_eq!(mapping.translate(page.offset(3)), Some(Phys(PAGE + 3)));
        assert_eq!(mapping.moved_after(page, Seq(4)), Some(Seq(5)));
        assert_eq!(mapping.moved_after(page, Seq(5)), None);
        mapping.forget_before(Seq(5));
        assert_eq!(mapping.placements(page, Seq(5), Seq(9)), [placement(5, 9, Some(PAGE))]);
    }
}
