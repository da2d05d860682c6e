//! Real kernel images.

use std::path::PathBuf;

/// Those that `ICSAN_KERNELS` names; there must be one.
pub fn kernels() -> Vec<PathBuf> {
    let list = std::env::var_os("ICSAN_KERNELS")
        .expect("ICSAN_KERNELS names no kernel images: scripts/test fetches them, and names them");
    let kernels: Vec<PathBuf> = std::env::split_paths(&list).collect();
    assert!(!kernels.is_empty(), "ICSAN_KERNELS is empty");
    kernels
}
