//! Instructions that are carried out in place of others: none yet.

use crate::qemu::cpu::CurrentCpu;
use crate::qemu::divert::Divert;
use icsan_model::addr::Linear;

/// What it takes to execute `bytes` in place of the instruction at `linear`, at which the vCPU is.
///
/// # Errors
/// Why that cannot be done here, as the rest of a sentence.
pub fn prepare(_cpu: &CurrentCpu, _bytes: &[u8], _linear: Linear) -> Result<Divert, String> {
    Err("this version carries out no instruction of AArch64".to_owned())
}
