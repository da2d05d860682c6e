//! ICSAN's QEMU plugin.
//!
//! From block to verdict: QEMU translates a block ([`qemu::translation`]); it is cut into [`code::segment`]s, each with
//! a slot that lets its callback fire once in each epoch of a vCPU; a segment that fires is compared with memory (is
//! QEMU itself up to date?) and with what this vCPU executed there earlier in the epoch
//! ([`icsan_model::detector::light`]); instructions that serialize end the epoch ([`points`]). What is found goes to
//! [`report`].
//!
//! All `unsafe` is in [`qemu`]; all that knows an instruction set is in a folder of its name, below [`arch`] and
//! [`qemu`].

pub mod arch;
pub mod code;
pub mod config;
pub mod coverage;
pub mod exposure;
pub mod gaps;
pub mod injection;
pub mod origins;
pub mod output_file;
pub mod patching;
pub mod points;
pub mod qemu;
pub mod recorder;
pub mod repair;
pub mod report;
pub mod sanitizer;
pub mod skipped;
pub mod stores;
pub mod user_mode;
pub mod vcpu;
pub mod what_if;

use crate::arch::registry;
use crate::config::Config;
use crate::qemu::accelerator::Accelerator;
use crate::qemu::hooks::{self, Wish};
use crate::qemu::install::Machine;
use crate::qemu::machine_events::MachineEvents;
use crate::qemu::process::say;
use crate::sanitizer::starting;

/// The plugin's own heap, apart from QEMU's: what it holds stands in the summary.
#[global_allocator]
pub(crate) static HEAP: cap::Cap<std::alloc::System> = cap::Cap::new(std::alloc::System, usize::MAX);

/// Hooks QEMU's own functions, while it has no vCPU thread yet.
///
/// # Errors
/// They are demanded, and not possible.
fn hook(config: &Config, machine: &Machine) -> Result<(), String> {
    if config.hooks == Wish::Off || Accelerator::get().blind().is_some() {
        return Ok(());
    }
    match hooks::install(machine.generation, !config.writers) {
        Err(why) if config.hooks == Wish::On => Err(format!("hooks=on is not possible here: {why}")),
        Err(why) => {
            say(&format!("hooks=auto: none in QEMU's own functions, the plugin API alone: {why}"));
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// Sets the plugin up for a machine.
///
/// # Errors
/// One line that says what is wrong and what to do.
pub(crate) fn install(machine: Machine, arguments: &[String]) -> Result<Box<dyn MachineEvents>, String> {
    if !machine.system {
        return Err(format!(
            "user-mode emulation is not watched: QEMU itself is stale there for code written through an alias; use {}",
            registry::programs()
        ));
    }
    let platform = registry::platform(&machine.target).ok_or_else(|| {
        format!("guest architecture {} is not supported; use {}", machine.target, registry::programs())
    })?;
    let config = Config::parse(arguments, platform).map_err(|error| error.to_string())?;
    hook(&config, &machine)?;
    starting::start(platform, config, machine)
}
