//! Which stores can reach code: asked for every store of the guest, so that nearly all of them are left after a look at
//! one or two words.
//!
//! A physical page holds code from the first translation of a block in it on, until it is found to hold none any more.
//! Each vCPU remembers linear pages that it stored to and that held none. It must forget them when its translations may
//! change (which, for a page that was accessible, takes an event that empties the TLB, and the plugin watches these),
//! and when another page begins to hold code.

use icsan_model::addr::{Linear, Phys, Vcpu};
use icsan_model::memory::PAGE;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

/// No store that QEMU tells of is longer, in bytes.
const LONGEST_STORE: u64 = 16;

/// Linear pages that a vCPU remembers. A power of two.
const WAYS: usize = 256;

/// Physical pages whose bits lie together: those of 1 GiB. They are made when the first of them holds code.
const BITS: usize = 1 << 18;
type Bits = [AtomicU64; BITS / 64];

/// So many GiB of physical addresses have bits of their own. Higher pages share them with lower ones, which costs time
/// and no verdict: see [`PageFilter::unmark`].
const GIBS: usize = 1 << 12;

#[derive(Debug)]
#[repr(align(64))]
struct Plain {
    /// Addresses of linear pages. One that belongs elsewhere is none.
    pages: [AtomicU64; WAYS],
}

/// vCPUs that remember pages where generated code's way to them is shortest. Further ones remember none, and all their
/// stores are looked at.
const VCPUS: usize = 256;

static PLAIN: [Plain; VCPUS] = [const { Plain::new() }; VCPUS];

/// Does this vCPU, whose thread this is, remember that no page holds code that a store of up to 16 bytes through
/// `linear` touches? This is the one look at nearly all stores of the guest: it goes by no pointer.
#[inline]
#[must_use]
pub fn passes(vcpu: Vcpu, linear: Linear) -> bool {
    PLAIN.get(usize::from(vcpu.0)).is_some_and(|plain| plain.holds(linear))
}

/// The filter. There is one in a process that shares its memory with [`passes`].
#[derive(Debug)]
pub struct PageFilter {
    code: Box<[OnceLock<Box<Bits>>]>,
    /// Did code lie above what has bits of its own? Then they may belong to several pages.
    shared: AtomicBool,
    /// None: all stores are looked at.
    plain: &'static [Plain],
}

impl PageFilter {
    /// The filter of this process, for so many vCPUs; no page holds code.
    #[must_use]
    pub fn new(vcpus: usize) -> Self {
        Self::with(&PLAIN[..vcpus.min(VCPUS)])
    }

    /// The same, but nothing is remembered: every store of the guest is looked at.
    #[must_use]
    pub fn of_all_stores() -> Self {
        PLAIN.iter().for_each(Plain::clear);
        Self::with(&[])
    }

    fn with(plain: &'static [Plain]) -> Self {
        plain.iter().for_each(Plain::clear);
        Self { shared: AtomicBool::new(false), code: (0..GIBS).map(|_| OnceLock::new()).collect(), plain }
    }

    /// The page's word in the bits of its GiB, and its bit.
    fn bit(phys: Phys) -> (usize, usize, u64) {
        let page = (phys.0 / PAGE) as usize;
        (page / BITS % GIBS, page % BITS / 64, 1 << (page % 64))
    }

    fn is_above(phys: Phys) -> bool {
        phys.0 / PAGE >= (GIBS * BITS) as u64
    }

    /// The page begins to hold code. To be called before its contents are read.
    pub fn mark(&self, phys: Phys) {
        if Self::is_above(phys) {
            self.shared.store(true, Ordering::SeqCst);
        }
        let (gib, word, mask) = Self::bit(phys);
        let bits = self.code[gib].get_or_init(|| Box::new([const { AtomicU64::new(0) }; BITS / 64]));
        if bits[word].fetch_or(mask, Ordering::SeqCst) & mask == 0 {
            fence(Ordering::SeqCst);
            self.plain.iter().for_each(Plain::clear);
        }
    }

    /// The page holds no code any more. `false`: it may share its bit with another one, and keeps it.
    pub fn unmark(&self, phys: Phys) -> bool {
        if Self::is_above(phys) || self.shared.load(Ordering::SeqCst) {
            return false;
        }
        let (gib, word, mask) = Self::bit(phys);
        if let Some(bits) = self.code[gib].get() {
            bits[word].fetch_and(!mask, Ordering::SeqCst);
        }
        true
    }

    /// May the page hold code?
    #[must_use]
    pub fn may_hold_code(&self, phys: Phys) -> bool {
        let (gib, word, mask) = Self::bit(phys);
        self.code[gib].get().is_some_and(|bits| bits[word].load(Ordering::SeqCst) & mask != 0)
    }

    /// Does the vCPU, whose thread this is, remember that the linear page holds no code?
    #[must_use]
    pub fn is_plain(&self, vcpu: Vcpu, linear: Linear) -> bool {
        self.plain
            .get(usize::from(vcpu.0))
            .is_some_and(|plain| plain.pages[way(linear)].load(Ordering::Relaxed) == linear.align_down(PAGE).0)
    }

    /// The vCPU, whose thread this is, remembers that the linear page, which is mapped to this physical one, holds no
    /// code; if that is still so.
    pub fn note_plain(&self, vcpu: Vcpu, linear: Linear, phys: Phys) {
        let Some(plain) = self.plain.get(usize::from(vcpu.0)) else { return };
        plain.pages[way(linear)].store(linear.align_down(PAGE).0, Ordering::Relaxed);
        // The vCPU that marks the page sets its bit and then clears what is remembered: either the bit is seen here
        // (and that there are bits), or what was stored here is cleared there.
        fence(Ordering::SeqCst);
        if self.may_hold_code(phys) {
            plain.pages[way(linear)].store(none(way(linear)), Ordering::Relaxed);
        }
    }

