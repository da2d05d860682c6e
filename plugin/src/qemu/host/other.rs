//! Hosts on which it was not tried that callbacks leave their block.

/// Was it tried on this one?
///
/// # Errors
/// No, as the rest of a line.
pub fn is_tried() -> Result<(), String> {
    if cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        Ok(())
    } else {
        Err("it was tried on x86-64 Linux hosts only".to_owned())
    }
}

/// Nothing is registered with it: what would be is refused by [`is_tried`].
#[cfg(not(target_arch = "x86_64"))]
pub unsafe extern "C" fn entry<R: super::returning::Returning>(_vcpu: libc::c_uint, _userdata: *mut libc::c_void) {}

/// No function of QEMU's is left for another one.
///
/// # Errors
/// Always.
#[cfg(not(target_arch = "x86_64"))]
pub fn place(_detours: &[super::detour::Detour]) -> Result<(), super::detour::HookError> {
    is_tried().map_err(super::detour::HookError::Host)
}
