//! How many blocks each vCPU has run: counted by QEMU's generated code, without a callback.

use super::api::api;
use super::cpu::CurrentVcpu;
use super::translation::Translation;
use icsan_model::addr::Vcpu;
use qemu_plugin_sys as sys;
use std::sync::atomic::{AtomicU64, Ordering};

/// A counter for each vCPU.
#[derive(Debug)]
pub struct BlockCounts(*mut sys::qemu_plugin_scoreboard);

// SAFETY: the pointer is QEMU's handle, valid for the life of the process (never freed here). QEMU takes its own lock to change the table, and stops all vCPUs to move it.
unsafe impl Send for BlockCounts {}
// SAFETY: as above. The counters are read as atomics; each is written by its vCPU's thread only, a whole aligned u64 at a time.
unsafe impl Sync for BlockCounts {}

impl BlockCounts {
    /// Makes the counters. To be called at installation only, like [`Slots::new`](super::scoreboard::Slots::new). `None` outside of QEMU.
    #[must_use]
    pub fn new() -> Option<Self> {
        // SAFETY: any size is valid.
        let score = unsafe { (api()?.qemu_plugin_scoreboard_new)(size_of::<u64>()) };
        (!score.is_null()).then_some(Self(score))
    }

    /// How many blocks `vcpu`, which has started, has begun. Told in a callback of any vCPU: QEMU moves the table only while none runs.
    #[must_use]
    pub fn of(&self, _in_callback: &CurrentVcpu, vcpu: Vcpu) -> u64 {
        let Some(api) = api() else { return 0 };
        // SAFETY: the scoreboard is live, and the vCPU exists; its part is one aligned u64, which only generated code writes.
        unsafe {
            let counter: *const AtomicU64 = (api.qemu_plugin_scoreboard_find)(self.0, u32::from(vcpu.0)).cast_const().cast();
            counter.as_ref().map_or(0, |counter| counter.load(Ordering::Relaxed))
        }
    }
}

impl Translation<'_> {
    /// Counts every execution of this block for the vCPU that executes it.
    pub fn count(&self, counts: &BlockCounts) {
        let Some(api) = api() else { return };
        // SAFETY: the block's handle is live within the translation callback; the entry is the one counter of each vCPU's part.
        unsafe {
            (api.qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu)(
                self.handle(),
                sys::qemu_plugin_op::QEMU_PLUGIN_INLINE_ADD_U64,
                sys::qemu_plugin_u64 { score: counts.0, offset: 0 },
                1,
            );
        }
    }
}
