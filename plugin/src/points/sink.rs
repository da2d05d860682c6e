//! What the points tell, and whom.

use crate::arch::platform::Platform;
use crate::config::Config;
use crate::origins::Origins;
use crate::patching::{Entry, Identity};
use crate::qemu::cpu::{CurrentCpu, CurrentVcpu};
use crate::user_mode::UserModes;
use icsan_model::addr::{Linear, Vcpu};
use icsan_model::arch::maintenance::{Accesses, Domain, Maintenance};
use icsan_model::detector::sync_log::SyncAt;
use icsan_model::detector::sync_origin::SyncOrigin;
use icsan_symbols::linux::kaslr::PlaceEvidence;
use std::fmt::Debug;
use std::ops::Range;
use std::sync::OnceLock;

/// Says what a vCPU's registers tell of who runs there, beyond what is known.
pub type Sees<'a> = &'a dyn Fn(Identity) -> Identity;

/// Says where a function of the kernel's is.
pub type RangeOf<'a> = &'a dyn Fn(&str) -> Option<Range<u64>>;

/// Who is told. All of it is called in callbacks of the vCPU that it is about.
pub trait Sink: Sync + Debug {
    /// The guest's architecture.
    fn platform(&self) -> &'static dyn Platform;
    /// What the user chose.
    fn config(&self) -> &Config;
    /// What interrupts and exceptions vCPUs are in.
    fn origins(&self) -> &Origins;
    /// Which vCPUs are in user mode.
    fn user_modes(&self) -> &UserModes;
    /// The vCPU is about to complete an event of the architecture's table.
    fn synchronizes(&self, vcpu: &CurrentVcpu, at: SyncAt);
    /// The vCPU comes to an entry from an interrupt or exception, which returns to `from`, as far as that is known.
    fn entered(&self, vcpu: &CurrentVcpu, from: Option<Linear>);
    /// It is about to carry out a maintenance instruction.
    fn maintains(&self, vcpu: Vcpu, operation: Maintenance, cpu: &CurrentCpu);
    /// It is about to carry out a barrier.
    fn completes(&self, vcpu: Vcpu, barrier: (Domain, Accesses), cpu: &CurrentCpu);
    /// It is about to store to some of `len` bytes from `linear` on, by the instruction at `pc`, and QEMU will not
    /// tell.
    fn stores_unseen(&self, vcpu: &CurrentVcpu, pc: Linear, linear: Linear, len: u64, cpu: &CurrentCpu);
    /// From now on it stores through its caches, or past them.
    fn caches(&self, vcpu: Vcpu, on: bool);
    /// It goes to user mode.
    fn goes_to_user_mode(&self, vcpu: Vcpu, cpu: &CurrentCpu);
    /// It enters the address space of the page table `to`, and leaves that of `from`. Answers with what it does so for,
    /// where that is a step of a patch.
    fn enters_space(&self, vcpu: Vcpu, from: Option<u64>, to: u64) -> Option<SyncOrigin>;
    /// It runs the task `to` from now on, and ran `from` so far.
    fn runs_task(&self, vcpu: Vcpu, from: Option<u64>, to: u64);
    /// A task enters a protocol function.
    fn enters_function(&self, entry: Entry, sees: Sees<'_>, cpu: &CurrentCpu);
    /// A user task asks for the serialization of all its threads; it goes on at `returns_to`.
    fn calls_membarrier(&self, vcpu: Vcpu, sees: Sees<'_>, returns_to: Linear, stack: u64);
    /// A vCPU is where a protocol function may return to. `how`: its stack pointer, and whether what it comes from says
    /// that it failed.
    fn returns_to(&self, vcpu: Vcpu, sees: Sees<'_>, here: Linear, how: (u64, bool), cpu: &CurrentCpu);
    /// Does any task inside a protocol function return to this address?
    fn awaits_return(&self, here: Linear) -> bool;
    /// A register that tells the kernel's place was set to a runtime address, by the instruction at `pc`.
    fn kernel_place(&self, evidence: &PlaceEvidence, runtime: u64, pc: Linear);
    /// The vCPU runs a function that a protocol interrupts CPUs for, and nothing else.
    fn is_interrupted_to_sync(&self, vcpu: Vcpu);
    /// The kernel's place is known: where its functions are.
    fn learns_intended(&self, range_of: RangeOf<'_>);
    /// The boot processor begins at its reset vector.
    fn was_reset(&self, vcpu: &CurrentVcpu);
    /// The guest executed a marker.
    fn mark(&self, vcpu: Vcpu, value: u64);
    /// Watching begins or ends.
    fn watch(&self, on: bool);
    /// The guest's kernel gives up.
    fn panics(&self, vcpu: Vcpu);
}

static SINK: OnceLock<&'static dyn Sink> = OnceLock::new();

/// From now on the points tell this one. The first one stays.
pub fn tell(sink: &'static dyn Sink) {
    let _ = SINK.set(sink);
}

/// The one that is told. A callback finds it by no pointer of its payload's.
#[inline]
pub fn sink() -> Option<&'static dyn Sink> {
    SINK.get().copied()
}
