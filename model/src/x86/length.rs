//! How long x86 instructions are, by `iced-x86`. Only with the feature `iced`.

use crate::decode::Decode;
use iced_x86::{Decoder, DecoderOptions};

/// Lengths of 64-bit instructions. In 16- and 32-bit code some come out wrong: there candidates are cut at the wrong byte, but nothing becomes a hazard or ceases to be one,
/// since what is in memory is taken as long as the emulator says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Length64;

impl Decode for Length64 {
    fn len(&self, bytes: &[u8]) -> Option<usize> {
        let instruction = Decoder::new(64, bytes, DecoderOptions::NONE).decode();
        (!instruction.is_invalid()).then(|| instruction.len())
    }

    fn max_len(&self) -> usize {
        15
    }
}
