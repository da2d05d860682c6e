//! Was there a taken branch between two instructions of one vCPU? Told from the instructions that lie between them.

use iced_x86::{Decoder, DecoderOptions, FlowControl};
use icsan_model::addr::Linear;

/// How far straight-line code is followed, in bytes. A vCPU that stores further ahead than this without a branch is
/// taken to have branched.
const REACH: u64 = 1024;

/// Does execution get from the instruction at `from` to the one at `to` without any branch instruction in between?
/// `instruction` gives the bytes of the instruction that was translated at an address: exactly as many as it has, since
/// the mode of the code is not known otherwise.
///
/// A conditional branch counts as taken: whether it was is not known, and then no `smc` hazard is claimed. An interrupt
/// in between is the caller's business.
#[must_use]
pub fn is_straight(from: Linear, to: Linear, instruction: impl Fn(Linear) -> Option<Vec<u8>>) -> bool {
    let distance = to.0.wrapping_sub(from.0);
    if distance == 0 {
        // A repeated instruction comes back to itself without a branch.
        return instruction(from).is_some_and(|bytes| {
            bytes.iter().take_while(|byte| is_prefix(**byte)).any(|byte| matches!(byte, 0xf2 | 0xf3))
        });
    }
    let mut at = from;
    while at != to {
        if distance > REACH || at.0.wrapping_sub(from.0) > distance {
            return false;
        }
        match instruction(at) {
            Some(bytes) if !may_branch(&bytes) => at = at.offset(bytes.len() as u64),
            _ => return false,
        }
    }
    true
}

/// In any mode in which these bytes are one instruction.
fn may_branch(bytes: &[u8]) -> bool {
    let mut modes = [64, 32, 16].into_iter().map(|bits| Decoder::new(bits, bytes, DecoderOptions::NONE).decode());
    let whole = |instruction: &iced_x86::Instruction| !instruction.is_invalid() && instruction.len() == bytes.len();
    bytes.is_empty() || modes.any(|instruction| whole(&instruction) && instruction.flow_control() != FlowControl::Next)
}

/// Legacy prefixes and REX: what may stand before or behind a REP prefix.
fn is_prefix(byte: u8) -> bool {
    matches!(byte, 0x26 | 0x2e | 0x36 | 0x3e | 0x40..=0x4f | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3)
}

#[cfg(test)]
mod tests {
    use super::is_straight;
    use icsan_model::addr::Linear;

    #[test]
    fn only_what_lies_ahead_without_a_branch_is_straight() {
        // mov %eax,(%rdi); nop; jne +0; nop; rep movsb
        let code: [(u64, &[u8]); 5] =
            [(0, &[0x89, 0x07]), (2, &[0x90]), (3, &[0x75, 0x00]), (5, &[0x90]), (6, &[0xf3, 0xa4])];
        let at = |at: Linear| code.iter().find(|(start, _)| 0x1000 + start == at.0).map(|(_, bytes)| bytes.to_vec());
        let straight = |from: u64, to: u64| is_straight(Linear(0x1000 + from), Linear(0x1000 + to), at);
        assert!(straight(0, 2) && straight(0, 3) && straight(2, 3));
        assert!(!straight(0, 5), "a conditional branch");
        assert!(!straight(2, 0), "backwards");
        assert!(!straight(0, 1), "no instruction begins there");
        assert!(straight(6, 6) && !straight(0, 0), "a repeated instruction, and a loop");
    }

    #[test]
    fn sixteen_bit_code_is_read_as_such() {
        // mov %al,0x1234 (16-bit); jmp +0; int $0: in 64-bit code the first would swallow the jump.
        let code: [(u64, &[u8]); 3] = [(0, &[0xa2, 0x34, 0x12]), (3, &[0xeb, 0x00]), (5, &[0xcd, 0x00])];
        let at = |at: Linear| code.iter().find(|(start, _)| *start == at.0).map(|(_, bytes)| bytes.to_vec());
        assert!(is_straight(Linear(0), Linear(3), at) && !is_straight(Linear(0), Linear(5), at));
    }
}
