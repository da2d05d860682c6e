//! The call chain by frame records: X29 points to the caller's X29 and the address that the function returns to
//! (Procedure Call Standard, "The frame pointer"). Linux on AArch64 is built with them.

use super::privilege::level;
use super::registers::{X29, X30};
use crate::arch::caller::Caller;
use crate::qemu::cpu::CurrentCpu;
use icsan_symbols::Symbolizer;

/// How many callers are kept.
const MAX_CALLERS: usize = 12;

/// The bit of a linear address that says which half it is in, whatever is in the bits above bit 47: a pointer
/// authentication code may be (DDI0487 D8.8). A kernel's text has ones there, a program's zeros.
const HALF: u32 = 55;
const CODE: u64 = 0xffff_0000_0000_0000;

/// A return address without its authentication code.
const fn stripped(address: u64) -> u64 {
    if address >> HALF & 1 != 0 { address | CODE } else { address & !CODE }
}

/// The callers of what executes now, innermost first. `at_entry`: it is a function's first instruction, so the link
/// register has the first one.
#[must_use]
pub fn callers(cpu: &CurrentCpu, symbols: &Symbolizer, at_entry: bool) -> Vec<Caller> {
    let mut callers = Vec::new();
    // Programs keep frame records as they like.
    let sure = level(cpu).is_some_and(|level| level > 0);
    if at_entry && let Some(address) = X30.read(cpu) {
        callers.push(Caller { address: stripped(address), sure: true });
    }
    let mut frame = X29.read(cpu);
    while callers.len() < MAX_CALLERS
        && let Some(at) = frame.filter(|at| *at != 0 && at.is_multiple_of(8))
        && let Some(record) = cpu.bytes::<16>(at).map(u128::from_le_bytes)
    {
        let (next, address) = (record as u64, stripped((record >> 64) as u64));
        if !symbols.is_text(address) {
            break;
        }
        callers.push(Caller { address, sure });
        frame = Some(next).filter(|next| *next != at);
    }
    callers
}

#[cfg(test)]
mod tests {
    use super::stripped;

    #[test]
    fn an_authentication_code_is_taken_away() {
        assert_eq!(stripped(0x00bf_8000_8012_3456), 0xffff_8000_8012_3456);
        assert_eq!(stripped(0x003f_aaaa_b123_4568), 0x0000_aaaa_b123_4568);
        assert_eq!(stripped(0xffff_8000_8012_3456), 0xffff_8000_8012_3456);
    }
}
