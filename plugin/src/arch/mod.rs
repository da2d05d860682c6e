//! What a guest's architecture is to the plugin, a folder for each. Everything else in this crate goes by
//! [`platform::Platform`], [`linux_abi::LinuxAbi`] and the data of the model's architecture.
//!
//! - [`platform`]: what must be looked up, and what is only known by an architecture's own rules; [`registry`]: which
//!   architectures there are.
//! - [`linux_abi`]: where Linux on it has what the plugin reads.
//! - [`caller`], [`isolation`], [`known_finding`], [`store_form`]: what they answer with.

pub mod aarch64;
pub mod caller;
pub mod isolation;
pub mod known_finding;
pub mod linux_abi;
pub mod platform;
pub mod registry;
pub mod store_form;
pub mod x86;
