//! Was there a taken branch between two instructions of one vCPU? Told from the code that lies between them.

use iced_x86::{Decoder, DecoderOptions, FlowControl};
use icsan_model::addr::Linear;

/// How far straight-line code is followed, in bytes. Whoever stores further ahead than this without a branch is taken to have branched.
pub const REACH: u64 = 1024;

/// Does execution get from the instruction at `from` to the one at `to` without any branch instruction in between? `code` holds what is in memory from `from` on.
///
/// A conditional branch counts as taken: whether it was is not known, and then no `smc` hazard is claimed. An interrupt in between is the caller's business.
#[must_use]
pub fn is_straight(from: Linear, to: Linear, code: &[u8]) -> bool {
    let Some(distance) = to.0.checked_sub(from.0).filter(|distance| *distance <= REACH) else { return false };
    // The mode is not known: the one in which the line meets `to` is the right one.
    [64, 32, 16].into_iter().any(|bits| {
        let mut decoder = Decoder::with_ip(bits, code, from.0, DecoderOptions::NONE);
        let first = decoder.decode();
        // A repeated instruction comes back to itself without a branch.
        if distance == 0 {
            return first.has_rep_prefix() || first.has_repne_prefix();
        }
        let mut instruction = first;
        loop {
            if instruction.is_invalid() || instruction.flow_control() != FlowControl::Next {
                return false;
            }
            match instruction.next_ip().cmp(&to.0) {
                std::cmp::Ordering::Less => instruction = decoder.decode(),
                std::cmp::Ordering::Equal => return true,
                std::cmp::Ordering::Greater => return false,
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::is_straight;
    use icsan_model::addr::Linear;

    #[test]
    fn only_what_lies_ahead_without_a_branch_is_straight() {
        // mov %eax,(%rdi); nop; jne +0; nop; rep movsb
        let code = [0x89, 0x07, 0x90, 0x75, 0x00, 0x90, 0xf3, 0xa4];
        let straight = |from: u64, to: u64| is_straight(Linear(0x1000 + from), Linear(0x1000 + to), &code[from as usize..]);
        assert!(straight(0, 2) && straight(0, 3) && straight(2, 3));
        assert!(!straight(0, 5), "a conditional branch");
        assert!(!straight(2, 0), "backwards");
        assert!(!straight(0, 1), "no instruction begins there");
        assert!(straight(6, 6) && !straight(0, 0), "a repeated instruction, and a loop");
    }
}
