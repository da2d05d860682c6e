//! x86-64 hosts.

mod place;
mod prologue;
mod stubs;

use super::returning::Returning;
use libc::{c_uint, c_void};
pub(in crate::qemu) use place::place;

/// Passes on where QEMU's generated code goes on after the callback: its own return address, as the third argument.
#[unsafe(naked)]
pub unsafe extern "C" fn entry<R: Returning>(vcpu: c_uint, userdata: *mut c_void) {
    core::arch::naked_asm!("mov rdx, qword ptr [rsp]", "jmp {fire}", fire = sym R::fire)
}
