//! The exception level that a vCPU is at, and what belongs to it.

use super::registers::{CPSR, ELR_EL1, ELR_EL2, SCTLR_EL1, SPSR_EL1, SPSR_EL2, VBAR_EL1, VBAR_EL2};
use crate::qemu::cpu::CurrentCpu;
use icsan_model::addr::Linear;

/// Of PSTATE and SPSR: the exception level is bits 3 and 2, and bit 4 says that it is AArch32 (DDI0487, SPSR_EL1.M).
const LEVEL: u64 = 3;
const AARCH32: u64 = 1 << 4;

/// SCTLR_EL1.UCI: EL0 may clean and invalidate by address.
const UCI: u64 = 1 << 26;

/// A table of vectors: sixteen entries of 128 bytes (DDI0487 D1.4, "Exception entry").
const VECTORS: u64 = 0x800;
const VECTOR: u64 = 0x80;

/// The level in a PSTATE or SPSR. AArch32 is run at EL0 only, under the kernels that there are.
#[must_use]
pub const fn level_of(state: u64) -> u8 {
    if state & AARCH32 != 0 { 0 } else { (state >> 2 & LEVEL) as u8 }
}

/// The level that the vCPU is at.
#[must_use]
pub fn level(cpu: &CurrentCpu) -> Option<u8> {
    CPSR.read(cpu).map(level_of)
}

/// The level that an ERET would return to now.
#[must_use]
pub fn returns_to(cpu: &CurrentCpu) -> Option<u8> {
    saved(cpu).map(level_of)
}

/// Would an ERET return to 32-bit code now? Once it runs QEMU does not tell any more: what it shows as `cpsr` is the
/// state of before the return (target/arm/tcg/helper-a64.c, `exception_return`; gdbstub64.c shows `pstate`).
#[must_use]
pub fn returns_to_aarch32(cpu: &CurrentCpu) -> bool {
    saved(cpu).is_some_and(|state| state & AARCH32 != 0)
}

/// The state that an ERET would return to now.
fn saved(cpu: &CurrentCpu) -> Option<u64> {
    match level(cpu)? {
        0 => None,
        1 => SPSR_EL1.read(cpu),
        _ => SPSR_EL2.read(cpu),
    }
}

/// Where an ERET would return to now.
#[must_use]
pub fn interrupted(cpu: &CurrentCpu) -> Option<Linear> {
    if level(cpu)? < 2 { ELR_EL1.read(cpu) } else { ELR_EL2.read(cpu) }.map(Linear)
}

/// Is it the first instruction of an entry, at the level that the vCPU is at?
#[must_use]
pub fn is_vector(at: Linear, cpu: &CurrentCpu) -> bool {
    let base = level(cpu).and_then(|level| if level < 2 { VBAR_EL1.read(cpu) } else { VBAR_EL2.read(cpu) });
    base.is_some_and(|base| is_in_table(at.0, base))
}

const fn is_in_table(at: u64, base: u64) -> bool {
    let offset = at.wrapping_sub(base);
    offset < VECTORS && offset.is_multiple_of(VECTOR)
}

/// How far the vectors have moved the stack pointer down when they get to a handler, in bytes: by their first
/// instruction,
/// `sub sp, sp, #PT_REGS_SIZE` (arch/arm64/kernel/entry.S, `kernel_ventry`). That is looked at in the entry from the
/// same level.
#[must_use]
pub fn made_room(cpu: &CurrentCpu) -> Option<u64> {
    let entry = VBAR_EL1.read(cpu)?.wrapping_add(4 * VECTOR);
    cpu.bytes(entry).map(u32::from_le_bytes).map(room_of)
}

/// What `sub sp, sp, #immediate` takes; 0: it is something else.
const fn room_of(word: u32) -> u64 {
    if word & 0xffc0_03ff == 0xd100_03ff { (word >> 10 & 0xfff) as u64 } else { 0 }
}

/// Do IC and DC by address do anything here? At EL0 they trap unless the kernel lets them.
#[must_use]
pub fn may_maintain(cpu: &CurrentCpu) -> bool {
    level(cpu) != Some(0) || SCTLR_EL1.read(cpu).is_some_and(|sctlr| sctlr & UCI != 0)
}

#[cfg(test)]
mod tests {
    use super::{is_in_table, level_of, room_of};

    #[test]
    fn levels_are_read_from_a_saved_state() {
        // EL0t, EL1h with NZCV and DAIF, EL2h, AArch32 user.
        let states = [0, 0x6000_03c5, 0x3c9, 0x0000_0010];
        assert_eq!(states.map(level_of), [0, 1, 2, 0]);
    }

    #[test]
    fn the_vectors_make_room_on_the_stack() {
        // As in 6.1 and 6.12, in 7.3, and `sub x0, sp, #0x150`.
        assert_eq!([0xd105_43ff, 0xd105_03ff, 0xd105_43e0].map(room_of), [0x150, 0x140, 0]);
    }

    #[test]
    fn vectors_are_sixteen() {
        let base = 0xffff_8000_8001_0800;
        let entries = (base - 0x1000..base + 0x1000).filter(|at| is_in_table(*at, base));
        assert_eq!(entries.count(), 16);
        assert!(is_in_table(base + 0x280, base) && !is_in_table(base + 0x284, base) && !is_in_table(base - 0x80, base));
    }
}
