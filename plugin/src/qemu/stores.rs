//! Stores of the guest, as QEMU tells of them: after each access, by the vCPU that made it.

use super::api::{StoreCallback, api};
use super::cpu::{CurrentCpu, CurrentVcpu};
use super::guard::guard;
use super::translation::Instruction;
use icsan_model::addr::{Linear, Phys, Vcpu};
use libc::{c_uint, c_void};
use qemu_plugin_sys as sys;
use std::marker::PhantomData;

/// Who is told of stores. There is one in a process.
pub trait StoreWatch: Sync + 'static {
    /// The one.
    fn get() -> Option<&'static Self>;

    /// Asked first, of every store of the guest: may what `vcpu` stored through `linear` be left? Nearly always yes. It must not panic.
    fn passes(vcpu: Vcpu, linear: Linear) -> bool;

    /// `vcpu` has stored through `linear`; `pc` is the instruction.
    fn stored(&'static self, vcpu: Vcpu, pc: Linear, linear: Linear, access: &Access<'_>);
}

/// The store that is being told of. Exists only within the callback.
#[derive(Debug)]
pub struct Access<'a> {
    info: sys::qemu_plugin_meminfo_t,
    linear: Linear,
    vcpu: CurrentVcpu,
    _callback: PhantomData<&'a ()>,
}

/// The bytes of a store: 1, 2, 4, 8 or 16.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stored {
    bytes: [u8; 16],
    len: u8,
}

impl Stored {
    /// The bytes, lowest address first.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl Access<'_> {
    /// How many bytes were stored.
    #[must_use]
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u64 {
        // SAFETY: the handle is that of the callback that is running.
        api().map_or(1, |api| 1 << unsafe { (api.qemu_plugin_mem_size_shift)(self.info) }.min(4))
    }

    /// The physical address of the first byte; `None` if it is no memory.
    #[must_use]
    pub fn physical(&self) -> Option<Phys> {
        self.physical_at(self.linear)
    }

    /// The physical address of a byte of the store: its first, or one in the page that it crosses into. QEMU looks both up before it stores, and is asked here for what it
    /// found (its TLB entry), whatever the plugin API's version.
    #[must_use]
    pub fn physical_at(&self, linear: Linear) -> Option<Phys> {
        let api = api()?;
        // SAFETY: the handle is that of the callback that is running; what QEMU returns is valid within it, or null.
        unsafe {
            let address = (api.qemu_plugin_get_hwaddr)(self.info, linear.0);
            (!address.is_null() && !(api.qemu_plugin_hwaddr_is_io)(address)).then(|| Phys((api.qemu_plugin_hwaddr_phys_addr)(address)))
        }
    }

    /// The vCPU that stored: the key to what is its own.
    #[must_use]
    pub fn vcpu(&self) -> &CurrentVcpu {
        &self.vcpu
    }

    /// The vCPU that stored. Its registers cannot be read.
    #[must_use]
    pub fn cpu(&self) -> CurrentCpu {
        // SAFETY: within the callback, which this value does not outlive, on its thread.
        unsafe { CurrentCpu::new(false) }
    }

    /// What was stored.
    #[must_use]
    pub fn value(&self) -> Option<Stored> {
        use sys::qemu_plugin_mem_value_type as types;
        // SAFETY: the handle is that of the callback that is running, and the type says which member of the union is set.
        let (value, len) = unsafe {
            let value = (api()?.qemu_plugin_mem_get_value)(self.info);
            match value.type_ {
                types::QEMU_PLUGIN_MEM_VALUE_U8 => (u128::from(value.data.u8_), 1),
                types::QEMU_PLUGIN_MEM_VALUE_U16 => (u128::from(value.data.u16_), 2),
                types::QEMU_PLUGIN_MEM_VALUE_U32 => (u128::from(value.data.u32_), 4),
                types::QEMU_PLUGIN_MEM_VALUE_U64 => (u128::from(value.data.u64_), 8),
                _ => (u128::from(value.data.u128_.high) << 64 | u128::from(value.data.u128_.low), 16),
            }
        };
        Some(Stored { bytes: value.to_le_bytes(), len })
    }
}

unsafe extern "C" fn stored<W: StoreWatch>(vcpu: c_uint, info: sys::qemu_plugin_meminfo_t, linear: u64, pc: *mut c_void) {
    if !W::passes(Vcpu(vcpu as u16), Linear(linear)) {
        looked_at::<W>(vcpu, info, linear, pc);
    }
}

/// Apart, and never unwinding, so that nearly all stores have a short way without a frame on the stack.
#[cold]
#[inline(never)]
extern "C" fn looked_at<W: StoreWatch>(vcpu: c_uint, info: sys::qemu_plugin_meminfo_t, linear: u64, pc: *mut c_void) {
    guard(|| {
        if let Some(watch) = W::get() {
            let linear = Linear(linear);
            // SAFETY: QEMU calls, on the thread of this vCPU; the one value of this callback.
            let access = Access { info, linear, vcpu: unsafe { CurrentVcpu::new(vcpu) }, _callback: PhantomData };
            watch.stored(access.vcpu.id(), Linear(pc as u64), linear, &access);
        }
    });
}

impl Instruction<'_> {
    /// Tells the watch of every store that this instruction makes.
    pub fn on_store<W: StoreWatch>(&self) {
        let Some(api) = api() else { return };
        // SAFETY: the instruction handle is live within the translation callback. The user data is a number and never followed.
        unsafe {
            (api.qemu_plugin_register_vcpu_mem_cb)(
                self.handle(),
                stored::<W> as StoreCallback,
                sys::qemu_plugin_cb_flags::QEMU_PLUGIN_CB_NO_REGS,
                sys::qemu_plugin_mem_rw::QEMU_PLUGIN_MEM_W,
                self.linear.0 as *mut c_void,
            );
        }
    }
}
