//! Functions of QEMU's, and what is to be executed in their place, on any host. How that is done is the host's.

use crate::qemu::api::find_internal;
use libc::c_void;
use std::ffi::CStr;
use std::sync::atomic::AtomicUsize;
use thiserror::Error;

/// Why QEMU's own functions are not hooked.
#[derive(Clone, PartialEq, Eq, Error, Debug)]
pub enum HookError {
    /// Another kind of host.
    #[error("{0}")]
    Host(String),
    /// Another version.
    #[error("they were tried on QEMU 10.0 and 11.1 only, and this is {0}")]
    Version(String),
    /// A function is not exported.
    #[error("{0}; use Debian's QEMU, or one built with --enable-modules")]
    Missing(String),
    /// It is not known how long a function is.
    #[error("the length of `{0}` is not known")]
    Length(String),
    /// A function's beginning cannot be moved.
    #[error("`{name}` begins with instructions that cannot be moved (at {offset:#x})")]
    Prologue {
        /// The function.
        name: String,
        /// Where in it.
        offset: u64,
    },
    /// There is no free memory near QEMU's text.
    #[error("there is no room for them near QEMU's code")]
    NoRoom,
    /// The moved instructions cannot be encoded.
    #[error("QEMU's instructions cannot be moved: {0}")]
    Encoding(String),
    /// The host lets no memory become executable.
    #[error("this host lets no memory become executable: {0}")]
    NotExecutable(String),
    /// The host does not let QEMU's text be written.
    #[error("this host does not let QEMU's code be changed: {0}")]
    NotWritable(String),
    /// The text is not what it was.
    #[error("`{0}` is not what it was a moment ago")]
    Changed(String),
}

/// `dladdr1` shall tell the symbol.
const RTLD_DL_SYMENT: libc::c_int = 1;

/// A function in the process's memory.
#[derive(Clone, Debug)]
pub(in crate::qemu) struct Function {
    pub name: String,
    /// Where it begins.
    pub address: usize,
    /// All of its bytes.
    pub code: Vec<u8>,
}

impl Function {
    /// The one that QEMU exports under that name; its length is its symbol's.
    ///
    /// # Errors
    /// It is not exported, or its length is not known.
    pub(in crate::qemu) fn find(name: &CStr) -> Result<Self, HookError> {
        let text = || name.to_string_lossy().into_owned();
        let address = find_internal(name).map_err(HookError::Missing)?;
        // SAFETY: all of it are pointers, which may be null.
        let mut info: libc::Dl_info = unsafe { std::mem::zeroed() };
        let mut symbol: *mut c_void = std::ptr::null_mut();
        // SAFETY: any address may be asked for; the two answers are written to variables of their types.
        let found = unsafe { libc::dladdr1(address, &raw mut info, &raw mut symbol, RTLD_DL_SYMENT) } != 0;
        if !found || symbol.is_null() || info.dli_saddr != address {
            return Err(HookError::Length(text()));
        }
        // SAFETY: dladdr1 answered with the symbol's entry in the object's symbol table, which stays mapped.
        let len = unsafe { (*symbol.cast::<libc::Elf64_Sym>()).st_size } as usize;
        // SAFETY: the symbol says that the function has so many bytes, and text can be read.
        let code = unsafe { std::slice::from_raw_parts(address.cast::<u8>(), len) }.to_vec();
        Ok(Self { name: text(), address: address as usize, code })
    }
}

/// What an atomic helper takes between the address and `oi`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::qemu) enum Shape {
    /// A value of up to 8 bytes.
    One,
    /// A value to compare with, and one to store.
    Two,
    /// A value of 16 bytes.
    Wide,
    /// Two of them.
    TwoWide,
}

/// What is executed in place of a function.
#[derive(Clone, Copy, Debug)]
pub(in crate::qemu) enum To {
    /// This one of ours, of the same type; where the old one can be called afterwards is left there.
    Ours(usize, &'static AtomicUsize),
    /// Code that passes the arguments of that shape on to one of ours, with where generated code goes on and with a
    /// function of QEMU's behind them.
    Stub(Shape, Pair),
}

/// What a [`To::Stub`] is made of.
#[derive(Clone, Copy, Debug)]
pub(in crate::qemu) struct Pair {
    /// A function of QEMU's.
    pub theirs: usize,
    /// A function of ours.
    pub ours: usize,
}

/// A function, and what is executed in its place.
#[derive(Debug)]
pub(in crate::qemu) struct Detour {
    pub function: Function,
    pub to: To,
}
