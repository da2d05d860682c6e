//! Maintenance of caches, barriers, and stores without an access: what is known from their bytes, and what is told when
//! they run.

use super::privilege::may_maintain;
use super::registers::{CLIDR, CTR, SP, general};
use super::synchronizing::word;
use crate::arch::platform::CacheEffect;
use crate::qemu::cpu::CurrentCpu;
use icsan_model::addr::{Linear, Phys};
use icsan_model::arch::aarch64::cache_type::cache_type as of_registers;
use icsan_model::arch::aarch64::classify::{Effect, Operation, UnseenStore, classify};
use icsan_model::arch::maintenance::{CacheType, Maintenance};

/// Operations in the order of their tags: 32 registers each.
const OPERATIONS: [Operation; 4] =
    [Operation::Clean, Operation::Invalidate, Operation::InvalidateAll, Operation::InvalidateOwn];
const REGISTERS: u8 = 32;

/// The largest block that DC ZVA clears: 2 KiB (DDI0487, DCZID_EL0.BS). QEMU does not show the register; what is larger
/// than the machine's own covers it, since only what changed is noted.
const LARGEST_BLOCK: u64 = 2048;
/// STZ2G clears two granules of 16 bytes.
const TWO_GRANULES: u64 = 32;

/// The tag of CPY and SET, behind those of the others, which have a register each.
const COPY_OR_SET: u8 = 2 * REGISTERS;

/// See [`Platform::cache_effect`](crate::arch::platform::Platform::cache_effect).
#[must_use]
pub fn cache_effect(bytes: &[u8]) -> Option<CacheEffect> {
    let word = word(bytes)?;
    Some(match classify(word).effect? {
        Effect::Maintain { operation, rt } => {
            let place = OPERATIONS.iter().position(|known| *known == operation)?;
            CacheEffect::Maintains(place as u8 * REGISTERS + rt)
        }
        Effect::Barrier { domain, accesses } => CacheEffect::Completes(domain, accesses),
        Effect::Unseen(store) => CacheEffect::StoresUnseen(unseen_tag(store, word)),
    })
}

/// DC has its register in bits 4 to 0, STZG and its like have their address in bits 9 to 5. CPY and SET go by two
/// registers: too much for a tag, so the instruction is read again when it runs.
fn unseen_tag(store: UnseenStore, word: u32) -> u8 {
    const DC: u32 = 0xd500_0000;
    match store {
        UnseenStore::ZeroBlock if word & 0xff00_0000 == DC => low(word),
        UnseenStore::ZeroBlock => middle(word),
        UnseenStore::ZeroGranule => REGISTERS + middle(word),
        UnseenStore::CopyOrSet => COPY_OR_SET,
    }
}

/// The register in bits 4 to 0.
const fn low(word: u32) -> u8 {
    (word & 0x1f) as u8
}

/// The register in bits 9 to 5.
const fn middle(word: u32) -> u8 {
    (word >> 5 & 0x1f) as u8
}

/// See [`Platform::unseen_store`](crate::arch::platform::Platform::unseen_store).
#[must_use]
pub fn unseen_store(tag: u8, at: Linear, cpu: &CurrentCpu) -> Option<(Linear, u64)> {
    match tag {
        rt @ ..REGISTERS => Some((Linear(general(cpu, rt)?).align_down(LARGEST_BLOCK), LARGEST_BLOCK)),
        COPY_OR_SET => {
            let word = u32::from_le_bytes(cpu.bytes(at.0)?);
            Some(copied_or_set(general(cpu, low(word))?, general(cpu, middle(word))?))
        }
        // An offset of 9 bits, in granules, may be added before it stores.
        tag => {
            let around = 256 * TWO_GRANULES;
            let at = address_of(cpu, tag - REGISTERS)?;
            Some((Linear(at.saturating_sub(around)), 2 * around))
        }
    }
}

