//! Who is told of what is tied to no instruction.

use super::cpu::{CurrentCpu, CurrentVcpu};
use super::translation::Translation;
use icsan_model::addr::Linear;
use std::sync::OnceLock;

/// What the plugin does at the events that are not tied to an instruction.
pub trait MachineEvents: Sync + Send {
    /// Is it to be told of entries from interrupts and exceptions?
    fn wants_entries(&self) -> bool;
    /// A vCPU starts, on its own host thread.
    fn vcpu_start(&self, vcpu: &CurrentVcpu, cpu: &CurrentCpu);
    /// It comes to an entry from an interrupt or exception, which returns to `from`.
    fn entered(&self, vcpu: &CurrentVcpu, from: Linear);
    /// It comes to such an entry, or returns from one: its privilege level has changed.
    fn privilege_changed(&self, vcpu: &CurrentVcpu, cpu: &CurrentCpu);
    /// A vCPU that has started is about to sleep (`false`), or to run again. Told on its own host thread, which
    /// executes nothing in between.
    fn vcpu_runs(&self, vcpu: &CurrentVcpu, runs: bool);
    /// QEMU has dropped all translations: on a vCPU's thread that executes nothing, or on another one while no vCPU
    /// does.
    fn flushed(&self);
    /// The machine is stopped (`true`), or goes on. No vCPU executes anything.
    fn stands_still(&self, stopped: bool);
    /// A block is being translated, by the vCPU whose thread this is.
    fn translate(&self, block: &Translation<'_>, vcpu: Option<&CurrentVcpu>);
    /// QEMU is about to exit: the last call, made once. Answers with the exit code that QEMU's own gives way to, if one
    /// does.
    fn exit(&self) -> Option<u8>;
    /// The same if [`MachineEvents::exit`] does not come to its end.
    fn failed_exit(&self) -> Option<u8>;
}

static TOLD: OnceLock<Box<dyn MachineEvents>> = OnceLock::new();

/// Who is told. `None` before the installation.
pub(super) fn told() -> Option<&'static dyn MachineEvents> {
    TOLD.get().map(|told| &**told)
}

/// From now on this one is told. `false`: there is one.
#[must_use]
pub(super) fn tell(told: Box<dyn MachineEvents>) -> bool {
    TOLD.set(told).is_ok()
}
