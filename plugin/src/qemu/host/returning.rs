//! Callbacks that are told where they return to.

use libc::{c_uint, c_void};

/// What a callback does that is told where QEMU's generated code goes on after it, which tells the instruction.
pub trait Returning {
    /// # Safety
    /// Called by QEMU as a callback that was registered with this user data; `back` is its return address into
    /// generated code.
    unsafe extern "C" fn fire(vcpu: c_uint, userdata: *mut c_void, back: usize);
}