    /// The vCPU's translations may change.
    pub fn forget(&self, vcpu: Vcpu) {
        if let Some(plain) = self.plain.get(usize::from(vcpu.0)) {
            plain.clear();
        }
    }

    /// All vCPUs' translations may change. A vCPU whose do have changed by now.
    pub fn forget_all(&self) {
        self.plain.iter().for_each(Plain::clear);
    }
}

impl Plain {
    const fn new() -> Self {
        Self { pages: [const { AtomicU64::new(0) }; WAYS] }
    }

    /// Does the page that a store begins in belong to those that are remembered, and end behind its last byte?
    #[inline]
    fn holds(&self, linear: Linear) -> bool {
        linear.0.wrapping_sub(self.pages[way(linear)].load(Ordering::Relaxed)) <= PAGE - LONGEST_STORE
    }

    fn clear(&self) {
        (0..).zip(&self.pages).for_each(|(way, page)| page.store(none(way), Ordering::Relaxed));
    }
}

/// What is kept where no page is remembered: one that is never looked for there.
#[inline]
fn none(way: usize) -> u64 {
    if way == 0 { PAGE } else { 0 }
}

/// Where a linear page is remembered.
#[inline]
fn way(linear: Linear) -> usize {
    (linear.0 / PAGE) as usize % WAYS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(vcpus: usize) -> PageFilter {
        PageFilter::with(Box::leak((0..vcpus).map(|_| Plain::new()).collect::<Box<[Plain]>>()))
    }

    #[test]
    fn a_page_is_plain_until_any_page_holds_code_or_the_mapping_changes() {
        let filter = filter(2);
        let is_plain = |vcpu: u16, linear| filter.plain[usize::from(vcpu)].holds(linear);
        let (page, other) = (Linear(0x7000), Linear(0x7000 + WAYS as u64 * PAGE));
        assert!(!is_plain(0, page));
        filter.note_plain(Vcpu(0), page.offset(8), Phys(0x9000));
        assert!(
            is_plain(0, page.offset(4080))
                && !is_plain(0, page.offset(4081))
                && !is_plain(1, page)
                && !is_plain(0, other)
        );
        filter.mark(Phys(0x5000));
        assert!(filter.may_hold_code(Phys(0x5fff)) && !filter.may_hold_code(Phys(0x6000)));
        assert!(!is_plain(0, page));
        filter.note_plain(Vcpu(0), page, Phys(0x5010));
        assert!(!is_plain(0, page), "the page holds code by now");
        filter.note_plain(Vcpu(0), page, Phys(0x9000));
        filter.mark(Phys(0x5008));
        assert!(is_plain(0, page), "it held code before");
        filter.forget(Vcpu(0));
        assert!(!is_plain(0, page));
    }

    #[test]
    fn nothing_is_remembered_at_first() {
        let filter = filter(1);
        let mut ways = 0..2 * WAYS as u64;
        assert!(
            ways.all(
                |page| !filter.plain[0].holds(Linear(page * PAGE)) && !filter.is_plain(Vcpu(0), Linear(page * PAGE))
            )
        );
        for page in [0, 1, WAYS as u64] {
            filter.note_plain(Vcpu(0), Linear(page * PAGE), Phys(0x9000));
            assert!(filter.plain[0].holds(Linear(page * PAGE)), "page {page}");
            filter.forget(Vcpu(0));
            assert!(!filter.plain[0].holds(Linear(page * PAGE)), "page {page}");
        }
    }

    #[test]
    fn a_filter_of_all_stores_remembers_nothing() {
        let filter = PageFilter::of_all_stores();
        filter.note_plain(Vcpu(0), Linear(0x7000), Phys(0x9000));
        filter.forget(Vcpu(0));
        filter.mark(Phys(0x5000));
        assert!(!filter.is_plain(Vcpu(0), Linear(0x7000)) && filter.may_hold_code(Phys(0x5000)));
    }

    #[test]
    fn a_page_that_holds_no_code_any_more_may_hold_some_again() {
        let filter = filter(1);
        let is_plain = |linear| filter.plain[0].holds(linear);
        filter.mark(Phys(0x5000));
        assert!(filter.unmark(Phys(0x5123)) && !filter.may_hold_code(Phys(0x5000)));
        filter.note_plain(Vcpu(0), Linear(0x7000), Phys(0x5000));
        assert!(is_plain(Linear(0x7000)));
        filter.mark(Phys(0x5000));
        assert!(filter.may_hold_code(Phys(0x5000)) && !is_plain(Linear(0x7000)), "a vCPU that stores there asks again");
    }

    #[test]
    fn pages_above_4_gib_have_bits_of_their_own_up_to_4_tib() {
        let filter = filter(1);
        let above = [1, 4, 7, 1023, GIBS as u64 - 1].map(|gib| Phys(0x5000 + (gib << 30)));
        for phys in above {
            filter.mark(phys);
            assert!(
                filter.may_hold_code(phys)
                    && !filter.may_hold_code(Phys(phys.0 + PAGE))
                    && !filter.may_hold_code(Phys(0x5000)),
                "{phys}"
            );
        }
        assert!(filter.unmark(above[1]) && !filter.may_hold_code(above[1]) && filter.may_hold_code(above[0]));
        filter.mark(Phys(0x5000));
        filter.mark(Phys(0x5000 + ((GIBS as u64) << 30)));
        assert!(!filter.unmark(Phys(0x5000)) && filter.may_hold_code(Phys(0x5000)), "the bit may be another page's");
    }
}
