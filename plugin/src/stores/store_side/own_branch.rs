//! A vCPU's own stores, which the next branch makes visible to it.

use super::StoreSide;
use crate::code::code_table::CodeTable;
use crate::qemu::scoreboard::VcpuSlots;
use crate::vcpu::VcpuState;
use icsan_model::addr::{Linear, Vcpu};
use icsan_model::detector::flags::OwnBoard;

impl StoreSide {
    /// Before a store to pages that hold code is looked at: it shows whether the vCPU has taken a branch since its last
    /// one.
    pub fn arrives(&mut self, table: &CodeTable, vcpu: Vcpu, pc: Linear, state: &VcpuState, slots: &VcpuSlots<'_>) {
        self.branch_before(vcpu, state, slots, pc, table);
    }

    pub(super) fn note_own(&mut self, vcpu: Vcpu, pc: Linear) {
        if let Some(own) = self.own_pc.get_mut(usize::from(vcpu.0)) {
            *own = Some(pc);
        }
    }

    /// The vCPU is at `here`: did it take a branch since its last own store?
    pub(super) fn branch_before(
        &mut self,
        vcpu: Vcpu,
        state: &VcpuState,
        slots: &VcpuSlots<'_>,
        here: Linear,
        table: &CodeTable,
    ) {
        let Some(Some(from)) = self.own_pc.get(usize::from(vcpu.0)).copied() else { return };
        if !self.history.awaits_branch(vcpu, state.epoch) {
            return;
        }
        let instruction = |at: Linear| table.instruction(at, |slot| slots.flag(slot).executed());
        let straight = self.platform.is_straight(from, here, &instruction);
        if !straight {
            self.history.branch(vcpu, state.epoch);
        }
    }

    /// The vCPU left the line that it executes in a way that no branch instruction shows: an interrupt that was
    /// handled.
    pub fn branched(&mut self, vcpu: Vcpu, state: &VcpuState) {
        if self.history.awaits_branch(vcpu, state.epoch) {
            self.history.branch(vcpu, state.epoch);
        }
    }
}
