//! Whether another instruction can be carried out where a vCPU is: an instruction that the interpreter knows, a literal
//! that can be read.

use super::registers::{CPSR, PC, SP, all_general};
use crate::qemu::aarch64::{Planned, load};
use crate::qemu::cpu::CurrentCpu;
use crate::qemu::divert::Divert;
use icsan_model::addr::Linear;
use icsan_model::arch::aarch64::interpret::{self, Registers};

/// PSTATE.nRW: 32-bit code.
const NRW: u64 = 1 << 4;

/// What it takes to execute `bytes` in place of the instruction at `linear`, at which the vCPU is.
///
/// # Errors
/// Why that cannot be done here, as the rest of a sentence.
pub fn prepare(cpu: &CurrentCpu, bytes: &[u8], linear: Linear) -> Result<Divert, String> {
    let unreadable = || "the vCPU's registers cannot be read".to_owned();
    let handles = || Some((all_general()?, SP.handle()?, CPSR.handle()?));
    let (general, sp, pstate) = handles().ok_or_else(unreadable)?;
    let state = || {
        let mut registers =
            Registers { sp: cpu.read(sp)?, pc: linear.0, pstate: cpu.read(pstate)?, ..Registers::default() };
        for (value, handle) in registers.general.iter_mut().zip(general) {
            *value = cpu.read(handle)?;
        }
        Some(registers)
    };
    let registers = state().ok_or_else(unreadable)?;
    if registers.pstate & NRW != 0 {
        return Err("the code is 32-bit code".to_owned());
    }
    let plan = interpret::plan(bytes, &registers).map_err(|why| why.to_string())?;
    let loaded = plan.load.map_or(Some(0), |access| load(cpu, access)).ok_or("what it loads cannot be read")?;
    Ok(Box::new(Planned { bytes: bytes.to_vec(), registers, loaded, general, sp, pstate, counter: &PC }))
}
