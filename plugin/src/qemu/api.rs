//! The functions of QEMU (and of its glib) that the plugin calls, looked up when it is installed.
//!
//! Nothing of QEMU is linked: QEMU opens plugins with eager binding, so that one function that an older QEMU lacks
//! would end in the dynamic loader's words instead of ours; and unit tests of this crate must link without QEMU. A call
//! through a pointer costs the same as one through the PLT.
//!
//! What differs between the versions of the plugin API, and is told apart here and nowhere else:
//! - the callbacks of the cold registrations carry the plugin's id up to API 6 and a `userdata` since API 7
//!   ([`super::install`]);
//! - `qemu_plugin_read_register` returns `int` up to 5 and `bool` since 6: its return value is not used, the length of
//!   the answer is;
//! - the register descriptor grew: its size is asked of glib;
//! - `qemu_plugin_translate_vaddr` and `qemu_plugin_read_memory_hwaddr` exist since 5.

use libc::{c_char, c_int, c_uint, c_void};
use qemu_plugin_sys as sys;
use std::sync::OnceLock;
use thiserror::Error;

/// A version of the plugin API that this plugin serves.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(i32)]
pub enum Generation {
    /// QEMU 9.2 and 10.0.
    V4 = 4,
    /// QEMU 10.1 and 10.2.
    V5 = 5,
    /// QEMU 11.1.
    V7 = 7,
}

impl Generation {
    /// Tells the API of the QEMU that this library was loaded into by what it exports. `None`: too old, or not a QEMU
    /// at all.
    ///
    /// API 6 (QEMU 11.0) exports the same names as 7; it is told 7, and refuses with its own words. No Debian release
    /// ships it.
    #[must_use]
    pub fn detect() -> Option<Self> {
        if exported(c"qemu_plugin_register_vcpu_discon_cb") {
            Some(Self::V7)
        } else if exported(c"qemu_plugin_translate_vaddr") {
            Some(Self::V5)
        } else if exported(c"qemu_plugin_read_memory_vaddr") && exported(c"qemu_plugin_scoreboard_new") {
            Some(Self::V4)
        } else {
            None
        }
    }

    /// Which QEMU that is, for reports.
    #[must_use]
    pub fn qemu(self) -> &'static str {
        match self {
            Self::V4 => "9.2 or 10.0",
            Self::V5 => "10.1 or 10.2",
            Self::V7 => "11.1",
        }
    }
}

/// Does any object of this process export that name?
pub fn exported(name: &std::ffi::CStr) -> bool {
    !lookup(name).is_null()
}

fn lookup(name: &std::ffi::CStr) -> *mut c_void {
    // SAFETY: `name` is a valid C string, and RTLD_DEFAULT searches what is loaded already.
    unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) }
}

/// What QEMU exports under that name, for what is not in the table below. The type is the caller's affair.
///
/// # Errors
/// Nothing, as the rest of a line.
pub(super) fn find(name: &std::ffi::CStr) -> Result<*mut c_void, String> {
    let found = lookup(name);
    if found.is_null() { Err(format!("this QEMU does not export `{}`", name.to_string_lossy())) } else { Ok(found) }
}

/// For tests: with this in QEMU's environment nothing is found that QEMU exports besides its plugin API, as if it were
/// built without modules.
const WITHOUT_EXPORTS: &str = "ICSAN_WITHOUT_EXPORTS";

/// [`find`] for functions of QEMU's own, which are no API: a QEMU that is built with modules exports them all.
///
/// # Errors
/// Nothing, as the rest of a line.
pub(super) fn find_internal(name: &std::ffi::CStr) -> Result<*mut c_void, String> {
    if std::env::var_os(WITHOUT_EXPORTS).is_some() {
        return Err(format!("{WITHOUT_EXPORTS} is set, and `{}` is not looked for", name.to_string_lossy()));
    }
    find(name)
}

/// QEMU lacks a function that the plugin cannot do without.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("this QEMU does not export `{0}`")]
pub struct MissingFunction(pub &'static str);

macro_rules! api {
    ($(fn $name:ident($($arg:ty),*) $(-> $ret:ty)?;)* optional { $(fn $opt:ident($($optarg:ty),*) $(-> $optret:ty)?;)* }) => {
        /// Pointers to the functions, by their names in `qemu-plugin.h`, whose documentation holds.
        #[derive(Debug)]
        #[allow(missing_docs)]
        pub struct Api {
            $(pub $name: unsafe extern "C" fn($($arg),*) $(-> $ret)?,)*
            $(pub $opt: Option<unsafe extern "C" fn($($optarg),*) $(-> $optret)?>,)*
        }

        impl Api {
            /// Looks everything up.
            ///
            /// # Errors
            /// The first function that this QEMU lacks.
            pub fn load() -> Result<Self, MissingFunction> {
                $(
                    let $name = lookup(const {
                        match std::ffi::CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                            Ok(name) => name,
                            Err(_) => panic!("name with a NUL"),
                        }
                    });
                    if $name.is_null() {
                        return Err(MissingFunction(stringify!($name)));
                    }
                )*
                Ok(Self {
                    // SAFETY: the pointer is not null and is the function of that name, whose type in the headers of
                    // API 4 to 7 is the one in this table.
                    $($name: unsafe { std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($arg),*) $(-> $ret)?>($name) },)*
                    $($opt: {
                        let found = lookup(const {
                            match std::ffi::CStr::from_bytes_with_nul(concat!(stringify!($opt), "\0").as_bytes()) {
                                Ok(name) => name,
                                Err(_) => panic!("name with a NUL"),
                            }
                        });
                        // SAFETY: as above; a null pointer is `None` by the layout guarantee of optional function
                        // pointers.
                        unsafe { std::mem::transmute::<*mut c_void, Option<unsafe extern "C" fn($($optarg),*) $(-> $optret)?>>(found) }
                    },)*
                })
            }
        }
    };
}

