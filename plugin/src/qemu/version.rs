//! The version symbol, chosen when the library is loaded.
//!
//! QEMU reads `qemu_plugin_version` after it loaded the library: 10.0 takes 2 to 4, 11.1 takes only 7. A constructor
//! runs before that and sets the one that the surrounding QEMU understands, so one file serves them all.

use super::api::Generation;
use std::sync::atomic::{AtomicI32, Ordering};

/// The version of the plugin API that this library asks for. An `AtomicI32` has the layout of the `int` that QEMU
/// reads.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals)]
pub static qemu_plugin_version: AtomicI32 = AtomicI32::new(Generation::V4 as i32);

#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = choose;

extern "C" fn choose() {
    match Generation::detect() {
        Some(generation) => qemu_plugin_version.store(generation as i32, Ordering::Relaxed),
        // QEMU 7.2 and its like go on to refuse the number, in words that do not say what to do.
        None if super::api::exported(c"qemu_plugin_register_vcpu_tb_trans_cb") => {
            super::process::say(
                "this QEMU is too old: its plugin API lacks per-vCPU conditions and register access; use QEMU 10.0 or newer (README, \"Requirements\")",
            );
        }
        None => {}
    }
}
