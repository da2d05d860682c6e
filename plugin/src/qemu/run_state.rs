//! When the machine is stopped, and when it goes on.
//!
//! QEMU tells no plugin of it, but its own devices, by `qemu_add_vm_change_state_handler` (softmmu/runstate.c until
//! 8.2, system/runstate.c since), which a QEMU that is built with modules exports: a function of (opaque, running,
//! state), called on the main thread, while all vCPUs stand still. Where it is not exported, what a state that was
//! restored while the machine was stopped has changed is not noticed at once.

use super::api::find_internal;
use libc::{c_int, c_void};
use std::sync::OnceLock;

type Changed = unsafe extern "C" fn(*mut c_void, bool, c_int);
type Add = unsafe extern "C" fn(Changed, *mut c_void) -> *mut c_void;

/// Who is told: whether the machine stands still.
static TOLD: OnceLock<fn(bool)> = OnceLock::new();

/// From now on `told` is. To be called once, at installation.
pub fn watch(told: fn(bool)) {
    let _ = TOLD.set(told);
    let Ok(add) = find_internal(c"qemu_add_vm_change_state_handler") else { return };
    // SAFETY: the function of that name, with the type that it has from QEMU 6.0 on (`bool running`).
    let add: Add = unsafe { std::mem::transmute::<*mut c_void, Add>(add) };
    // SAFETY: its list exists from the start of the process, the handler for ever, and it reads no opaque pointer.
    unsafe { add(changed, std::ptr::null_mut()) };
}

unsafe extern "C" fn changed(_opaque: *mut c_void, running: bool, _state: c_int) {
    if let Some(told) = TOLD.get() {
        told(!running);
    }
}
