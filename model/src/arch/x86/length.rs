//! How long x86 instructions are, by `iced-x86`. Only with the feature `iced`.

use crate::arch::decode::Decode;
use iced_x86::{Decoder, DecoderOptions};

/// Lengths of x86 instructions. The mode of the code is not known: it is the one in which the instruction in memory has
/// the length that the emulator gave it, 64-bit first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct X86Length;

fn len(bits: u32, bytes: &[u8]) -> Option<usize> {
    let instruction = Decoder::new(bits, bytes, DecoderOptions::NONE).decode();
    (!instruction.is_invalid()).then(|| instruction.len())
}

impl Decode for X86Length {
    fn len(&self, bytes: &[u8]) -> Option<usize> {
        len(64, bytes)
    }

    fn len_like(&self, bytes: &[u8], memory: &[u8]) -> Option<usize> {
        let bits = [64, 32, 16].into_iter().find(|bits| len(*bits, memory) == Some(memory.len()));
        len(bits.unwrap_or(64), bytes)
    }

    fn max_len(&self) -> usize {
        super::LONGEST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mode_is_that_of_the_instruction_in_memory() {
        // mov $0x11111111,%eax in 16-bit code is mov $0x1111,%ax in 64-bit code.
        let (old, new) = ([0x66, 0xb8, 0x11, 0x11, 0x11, 0x11], [0x66, 0xb8, 0x22, 0x22, 0x22, 0x22]);
        assert_eq!((X86Length.len(&old), X86Length.len_like(&old, &new)), (Some(4), Some(6)));
        assert_eq!(X86Length.len_like(&old, &new[..4]), Some(4));
        assert_eq!(X86Length.len(&[0x0f]), None);
    }
}
