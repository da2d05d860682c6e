//! What is taken from qemu-system-aarch64 itself, beyond the plugin API.

pub mod el_change;

/// Looks up what carrying out instructions takes.
///
/// # Errors
/// That it is not possible, as the rest of a line.
pub fn prepare() -> Result<(), String> {
    Err("this version carries out no instruction of AArch64".to_owned())
}
