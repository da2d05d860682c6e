//! Entries from interrupts and exceptions, where a guest's architecture counts them.
//!
//! From plugin API 7 on QEMU tells of each as a discontinuity. Before, what tells is the architecture's own part of
//! QEMU, if it is exported (a folder of its name); else the callbacks on the first instructions of entries do
//! ([`crate::points`]).

use super::api::find;
use super::cpu::{CurrentCpu, CurrentVcpu};
use super::guard::guard;
use super::machine_events::told;
use icsan_model::addr::Linear;
use libc::{c_int, c_uint, c_void};
use std::sync::atomic::{AtomicBool, Ordering};

/// `enum qemu_plugin_discon_type`: what is asked for.
const INTERRUPT: c_int = 1;
const EXCEPTION: c_int = 2;

/// Called with: vCPU, type, the address that it comes from, the one that it goes to, user data.
type Discontinuity = unsafe extern "C" fn(c_uint, c_int, u64, u64, *mut c_void);

/// `qemu_plugin_register_vcpu_discon_cb`.
type Register = unsafe extern "C" fn(u64, c_int, Discontinuity, *mut c_void);

/// Does QEMU tell of each entry, by its API?
static BY_API: AtomicBool = AtomicBool::new(false);
/// Does the architecture's own part of QEMU tell, of every vCPU that was asked for?
static BY_HOOKS: AtomicBool = AtomicBool::new(true);

/// Does its API tell? Else each vCPU's hook has to be asked for.
#[must_use]
pub fn are_told_by_api() -> bool {
    BY_API.load(Ordering::Relaxed)
}

/// Is every entry told of in either way? Else the first instructions of entries have to be watched.
#[must_use]
pub fn are_told() -> bool {
    are_told_by_api() || BY_HOOKS.load(Ordering::Relaxed)
}

/// A vCPU's hook cannot be asked for.
pub fn are_not_told() {
    BY_HOOKS.store(false, Ordering::Relaxed);
}

/// Asks QEMU for discontinuities, if it has them. To be called at installation.
pub(super) fn ask(id: u64) {
    let Ok(register) = find(c"qemu_plugin_register_vcpu_discon_cb") else { return };
    // SAFETY: the function of that name, with the type that it has in API 7, which brought it.
    let register = unsafe { std::mem::transmute::<*mut c_void, Register>(register) };
    // SAFETY: called at installation, with this plugin's id and a function of the type that API 7 calls.
    unsafe { register(id, INTERRUPT | EXCEPTION, discontinuity, std::ptr::null_mut()) };
    BY_API.store(true, Ordering::Relaxed);
}

unsafe extern "C" fn discontinuity(vcpu: c_uint, _kind: c_int, from: u64, _to: u64, _userdata: *mut c_void) {
    guard(|| {
        if let Some(told) = told() {
            // SAFETY: QEMU calls on the vCPU's thread, and the token does not outlive the callback.
            told.entered(&unsafe { CurrentVcpu::new(vcpu) }, Linear(from));
        }
    });
}

/// The privilege level of this vCPU, whose thread this is, has changed: by an entry or a return. Its program counter is
/// where it goes on.
///
/// # Safety
/// Called by QEMU, on the thread of this vCPU, between two instructions, for a vCPU that runs no callback.
pub(super) unsafe fn privilege_changed(vcpu: c_uint) {
    guard(|| {
        if let Some(told) = told() {
            // SAFETY: the caller's promise; outside of generated code all registers are where QEMU looks for them.
            let (vcpu, cpu) = unsafe { (CurrentVcpu::new(vcpu), CurrentCpu::new(true)) };
            told.privilege_changed(&vcpu, &cpu);
        }
    });
}
