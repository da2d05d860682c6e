//! ICSAN's QEMU plugin.
//!
//! From block to verdict: QEMU translates a block ([`qemu::translation`]); it is cut into [`segment`]s, each with a
//! slot that lets its callback fire once in each epoch of a vCPU; a segment that fires is compared with memory (is QEMU
//! itself up to date?) and with what this vCPU executed there earlier in the epoch ([`icsan_model::light`]);
//! instructions that serialize end the epoch ([`x86`]). What is found goes to [`report`].
//!
//! All `unsafe` is in [`qemu`]; all that knows an instruction set is in [`x86`].

pub mod config;
pub mod coverage;
pub mod gaps;
pub mod injection;
pub mod light;
pub mod origins;
pub mod output_file;
pub mod page_filter;
pub mod patching;
pub mod places;
pub mod qemu;
pub mod recorder;
pub mod repair;
pub mod report;
pub mod sanitizer;
pub mod segment;
pub mod skipped;
pub mod store_check;
pub mod store_side;
pub mod suppress;
pub mod vcpu;
pub mod views;
pub mod what_if;
pub mod x86;

use crate::config::Config;
use crate::qemu::install::{Hooks, Machine};
use crate::sanitizer::Sanitizer;
use icsan_model::architecture::Architecture;

/// The plugin's own heap, apart from QEMU's: what it holds stands in the summary.
#[global_allocator]
pub(crate) static HEAP: cap::Cap<std::alloc::System> = cap::Cap::new(std::alloc::System, usize::MAX);

/// The architectures that this version watches.
const ARCHITECTURES: &[&Architecture] = &[&icsan_model::x86::X86_64];

/// Sets the plugin up for a machine.
///
/// # Errors
/// One line that says what is wrong and what to do.
pub(crate) fn install(machine: Machine, arguments: &[String]) -> Result<Box<dyn Hooks>, String> {
    if !machine.system {
        return Err(
            "user-mode emulation is not watched: QEMU itself is stale there for code written through an alias; use qemu-system-x86_64"
                .to_owned(),
        );
    }
    let arch = ARCHITECTURES.iter().find(|arch| arch.name == machine.target).ok_or_else(|| {
        let known: Vec<_> = ARCHITECTURES.iter().map(|arch| format!("qemu-system-{}", arch.name)).collect();
        format!("guest architecture {} is not supported; use {}", machine.target, known.join(" or "))
    })?;
    let config = Config::parse(arguments, arch).map_err(|error| error.to_string())?;
    Ok(Box::new(Sanitizer::new(arch, config, machine)?))
}
