//! A kernel that is started by another one: what the guest finds, and where.

/// The second kernel's image.
pub const KERNEL: &str = "/kexec/kernel";

/// The second kernel's initramfs.
pub const INITRAMFS: &str = "/kexec/initramfs";

/// On the first kernel's command line.
pub const ASKED: &str = "icsan.kexec=1";

/// On the second one's.
pub const DONE: &str = "icsan.kexec=0";
