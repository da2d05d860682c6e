//! Whether another instruction can be carried out where a vCPU is: 64-bit code, an instruction that the interpreter
//! knows, memory that it may access.

use super::page_walk::Paging;
use super::registers::{CR0, CR3, CR4, CS, EFER, EFLAGS, FS_BASE, GS_BASE, all_general};
use crate::qemu::cpu::CurrentCpu;
use crate::qemu::divert::Divert;
use crate::qemu::x86::Planned;
use icsan_model::addr::Linear;
use icsan_model::arch::x86::interpret::{self, Registers};

/// EFER.LMA: the CPU is in long mode.
const EFER_LMA: u64 = 1 << 10;

/// Linux's selector of 64-bit user code (arch/x86/include/asm/segment.h, __USER_CS).
const USER_CS: u64 = 0x33;

/// What it takes to execute `bytes` in place of the instruction at `linear`, at which the vCPU is.
///
/// # Errors
/// Why that cannot be done here, as the rest of a sentence.
pub fn prepare(cpu: &CurrentCpu, bytes: &[u8], linear: Linear) -> Result<Divert, String> {
    let unreadable = || "the vCPU's registers cannot be read".to_owned();
    let general = all_general().ok_or_else(unreadable)?;
    let state = || {
        let mut registers = Registers {
            rip: linear.0,
            flags: EFLAGS.read(cpu)?,
            fs_base: FS_BASE.read(cpu)?,
            gs_base: GS_BASE.read(cpu)?,
            ..Registers::default()
        };
        for (value, handle) in registers.general.iter_mut().zip(general) {
            *value = cpu.read(handle)?;
        }
        Some((registers, CS.read(cpu)?, EFER.read(cpu)?))
    };
    let (registers, cs, efer) = state().ok_or_else(unreadable)?;
    if !is_64_bit(linear, cs, efer) {
        return Err("the code is not known to be 64-bit code".to_owned());
    }
    let plan = interpret::plan(bytes, &registers).map_err(|why| why.to_string())?;
    for (access, write) in [(plan.load, false), (plan.store(), true)] {
        let Some(access) = access else { continue };
        let paging = || {
            Some(Paging {
                cr0: CR0.read(cpu)?,
                cr3: CR3.read(cpu)?,
                cr4: CR4.read(cpu)?,
                flags: registers.flags,
                user: cs & 3 == 3,
            })
        };
        let read = |at: u64| Some(u64::from_le_bytes(cpu.physical_memory(at, 8)?.try_into().ok()?));
        paging().ok_or_else(unreadable)?.allows(access, write, read).map_err(|why| why.to_string())?;
    }
    Ok(Box::new(Planned { plan, registers, general }))
}

/// QEMU does not show the bit of the code segment that says so. Above 4 GiB there is no other code in long mode; below,
/// Linux's selectors tell.
fn is_64_bit(linear: Linear, cs: u64, efer: u64) -> bool {
    efer & EFER_LMA != 0 && (linear.0 >> 32 != 0 || cs == USER_CS)
}

#[cfg(test)]
mod tests {
    use super::{EFER_LMA, USER_CS, is_64_bit};
    use icsan_model::addr::Linear;

    #[test]
    fn compatibility_mode_is_told_apart() {
        assert!(is_64_bit(Linear(0xffff_ffff_8100_0000), 0x10, EFER_LMA));
        assert!(is_64_bit(Linear(0x40_0000), USER_CS, EFER_LMA));
        assert!(!is_64_bit(Linear(0x40_0000), 0x23, EFER_LMA), "a 32-bit program");
        assert!(!is_64_bit(Linear(0x10_0000), 0x10, 0), "early boot");
    }
}
