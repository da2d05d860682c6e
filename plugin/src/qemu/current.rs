//! Which vCPU's thread this is. QEMU tells most callbacks, but not those on translations and on the end of all
//! translations.

use super::api::find;
use icsan_model::addr::Vcpu;
use libc::c_void;
use std::cell::Cell;
use std::ffi::CStr;

thread_local! {
    static VCPU: Cell<Option<Vcpu>> = const { Cell::new(None) };
    /// Where QEMU keeps its pointer to this thread's vCPU.
    static OBJECT: Cell<*const *mut c_void> = const { Cell::new(std::ptr::null()) };
}

/// QEMU's thread-local pointer to the vCPU whose thread it is.
pub(super) const CURRENT_CPU: &CStr = c"current_cpu";

/// This thread is the vCPU's from now on.
pub(super) fn set_vcpu(vcpu: Vcpu) {
    VCPU.set(Some(vcpu));
}

/// The vCPU whose thread this is. `None`: it is none's.
#[must_use]
pub fn vcpu() -> Option<Vcpu> {
    VCPU.get()
}

/// QEMU's own structure (`CPUState`) of the vCPU whose thread this is. `None`: it is none's, or this QEMU does not
/// export where it keeps that.
pub(super) fn object() -> Option<*mut c_void> {
    let mut at = OBJECT.get();
    if at.is_null() {
        at = find(CURRENT_CPU).ok()?.cast_const().cast();
        OBJECT.set(at);
    }
    // SAFETY: dlsym gives this thread's instance of a thread-local variable, which lives as long as the thread; it is a
    // pointer, null outside of a vCPU's thread.
    let object = unsafe { at.read() };
    (!object.is_null()).then_some(object)
}
