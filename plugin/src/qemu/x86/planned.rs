//! An instruction of x86-64 that is carried out in place of the one at which the vCPU is.
//!
//! Two things the plugin API does not give, and they are taken from QEMU itself ([`crate::qemu::divert`]):
//! - **the arithmetic flags**, which are not in the register `eflags` that the API reads and writes:
//!   `helper_read_eflags`, `helper_write_eflags`;
//! - **exceptions**: #BP of an older INT3, #UD of what is no instruction: `raise_interrupt`, `raise_exception`.
//!
//! They want the address of the x86 part of QEMU's vCPU, which is found by the register file that lies in it, and
//! compared with it at every use.

use crate::qemu::cpu::{CurrentCpu, Register};
use crate::qemu::divert::{CarriesOut, Leave, Raise, RegisterFile, RunningBlock, exported};
use icsan_model::arch::x86::interpret::{Effects, Next, Plan, Registers};
use libc::{c_int, c_void};
use std::sync::OnceLock;
use std::sync::atomic::AtomicUsize;

/// Flags that QEMU never computes lazily, by which its answers are checked: IF, IOPL, NT, AC, ID.
const PLAIN: u64 = 0x24_7200;

/// Vectors of the exceptions (SDM vol. 3, table 7-1).
const UD: c_int = 6;
const BP: c_int = 3;

/// QEMU's own functions.
#[derive(Clone, Copy, Debug)]
struct Functions {
    read_flags: unsafe extern "C" fn(*mut c_void) -> u64,
    write_flags: unsafe extern "C" fn(*mut c_void, u64, u32),
    raise_interrupt: unsafe extern "C" fn(*mut c_void, c_int, c_int),
    raise_exception: unsafe extern "C" fn(*mut c_void, c_int),
}

static FUNCTIONS: OnceLock<Functions> = OnceLock::new();

/// Looks the functions up. To be called at installation.
///
/// # Errors
/// What is missing, as the rest of a line.
pub fn prepare() -> Result<(), String> {
    // SAFETY: each pointer is the function of that name, with the type that it has in QEMU 11.1's own headers
    // (target/i386/tcg: the same since before 10.0). `raise_*` do not return.
    let functions = unsafe {
        Functions {
            read_flags: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut c_void) -> u64>(exported(
                c"helper_read_eflags",
            )?),
            write_flags: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut c_void, u64, u32)>(exported(
                c"helper_write_eflags",
            )?),
            raise_interrupt: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut c_void, c_int, c_int)>(
                exported(c"raise_interrupt")?,
            ),
            raise_exception: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut c_void, c_int)>(exported(
                c"raise_exception",
            )?),
        }
    };
    let _ = FUNCTIONS.set(functions);
    Ok(())
}

/// Raises #BP, whose return address is `len` bytes on.
///
/// # Safety
/// See [`Raise::raise`]: `vcpu` is the x86 part of the vCPU whose callback leaves its block.
unsafe fn breakpoint(vcpu: *mut c_void, len: u32) {
    if let Some(functions) = FUNCTIONS.get() {
        // SAFETY: the caller's promise.
        unsafe { (functions.raise_interrupt)(vcpu, BP, len as c_int) }
    }
}

/// Raises #UD.
///
/// # Safety
/// As [`breakpoint`].
unsafe fn undefined(vcpu: *mut c_void, _code: u32) {
    if let Some(functions) = FUNCTIONS.get() {
        // SAFETY: the caller's promise.
        unsafe { (functions.raise_exception)(vcpu, UD) }
    }
}

/// Where in QEMU's vCPU its x86 part lies, in bytes; 0: not found yet. The same for all vCPUs of a machine.
static X86_PART: AtomicUsize = AtomicUsize::new(0);

/// The instruction, decoded for these registers.
#[derive(Clone, Copy, Debug)]
pub struct Planned {
    /// What it does.
    pub plan: Plan,
    /// The registers. Their arithmetic flags are not known yet.
    pub registers: Registers,
    /// QEMU's handles of the general registers, by number.
    pub general: [Register; 16],
}

impl CarriesOut for Planned {
    fn carry_out(&self, cpu: &CurrentCpu, block: &mut RunningBlock<'_>) -> Result<(), &'static str> {
        let Self { plan, mut registers, general: handles } = *self;
        let functions = FUNCTIONS.get().ok_or("QEMU's functions were not looked up")?;
        // The register file is the beginning of the x86 part.
        let RegisterFile { whole, registers: x86 } =
            RegisterFile::find(&registers.general, &X86_PART).ok_or("QEMU's register file was not found")?;
        let loaded = match plan.load {
            None => 0,
            Some(access) => {
                let bytes = cpu.memory(access.linear, access.len.into()).ok_or("what it loads cannot be read")?;
                bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
            }
        };
        // SAFETY: `whole` is of this thread's vCPU.
        unsafe { block.restore(whole, registers.rip)? };
        // SAFETY: as above; the state is up to date.
        let flags = unsafe { (functions.read_flags)(x86) };
        assert_eq!((flags ^ registers.flags) & PLAIN, 0, "QEMU's flags are not where they were looked for");
        registers.flags = flags;
        let Effects { store, general, flags, next } = plan.carry_out(&registers, loaded);
        if let Some((access, value)) = store {
            block.store(access.linear, &mut value.to_le_bytes()[..usize::from(access.len)]);
        }
        for (number, value) in general.into_iter().flatten() {
            block.set(handles[usize::from(number)], value);
        }
        if let Some(flags) = flags {
            // SAFETY: as above. It always takes the arithmetic flags and DF, to keep them apart from the register; the
            // mask says which of the others to write to the register: none.
            unsafe { (functions.write_flags)(x86, flags, 0) }
        }
        let raise = |raise, code| Leave::Raise(Raise { raise, vcpu: x86, code });
        block.leave(match next {
            Next::At(linear) => Leave::At(linear),
            Next::Breakpoint { len } => raise(breakpoint as unsafe fn(_, _), len.into()),
            Next::Undefined => raise(undefined, 0),
        });
        Ok(())
    }
}
