//! Where the guest's RAM is in the host's memory: believed after stores proved it.

use crate::places::{LINEAR_UP_TO, SMALLEST_RAM};
use crate::qemu::locks::Mutex;
use icsan_model::addr::Phys;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

/// Display and system management memory. (From there to 1 MiB a PC shows RAM at its place, or firmware, which is elsewhere in the host's memory.)
const HOLE: Range<u64> = 0xa_0000..0xc_0000;

/// Stores of at least 4 bytes that have to prove where RAM is, and that may contradict it (another vCPU can store to the same place in between).
const PROOFS: u32 = 32;
const CONTRADICTIONS: u32 = 8;

/// Where the guest's RAM is in the host's memory. A block is only dropped where it is certain: QEMU is told to write one over the other.
#[derive(Debug, Default)]
pub struct Ram {
    trial: Mutex<Option<Trial>>,
    on_trial: AtomicBool,
}

#[derive(Debug)]
struct Trial {
    /// The mapping of this process; its first byte is at physical address 0.
    range: Range<usize>,
    proofs: u32,
    contradictions: u32,
}

impl Ram {
    /// Is it still to be proven?
    pub fn is_on_trial(&self) -> bool {
        self.on_trial.load(Ordering::Relaxed)
    }

    /// Code was seen here.
    pub fn offer(&self, host: usize, mapping: impl FnOnce(usize) -> Option<Range<usize>>) {
        let mut trial = self.trial.lock();
        if trial.is_none() {
            *trial = mapping(host).filter(|range| range.len() >= SMALLEST_RAM).map(|range| Trial { range, proofs: 0, contradictions: 0 });
            self.on_trial.store(trial.is_some(), Ordering::Relaxed);
        }
    }

    /// A store has just been made.
    pub fn prove(&self, phys: Phys, bytes: &[u8], holds: impl FnOnce(&Range<usize>) -> bool) {
        let mut guard = self.trial.lock();
        let Some(trial) = guard.as_mut() else { return };
        let trivial = bytes.len() < 4 || bytes.iter().all(|byte| *byte == 0);
        if trivial || HOLE.contains(&phys.0) || phys.0 >= LINEAR_UP_TO.min(trial.range.len() as u64) {
            return;
        }
        if holds(&trial.range) {
            trial.proofs += 1;
        } else {
            trial.contradictions += 1;
        }
        if trial.contradictions > CONTRADICTIONS {
            // Another mapping, then.
            *guard = None;
        } else if trial.proofs < PROOFS {
            return;
        }
        self.on_trial.store(false, Ordering::Relaxed);
    }

    /// Is it certain that so many bytes at a host address are those at that physical address?
    pub fn same(&self, host: usize, phys: Phys, len: u64) -> bool {
        let trial = self.trial.lock();
        let Some(trial) = trial.as_ref().filter(|trial| trial.proofs >= PROOFS) else { return false };
        let end = phys.0.saturating_add(len);
        let in_hole = phys.0 < HOLE.end && HOLE.start < end;
        !in_hole && end <= LINEAR_UP_TO.min(trial.range.len() as u64) && trial.range.start as u64 + phys.0 == host as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ram_is_certain_once_enough_stores_proved_it() {
        let base = 0x7000_0000_0000_usize;
        let range = base..base + (1 << 30);
        let ram = Ram::default();
        let same = |phys: u64| ram.same(base + phys as usize, Phys(phys), 1024);
        ram.offer(base, |_| None);
        assert!(!ram.on_trial.load(Ordering::Relaxed), "no such mapping");
        ram.offer(base, |_| Some(base..base + 4096));
        assert!(!ram.on_trial.load(Ordering::Relaxed), "too small");
        ram.offer(base, |_| Some(range.clone()));
        ram.prove(Phys(0x10_0000), &[0; 8], |_| true);
        ram.prove(Phys(0xb_8000), &[1; 8], |_| true);
        ram.prove(Phys(1 << 30), &[1; 8], |_| true);
        for _ in 1..PROOFS {
            ram.prove(Phys(0x10_0000), &[1; 8], |found| *found == range);
        }
        assert!(ram.on_trial.load(Ordering::Relaxed) && !same(0x10_0000));
        ram.prove(Phys(0x10_0000), &[1; 8], |_| true);
        assert!(!ram.on_trial.load(Ordering::Relaxed) && same(0x10_0000) && same(0));
        assert!(!same(0x9_fe00) && !same(0xb_fc00) && same(0x9_fc00) && same(0xc_0000), "the hole");
        assert!(!same(1 << 30) && same((1 << 30) - 1024), "the end");
        assert!(!ram.same(base + 4096, Phys(0x10_0000), 1024), "another page");
    }

    #[test]
    fn a_mapping_that_stores_contradict_is_not_ram() {
        let ram = Ram::default();
        ram.offer(0, |_| Some(0..1 << 30));
        for _ in 0..=CONTRADICTIONS {
            ram.prove(Phys(0x10_0000), &[1; 8], |_| false);
        }
        assert!(!ram.on_trial.load(Ordering::Relaxed) && !ram.same(0x10_0000, Phys(0x10_0000), 1024));
        ram.offer(0, |_| Some(0..1 << 30));
        assert!(ram.on_trial.load(Ordering::Relaxed), "another mapping has its chance");
    }
}
