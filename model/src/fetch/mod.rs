//! What a processor may hold of code that it fetched: buffers that keep old instructions, and what it does about its
//! own stores.

pub mod held;
pub mod own_stores;
pub mod prefetch_buffer;
pub mod trace_buffer;
pub(crate) mod window;
