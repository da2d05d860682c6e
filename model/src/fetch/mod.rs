//! What a processor may hold of code: buffers that keep old instructions that it fetched, what it does about its own
//! stores, and under both the instruction cache that it fetches from.

pub mod held;
pub mod instruction_cache;
pub mod own_stores;
pub mod prefetch_buffer;
pub mod trace_buffer;
pub(crate) mod window;
