//! What points ([`crate::points`]) tell of patches under way: tasks, protocol functions, membarrier.

use super::Sanitizer;
use crate::patching::{Entry, Left};
use crate::points::await_returns;
use crate::points::sink::Sees;
use crate::qemu::cpu::CurrentCpu;
use icsan_model::addr::{Linear, Vcpu};
use icsan_model::detector::sync_origin::SyncOrigin;

impl Sanitizer {
    /// `vcpu` runs the task `to` from now on, and ran `from` so far.
    pub fn runs_task(&self, vcpu: Vcpu, from: Option<u64>, to: u64) {
        self.user_modes.leaves(vcpu);
        if let Some(side) = &mut self.code.lock().side {
            side.patching().switch(vcpu, from, to);
        }
    }

    /// `vcpu` enters the address space of the page table `to`, and leaves that of `from`. Answers with what it does so
    /// for, where that is a step of a patch.
    pub fn enters_space(&self, vcpu: Vcpu, from: Option<u64>, to: u64) -> Option<SyncOrigin> {
        // It does so in the kernel.
        self.user_modes.leaves(vcpu);
        let mut code = self.code.lock();
        let patching = code.side.as_mut()?.patching();
        patching.enter_space(vcpu, from, to);
        if let Some(state) = self.vcpus.get(usize::from(vcpu.0)) {
            state.lock().serialized.loads = Some(to);
        }
        let function = patching.innermost(vcpu)?;
        let name = self.config.symbols.resolve(function.0)?.name;
        (name == self.facts.linux.kernel.protocol.switches_space).then_some(SyncOrigin::Function(function))
    }

    /// A task enters a protocol function. `sees` says what the vCPU's registers say of it, beyond what is known.
    pub fn enters_function(&self, entry: Entry, sees: Sees<'_>, cpu: &CurrentCpu) {
        if let Some(side) = &mut self.code.lock().side {
            side.patching().looks(entry.vcpu, sees);
            if let Some(asked) = side.patching().enter(entry) {
                self.judges_coverage(asked, side, cpu);
            }
            await_returns(side.patching().awaited());
        }
    }

    /// A user task asks for the serialization of all its threads; it goes on at `returns_to`.
    pub fn calls_membarrier(&self, vcpu: Vcpu, sees: Sees<'_>, returns_to: Linear, stack: u64) {
        if let Some(side) = &mut self.code.lock().side {
            side.patching().looks(vcpu, sees);
            side.patching().enter_membarrier(vcpu, returns_to, stack);
            await_returns(side.patching().awaited());
        }
    }

    /// Does any task inside a protocol function return to this address?
    pub fn awaits_return(&self, here: Linear) -> bool {
        self.code.lock().side.as_ref().is_some_and(|side| side.patching_known().awaits(here))
    }

    /// A vCPU is where a protocol function may return to.
    /// `how`: its stack pointer, and whether what it comes from says that it failed.
    pub fn returns_to(&self, vcpu: Vcpu, sees: Sees<'_>, here: Linear, (stack, failed): (u64, bool), cpu: &CurrentCpu) {
        let mut code = self.code.lock();
        let Some(side) = &mut code.side else { return };
        side.patching().looks(vcpu, sees);
        let Left { committed, asked } = side.patching().leave(vcpu, here, stack, failed);
        if !committed.is_empty() {
            let touched = side.commit(&committed);
            self.invalidate(&touched);
        }
        await_returns(side.patching().awaited());
        if let Some(asked) = asked {
            self.judges_coverage(asked, side, cpu);
        }
    }
}
