//! What is taken from qemu-system-aarch64 itself, beyond the plugin API.

pub mod el_change;
mod planned;

pub use planned::{Planned, load, prepare};
