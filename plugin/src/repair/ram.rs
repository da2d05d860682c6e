//! Where the guest's RAM is in the host's memory, for a QEMU that does not tell ([`crate::qemu::host_address`]): what
//! it says of code, believed after stores proved it.
//!
//! A block is dropped by having QEMU write memory over itself, so its host address and its physical address must be
//! certain to be the same memory. QEMU gives the one of what it translated, and the other by a walk of the page tables,
//! which may be of another moment ([`crate::code::physical_map`]). What keeps them apart: RAM lies in few **pieces**,
//! in each of which host addresses and physical addresses differ by one **distance**, however the machine lays them out
//! (below and above 4 GiB, and each memory device). A walk of another moment leads to another page, and so to another
//! distance: in one piece two pages have two addresses, and from one piece to another only one pair of pages in
//! millions has the distance of either.

use crate::qemu::locks::Mutex;
use icsan_model::addr::Phys;
use icsan_model::memory::PAGE;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

/// Smaller mappings are firmware or devices, not RAM; in bytes.
const SMALLEST_RAM: usize = 16 << 20;

/// Stores of at least 4 bytes that have to prove a piece, and that may contradict it (another vCPU can store to the
/// same place in between).
const PROOFS: u32 = 32;
const CONTRADICTIONS: u32 = 8;

/// Pieces, and mappings that are too small, that are remembered. A machine has two pieces, and one for each memory
/// device.
const MOST: usize = 64;

/// Where the guest's RAM is in the host's memory.
#[derive(Debug)]
pub struct Ram {
    known: Mutex<Known>,
    on_trial: AtomicBool,
    /// See [`Facts`](crate::arch::platform::Facts).
    hidden: Range<u64>,
    unproven: Range<u64>,
}

#[derive(Debug, Default)]
struct Known {
    pieces: Vec<Piece>,
    too_small: Vec<Range<usize>>,
}

#[derive(Debug)]
struct Piece {
    /// The mapping of this process that it lies in.
    mapping: Range<usize>,
    /// Host address less physical address, modulo 2^64.
    distance: u64,
    /// From the first page of code that had it to the last: what lies in between is the piece's, too.
    first: u64,
    last: u64,
    proofs: u32,
    contradictions: u32,
}

impl Piece {
    fn has(&self, host: usize, phys: Phys) -> bool {
        self.distance == distance(host, phys) && self.mapping.contains(&host)
    }

    fn spans(&self, phys: Phys) -> bool {
        (self.first..=self.last).contains(&phys.align_down(PAGE).0)
    }

    fn is_proven(&self) -> bool {
        self.proofs >= PROOFS
    }

    /// One page alone may be a walk of another moment, and no vCPU may ever store to it.
    fn asks(&self) -> bool {
        !self.is_proven() && self.first < self.last
    }
}

fn distance(host: usize, phys: Phys) -> u64 {
    (host as u64).wrapping_sub(phys.0)
}

impl Known {
    fn settle(&self, on_trial: &AtomicBool) {
        on_trial.store(self.pieces.iter().any(Piece::asks), Ordering::Relaxed);
    }
}

impl Ram {
    /// Nothing is known of it, but for what the machine's architecture says of these physical addresses.
    pub fn new(hidden: Range<u64>, unproven: Range<u64>) -> Self {
        Self { known: Mutex::default(), on_trial: AtomicBool::new(false), hidden, unproven }
    }

    /// Is any of it still to be proven?
    #[inline]
    pub fn is_on_trial(&self) -> bool {
        self.on_trial.load(Ordering::Relaxed)
    }

    /// Code was seen at a host address, and at a physical one.
    pub fn offer(&self, host: usize, phys: Phys, mapping: impl FnOnce(usize) -> Option<Range<usize>>) {
        let (host, phys) = (host - (phys.0 % PAGE) as usize, phys.align_down(PAGE));
        let mut known = self.known.lock();
        if let Some(piece) = known.pieces.iter_mut().find(|piece| piece.has(host, phys)) {
            if piece.spans(phys) {
                return;
            }
            (piece.first, piece.last) = (piece.first.min(phys.0), piece.last.max(phys.0));
        } else {
            if known.too_small.iter().any(|mapping| mapping.contains(&host)) {
                return;
            }
            let Some(mapping) = mapping(host) else { return };
            if mapping.len() < SMALLEST_RAM {
                if known.too_small.len() < MOST {
                    known.too_small.push(mapping);
                }
                return;
            }
            if known.pieces.len() >= MOST {
                // Walks of another moment may have filled it.
                let Some(unproven) = known.pieces.iter().position(|piece| !piece.is_proven()) else { return };
                known.pieces.remove(unproven);
            }
            let distance = distance(host, phys);
            known.pieces.push(Piece { mapping, distance, first: phys.0, last: phys.0, proofs: 0, contradictions: 0 });
        }
        known.settle(&self.on_trial);
    }

    /// A store has just been made. `holds`: does the mapping hold its bytes, so far from its start?
    pub fn prove(&self, phys: Phys, bytes: &[u8], holds: impl Fn(&Range<usize>, u64) -> bool) {
        let trivial = bytes.len() < 4 || bytes.iter().all(|byte| *byte == 0);
        if trivial || self.unproven.contains(&phys.0) {
            return;
        }
        let mut known = self.known.lock();
        for piece in known.pieces.iter_mut().filter(|piece| piece.asks() && (piece.first..piece.last).contains(&phys.0))
        {
            let offset = phys.0.wrapping_add(piece.distance).wrapping_sub(piece.mapping.start as u64);
            if holds(&piece.mapping, offset) {
                piece.proofs += 1;
            } else {
                piece.contradictions += 1;
            }
        }
        known.pieces.retain(|piece| piece.is_proven() || piece.contradictions <= CONTRADICTIONS);
        known.settle(&self.on_trial);
    }

