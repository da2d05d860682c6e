//! What the model needs of an instruction decoder: how long an instruction is.
//!
//! The model compares byte strings, it never asks what they do. Only the length matters, since an old first byte may
//! make an instruction longer or shorter than what is in memory now.

use std::fmt::Debug;

/// An instruction length decoder.
///
/// It must be a function of the instruction's own bytes: if `len(bytes)` is `Some(n)`, then `n` is at most
/// `bytes.len()`, and every byte string that begins with the same `n` bytes gives the same answer. `None` means that
/// the bytes are no instruction, or too few of one.
pub trait Decode: Debug + Send + Sync {
    /// The length of the instruction at the start of `bytes`, in bytes.
    fn len(&self, bytes: &[u8]) -> Option<usize>;

    /// The same where the length depends on a mode of the CPU that nobody tells: the mode is one in which `memory` is
    /// one whole instruction, if there is such a one.
    fn len_like(&self, bytes: &[u8], memory: &[u8]) -> Option<usize> {
        let _ = memory;
        self.len(bytes)
    }

    /// The length of the longest instruction, in bytes. So many bytes are looked at for each execution.
    fn max_len(&self) -> usize;
}

impl<D: Decode + ?Sized> Decode for &D {
    fn len(&self, bytes: &[u8]) -> Option<usize> {
        (**self).len(bytes)
    }

    fn len_like(&self, bytes: &[u8], memory: &[u8]) -> Option<usize> {
        (**self).len_like(bytes, memory)
    }

    fn max_len(&self) -> usize {
        (**self).max_len()
    }
}
