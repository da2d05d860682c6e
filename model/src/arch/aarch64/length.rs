//! How long A64 instructions are.

use super::WORD;
use crate::arch::decode::Decode;

/// Every A64 instruction is a word of four bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct A64Length;

impl Decode for A64Length {
    fn len(&self, bytes: &[u8]) -> Option<usize> {
        (bytes.len() >= WORD).then_some(WORD)
    }

    fn max_len(&self) -> usize {
        WORD
    }
}
