//! AArch64: which instructions to watch, and what must be looked up when they run, beyond what the model knows.

pub mod registers;
pub mod straight;
pub mod text;
