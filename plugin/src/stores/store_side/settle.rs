//! Memory and what was told of stores: what is known of a page is made what memory holds, whatever QEMU said, and
//! whichever vCPU's store comes in between ([`Changes::settle`](icsan_model::detector::changes::Changes::settle)).

use super::StoreSide;
use crate::qemu::cpu::CurrentCpu;
use crate::qemu::host_code::Contents;
use crate::stores::code_store::Touched;
use icsan_model::addr::{Linear, Phys, Seq, Vcpu};
use icsan_model::detector::changes::{Settled, Settling, ToldOf};
use icsan_model::memory::PAGE;
use std::time::Duration;

impl StoreSide {
    /// What memory holds now at `len` bytes of one page: through the host's pointer, or, where that is not known (no
    /// instruction begins in the page), as the vCPU reads it. `None`: neither tells.
    fn memory_at(&self, phys: Phys, linear: Linear, len: usize, cpu: &CurrentCpu) -> Option<Vec<u8>> {
        match self.map.host(phys.align_down(PAGE)) {
            Some(host) => Some(host.read((phys.0 % PAGE) as usize, len)),
            None => cpu.memory(linear.0, len),
        }
    }

    /// Does memory hold these bytes of one page now? Where that cannot be told, nothing contradicts it.
    #[must_use]
    pub fn memory_holds(&self, phys: Phys, linear: Linear, bytes: &[u8], cpu: &CurrentCpu) -> bool {
        match self.map.host(phys.align_down(PAGE)) {
            Some(host) => host.holds((phys.0 % PAGE) as usize, bytes),
            None => cpu.memory(linear.0, bytes.len()).is_none_or(|now| now == bytes),
        }
    }

    /// What is known of memory there, up to 16 bytes of one page; `None` if it holds no code.
    #[must_use]
    pub fn known(&self, phys: Phys, len: u64) -> Option<&[u8]> {
        let start = (phys.0 % PAGE) as usize;
        self.history.memory().page(phys)?.get(start..start + len as usize)
    }

    /// Was what is known of these bytes of one page stored by another vCPU than this one? Then a store of its own may
    /// have come before, although it is told of later.
    fn is_anothers(&self, phys: Phys, len: u64, vcpu: Vcpu) -> bool {
        let memory = self.history.memory();
        memory
            .record(memory.last_change(phys, len))
            .is_some_and(|record| record.store.vcpu.is_some_and(|other| other != vcpu))
    }

    /// Has a store that QEMU told of not been made? Memory holds what it held before, and no other vCPU is known to
    /// have put it back. (Memory that cannot be written ignores stores.)
    #[must_use]
    pub fn ignored(&self, phys: Phys, linear: Linear, len: u64, vcpu: Vcpu, cpu: &CurrentCpu) -> bool {
        self.known(phys, len).is_some_and(|known| self.memory_holds(phys, linear, known, cpu))
            && !self.is_anothers(phys, len, vcpu)
    }

    /// After a store was told of: what is known of its bytes, all of one page, becomes what memory holds now; `before`
    /// is what was known before. `next` gives the next place in the order.
    pub fn settle(
        &mut self,
        told: ToldOf,
        phys: Phys,
        before: &[u8],
        cpu: &CurrentCpu,
        next: impl FnMut() -> Seq,
    ) -> Vec<Touched> {
        if self.known(phys, before.len() as u64).is_some_and(|known| self.memory_holds(phys, told.linear, known, cpu)) {
            return Vec::new();
        }
        let Some(now) = self.memory_at(phys, told.linear, before.len(), cpu) else { return Vec::new() };
        let settling = Settling { told, phys, before, now: &now };
        let Settled { touched, explained } =
            self.changes.settle(&mut self.history, settling, self.began.elapsed(), next);
        self.counts.stores += explained as u64;
        self.counts.unseen += (touched.len() - explained) as u64;
        touched
    }

    /// Stores after which memory held something else than is noted of them, and no store of another vCPU that came in
    /// between has been told of for so long. Each is given once.
    pub fn untrue(&mut self, patience: Duration) -> Vec<ToldOf> {
        self.changes.untrue(patience, self.began.elapsed())
    }

    /// How many stores wait for that.
    #[must_use]
    pub fn unsettled(&self) -> usize {
        self.changes.unsettled()
    }

    /// A change of memory that no store explains so far.
    pub(super) fn note_unattributed(&mut self, phys: Phys, bytes: &[u8], seq: Seq) -> Touched {
        self.counts.unseen += 1;
        self.changes.notice(&mut self.history, phys, bytes, seq, self.began.elapsed())
    }
}
