//! A best-effort call chain: what on the stack looks like a return address, since a call instruction ends where it
//! points.
//!
//! As in the kernel's own reports, a `?` marks what was found that way. Old frames that nobody overwrote look the same.

use crate::arch::caller::Caller;
use crate::qemu::cpu::CurrentCpu;
use icsan_symbols::Symbolizer;
use icsan_symbols::linux::x86_calls::{LONGEST, calls_ending};

/// How much of the stack is looked through, in bytes.
const DEPTH: usize = 1024;

/// How many callers are kept.
const MAX_CALLERS: usize = 12;

/// The callers of the function that has this stack pointer, innermost first. `at_entry`: the stack pointer points at a
/// return address.
#[must_use]
pub fn callers(cpu: &CurrentCpu, symbols: &Symbolizer, stack: u64, at_entry: bool) -> Vec<Caller> {
    // The stack may end sooner: less is better than nothing.
    let Some(bytes) = [DEPTH, DEPTH / 4, 8].into_iter().find_map(|depth| cpu.memory(stack, depth)) else {
        return Vec::new();
    };
    let words =
        bytes.chunks_exact(8).map(|word| word.iter().rev().fold(0u64, |value, byte| value << 8 | u64::from(*byte)));
    let mut callers = Vec::new();
    for (index, address) in words.enumerate() {
        if callers.len() == MAX_CALLERS {
            break;
        }
        if at_entry && index == 0 {
            callers.push(Caller { address, sure: true });
        } else if symbols.is_text(address) && follows_call(cpu, symbols, address) {
            callers.push(Caller { address, sure: false });
        }
    }
    callers
}

fn follows_call(cpu: &CurrentCpu, symbols: &Symbolizer, address: u64) -> bool {
    let Some(before) = cpu.memory(address.wrapping_sub(LONGEST as u64), LONGEST) else { return false };
    calls_ending(&before).any(|call| call.target(address).is_none_or(|target| symbols.is_text(target)))
}
