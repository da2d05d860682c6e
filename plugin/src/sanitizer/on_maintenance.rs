//! What a guest does so that fetches see its stores, where its hardware asks for that: maintenance, barriers; and
//! stores that QEMU tells of by no access.

use super::{Code, Sanitizer};
use crate::qemu::cpu::{CurrentCpu, CurrentVcpu};
use crate::qemu::locks::Mutex;
use crate::stores::store_side::Unseen;
use icsan_model::addr::{Linear, Phys, Vcpu};
use icsan_model::arch::maintenance::{Accesses, Domain, Maintenance};
use icsan_model::memory::PAGE;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a vCPU has begun, and a barrier or something later completes. In cache lines of its own: its vCPU writes it
/// often.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Begun {
    /// May a barrier complete anything: a store to code, or maintenance?
    awaits_barrier: AtomicBool,
    /// Has it changed what linear addresses mean to all vCPUs?
    mapping: AtomicBool,
    /// Is there anything in `stores`?
    stored: AtomicBool,
    /// Where it may just have stored, and QEMU has told of no access.
    stores: Mutex<Vec<Unseen>>,
}

/// The same of all vCPUs.
#[derive(Debug)]
pub(super) struct Maintaining(Box<[Begun]>);

impl Maintaining {
    /// Nothing has begun.
    pub(super) fn new(vcpus: usize) -> Self {
        Self((0..vcpus).map(|_| Begun::default()).collect())
    }

    fn of(&self, vcpu: Vcpu) -> Option<&Begun> {
        self.0.get(usize::from(vcpu.0))
    }

    /// Memory changed, and it is not looked at by whom: each vCPU's next barrier may complete that.
    pub(super) fn changed(&self) {
        self.0.iter().for_each(|begun| begun.awaits_barrier.store(true, Ordering::Relaxed));
    }

    /// The vCPU changes what linear addresses mean to all.
    pub(super) fn changes_mapping(&self, vcpu: Vcpu) {
        self.of(vcpu).into_iter().for_each(|begun| begun.mapping.store(true, Ordering::Relaxed));
    }

    /// Its barrier: did it, since the last one?
    fn changed_mapping(&self, vcpu: Vcpu) -> bool {
        self.of(vcpu).is_some_and(|begun| begun.mapping.swap(false, Ordering::Relaxed))
    }
}

impl Sanitizer {
    /// The vCPU is about to carry out a maintenance instruction.
    pub(super) fn maintains(&self, vcpu: Vcpu, operation: Maintenance, cpu: &CurrentCpu) {
        self.sees_unseen(vcpu, cpu);
        let Some(begun) = self.maintaining.of(vcpu).filter(|_| self.flags.maintained()) else { return };
        // Of a page that holds no known code nothing is remembered, so there is nothing to maintain.
        if let Maintenance::Clean(phys) | Maintenance::Invalidate(phys) = operation
            && !self.filter.may_hold_code(phys)
        {
            return;
        }
        if let Some(side) = &mut self.code.lock().side {
            side.maintain(vcpu, operation, self.flags.next());
            begun.awaits_barrier.store(true, Ordering::Relaxed);
        }
    }

    /// The vCPU is about to carry out a barrier.
    pub(super) fn completes(&self, vcpu: Vcpu, (domain, accesses): (Domain, Accesses), cpu: &CurrentCpu) {
        // What it invalidated in other vCPUs' TLBs is gone there by now.
        if self.maintaining.changed_mapping(vcpu) {
            self.filter.forget_all();
        }
        self.sees_unseen(vcpu, cpu);
        let Some(begun) = self.maintaining.of(vcpu).filter(|_| self.flags.maintained()) else { return };
        if !begun.awaits_barrier.load(Ordering::Relaxed) {
            return;
        }
        if let Some(side) = &mut self.code.lock().side {
            let awaits = side.barrier(vcpu, domain, accesses, || self.flags.next());
            begun.awaits_barrier.store(awaits, Ordering::Relaxed);
        }
    }

    /// From now on the vCPU stores through its caches, or past them.
    pub(super) fn caches(&self, vcpu: Vcpu, on: bool) {
        if self.flags.maintained()
            && let Some(side) = &mut self.code.lock().side
        {
            side.past().caches(vcpu, on);
        }
    }

    /// The vCPU is about to store, and QEMU will not tell. It may still fault: what it has stored is looked up when it
    /// does the next thing that may matter to that.
    pub(super) fn stores_unseen(&self, current: &CurrentVcpu, pc: Linear, linear: Linear, len: u64, cpu: &CurrentCpu) {
        let vcpu = current.id();
        self.sees_unseen(vcpu, cpu);
        let Some(begun) = self.maintaining.of(vcpu) else { return };
        let end = linear.0.saturating_add(len);
        let mut from = linear;
        while from.0 < end {
            let to = (from.align_down(PAGE).0.saturating_add(PAGE)).min(end);
            if let Some(phys) = cpu.physical(from.0).map(Phys).filter(|phys| self.filter.may_hold_code(*phys)) {
                begun.stores.lock().push(Unseen { vcpu, pc, linear: from, phys, len: to - from.0 });
                begun.stored.store(true, Ordering::Relaxed);
            }
            from = Linear(to);
        }
    }

    /// What the vCPU stored unseen is made known, if anything.
    #[inline]
    pub(super) fn sees_unseen(&self, vcpu: Vcpu, cpu: &CurrentCpu) {
        if let Some(begun) = self.maintaining.of(vcpu)
            && begun.stored.load(Ordering::Relaxed)
        {
            self.notes_unseen(vcpu, begun, cpu);
        }
    }

    #[cold]
    fn notes_unseen(&self, vcpu: Vcpu, begun: &Begun, cpu: &CurrentCpu) {
        begun.stored.store(false, Ordering::Relaxed);
        let stores = std::mem::take(&mut *begun.stores.lock());
        let Some(state) = self.vcpus.get(usize::from(vcpu.0)) else { return };
        let mut code = self.code.lock();
        let Code { table, side } = &mut *code;
        let Some(side) = side else { return };
        let state = state.lock();
        for store in stores {
            if let Some(repair) = self.repair {
                repair.stored(store.phys, store.len);
            }
            for touched in side.stored_unseen(store, &state, cpu, || self.flags.next()) {
                self.invalidate(&touched);
                table.stored_to(&touched.segments);
            }
        }
    }
}
