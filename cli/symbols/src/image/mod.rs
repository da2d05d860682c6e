//! Kernel images as boot loaders take them, a file for each architecture.

pub mod bzimage;
