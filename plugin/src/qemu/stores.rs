//! Stores of the guest, as QEMU tells of them: after each access, by the vCPU that made it.

use super::api::{StoreCallback, api};
use super::cpu::{CurrentCpu, CurrentVcpu};
use super::guard::guard;
use super::hooks::trapped_stores::Trapped;
use super::translation::Instruction;
use crate::arch::store_form::{PLAIN, STORE_FORMS, StoreForm};
use icsan_model::addr::{Linear, Phys, Vcpu};
use libc::{c_uint, c_void};
use qemu_plugin_sys as sys;
use std::cell::Cell;

/// Who is told of stores. There is one in a process.
pub trait StoreWatch: Sync + 'static {
    /// The one.
    fn get() -> Option<&'static Self>;

    /// Asked first, of every store of the guest: may what `vcpu` stored through `linear` be left? Nearly always yes. It
    /// must not panic.
    fn passes(vcpu: Vcpu, linear: Linear) -> bool;

    /// `vcpu` has stored through `linear`; `pc` is the instruction.
    fn stored(&'static self, vcpu: Vcpu, pc: Linear, linear: Linear, access: &Access<'_>);
}

/// The store that is being told of. Exists only within the callback.
#[derive(Debug)]
pub struct Access<'a> {
    source: Source<'a>,
    linear: Linear,
    /// The number of its form.
    form: u8,
}

/// How it is told of.
#[derive(Debug)]
enum Source<'a> {
    /// By the plugin API's callback.
    Api {
        info: sys::qemu_plugin_meminfo_t,
        vcpu: CurrentVcpu,
        /// What the same instruction loaded from there right before, where the form asks for it.
        loaded: Option<u128>,
    },
    /// By QEMU's trap.
    Trap(&'a Trapped),
}

/// The bytes of a store, or of a part of one: at most 16.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stored {
    bytes: [u8; 16],
    len: u8,
}

impl Stored {
    /// The lowest bytes of a value, up to 16.
    #[must_use]
    pub fn new(value: u128, len: u64) -> Self {
        Self { bytes: value.to_le_bytes(), len: len as u8 }
    }

    /// Some bytes of memory, up to 16; `None` of more.
    #[must_use]
    pub fn of(memory: &[u8]) -> Option<Self> {
        let mut bytes = [0; 16];
        bytes.get_mut(..memory.len())?.copy_from_slice(memory);
        Some(Self { bytes, len: memory.len() as u8 })
    }

    /// The bytes, lowest address first.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl<'a> Access<'a> {
    /// A store that was trapped, by an instruction of that form.
    #[must_use]
    pub fn trapped(store: &'a Trapped, form: u8) -> Self {
        Self { source: Source::Trap(store), linear: store.linear, form }
    }

    /// How many bytes were stored.
    #[must_use]
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u64 {
        match &self.source {
            Source::Api { info, .. } => {
                // SAFETY: the handle is that of the callback that is running.
                api().map_or(1, |api| 1 << unsafe { (api.qemu_plugin_mem_size_shift)(*info) }.min(4))
            }
            Source::Trap(store) => store.len,
        }
    }

    /// The physical address of the first byte; `None` if it is no memory.
    #[must_use]
    pub fn physical(&self) -> Option<Phys> {
        self.physical_at(self.linear)
    }

    /// The physical address of a byte of the store: its first, or one in the page that it crosses into. QEMU looks both
    /// up before it stores, and is asked here for what it found (its TLB entry), whatever the plugin API's version.
    #[must_use]
    pub fn physical_at(&self, linear: Linear) -> Option<Phys> {
        let info = match &self.source {
            Source::Api { info, .. } => *info,
            Source::Trap(store) if linear == store.linear => return store.parts[0],
            Source::Trap(store) => return store.parts[1],
        };
        let api = api()?;
        // SAFETY: the handle is that of the callback that is running; what QEMU returns is valid within it, or null.
        unsafe {
            let address = (api.qemu_plugin_get_hwaddr)(info, linear.0);
            (!address.is_null() && !(api.qemu_plugin_hwaddr_is_io)(address))
                .then(|| Phys((api.qemu_plugin_hwaddr_phys_addr)(address)))
        }
    }

    /// The vCPU that stored: the key to what is its own.
    #[must_use]
    pub fn vcpu(&self) -> &CurrentVcpu {
        match &self.source {
            Source::Api { vcpu, .. } => vcpu,
            Source::Trap(store) => &store.vcpu,
        }
    }

    /// The vCPU that stored. Its registers cannot be read.
    #[must_use]
    pub fn cpu(&self) -> CurrentCpu {
        // SAFETY: within the callback, which this value does not outlive, on its thread.
        unsafe { CurrentCpu::new(false) }
    }

    /// Through which address.
    #[must_use]
    pub fn linear(&self) -> Linear {
        self.linear
    }

    /// The number of its [`StoreForm`].
    #[must_use]
    pub fn form(&self) -> u8 {
        self.form
    }

    /// What QEMU tells of the value that was stored, and of what the same instruction loaded from there, where the form
    /// asks for that.
    #[must_use]
    pub fn told(&self) -> Option<(u128, Option<u128>)> {
        match &self.source {
            Source::Api { info, loaded, .. } => Some((told(*info)?, *loaded)),
            Source::Trap(store) => Some((store.value?, None)),
        }
    }

