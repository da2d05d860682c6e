//! The machine: processors over one memory, told events one after the other.

pub mod model;
pub mod stats;
pub mod vcpu;
