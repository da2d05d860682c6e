//! Which stores can reach code: asked for every store of the guest, so that nearly all of them are left after a look at one or two words.
//!
//! A physical page holds code from the first translation of a block in it on, until it is found to hold none any more. Each vCPU remembers linear pages that it stored to and that held none. It must
//! forget them when its translations may change (which, for a page that was accessible, takes an event that empties the TLB, and the plugin watches these),
//! and when another page begins to hold code.

use icsan_model::addr::{Linear, Phys, Vcpu};
use icsan_model::memory::PAGE;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Linear pages that a vCPU remembers. A power of two.
const WAYS: usize = 256;

/// Physical pages that have a bit of their own: those of 4 GiB. Higher ones share bits with lower ones, which costs time and no verdict.
const BITS: usize = 1 << 20;

#[derive(Debug)]
#[repr(align(64))]
struct Plain {
    /// The generation that the pages were remembered in.
    generation: AtomicU64,
    /// Addresses of linear pages, with bit 0 set; 0 is none.
    pages: [AtomicU64; WAYS],
}

/// The filter.
#[derive(Debug)]
pub struct PageFilter {
    /// How many pages began to hold code.
    generation: AtomicU64,
    code: Box<[AtomicU64]>,
    /// Did code lie above 4 GiB? Then bits may belong to several pages.
    shared: AtomicBool,
    plain: Box<[Plain]>,
}

impl PageFilter {
    /// A filter for so many vCPUs; no page holds code.
    #[must_use]
    pub fn new(vcpus: usize) -> Self {
        let plain = || Plain { generation: AtomicU64::new(0), pages: [const { AtomicU64::new(0) }; WAYS] };
        Self {
            generation: AtomicU64::new(0),
            shared: AtomicBool::new(false),
            code: (0..BITS / 64).map(|_| AtomicU64::new(0)).collect(),
            plain: (0..vcpus).map(|_| plain()).collect(),
        }
    }

    fn bit(&self, phys: Phys) -> (&AtomicU64, u64) {
        let page = (phys.0 / PAGE) as usize % BITS;
        (&self.code[page / 64], 1 << (page % 64))
    }

    /// The page begins to hold code. To be called before its contents are read.
    pub fn mark(&self, phys: Phys) {
        if phys.0 / PAGE >= BITS as u64 {
            self.shared.store(true, Ordering::SeqCst);
        }
        let (word, mask) = self.bit(phys);
        if word.fetch_or(mask, Ordering::SeqCst) & mask == 0 {
            self.generation.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// The page holds no code any more. `false`: it may share its bit with another one, and keeps it.
    pub fn unmark(&self, phys: Phys) -> bool {
        if phys.0 / PAGE >= BITS as u64 || self.shared.load(Ordering::SeqCst) {
            return false;
        }
        let (word, mask) = self.bit(phys);
        word.fetch_and(!mask, Ordering::SeqCst);
        true
    }

    /// May the page hold code?
    #[must_use]
    pub fn may_hold_code(&self, phys: Phys) -> bool {
        let (word, mask) = self.bit(phys);
        word.load(Ordering::SeqCst) & mask != 0
    }

    /// Does this vCPU remember that the linear page holds no code? Asked by the vCPU's own thread.
    #[inline]
    #[must_use]
    pub fn is_plain(&self, vcpu: Vcpu, linear: Linear) -> bool {
        let Some(plain) = self.plain.get(usize::from(vcpu.0)) else { return false };
        let generation = self.generation.load(Ordering::Acquire);
        if plain.generation.load(Ordering::Relaxed) != generation {
            self.forget(vcpu);
            plain.generation.store(generation, Ordering::Relaxed);
            return false;
        }
        let page = linear.align_down(PAGE).0 | 1;
        plain.pages[(linear.0 / PAGE) as usize % WAYS].load(Ordering::Relaxed) == page
    }

    /// The vCPU remembers that the linear page holds no code. A page that begins to hold code while this is being found out makes it forget again, at its next store.
    pub fn note_plain(&self, vcpu: Vcpu, linear: Linear) {
        if let Some(plain) = self.plain.get(usize::from(vcpu.0)) {
            plain.pages[(linear.0 / PAGE) as usize % WAYS].store(linear.align_down(PAGE).0 | 1, Ordering::Relaxed);
        }
    }

    /// The vCPU's translations may change.
    pub fn forget(&self, vcpu: Vcpu) {
        if let Some(plain) = self.plain.get(usize::from(vcpu.0)) {
            plain.pages.iter().for_each(|page| page.store(0, Ordering::Relaxed));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_plain_until_any_page_holds_code_or_the_mapping_changes() {
        let filter = PageFilter::new(2);
        let (page, other) = (Linear(0x7000), Linear(0x7000 + WAYS as u64 * PAGE));
        assert!(!filter.is_plain(Vcpu(0), page));
        filter.note_plain(Vcpu(0), page.offset(8));
        assert!(filter.is_plain(Vcpu(0), page.offset(4095)) && !filter.is_plain(Vcpu(1), page) && !filter.is_plain(Vcpu(0), other));
        filter.mark(Phys(0x5000));
        assert!(filter.may_hold_code(Phys(0x5fff)) && !filter.may_hold_code(Phys(0x6000)));
        assert!(!filter.is_plain(Vcpu(0), page));
        filter.note_plain(Vcpu(0), page);
        filter.mark(Phys(0x5008));
        assert!(filter.is_plain(Vcpu(0), page), "it held code before");
        filter.forget(Vcpu(0));
        assert!(!filter.is_plain(Vcpu(0), page));
    }

    #[test]
    fn a_page_that_holds_no_code_any_more_may_hold_some_again() {
        let filter = PageFilter::new(1);
        filter.mark(Phys(0x5000));
        assert!(filter.unmark(Phys(0x5123)) && !filter.may_hold_code(Phys(0x5000)));
        filter.note_plain(Vcpu(0), Linear(0x7000));
        assert!(!filter.is_plain(Vcpu(0), Linear(0x7000)), "another generation");
        filter.note_plain(Vcpu(0), Linear(0x7000));
        filter.mark(Phys(0x5000));
        assert!(filter.may_hold_code(Phys(0x5000)) && !filter.is_plain(Vcpu(0), Linear(0x7000)), "whoever stores there asks again");
        filter.mark(Phys(0x1_0000_5000));
        assert!(!filter.unmark(Phys(0x5000)) && filter.may_hold_code(Phys(0x5000)), "the bit may be another page's");
    }
}
