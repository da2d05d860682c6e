//! Where code is in guest-physical memory.
//!
//! QEMU gives a host pointer for code and a physical address for a store. From plugin API 5 on it translates linear addresses, so the physical page of each page of code is asked for once.
//! API 4 cannot: there the guest's RAM is one mapping of the process, whose start is physical address 0, and that is believed only after stores
//! proved it: what was stored at a physical address could be read at that distance from the mapping's start.

use crate::qemu::cpu::CurrentCpu;
use crate::qemu::host_code::{HostPage, mapping_holds, mapping_of};
use icsan_model::addr::{Linear, Phys};
use icsan_model::memory::PAGE;
use rustc_hash::FxHashMap;
use std::ops::Range;

/// Smaller mappings are firmware or devices, not the machine's RAM; in bytes.
pub const SMALLEST_RAM: usize = 16 << 20;

/// RAM beyond this physical address continues above 4 GiB on some machines (the lowest such limit of QEMU's PC machines): its place is not known.
pub const LINEAR_UP_TO: u64 = 0x8000_0000;

/// Stores of at least 4 bytes that have to prove the mapping.
const PROOFS: u32 = 32;

/// Stores that may contradict it: another vCPU can store to the same place in between.
const CONTRADICTIONS: u32 = 8;

/// RAM as API 4 lets it be known.
#[derive(Clone, Debug)]
enum Ram {
    /// No code in RAM has been seen yet.
    Unseen,
    /// A mapping of this process that holds code, on trial.
    Trial { range: Range<usize>, proofs: u32, contradictions: u32 },
    /// The trial was won.
    Proven(Range<usize>),
    /// It was lost.
    Refuted,
}

/// Physical pages by where they are in the host's memory.
#[derive(Debug)]
pub struct Places {
    known: FxHashMap<HostPage, Phys>,
    ram: Ram,
    /// Pages of code whose place could not be told.
    lost: u64,
}

impl Default for Places {
    fn default() -> Self {
        Self { known: FxHashMap::default(), ram: Ram::Unseen, lost: 0 }
    }
}

impl Places {
    /// The physical page of code at `linear`, which lies in `host`. `None`: it cannot be told (yet).
    pub fn find(&mut self, host: HostPage, linear: Linear, cpu: &CurrentCpu) -> Option<Phys> {
        if let Some(known) = self.known.get(&host) {
            return Some(*known);
        }
        let found = match cpu.physical(linear.align_down(PAGE).0) {
            Some(phys) => Some(Phys(phys)),
            None => self.in_ram(host),
        };
        match found {
            Some(phys) => drop(self.known.insert(host, phys)),
            None => self.lost += 1,
        }
        found
    }

    fn in_ram(&mut self, host: HostPage) -> Option<Phys> {
        if matches!(self.ram, Ram::Unseen)
            && let Some(range) = mapping_of(host.address()).filter(|range| range.len() >= SMALLEST_RAM)
        {
            self.ram = Ram::Trial { range, proofs: 0, contradictions: 0 };
        }
        let Ram::Proven(range) = &self.ram else { return None };
        let offset = range.contains(&host.address()).then(|| (host.address() - range.start) as u64)?;
        (offset < LINEAR_UP_TO).then_some(Phys(offset))
    }

    /// Every page of code whose place is known.
    pub fn iter(&self) -> impl Iterator<Item = (HostPage, Phys)> {
        self.known.iter().map(|(host, phys)| (*host, *phys))
    }

    /// Does a trial wait for stores?
    #[must_use]
    pub fn on_trial(&self) -> bool {
        matches!(self.ram, Ram::Trial { .. })
    }

    /// A store that has just been made. `true` if it was the last proof that was needed: code that had no place may have one now.
    pub fn prove(&mut self, phys: Phys, bytes: &[u8]) -> bool {
        let Ram::Trial { range, proofs, contradictions } = &mut self.ram else { return false };
        let trivial = bytes.len() < 4 || bytes.iter().all(|byte| *byte == 0);
        if trivial || phys.0 >= LINEAR_UP_TO.min(range.len() as u64) {
            return false;
        }
        if mapping_holds(range, phys.0, bytes) {
            *proofs += 1;
        } else {
            *contradictions += 1;
        }
        if *contradictions > CONTRADICTIONS {
            self.ram = Ram::Refuted;
            return false;
        }
        let won = *proofs >= PROOFS;
        if won {
            self.ram = Ram::Proven(range.clone());
        }
        won
    }

    /// How often code had no place.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Why it had none, for the report.
    #[must_use]
    pub fn trouble(&self) -> Option<&'static str> {
        match self.ram {
            Ram::Refuted => Some(
                "this QEMU (plugin API 4) does not say where code is in physical memory, and it could not be found out: writers are unknown",
            ),
            Ram::Trial { .. } if self.lost > 0 => Some(
                "this QEMU (plugin API 4) does not say where code is in physical memory, and too few stores were seen to prove it: writers are unknown",
            ),
            _ => None,
        }
    }
}
