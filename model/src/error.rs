//! What can be wrong with an event or with the parameters of a model.
//!
//! A refused event changes nothing and takes no place in the order: the model after it is the model before it.

use crate::addr::{Linear, Phys, Seq, Vcpu};
use thiserror::Error;

/// Why the model refused.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ModelError {
    /// The profile's fetch chunk is no power of two, or larger than a page.
    #[error("a fetch chunk of {chunk} bytes: it must be a power of two, one page at most")]
    BadChunk {
        /// What the profile says.
        chunk: u32,
    },
    /// The profile's look-ahead is larger than the model walks.
    #[error("a look-ahead of {lookahead} bytes: {max} at most")]
    BadLookahead {
        /// What the profile says.
        lookahead: u32,
        /// The limit, [`crate::fetch::prefetch_buffer::MAX_LOOKAHEAD`].
        max: u32,
    },
    /// A cache line of the profile's caches is no power of two, or larger than a page.
    #[error("a cache line of {line} bytes: it must be a power of two, one page at most")]
    BadLine {
        /// What the profile says.
        line: u64,
    },
    /// The event names a vCPU that the guest does not have.
    #[error("vCPU {vcpu} of a guest with {vcpus}")]
    UnknownVcpu {
        /// Who is named.
        vcpu: Vcpu,
        /// How many there are.
        vcpus: usize,
    },
    /// A store or an instruction without bytes.
    #[error("a store or an instruction of no bytes")]
    ZeroLength,
    /// An instruction longer than the decoder knows any.
    #[error("an instruction of {len} bytes; the longest has {max}")]
    TooLong {
        /// What the event says.
        len: u8,
        /// [`crate::arch::decode::Decode::max_len`].
        max: usize,
    },
    /// A store that crosses a page: its parts have nothing to do with each other physically.
    #[error("a store of {len} bytes at {phys} crosses a page")]
    StoreCrossesPage {
        /// Its first byte.
        phys: Phys,
        /// Its length in bytes.
        len: usize,
    },
    /// A remapped page that does not begin where a page begins.
    #[error("the mapping of {linear} is not on page boundaries")]
    MisalignedPage {
        /// The linear address.
        linear: Linear,
    },
    /// An execution where nothing is mapped.
    #[error("vCPU {vcpu} executes at {linear}, where nothing is mapped")]
    Unmapped {
        /// Who executes.
        vcpu: Vcpu,
        /// The first byte without a mapping.
        linear: Linear,
    },
    /// An execution of bytes that the model was never told.
    #[error("vCPU {vcpu} executes at {linear} (phys {phys}), and the contents there are unknown")]
    UnknownContents {
        /// Who executes.
        vcpu: Vcpu,
        /// The first unknown byte.
        linear: Linear,
        /// Where it is in memory.
        phys: Phys,
    },
    /// A commit of something that is no store.
    #[error("seq {seq} is committed, but it is no store")]
    NotAStore {
        /// The place in the order.
        seq: Seq,
    },
}