    /// Is it certain that so many bytes at a host address, which lie in one page, are those at that physical address?
    pub fn same(&self, host: usize, phys: Phys, len: u64) -> bool {
        let is_hidden = phys.0 < self.hidden.end && self.hidden.start < phys.0.saturating_add(len);
        let known = self.known.lock();
        let mut proven = known.pieces.iter().filter(|piece| piece.is_proven());
        !is_hidden
            && proven.clone().any(|piece| piece.has(host, phys))
            && proven.all(|piece| piece.has(host, phys) || !piece.spans(phys))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: usize = 0x7000_0000_0000;
    const GIB: u64 = 1 << 30;
    /// As on a PC.
    const HIDDEN: Range<u64> = 0xa_0000..0xc_0000;
    const UNPROVEN: Range<u64> = 0xa_0000..0x10_0000;

    /// A machine with 6 GiB, of which 2 lie below 4 GiB.
    fn machine() -> (Ram, impl Fn(u64) -> usize + Copy, impl Fn(usize) -> Option<Range<usize>> + Copy) {
        let host = |phys: u64| BASE + if phys < 2 * GIB { phys } else { phys - 2 * GIB } as usize;
        (Ram::new(HIDDEN, UNPROVEN), host, |_| Some(BASE..BASE + 6 * GIB as usize))
    }

    /// Stores that went where they should.
    fn prove(ram: &Ram, host: impl Fn(u64) -> usize, phys: u64, times: u32) {
        for _ in 0..times {
            ram.prove(Phys(phys), &[1; 8], |mapping, offset| mapping.start as u64 + offset == host(phys) as u64);
        }
    }

    #[test]
    fn each_piece_is_certain_once_enough_stores_proved_it() {
        let (ram, host, mapping) = machine();
        let same = |phys: u64| ram.same(host(phys), Phys(phys), 1024);
        let offer = |phys: u64| ram.offer(host(phys), Phys(phys), mapping);
        offer(0x7c00);
        assert!(!ram.is_on_trial(), "one page");
        offer(0x200_0000);
        assert!(ram.is_on_trial());
        ram.prove(Phys(0x10_0000), &[0; 8], |_, _| true);
        ram.prove(Phys(0x10_0000), &[1; 2], |_, _| true);
        ram.prove(Phys(0xb_8000), &[1; 8], |_, _| true);
        ram.prove(Phys(0xf_0000), &[1; 8], |_, _| true);
        ram.prove(Phys(0x300_0000), &[1; 8], |_, _| true);
        ram.prove(Phys(5 * GIB), &[1; 8], |_, _| true);
        prove(&ram, host, 0x10_0000, PROOFS - 1);
        assert!(ram.is_on_trial() && !same(0x10_0000), "none of the others counts");
        prove(&ram, host, 0x10_0000, 1);
        assert!(!ram.is_on_trial() && same(0x10_0000) && same(0) && same(GIB));
        assert!(!same(0x9_fe00) && !same(0xb_fc00) && same(0x9_fc00) && same(0xc_0000), "the hole");
        assert!(!ram.same(BASE + 4096, Phys(0x10_0000), 1024), "another page");
        // The other piece.
        assert!(!same(5 * GIB));
        offer(5 * GIB);
        offer(6 * GIB);
        prove(&ram, host, 6 * GIB - 8, PROOFS);
        assert!(same(5 * GIB) && same(4 * GIB) && same(7 * GIB) && same(0x10_0000) && !ram.is_on_trial());
        assert!(!ram.same(host(GIB), Phys(5 * GIB), 1024));
        assert!(!ram.same(host(7 * GIB), Phys(5 * GIB), 1024), "the distance of the other piece, in this one");
    }

    #[test]
    fn a_walk_of_another_moment_is_not_believed_and_asks_for_nothing() {
        let (ram, host, mapping) = machine();
        ram.offer(host(0x20_0000), Phys(0x20_0000), mapping);
        ram.offer(host(0x80_0000), Phys(0x80_0000), mapping);
        prove(&ram, host, 0x40_0000, PROOFS);
        ram.offer(host(0x40_0000), Phys(0x50_0000), mapping);
        assert!(!ram.is_on_trial());
        assert!(!ram.same(host(0x40_0000), Phys(0x50_0000), 1024) && ram.same(host(0x50_0000), Phys(0x50_0000), 1024));
        // However many there are.
        (0..2 * MOST as u64).for_each(|page| ram.offer(host(0x40_0000), Phys(GIB + page * PAGE), mapping));
        assert!(ram.same(host(0x50_0000), Phys(0x50_0000), 1024) && ram.known.lock().pieces.len() <= MOST);
    }

    #[test]
    fn what_stores_contradict_is_no_ram_and_may_be_offered_again() {
        let (ram, host, mapping) = machine();
        let offer = || [0x20_0000, 0x80_0000].map(|phys| ram.offer(host(phys), Phys(phys), mapping));
        offer();
        for _ in 0..=CONTRADICTIONS {
            ram.prove(Phys(0x40_0000), &[1; 8], |_, _| false);
        }
        assert!(!ram.is_on_trial() && !ram.same(host(0x40_0000), Phys(0x40_0000), 1024));
        offer();
        assert!(ram.is_on_trial());
    }

    #[test]
    fn small_mappings_are_looked_up_once() {
        let ram = Ram::new(HIDDEN, UNPROVEN);
        ram.offer(BASE, Phys(0xf_0000), |_| None);
        ram.offer(BASE, Phys(0xf_0000), |_| Some(BASE..BASE + 4096));
        ram.offer(BASE, Phys(0xf_0000), |_| unreachable!());
        assert!(ram.known.lock().pieces.is_empty());
    }
}
