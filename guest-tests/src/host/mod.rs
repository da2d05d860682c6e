//! The host's side of a boot: the initramfs, and the QEMU process. What `icsan-runner` and `icsan-bench` share.

pub mod boot;
pub mod initramfs;
