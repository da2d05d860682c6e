//! Changes of the exception level, by QEMU's own hooks: `arm_register_el_change_hook` (target/arm/cpu.h; it is exported
//! where QEMU is built with modules). It is called after every exception entry and return, on the vCPU's thread, with
//! the program counter at the target (target/arm/helper.c, `arm_cpu_do_interrupt`; tcg/helper-a64.c,
//! `exception_return`). PSCI's calls do not come this way.

use crate::qemu::api::find_internal;
use crate::qemu::entries::privilege_changed;
use icsan_model::addr::Vcpu;
use libc::{c_int, c_void};

/// `void hook(ARMCPU *, void *opaque)`.
type Hook = unsafe extern "C" fn(*mut c_void, *mut c_void);
/// `void arm_register_el_change_hook(ARMCPU *, hook, void *opaque)`.
type Register = unsafe extern "C" fn(*mut c_void, Hook, *mut c_void);
/// `CPUState *qemu_get_cpu(int index)`.
type GetCpu = unsafe extern "C" fn(c_int) -> *mut c_void;

/// Asks to be told of this vCPU's, whose thread this is and which has just started. `false`: this QEMU does not export
/// what that takes.
#[must_use]
pub fn watch(vcpu: Vcpu) -> bool {
    let (Ok(register), Ok(get)) = (find_internal(c"arm_register_el_change_hook"), find_internal(c"qemu_get_cpu"))
    else {
        return false;
    };
    // SAFETY: the functions of these names, with the types that they have in QEMU 9.2 to 11.1.
    let (register, get) = unsafe {
        (std::mem::transmute::<*mut c_void, Register>(register), std::mem::transmute::<*mut c_void, GetCpu>(get))
    };
    // SAFETY: the vCPU is in the list while its init callback runs; its object is the ARMCPU, whose first member it is.
    // The hook lives for ever, and takes its opaque pointer for a number.
    unsafe {
        let cpu = get(c_int::from(vcpu.0));
        if cpu.is_null() {
            return false;
        }
        register(cpu, changed, usize::from(vcpu.0) as *mut c_void);
    }
    true
}

unsafe extern "C" fn changed(_cpu: *mut c_void, vcpu: *mut c_void) {
    // SAFETY: QEMU calls on the thread of the vCPU that the hook was registered for, outside of generated code.
    unsafe { privilege_changed(vcpu as u32) };
}
