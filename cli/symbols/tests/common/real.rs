//! Real kernel images.

use std::path::PathBuf;

use icsan_symbols::SymbolTable;
use icsan_symbols::linux::KERNELS;
use icsan_symbols::linux::kernel::LinuxKernel;

/// Those that `ICSAN_KERNELS` names; there must be one.
pub fn kernels() -> Vec<PathBuf> {
    let list = std::env::var_os("ICSAN_KERNELS")
        .expect("ICSAN_KERNELS names no kernel images: scripts/test fetches them, and names them");
    let kernels: Vec<PathBuf> = std::env::split_paths(&list).collect();
    assert!(!kernels.is_empty(), "ICSAN_KERNELS is empty");
    kernels
}

/// Of which architecture it is: exactly one must say so.
pub fn linux_of(table: &SymbolTable) -> &'static LinuxKernel {
    let mut all = KERNELS.iter().copied().filter(|kernel| kernel.is_of(table));
    let found = all.next().expect("a kernel of an architecture that is known");
    assert!(all.next().is_none(), "a kernel of two architectures");
    found
}

/// The symbol that tells where the kernel is.
pub fn deciding(linux: &LinuxKernel) -> &'static str {
    linux.evidence.iter().find(|evidence| evidence.decides).unwrap().symbols[0]
}
