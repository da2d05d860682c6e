//! The physical page behind a linear one, by a walk of the running vCPU's page tables.
//!
//! From plugin API 5 on QEMU has `qemu_plugin_translate_vaddr`. API 4 has not; but what that function calls is older
//! than it: `cpu_get_phys_page_debug`, the translation of QEMU's own debuggers. A QEMU that is built with modules, as
//! distributions build theirs, exports it with all its global functions, and it is taken for that version.
//!
//! **What is relied on** (QEMU 9.2 and 10.0, `hw/core/cpu-system.c` and `target/i386/helper.c`): it takes the vCPU and
//! a linear address, and answers with the physical address of the page, or all ones. It reads the vCPU's control
//! registers and the page tables, in the address space that the vCPU is in (system management's own, if so), heeds the
//! A20 gate, and changes nothing: no TLB entry, no accessed bit, no exception. It costs what four loads from guest
//! memory cost in QEMU's way, well below a microsecond. It may be called where the API's function may: on the vCPU's
//! own thread, whose vCPU QEMU names in the thread-local variable `current_cpu`.
//!
//! **How it is proven**: the first stores of the guest to pages that it maps somewhere else than at their own address
//! are looked up in both ways: QEMU tells where they went, out of its TLB. If the function says something else, it is
//! another one than it was taken for, and is not used any more; that is said, and the place of code is unknown from
//! then on ([`Gap::UnknownPlace`]). The same goes for a QEMU that does not export it.
//!
//! **What it cannot do**: it reads the page tables as they are now, and a vCPU may go on using an older translation
//! until it is told to forget it. So an answer may be about another page than the one that the vCPU executes: see
//! [`crate::code::physical_map`].

use super::api::{Generation, api, find_internal};
use super::current;
use super::process::say;
use crate::gaps::Gap;
use icsan_model::memory::PAGE;
use libc::c_void;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Stores that prove the exported function, and that may contradict it (the guest may be just about to change its page
/// tables).
const PROOFS: u32 = 32;
const CONTRADICTIONS: u32 = 8;

/// `hwaddr cpu_get_phys_page_debug(CPUState *, vaddr)`.
type Walk = unsafe extern "C" fn(*mut c_void, u64) -> u64;

/// Of a page that is not mapped.
const NOWHERE: u64 = u64::MAX;

/// The function of a QEMU whose API has none.
static EXPORTED: OnceLock<Option<Walk>> = OnceLock::new();
static AGREED: AtomicU32 = AtomicU32::new(0);
static CONTRADICTED: AtomicU32 = AtomicU32::new(0);

/// Looks for the exported function, if this QEMU's API has none of its own. To be called at installation.
pub fn prepare(generation: Generation) {
    EXPORTED.get_or_init(|| {
        if generation > Generation::V4 || find_internal(current::CURRENT_CPU).is_err() {
            return None;
        }
        let found = find_internal(c"cpu_get_phys_page_debug").ok()?;
        // SAFETY: the function of that name, with the type that it has in QEMU 9.2 and 10.0, which are those that speak
        // API 4.
        Some(unsafe { std::mem::transmute::<*mut c_void, Walk>(found) })
    });
}

/// The physical address behind a linear one. `None`: the page is not mapped, or this QEMU does not tell.
///
/// To be called in a callback of a vCPU.
pub(super) fn physical(linear: u64) -> Option<u64> {
    if let Some(translate) = api()?.qemu_plugin_translate_vaddr {
        let mut physical = 0;
        // SAFETY: in a vCPU's callback; the pointer is valid for the call.
        return unsafe { translate(linear, &raw mut physical) }.then_some(physical);
    }
    let walk = exported()?;
    // SAFETY: the function that it was taken for; the vCPU is this thread's, and does not run guest code while its
    // callback is running.
    let page = unsafe { walk(current::object()?, linear) };
    (page != NOWHERE).then_some((page & !(PAGE - 1)) | (linear % PAGE))
}

/// Can this QEMU be asked at all? Not where nothing was found, or what was found turned out to be something else.
#[must_use]
pub fn is_possible() -> bool {
    api().is_some_and(|api| api.qemu_plugin_translate_vaddr.is_some()) || exported().is_some()
}

fn exported() -> Option<Walk> {
    EXPORTED.get().copied().flatten().filter(|_| CONTRADICTED.load(Ordering::Relaxed) <= CONTRADICTIONS)
}

/// Are there too few proofs yet that the exported function is what it is taken for?
#[inline]
#[must_use]
pub fn wants_proof() -> bool {
    AGREED.load(Ordering::Relaxed) < PROOFS && exported().is_some()
}

/// A vCPU, whose callback is running, has stored through `linear`, and that went to `phys`.
pub fn prove(linear: u64, phys: u64) {
    let Some(found) = physical(linear) else { return };
    if found != phys {
        if CONTRADICTED.fetch_add(1, Ordering::Relaxed) == CONTRADICTIONS {
            say("this QEMU's `cpu_get_phys_page_debug` does not agree with where stores go, and is not used any more");
            Gap::UnknownPlace.note();
        }
    } else if linear != phys {
        // Of a page at its own address every function would say the right thing that answers with what it is asked.
        AGREED.fetch_add(1, Ordering::Relaxed);
    }
}
