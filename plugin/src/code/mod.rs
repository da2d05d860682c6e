//! Code as it is executed: segments of translated blocks, where they are in memory, and at which linear addresses.

pub mod code_table;
pub mod physical_map;
mod seen;
pub mod segment;
pub mod virtual_aliases;
