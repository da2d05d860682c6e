//! Where the host has the guest's memory at a physical address, by QEMU's own word.
//!
//! No plugin API tells. QEMU's monitor does (`gpa2hva`), by a function of that name, which a QEMU that is built with
//! modules exports with all its global functions.
//!
//! **What is relied on** (QEMU 10.0 and 11.1, `monitor/hmp-cmds-target.c`; taken for these versions only): it looks the
//! address up in the machine's memory, as everybody sees it outside of system management, and answers with the host's
//! address of it, and the memory region, which it holds a reference to; or with null, if that is neither RAM nor ROM,
//! or shorter than so many bytes. It takes no lock that a vCPU's callback could not take, and changes nothing.
//!
//! **How it is proven**: it is asked only whether a host address that QEMU gave for code is the one at a physical
//! address, and its answer counts only if it is that very address.
//!
//! **Without it** `emulator=repair` goes by what stores prove ([`crate::repair`]), and says so where that is not
//! enough.

use super::api::find_internal;
use super::process::qemu_version;
use icsan_model::addr::Phys;
use libc::c_void;
use std::sync::OnceLock;

/// `void *gpa2hva(MemoryRegion **, hwaddr, uint64_t size, Error **)`.
type LookUp = unsafe extern "C" fn(*mut *mut c_void, u64, u64, *mut *mut c_void) -> *mut c_void;
/// `void memory_region_unref(MemoryRegion *)`.
type LetGo = unsafe extern "C" fn(*mut c_void);

#[derive(Clone, Copy, Debug)]
struct Functions {
    look_up: LookUp,
    let_go: LetGo,
}

static FUNCTIONS: OnceLock<Option<Functions>> = OnceLock::new();

/// Looks for the function. To be called at installation.
pub fn prepare() {
    FUNCTIONS.get_or_init(|| {
        if !matches!(qemu_version(), Ok((10, 0) | (11, 1))) {
            return None;
        }
        let (look_up, let_go) = (find_internal(c"gpa2hva").ok()?, find_internal(c"memory_region_unref").ok()?);
        // SAFETY: the functions of these names, with the types that they have in QEMU 11.1.
        let functions = unsafe {
            Functions {
                look_up: std::mem::transmute::<*mut c_void, LookUp>(look_up),
                let_go: std::mem::transmute::<*mut c_void, LetGo>(let_go),
            }
        };
        Some(functions)
    });
}

/// Does this QEMU tell?
#[must_use]
pub fn is_known() -> bool {
    FUNCTIONS.get().is_some_and(Option::is_some)
}

/// Is the memory of so many bytes at a physical address the one at that host address? `false`, too, if this QEMU does
/// not tell.
///
/// To be called in a callback of a vCPU.
#[must_use]
pub fn is(host: usize, phys: Phys, len: u64) -> bool {
    let Some(Some(functions)) = FUNCTIONS.get() else { return false };
    let mut region = std::ptr::null_mut();
    // SAFETY: `region` is valid for the call; no error is wanted; and what is referred to afterwards is let go of once.
    unsafe {
        let found = (functions.look_up)(&raw mut region, phys.0, len, std::ptr::null_mut());
        if !region.is_null() {
            (functions.let_go)(region);
        }
        found as usize == host
    }
}
