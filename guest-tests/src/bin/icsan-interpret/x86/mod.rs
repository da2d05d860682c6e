//! Instructions of x86-64, on the CPU and in the model's interpreter.

pub mod compare;
pub mod forms;
pub mod generator;
pub mod machine;
