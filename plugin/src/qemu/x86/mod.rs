//! What is taken from qemu-system-x86_64 itself, beyond the plugin API.

mod planned;

pub use planned::{Planned, prepare};
