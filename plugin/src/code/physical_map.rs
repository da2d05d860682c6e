//! Where code is in guest-physical memory.
//!
//! QEMU gives a host pointer for code and a physical address for a store. A walk of the page tables
//! ([`crate::qemu::page_walk`]) bridges them, whatever the size of the guest's memory and however it is laid out. It is
//! asked for when code in a page is first seen, and again and again from then on, since it may be wrong, and does not
//! stay true for ever:
//! - The page tables may have changed since QEMU looked the code up. (A page that was copied on a write, while another
//!   vCPU has not been told yet: its code is still the old page's, and the walk says the new one.) The next look is
//!   right.
//! - Memory moves. Firmware's ROM is seen below 1 MiB and below 4 GiB, a device's memory goes where its BAR says, and
//!   memory that was unplugged comes back at another address. What is plugged in somewhere takes the place of what was
//!   there.
//!
//! So the latest answer is what counts, and a page whose answer changed is asked about at once again.

use crate::qemu::host_code::HostPage;
use icsan_model::addr::Phys;
use rustc_hash::FxHashMap;

/// At each of so many translations of code in a page it is asked where the page is; and at the first two of them.
const ASK_EVERY: u32 = 16;

#[derive(Clone, Copy, Debug)]
struct Known {
    phys: Phys,
    /// How often its code was translated since the answer was another one.
    translations: u32,
}

/// Physical pages by where they are in the host's memory, and the other way round.
#[derive(Debug, Default)]
pub struct PhysicalMap {
    by_host: FxHashMap<HostPage, Known>,
    by_phys: FxHashMap<Phys, HostPage>,
    /// The page that was found out about last.
    latest: Option<(HostPage, Phys)>,
}

impl PhysicalMap {
    /// The physical page of code that lies in `host` and is being translated. `walk` asks QEMU for it. `None`: it
    /// cannot be told.
    pub fn find(&mut self, host: HostPage, walk: impl FnOnce() -> Option<Phys>) -> Option<Phys> {
        let known = self.by_host.get_mut(&host);
        if let Some(Known { phys, translations }) = known {
            *translations = translations.wrapping_add(1);
            if *translations > 2 && !translations.is_multiple_of(ASK_EVERY) {
                return Some(*phys);
            }
        }
        let known = known.map(|known| known.phys);
        match walk() {
            // It was unmapped a moment ago, and the vCPU has not been told yet.
            None => known,
            Some(phys) if known == Some(phys) => known,
            Some(phys) => {
                self.by_host.insert(host, Known { phys, translations: 0 });
                if let Some(before) = known.filter(|before| self.by_phys.get(before) == Some(&host)) {
                    self.by_phys.remove(&before);
                }
                self.by_phys.insert(phys, host);
                self.latest = Some((host, phys));
                Some(phys)
            }
        }
    }

    /// Where a page would be if its memory followed, in the host as in the machine, that of a page which is known.
    #[must_use]
    pub fn guess(&self, host: HostPage) -> Option<Phys> {
        let (known, phys) = self.latest?;
        Some(Phys(phys.0.wrapping_add(host.distance(known))))
    }

    /// Where the host has the code of a physical page, as of the last translation of any in it.
    #[must_use]
    pub fn host(&self, page: Phys) -> Option<HostPage> {
        self.by_phys.get(&page).copied()
    }

    /// Every page of code whose place is known.
    pub fn iter(&self) -> impl Iterator<Item = (HostPage, Phys)> {
        self.by_phys.iter().map(|(phys, host)| (*host, *phys))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    const HOST: HostPage = HostPage::at(0x7000_0000_0000);
    const OTHER: HostPage = HostPage::at(0x7000_0000_1000);

    #[test]
    fn a_page_is_asked_for_twice_again_and_then_rarely() {
        let mut map = PhysicalMap::default();
        let asked = Cell::new(0);
        for translation in 0..4 * ASK_EVERY {
            let walk = || {
                asked.set(asked.get() + 1);
                Some(Phys(0x1_4000_5000))
            };
            assert_eq!(map.find(HOST, walk), Some(Phys(0x1_4000_5000)), "{translation}");
        }
        assert_eq!(asked.get(), 3 + 3);
    }

    #[test]
    fn a_wrong_answer_lasts_until_the_next_one() {
        let mut map = PhysicalMap::default();
        assert_eq!(map.find(HOST, || None), None);
        assert_eq!(map.find(HOST, || Some(Phys(0x5000))), Some(Phys(0x5000)));
        assert_eq!(map.find(HOST, || Some(Phys(0x6000))), Some(Phys(0x6000)));
        assert_eq!(map.find(HOST, || None), Some(Phys(0x6000)), "it was unmapped a moment ago");
        assert_eq!((map.host(Phys(0x5000)), map.host(Phys(0x6000))), (None, Some(HOST)));
    }

    #[test]
    fn memory_that_moves_is_found_again() {
        let mut map = PhysicalMap::default();
        for _ in 0..ASK_EVERY {
            map.find(HOST, || Some(Phys(0x5000)));
        }
        let found: Vec<_> = (0..ASK_EVERY).map(|_| map.find(HOST, || Some(Phys(0x9000)))).collect();
        assert_eq!(found.last(), Some(&Some(Phys(0x9000))), "{found:?}");
        // Other memory at the same place.
        map.find(OTHER, || Some(Phys(0x9000)));
        assert_eq!(map.host(Phys(0x9000)), Some(OTHER));
        assert_eq!(map.guess(HOST), Some(Phys(0x8000)), "a page before that one");
        // What was there first is not forgotten with what took its place.
        map.find(HOST, || Some(Phys(0xa000)));
        assert_eq!(map.host(Phys(0x9000)), Some(OTHER));
    }
}
