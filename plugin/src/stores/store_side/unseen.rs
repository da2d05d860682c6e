//! Stores of which it is known which vCPU makes them, and where, but not what: QEMU tells of no access.
//!
//! Each is one of single bytes: DC ZVA and its kind are a set of stores to each byte of their block, and CPY and SET
//! access memory by what sizes they like (DDI0487, C5.3, "DC ZVA", and C3.2.12, "Memory Copy and Memory Set
//! instructions"). The lowest address counts as stored first.

use super::StoreSide;
use crate::qemu::cpu::CurrentCpu;
use crate::qemu::host_code::Contents;
use crate::stores::code_store::{CodeStore, Touched};
use crate::vcpu::VcpuState;
use icsan_model::addr::{Linear, Phys, Seq, Vcpu};
use icsan_model::memory::PAGE;

/// Such a store. It lies in one page.
#[derive(Clone, Copy, Debug)]
pub struct Unseen {
    /// Who.
    pub vcpu: Vcpu,
    /// The instruction.
    pub pc: Linear,
    /// Through which address.
    pub linear: Linear,
    /// To which.
    pub phys: Phys,
    /// How many bytes at most.
    pub len: u64,
}

impl StoreSide {
    /// The vCPU has made such a store, or faulted: where memory holds something else now than what is known of it, that
    /// was stored. `next` gives the next place in the order.
    pub fn stored_unseen(
        &mut self,
        unseen: Unseen,
        state: &VcpuState,
        cpu: &CurrentCpu,
        mut next: impl FnMut() -> Seq,
    ) -> Vec<Touched> {
        let Unseen { vcpu, pc, linear, phys, len } = unseen;
        let (page, start) = (phys.align_down(PAGE), (phys.0 % PAGE) as usize);
        let (Some(known), Some(host)) = (self.history.memory().page(page), self.map.host(page)) else {
            return Vec::new();
        };
        let Some(known) = known.get(start..start + len as usize) else { return Vec::new() };
        if host.holds(start, known) {
            return Vec::new();
        }
        let (known, now) = (known.to_vec(), host.read(start, len as usize));
        let note = |at: usize| {
            let (offset, bytes) = (at as u64, &now[at..=at]);
            let store = CodeStore { vcpu, pc, linear: linear.offset(offset), phys: phys.offset(offset), bytes };
            self.store(&store, state, cpu, &mut next)
        };
        (0..now.len()).filter(|at| known[*at] != now[*at]).map(note).collect()
    }
}
