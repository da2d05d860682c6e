//! What the tests work with: the plugin, the QEMUs, the kernels.

use std::path::PathBuf;

/// A QEMU that the plugin serves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Qemu {
    /// Its version.
    pub version: &'static str,
    /// The plugin API that ICSAN must choose.
    pub api: i64,
    /// Can a plugin ask for physical addresses (API 5 and later)?
    pub physical: bool,
    /// The program.
    pub program: PathBuf,
}

/// The equipment.
#[derive(Debug)]
pub struct Lab {
    /// `libicsan.so`.
    pub plugin: PathBuf,
    /// The QEMUs that must work.
    pub qemus: [Qemu; 2],
    /// Too old.
    pub qemu_7_2: PathBuf,
    /// The same QEMUs for AArch64.
    pub arm: [Qemu; 2],
    /// An architecture that is not watched.
    pub qemu_arm: PathBuf,
    /// Debian's kernel images.
    pub kernel_6_1: PathBuf,
    /// The other one.
    pub kernel_6_12: PathBuf,
    /// One for AArch64.
    pub kernel_arm: PathBuf,
}

impl Lab {
    /// Panics if a part of the equipment is not named, or not there.
    pub fn open() -> Self {
        let qemu = |version, api, variable| Qemu { version, api, physical: api >= 5, program: existing(variable) };
        Self {
            plugin: existing("ICSAN_PLUGIN"),
            qemus: [qemu("10.0", 4, "ICSAN_QEMU_10_0"), qemu("11.1", 7, "ICSAN_QEMU_11_1")],
            qemu_7_2: existing("ICSAN_QEMU_7_2"),
            arm: [qemu("10.0", 4, "ICSAN_QEMU_10_0_AARCH64"), qemu("11.1", 7, "ICSAN_QEMU_11_1_AARCH64")],
            qemu_arm: existing("ICSAN_QEMU_ARM"),
            kernel_6_1: existing("ICSAN_KERNEL_6_1"),
            kernel_6_12: existing("ICSAN_KERNEL_6_12"),
            kernel_arm: existing("ICSAN_KERNEL_ARM64"),
        }
    }
}

fn existing(variable: &str) -> PathBuf {
    let path = std::env::var_os(variable);
    let path =
        PathBuf::from(path.unwrap_or_else(|| {
            panic!("{variable} is not set: scripts/test fetches QEMUs and kernels, and names them")
        }));
    assert!(path.is_file(), "{variable}={}: no such file", path.display());
    path
}
