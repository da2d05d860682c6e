//! May a function's first instructions be moved?

use crate::qemu::host::detour::{Function, HookError};
use iced_x86::{Code, Decoder, DecoderOptions, FlowControl, Instruction};

/// A jump with a displacement of 32 bits, in bytes: what is written over a function's beginning.
pub(in crate::qemu) const JUMP: usize = 5;

/// Where a function is left for another one, and what has to be executed for what the jump there is written over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::qemu) struct Prologue {
    /// Does it begin with ENDBR64? That stays, and the jump comes behind it.
    pub endbr: bool,
    /// The instructions that the jump touches.
    pub moved: Vec<Instruction>,
    /// The address of the first one that it does not.
    pub next: u64,
}

impl Function {
    /// May a jump be written over its beginning?
    ///
    /// # Errors
    /// Why not.
    pub(in crate::qemu) fn prologue(&self) -> Result<Prologue, HookError> {
        let refuse = |at: u64| HookError::Prologue { name: self.name.clone(), offset: at - self.address as u64 };
        let instructions: Vec<Instruction> =
            Decoder::with_ip(64, &self.code, self.address as u64, DecoderOptions::NONE).into_iter().collect();
        let endbr = instructions.first().is_some_and(|first| first.code() == Code::Endbr64);
        let body = &instructions[usize::from(endbr)..];
        let start = body.first().map_or(self.address as u64, Instruction::ip);
        let count = body.iter().take_while(|instruction| instruction.ip() < start + JUMP as u64).count();
        let moved = body[..count].to_vec();
        let next = moved.last().map_or(start, Instruction::next_ip);
        // What goes on elsewhere by itself, or tells where it is, cannot be moved.
        let is_plain = |instruction: &&Instruction| {
            instruction.flow_control() == FlowControl::Next && instruction.code() != Code::INVALID
        };
        if let Some(other) = moved.iter().find(|instruction| !is_plain(instruction)) {
            // A jump to another function may be the last of them: the other one is jumped to from anywhere.
            let is_tail = other.code() == Code::Jmp_rel32_64 && other.next_ip() == next;
            if !is_tail {
                return Err(refuse(other.ip()));
            }
        }
        if next < start + JUMP as u64 {
            return Err(refuse(next));
        }
        // A branch of its own into what the jump is written over would execute half of it.
        let into = |instruction: &&Instruction| {
            let target = instruction.near_branch_target();
            instruction.flow_control() != FlowControl::Next && target > start && target < next
        };
        match instructions.iter().find(into) {
            Some(branch) => Err(refuse(branch.ip())),
            None => Ok(Prologue { endbr, moved, next }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prologue(code: &[u8]) -> Result<Prologue, HookError> {
        Function { name: "f".to_owned(), address: 0x1000, code: code.to_vec() }.prologue()
    }

    #[test]
    fn whole_instructions_are_moved_and_endbr64_stays() {
        // sub rsp, 8; shr rdi, 12; ret
        let plain = prologue(&[0x48, 0x83, 0xec, 8, 0x48, 0xc1, 0xef, 12, 0xc3]).unwrap();
        assert_eq!((plain.endbr, plain.moved.len(), plain.next), (false, 2, 0x1008));
        // endbr64; push r15; push r14; mov r14, rcx; ret
        let marked = prologue(&[0xf3, 0x0f, 0x1e, 0xfa, 0x41, 0x57, 0x41, 0x56, 0x49, 0x89, 0xce, 0xc3]).unwrap();
        assert_eq!((marked.endbr, marked.moved.len(), marked.next), (true, 3, 0x100b));
        // sub rdi, 0x1234; jmp elsewhere
        let tail = prologue(&[0x48, 0x81, 0xef, 0x34, 0x12, 0, 0, 0xe9, 0, 1, 0, 0]).unwrap();
        assert_eq!((tail.moved.len(), tail.next), (1, 0x1007));
        // xor esi, esi; jmp elsewhere
        assert_eq!(prologue(&[0x31, 0xf6, 0xe9, 0, 1, 0, 0]).unwrap().moved.len(), 2);
    }

    #[test]
    fn what_cannot_be_moved_is_refused() {
        for (code, offset) in [
            // Too short: ret.
            (&[0xc3_u8][..], 0),
            // push rbx; call elsewhere
            (&[0x53, 0xe8, 0, 1, 0, 0, 0xc3][..], 1),
            // xor eax, eax; xor edx, edx; nop; a loop back to the second one
            (&[0x31, 0xc0, 0x31, 0xd2, 0x90, 0xeb, 0xfb][..], 5),
            // Nothing that can be decoded.
            (&[0x06; 8][..], 0),
            (&[][..], 0),
            (&[0x90; 4][..], 4),
        ] {
            let error = prologue(code).unwrap_err();
            assert_eq!(error, HookError::Prologue { name: "f".to_owned(), offset }, "{code:x?}");
        }
    }
}
