//! Which vCPU's thread this is. QEMU tells most callbacks, but not those on translations and on the end of all
//! translations.

use icsan_model::addr::Vcpu;
use std::cell::Cell;

thread_local! {
    static VCPU: Cell<Option<Vcpu>> = const { Cell::new(None) };
}

/// This thread is the vCPU's from now on.
pub(super) fn set_vcpu(vcpu: Vcpu) {
    VCPU.set(Some(vcpu));
}

/// The vCPU whose thread this is. `None`: it is none's.
#[must_use]
pub fn vcpu() -> Option<Vcpu> {
    VCPU.get()
}
