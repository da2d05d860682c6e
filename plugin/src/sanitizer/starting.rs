//! When the sanitizer begins: at the installation, or, where what its profile asks for depends on the guest's caches,
//! with the first vCPU, whose registers say what they are. QEMU executes nothing before.

use super::Sanitizer;
use crate::arch::platform::Platform;
use crate::config::Config;
use crate::qemu::accelerator::Accelerator;
use crate::qemu::cpu::{CurrentCpu, CurrentVcpu};
use crate::qemu::install::Machine;
use crate::qemu::locks::Mutex;
use crate::qemu::machine_events::MachineEvents;
use crate::qemu::process;
use crate::qemu::translation::Translation;
use icsan_model::addr::Linear;
use icsan_model::arch::maintenance::CacheType;
use std::sync::OnceLock;

/// Starts one, or what will.
///
/// # Errors
/// One line: what of it is not possible here.
pub(crate) fn start(
    platform: &'static dyn Platform,
    config: Config,
    machine: Machine,
) -> Result<Box<dyn MachineEvents>, String> {
    // Where no vCPU ever tells of its start nothing is watched, which has to be said.
    if config.profile.incoherent_caches().is_none() || Accelerator::get().blind().is_some() {
        return Ok(Box::new(Sanitizer::new(platform, config, machine)?));
    }
    Ok(Box::new(Starting { platform, parts: Mutex::new(Some((config, machine))), made: OnceLock::new() }))
}

/// One that waits for the first vCPU.
#[derive(Debug)]
struct Starting {
    platform: &'static dyn Platform,
    parts: Mutex<Option<(Config, Machine)>>,
    made: OnceLock<&'static Sanitizer>,
}

impl Starting {
    /// The first vCPU has started, or QEMU ends without any.
    fn make(&self, caches: Option<CacheType>) -> Option<&'static Sanitizer> {
        let mut parts = self.parts.lock();
        let made = parts.take().map(|(config, machine)| {
            let config = match caches {
                Some(caches) => config.on(caches),
                None => config,
            };
            Sanitizer::new(self.platform, config, machine).map(|made| *self.made.get_or_init(|| made))
        });
        // QEMU's exit handlers, which a refusal runs on this thread, ask as well.
        drop(parts);
        if let Some(Err(line)) = made {
            process::say(&line);
            process::refuse();
        }
        self.made.get().copied()
    }
}

impl MachineEvents for Starting {
    fn wants_entries(&self) -> bool {
        self.platform.facts().entry.is_some()
    }

    fn vcpu_start(&self, vcpu: &CurrentVcpu, cpu: &CurrentCpu) {
        if let Some(made) = self.make(self.platform.cache_type(cpu)) {
            made.vcpu_start(vcpu, cpu);
        }
    }

    fn entered(&self, vcpu: &CurrentVcpu, from: Linear) {
        self.made.get().into_iter().for_each(|made| MachineEvents::entered(made, vcpu, from));
    }

    fn privilege_changed(&self, vcpu: &CurrentVcpu, cpu: &CurrentCpu) {
        self.made.get().into_iter().for_each(|made| made.privilege_changed(vcpu, cpu));
    }

    fn vcpu_runs(&self, vcpu: &CurrentVcpu, runs: bool) {
        self.made.get().into_iter().for_each(|made| made.vcpu_runs(vcpu, runs));
    }

    fn flushed(&self) {
        self.made.get().into_iter().for_each(MachineEvents::flushed);
    }

    fn stands_still(&self, stopped: bool) {
        self.made.get().into_iter().for_each(|made| MachineEvents::stands_still(made, stopped));
    }

    fn translate(&self, block: &Translation<'_>, vcpu: Option<&CurrentVcpu>) {
        self.made.get().into_iter().for_each(|made| MachineEvents::translate(made, block, vcpu));
    }

    fn failed_exit(&self) -> Option<u8> {
        self.made.get().and_then(|made| made.failed_exit())
    }

    fn exit(&self) -> Option<u8> {
        self.make(None).and_then(|made| MachineEvents::exit(&made))
    }
}
