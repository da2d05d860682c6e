//! What the plugin needs of the machine that QEMU itself runs on, a file for each kind.

pub(super) mod detour;
mod other;
mod returning;
#[cfg(target_arch = "x86_64")]
mod x86;

pub(super) use other::is_tried;
#[cfg(not(target_arch = "x86_64"))]
pub(super) use other::{entry, place};
pub(super) use returning::Returning;
#[cfg(target_arch = "x86_64")]
pub(super) use x86::{entry, place};
