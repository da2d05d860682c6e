//! What the runner must know of the architectures that guests run on, as data: one file of each one's name.

pub mod aarch64;
pub mod architecture;
pub mod registry;
pub mod x86;
