//! The vCPU that runs the current callback: its registers and its memory.

use super::api::{Api, api};
use super::locks::Mutex;
use super::page_walk;
use icsan_model::addr::Vcpu;
use libc::c_uint;
use qemu_plugin_sys as sys;
use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::CStr;
use std::marker::PhantomData;
use std::sync::OnceLock;

/// Register handles by name. QEMU numbers registers alike on all vCPUs of a machine, so the first vCPU's list serves
/// all.
static HANDLES: Mutex<Option<HashMap<String, Handle>>> = Mutex::new(None);

#[derive(Clone, Copy, Debug)]
struct Handle(*mut sys::qemu_plugin_register);
// SAFETY: the pointer is a token that QEMU gives out and takes back; it is never followed here.
unsafe impl Send for Handle {}

/// Learns the registers. To be called from a vCPU's init callback.
pub(super) fn learn_registers() {
    let Some(api) = api() else { return };
    let mut handles = HANDLES.lock();
    if handles.is_some() {
        return;
    }
    let mut found = HashMap::new();
    // SAFETY: called in a vCPU's init callback, as QEMU asks. The array holds `len` descriptors, each as large as glib
    // says (it grew after API 4, at its end); names are C strings that live as long as QEMU. The array itself is ours
    // to free.
    unsafe {
        let array = (api.qemu_plugin_get_registers)();
        if !array.is_null() {
            let size = (api.g_array_get_element_size)(array) as usize;
            if size >= size_of::<sys::qemu_plugin_reg_descriptor>() {
                for index in 0..(*array).len as usize {
                    let descriptor = &*(*array).data.add(index * size).cast::<sys::qemu_plugin_reg_descriptor>();
                    if !descriptor.name.is_null() {
                        let name = CStr::from_ptr(descriptor.name).to_string_lossy().into_owned();
                        found.insert(name, Handle(descriptor.handle));
                    }
                }
            }
            (api.g_array_free)(array, 1);
        }
    }
    *handles = Some(found);
}

/// A register of the guest, looked up by QEMU's name for it (gdb's).
#[derive(Clone, Copy, Debug)]
pub struct Register(Handle);

// SAFETY: see `Handle`.
unsafe impl Sync for Register {}

impl Register {
    /// The register of that name. `None` if this machine has none, or before its first vCPU started.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        HANDLES.lock().as_ref()?.get(name).copied().map(Self)
    }

    /// QEMU's handle of it.
    pub(super) fn handle(self) -> *mut sys::qemu_plugin_register {
        self.0.0
    }
}

/// A register by QEMU's name for it, looked up at its first use within a callback.
#[derive(Debug)]
pub struct NamedRegister {
    name: &'static str,
    /// What an older QEMU calls it, if something else.
    older: Option<&'static str>,
    handle: OnceLock<Option<Register>>,
}

impl NamedRegister {
    /// The register of that name, which this machine may or may not have.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self { name, older: None, handle: OnceLock::new() }
    }

    /// The same, which an older QEMU has by another name.
    #[must_use]
    pub const fn formerly(name: &'static str, older: &'static str) -> Self {
        Self { name, older: Some(older), handle: OnceLock::new() }
    }

    /// QEMU's name for it.
    #[cfg(test)]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// QEMU's handle of it. `None`: this machine has none.
    pub fn handle(&self) -> Option<Register> {
        *self.handle.get_or_init(|| Register::find(self.name).or_else(|| Register::find(self.older?)))
    }

    /// Its value, up to 64 bits, on the vCPU whose callback runs.
    #[must_use]
    pub fn read(&self, cpu: &CurrentCpu) -> Option<u64> {
        cpu.read(self.handle()?)
    }
}

/// That a callback of this vCPU runs on this thread: the one key to what belongs to a vCPU's thread alone. It exists
/// within the callback only, once, and stays on the thread.
#[derive(Debug)]
#[repr(transparent)]
pub struct CurrentVcpu {
    vcpu: Vcpu,
    _not_send: PhantomData<*mut ()>,
}

/// Compiles only while a token can neither be sent, nor shared, nor copied: the type of the one below is known only if
/// none of the others fits.
const _: fn() = || {
    trait Never<Way> {
        fn holds() {}
    }
    impl<T> Never<()> for T {}
    impl<T: Send> Never<[(); 1]> for T {}
    impl<T: Sync> Never<[(); 2]> for T {}
    impl<T: Clone> Never<[(); 3]> for T {}
    <CurrentVcpu as Never<_>>::holds();
};

