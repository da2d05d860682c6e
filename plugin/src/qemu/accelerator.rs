//! Which accelerator runs the guest: plugins see nothing but TCG's.

use super::api::find;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicU8, Ordering};

/// QEMU's variable that says whether TCG was chosen: a C `bool`, set when the accelerator is made, before plugins are
/// loaded (accel/accel-system.c, system/vl.c).
const TCG_ALLOWED: &std::ffi::CStr = c"tcg_allowed";

/// What runs the guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Accelerator {
    /// Plugins see it.
    Tcg,
    /// Plugins see nothing of it.
    Kvm,
    /// Neither (qtest, Xen, …): plugins see nothing of it.
    Other,
    /// This QEMU does not export what tells, and it is not KVM.
    Unknown,
}

impl Accelerator {
    /// Asks. To be called at installation or later.
    #[must_use]
    pub fn get() -> Self {
        match tcg_allowed() {
            Some(true) => Self::Tcg,
            _ if has_kvm() => Self::Kvm,
            Some(false) => Self::Other,
            None => Self::Unknown,
        }
    }

    /// Why plugins see nothing of the guest, if so.
    #[must_use]
    pub fn blind(self) -> Option<&'static str> {
        match self {
            Self::Tcg | Self::Unknown => None,
            Self::Kvm => Some("the guest runs under KVM, where plugins see nothing; use -accel tcg"),
            Self::Other => Some("the guest does not run under TCG, and plugins see nothing else; use -accel tcg"),
        }
    }
}

fn tcg_allowed() -> Option<bool> {
    let variable = find(TCG_ALLOWED).ok()?;
    // SAFETY: the variable of that name is one byte, which is live as long as QEMU is and which nobody writes after the
    // accelerator was made.
    match unsafe { &*variable.cast_const().cast::<AtomicU8>() }.load(Ordering::Relaxed) {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

/// Does this process have a KVM guest? The kernel names its handles so (virt/kvm/kvm_main.c).
fn has_kvm() -> bool {
    let Ok(files) = std::fs::read_dir("/proc/self/fd") else { return false };
    files
        .flatten()
        .filter_map(|file| std::fs::read_link(file.path()).ok())
        .any(|target| target.as_os_str().as_bytes().starts_with(b"anon_inode:kvm-"))
}