/// A callback whose first argument is the vCPU's index: the same in all versions.
pub type VcpuCallback = unsafe extern "C" fn(c_uint, *mut c_void);

/// A callback on a memory access: vCPU, handle of the access, linear address, user data. The same in all versions.
pub type StoreCallback = unsafe extern "C" fn(c_uint, sys::qemu_plugin_meminfo_t, u64, *mut c_void);

api! {
    // Cold registrations: the type of the callback depends on the version, so it is passed as a bare pointer. A third
    // argument that the older versions do not read is harmless in the System V calling convention, which passes it in a
    // register.
    fn qemu_plugin_register_vcpu_init_cb(u64, *const c_void, *mut c_void);
    fn qemu_plugin_register_vcpu_idle_cb(u64, *const c_void, *mut c_void);
    fn qemu_plugin_register_vcpu_resume_cb(u64, *const c_void, *mut c_void);
    fn qemu_plugin_register_vcpu_tb_trans_cb(u64, *const c_void, *mut c_void);
    fn qemu_plugin_register_flush_cb(u64, *const c_void, *mut c_void);
    fn qemu_plugin_register_atexit_cb(u64, *const c_void, *mut c_void);

    fn qemu_plugin_register_vcpu_insn_exec_cb(*mut sys::qemu_plugin_insn, VcpuCallback, sys::qemu_plugin_cb_flags, *mut c_void);
    fn qemu_plugin_register_vcpu_insn_exec_cond_cb(
        *mut sys::qemu_plugin_insn, VcpuCallback, sys::qemu_plugin_cb_flags, sys::qemu_plugin_cond, sys::qemu_plugin_u64, u64, *mut c_void
    );
    fn qemu_plugin_register_vcpu_mem_cb(
        *mut sys::qemu_plugin_insn, StoreCallback, sys::qemu_plugin_cb_flags, sys::qemu_plugin_mem_rw, *mut c_void
    );
    fn qemu_plugin_get_hwaddr(sys::qemu_plugin_meminfo_t, u64) -> *mut sys::qemu_plugin_hwaddr;
    fn qemu_plugin_hwaddr_is_io(*const sys::qemu_plugin_hwaddr) -> bool;
    fn qemu_plugin_hwaddr_phys_addr(*const sys::qemu_plugin_hwaddr) -> u64;
    fn qemu_plugin_mem_is_store(sys::qemu_plugin_meminfo_t) -> bool;
    fn qemu_plugin_mem_size_shift(sys::qemu_plugin_meminfo_t) -> c_uint;
    fn qemu_plugin_mem_get_value(sys::qemu_plugin_meminfo_t) -> sys::qemu_plugin_mem_value;
    fn qemu_plugin_tb_n_insns(*const sys::qemu_plugin_tb) -> usize;
    fn qemu_plugin_tb_get_insn(*const sys::qemu_plugin_tb, usize) -> *mut sys::qemu_plugin_insn;
    fn qemu_plugin_insn_data(*const sys::qemu_plugin_insn, *mut c_void, usize) -> usize;
    fn qemu_plugin_insn_size(*const sys::qemu_plugin_insn) -> usize;
    fn qemu_plugin_insn_vaddr(*const sys::qemu_plugin_insn) -> u64;
    fn qemu_plugin_insn_haddr(*const sys::qemu_plugin_insn) -> *mut c_void;

    fn qemu_plugin_scoreboard_new(usize) -> *mut sys::qemu_plugin_scoreboard;
    fn qemu_plugin_scoreboard_find(*mut sys::qemu_plugin_scoreboard, c_uint) -> *mut c_void;

    fn qemu_plugin_get_registers() -> *mut sys::GArray;
    fn qemu_plugin_read_register(*mut sys::qemu_plugin_register, *mut sys::GByteArray) -> c_int;
    fn qemu_plugin_read_memory_vaddr(u64, *mut sys::GByteArray, usize) -> bool;

    fn g_byte_array_new() -> *mut sys::GByteArray;
    fn g_byte_array_set_size(*mut sys::GByteArray, c_uint) -> *mut sys::GByteArray;
    fn g_array_get_element_size(*mut sys::GArray) -> c_uint;
    fn g_array_free(*mut sys::GArray, c_int) -> *mut c_char;
    optional {
        fn qemu_plugin_translate_vaddr(u64, *mut u64) -> bool;
        fn qemu_plugin_read_memory_hwaddr(u64, *mut sys::GByteArray, usize) -> c_int;
    }
}

static API: OnceLock<Api> = OnceLock::new();

/// Looks the functions up once.
///
/// # Errors
/// The first function that this QEMU lacks.
pub fn init() -> Result<(), MissingFunction> {
    if API.get().is_none() {
        let _ = API.set(Api::load()?);
    }
    Ok(())
}

/// The functions. `None` before [`init`], as in unit tests.
pub fn api() -> Option<&'static Api> {
    API.get()
}
