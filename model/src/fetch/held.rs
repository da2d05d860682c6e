//! What a processor holds of code, whatever holds it.

use crate::addr::{Linear, Seq};

/// What a vCPU holds, by chunk.
pub trait Held {
    /// The moment from which on the bytes of a chunk may stem, if a buffer holds it.
    fn held_since(&self, chunk: Linear) -> Option<Seq>;
    /// The moment from which on a chunk may have been brought in by speculation.
    fn speculated_since(&self, chunk: Linear) -> Seq;
}
