//! QEMU's plugin ABI: all `unsafe` and `extern "C"` of the plugin. Above this folder nobody sees a raw pointer or a
//! QEMU version.
//!
//! - [`version`]: the version symbol, chosen at load; [`api`]: the functions, looked up by name.
//! - [`install`]: the entry and the cold callbacks; [`translation`]: a block being translated, and callbacks on its
//!   instructions.
//! - [`entries`]: interrupts and exceptions; [`stores`]: the guest's stores; [`scoreboard`]: per-vCPU slots; [`cpu`]:
//!   registers and memory of the running
//!   vCPU; [`current`]: which one that is; [`host_code`]: guest code in host memory.
//! - [`page_walk`]: where a linear page is in physical memory; [`host_address`]: where a physical one is in the host's;
//!   [`repair`]: how a block is left and translated again.
//! - [`divert`]: how a vCPU executes something else; what that takes of a guest's architecture is in a folder of its
//!   name.
//! - [`hooks`]: jumps in QEMU's own functions, and what they tell; [`machine_events`]: who is told of what is tied to
//!   no instruction.
//! - [`accelerator`]: what runs the guest.
//! - [`guard`]: no panic leaves this folder; [`fence`]: how vCPUs see what others did, at the expense of those who
//!   rarely look; [`process`]: what is asked of the host process.

pub mod aarch64;
pub mod accelerator;
pub mod api;
pub mod cpu;
pub mod current;
pub mod divert;
pub mod entries;
pub mod fence;
pub mod guard;
pub mod hooks;
mod host;
pub mod host_address;
pub mod host_code;
pub mod install;
pub mod locks;
pub mod machine_events;
pub mod page_walk;
pub mod process;
pub mod repair;
mod run_state;
pub mod scoreboard;
pub mod stores;
pub mod translation;
pub mod version;
pub mod x86;
