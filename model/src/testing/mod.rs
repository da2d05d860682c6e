//! For tests, of other crates too: random histories, and a naive judgement of them.

pub mod naive;
pub mod strategies;
