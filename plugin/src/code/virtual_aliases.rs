//! Virtual aliases: the linear addresses at which a page of code is executed.
//!
//! QEMU translates code independently of its place (`CF_PCREL`), and runs one translation at every linear address
//! that leads to the same memory. A callback tells the address at which the block was *translated*. For a kernel's text
//! that is the one that it runs at. A page that is mapped twice, or by two processes, may run at another one; what a
//! vCPU holds goes by linear address, and so does the rule for its own stores. So for pages that were translated at
//! several addresses, and whose code changes, the address is asked for at each first execution: the program counter,
//! which is exact where a block begins, and not behind the callback's instruction within it. (Not where the program
//! counter may be no linear address, as on x86 below 4 GiB.)

use crate::code::segment::Segment;
use icsan_model::addr::Linear;
use icsan_model::memory::PAGE;
use rustc_hash::FxHashMap;

/// One page of code in the host's memory.
#[derive(Debug)]
struct AliasedPage {
    /// The linear page that it was first translated at.
    first: Linear,
    /// Was it translated at another one, too?
    several: bool,
    /// Did any of its code change?
    changed: bool,
    segments: Vec<&'static Segment>,
}

/// All pages of code.
#[derive(Debug)]
pub struct VirtualAliases {
    by_host: FxHashMap<usize, AliasedPage>,
    /// From there on the program counter is a linear address.
    counted_from: Linear,
}

fn page_of(segment: &Segment) -> Option<usize> {
    segment.host.identity().map(|host| host.wrapping_sub((segment.run().linear().0 % PAGE) as usize))
}

impl VirtualAliases {
    /// None so far, on an architecture whose program counter is a linear address from there on.
    #[must_use]
    pub fn new(counted_from: Linear) -> Self {
        Self { by_host: FxHashMap::default(), counted_from }
    }

    /// A new segment.
    pub fn add(&mut self, segment: &'static Segment) {
        let Some(page) = page_of(segment).filter(|_| segment.run().linear() >= self.counted_from) else { return };
        let linear = segment.run().linear().align_down(PAGE);
        let aliased = self.by_host.entry(page).or_insert_with(|| AliasedPage {
            first: linear,
            several: false,
            changed: false,
            segments: Vec::new(),
        });
        aliased.several |= aliased.first != linear;
        aliased.segments.push(segment);
        aliased.ask();
    }

    /// Code in the segment's page has changed.
    pub fn changed(&mut self, segment: &Segment) {
        if let Some(aliased) =
            page_of(segment).and_then(|page| self.by_host.get_mut(&page)).filter(|aliased| !aliased.changed)
        {
            aliased.changed = true;
            aliased.ask();
        }
    }
}

impl AliasedPage {
    fn ask(&self) {
        if self.several && self.changed {
            self.segments.iter().for_each(|segment| segment.ask_where());
        }
    }
}

/// How far from the address where it was translated an instruction runs, given a program counter of its block that is
/// not behind it: whole pages.
#[must_use]
pub fn shift(translated: Linear, counter: Linear) -> u64 {
    // Modulo 2^64, rounded up: the counter may lie before the instruction, by less than a page.
    counter.0.wrapping_sub(translated.0).wrapping_add(PAGE - 1) & !(PAGE - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instruction_runs_whole_pages_away() {
        let translated = Linear(0x7000_0123);
        for (counter, expected) in [
            (0x7000_0123, 0),
            (0x7000_0100, 0),
            (0x6fff_ff80, 0),
            (0x9000_0123, 0x2000_0000),
            (0x9000_0001, 0x2000_0000),
            (0x6000_0123, 0x1000_0000_u64.wrapping_neg()),
            (0x5fff_ff00, 0x1000_0000_u64.wrapping_neg()),
        ] {
            assert_eq!(shift(translated, Linear(counter)), expected, "{counter:x}");
        }
    }
}