    /// Is nothing told of its value, so that memory has to be asked?
    #[must_use]
    pub fn asks_memory(&self) -> bool {
        matches!(&self.source, Source::Trap(store) if store.value.is_none())
    }

    /// What was stored, if QEMU's word for it is good ([`PLAIN`]).
    #[must_use]
    pub fn value(&self) -> Option<Stored> {
        let (value, _) = self.told().filter(|_| self.form == PLAIN)?;
        Some(Stored::new(value, self.len()))
    }
}

/// What QEMU tells of the value of an access that is being told of.
fn told(info: sys::qemu_plugin_meminfo_t) -> Option<u128> {
    use sys::qemu_plugin_mem_value_type as types;
    // SAFETY: the handle is that of the callback that is running, and the type says which member of the union is set.
    unsafe {
        let value = (api()?.qemu_plugin_mem_get_value)(info);
        Some(match value.type_ {
            types::QEMU_PLUGIN_MEM_VALUE_U8 => u128::from(value.data.u8_),
            types::QEMU_PLUGIN_MEM_VALUE_U16 => u128::from(value.data.u16_),
            types::QEMU_PLUGIN_MEM_VALUE_U32 => u128::from(value.data.u32_),
            types::QEMU_PLUGIN_MEM_VALUE_U64 => u128::from(value.data.u64_),
            _ => u128::from(value.data.u128_.high) << 64 | u128::from(value.data.u128_.low),
        })
    }
}

thread_local! {
    /// What the vCPU of this thread loaded last for a store that needs it, and from where.
    static LOADED: Cell<Option<(Linear, u128)>> = const { Cell::new(None) };
}

/// `FORM`: a [`StoreForm`], packed.
unsafe extern "C" fn accessed<W: StoreWatch, const FORM: usize>(
    vcpu: c_uint,
    info: sys::qemu_plugin_meminfo_t,
    linear: u64,
    pc: *mut c_void,
) {
    if !W::passes(Vcpu(vcpu as u16), Linear(linear)) {
        looked_at::<W>(vcpu, info, linear, pc, FORM);
    }
}

/// Apart, and never unwinding, so that nearly all stores have a short way without a frame on the stack. What QEMU gave
/// comes first, and in the same order, so that it stays in its registers: to move it costs each store a tenth of its
/// way.
#[cold]
#[inline(never)]
extern "C" fn looked_at<W: StoreWatch>(
    vcpu: c_uint,
    info: sys::qemu_plugin_meminfo_t,
    linear: u64,
    pc: *mut c_void,
    form: usize,
) {
    guard(|| {
        let form = StoreForm::unpacked(form);
        let (Some(watch), Some(api)) = (W::get(), api()) else { return };
        let linear = Linear(linear);
        // SAFETY: the handle is that of the callback that is running.
        if form.needs_load && !unsafe { (api.qemu_plugin_mem_is_store)(info) } {
            LOADED.set(told(info).map(|loaded| (linear, loaded)));
            return;
        }
        let loaded = if form.needs_load { LOADED.take() } else { None };
        let loaded = loaded.filter(|(from, _)| *from == linear).map(|(_, loaded)| loaded);
        // SAFETY: QEMU calls, on the thread of this vCPU; the one value of this callback.
        let vcpu = unsafe { CurrentVcpu::new(vcpu) };
        let access = Access { source: Source::Api { info, vcpu, loaded }, linear, form: form.number };
        watch.stored(access.vcpu().id(), Linear(pc as u64), linear, &access);
    });
}

/// The callbacks of all forms: of each first the one that does not ask for what was loaded.
const fn callbacks<W: StoreWatch>() -> [StoreCallback; 2 * STORE_FORMS] {
    [
        accessed::<W, 0>,
        accessed::<W, 1>,
        accessed::<W, 2>,
        accessed::<W, 3>,
        accessed::<W, 4>,
        accessed::<W, 5>,
        accessed::<W, 6>,
        accessed::<W, 7>,
        accessed::<W, 8>,
        accessed::<W, 9>,
        accessed::<W, 10>,
        accessed::<W, 11>,
        accessed::<W, 12>,
        accessed::<W, 13>,
        accessed::<W, 14>,
        accessed::<W, 15>,
    ]
}

impl Instruction<'_> {
    /// Tells the watch of every store that this instruction makes, in that form.
    pub fn on_store<W: StoreWatch>(&self, form: StoreForm) {
        use sys::qemu_plugin_mem_rw::{QEMU_PLUGIN_MEM_RW, QEMU_PLUGIN_MEM_W};
        let callback = callbacks::<W>().get(form.packed()).copied();
        let (Some(api), Some(callback)) = (api(), callback) else { return };
        // SAFETY: the instruction handle is live within the translation callback. The user data is a number and never
        // followed.
        unsafe {
            (api.qemu_plugin_register_vcpu_mem_cb)(
                self.handle(),
                callback,
                sys::qemu_plugin_cb_flags::QEMU_PLUGIN_CB_NO_REGS,
                if form.needs_load { QEMU_PLUGIN_MEM_RW } else { QEMU_PLUGIN_MEM_W },
                self.linear.0 as *mut c_void,
            );
        }
    }
}