impl CurrentVcpu {
    /// # Safety
    /// Called by QEMU's callback of this vCPU, on its thread, once, for a value that does not outlive the callback.
    #[inline(always)]
    pub(super) unsafe fn new(vcpu: c_uint) -> Self {
        Self { vcpu: Vcpu(vcpu as u16), _not_send: PhantomData }
    }

    /// Which it is.
    #[inline(always)]
    #[must_use]
    pub fn id(&self) -> Vcpu {
        self.vcpu
    }
}

/// Access to registers and memory of the vCPU whose callback runs now. Exists only within one.
#[derive(Debug)]
pub struct CurrentCpu {
    readable: bool,
    _not_send: PhantomData<*mut ()>,
}

impl CurrentCpu {
    /// `readable`: the callback was registered as one that reads registers.
    ///
    /// # Safety
    /// Called within a callback of a vCPU, on its thread, for a value that does not outlive it; `readable` is true.
    pub(super) unsafe fn new(readable: bool) -> Self {
        Self { readable, _not_send: PhantomData }
    }

    /// The value of a register, up to 64 bits.
    #[must_use]
    pub fn read(&self, register: Register) -> Option<u64> {
        if !self.readable {
            return None;
        }
        let fill = |api: &Api, bytes| {
            // SAFETY: in a callback of a vCPU that was registered with R_REGS; the handle is QEMU's own; the array is
            // live.
            unsafe { (api.qemu_plugin_read_register)(register.0.0, bytes) };
            true
        };
        with_bytes(fill, |bytes| (!bytes.is_empty()).then(|| little_endian(bytes)))
    }

    /// Guest memory at a linear address, as the vCPU maps it now.
    #[must_use]
    pub fn memory(&self, linear: u64, len: usize) -> Option<Vec<u8>> {
        self.look(linear, len, <[u8]>::to_vec)
    }

    /// So many bytes of guest memory at a linear address, as the vCPU maps it now.
    #[must_use]
    pub fn bytes<const N: usize>(&self, linear: u64) -> Option<[u8; N]> {
        self.look(linear, N, |bytes| bytes.try_into().ok())?
    }

    fn look<R>(&self, linear: u64, len: usize, with: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let fill = |api: &Api, bytes| {
            // SAFETY: in a vCPU's callback; QEMU resizes the array to `len` and fills it, or says no.
            unsafe { (api.qemu_plugin_read_memory_vaddr)(linear, bytes, len) }
        };
        with_bytes(fill, |bytes| (bytes.len() == len).then(|| with(bytes)))
    }

    /// Guest memory at a physical address. `None` on API 4, which cannot read it, and where there is no memory.
    #[must_use]
    pub fn physical_memory(&self, physical: u64, len: usize) -> Option<Vec<u8>> {
        let fill = |api: &Api, bytes| {
            let Some(read) = api.qemu_plugin_read_memory_hwaddr else { return false };
            // SAFETY: in a vCPU's callback; QEMU resizes the array to `len` and fills it, or answers with something
            // else than 0.
            unsafe { read(physical, bytes, len) == 0 }
        };
        with_bytes(fill, |bytes| (bytes.len() == len).then(|| bytes.to_vec()))
    }

    /// The physical address behind a linear one, as the page tables have it now. `None` for what is not mapped, and
    /// where QEMU does not tell ([`page_walk`]).
    #[must_use]
    pub fn physical(&self, linear: u64) -> Option<u64> {
        page_walk::physical(linear)
    }
}

thread_local! {
    /// The thread's array for what QEMU answers; null while it is in use, and before the first question. It is kept,
    /// since a boot asks a million times.
    static ANSWER: Cell<*mut sys::GByteArray> = const { Cell::new(std::ptr::null_mut()) };
}

/// Runs `fill` on an empty glib byte array, and `with` on its contents if `fill` says that they are good.
fn with_bytes<R>(
    fill: impl FnOnce(&Api, *mut sys::GByteArray) -> bool,
    with: impl FnOnce(&[u8]) -> Option<R>,
) -> Option<R> {
    let api = api()?;
    let kept = ANSWER.replace(std::ptr::null_mut());
    // SAFETY: the array was made here, by this thread, and is not kept by QEMU; `data` holds `len` bytes (and may be
    // null if there are none). Nobody else has it: it was taken out of its place. A panic in `with` would lose it,
    // which is no harm.
    unsafe {
        let array = if kept.is_null() { (api.g_byte_array_new)() } else { kept };
        (api.g_byte_array_set_size)(array, 0);
        let good = fill(api, array);
        let bytes = (good && !(*array).data.is_null())
            .then(|| std::slice::from_raw_parts((*array).data, (*array).len as usize));
        let answer = bytes.and_then(with);
        ANSWER.set(array);
        answer
    }
}

fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}
