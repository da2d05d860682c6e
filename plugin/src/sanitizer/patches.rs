//! What the points of [`crate::x86`] tell of patches under way: tasks, protocol functions, membarrier.

use super::Sanitizer;
use crate::patching::{Awaited, Entry};
use icsan_model::addr::{Linear, Vcpu};
use std::sync::atomic::Ordering;

impl Sanitizer {
    /// `vcpu` runs another task from now on.
    pub fn runs_task(&self, vcpu: Vcpu, task: u64) {
        if let Some(side) = &mut self.code.lock().side {
            side.patching().switch(vcpu, task);
        }
    }

    /// `vcpu` enters the address space of this page table.
    pub fn enters_space(&self, vcpu: Vcpu, space: u64) {
        if let Some(side) = &mut self.code.lock().side {
            side.patching().enter_space(vcpu, space);
        }
    }

    /// A task enters a protocol function; `task`: which, if that is known.
    pub fn enters_function(&self, entry: Entry, task: Option<u64>) {
        if let Some(side) = &mut self.code.lock().side {
            task.into_iter().for_each(|task| side.patching().switch(entry.vcpu, task));
            side.patching().enter(entry);
            self.awaited.store(side.patching().awaited().0, Ordering::Relaxed);
        }
    }

    /// A user task asks for the serialization of all its threads; it goes on at `returns_to`.
    pub fn calls_membarrier(&self, vcpu: Vcpu, returns_to: Linear, stack: u64) {
        if let Some(side) = &mut self.code.lock().side {
            side.patching().enter_membarrier(vcpu, returns_to, stack);
            self.awaited.store(side.patching().awaited().0, Ordering::Relaxed);
        }
    }

    /// May anybody inside a protocol function return to this address? Without a lock: while a static key is flipped, all other vCPUs go on making system calls.
    #[inline]
    pub fn may_await_return(&self, here: Linear) -> bool {
        Awaited(self.awaited.load(Ordering::Relaxed)).may_include(here)
    }

    /// Does anybody inside a protocol function return to this address?
    pub fn awaits_return(&self, here: Linear) -> bool {
        self.may_await_return(here) && self.code.lock().side.as_ref().is_some_and(|side| side.patching_known().awaits(here))
    }

    /// Somebody is where a protocol function may return to.
    pub fn returns_to(&self, here: Linear, stack: u64, failed: bool) {
        let mut code = self.code.lock();
        let Some(side) = &mut code.side else { return };
        let committed = side.patching().leave(here, stack, failed);
        if !committed.is_empty() {
            let touched = side.commit(&committed);
            self.touch(&touched);
        }
        self.awaited.store(side.patching().awaited().0, Ordering::Relaxed);
    }
}