/// What is left of a copy or a set: where, and how many bytes. As long as it goes upwards the first register is its end
/// and the second one negative, once its first instruction has run (DDI0487, CPYFP, "Option A", which QEMU has); else
/// the first is its beginning.
fn copied_or_set(address: u64, count: u64) -> (Linear, u64) {
    if (count as i64) < 0 {
        (Linear(address.wrapping_add(count)), count.wrapping_neg())
    } else {
        (Linear(address), count)
    }
}

/// Register 31 is the stack pointer, as a base.
fn address_of(cpu: &CurrentCpu, register: u8) -> Option<u64> {
    if register == 31 { SP.read(cpu) } else { general(cpu, register) }
}

/// See [`Platform::maintenance`](crate::arch::platform::Platform::maintenance).
#[must_use]
pub fn maintenance(tag: u8, cpu: &CurrentCpu) -> Option<Maintenance> {
    let (operation, rt) = (OPERATIONS.get(usize::from(tag / REGISTERS))?, tag % REGISTERS);
    if !may_maintain(cpu) {
        return None;
    }
    let at = match operation {
        Operation::Clean | Operation::Invalidate => Phys(cpu.physical(general(cpu, rt)?)?),
        Operation::InvalidateAll | Operation::InvalidateOwn => Phys(0),
    };
    Some(operation.of(at))
}

/// See [`Platform::cache_type`](crate::arch::platform::Platform::cache_type).
#[must_use]
pub fn cache_type(cpu: &CurrentCpu) -> Option<CacheType> {
    CTR.read(cpu).map(|ctr| of_registers(ctr, CLIDR.read(cpu)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use icsan_model::arch::maintenance::{Accesses, Domain};

    fn of(word: u32) -> Option<CacheEffect> {
        cache_effect(&word.to_le_bytes())
    }

    #[test]
    fn tags_name_operation_and_register() {
        // dc cvau, x3; ic ivau, x31; ic ialluis; ic iallu; dc civac, x0.
        for (word, operation, rt) in [
            (0xd50b_7b23, Operation::Clean, 3),
            (0xd50b_753f, Operation::Invalidate, 31),
            (0xd508_711f, Operation::InvalidateAll, 31),
            (0xd508_751f, Operation::InvalidateOwn, 31),
            (0xd50b_7e20, Operation::Clean, 0),
        ] {
            let Some(CacheEffect::Maintains(tag)) = of(word) else { panic!("{word:#x}") };
            assert_eq!((OPERATIONS[usize::from(tag / REGISTERS)], tag % REGISTERS), (operation, rt), "{word:#x}");
        }
    }

    #[test]
    fn barriers_and_unseen_stores_are_told_apart() {
        // dsb ish, dsb nshld, isb.
        assert_eq!(of(0xd503_3b9f), Some(CacheEffect::Completes(Domain::Inner, Accesses::All)));
        assert_eq!(of(0xd503_359f), Some(CacheEffect::Completes(Domain::Own, Accesses::Loads)));
        assert_eq!(of(0xd503_3fdf), None);
        // dc zva, x7; stzg x1, [x2]; cpyfp [x0]!, [x1]!, x2!; setp [x0]!, x1!, x2.
        assert_eq!(of(0xd50b_7427), Some(CacheEffect::StoresUnseen(7)));
        assert_eq!(of(0xd960_0841), Some(CacheEffect::StoresUnseen(REGISTERS + 2)));
        assert_eq!(of(0x1901_0440), Some(CacheEffect::StoresUnseen(COPY_OR_SET)));
        assert_eq!(of(0x19c2_0420), Some(CacheEffect::StoresUnseen(COPY_OR_SET)));
        assert_eq!(of(0xf900_0020), None, "str: it has an access");
    }

    #[test]
    fn what_is_left_of_a_copy() {
        assert_eq!(copied_or_set(0x1000, 0x40), (Linear(0x1000), 0x40), "not begun, or downwards");
        assert_eq!(copied_or_set(0x1040, 0x40_u64.wrapping_neg()), (Linear(0x1000), 0x40), "upwards");
    }
}
