//! An instruction of AArch64 that is carried out in place of the one at which the vCPU is.
//!
//! Registers and flags go by the plugin API: what it shows of them in the middle of a block is current, but for the
//! program counter. That is up to date once QEMU's idea of the state is; and as a block may run at another address than
//! the one that it was translated at, the instruction is decoded for that one.
//!
//! What the plugin API does not give is taken from QEMU itself ([`crate::qemu::divert`]): the exceptions of BRK and of
//! what is no instruction. They want the address of the Arm part of QEMU's vCPU, which is found by the register file
//! that lies in it.

use crate::qemu::cpu::{CurrentCpu, NamedRegister, Register};
use crate::qemu::divert::{CarriesOut, Leave, Raise, RegisterFile, RunningBlock, exported};
use icsan_model::arch::aarch64::interpret::{Access, Effects, Next, Registers, plan};
use libc::c_void;
use std::sync::OnceLock;
use std::sync::atomic::AtomicUsize;

/// `EXCP_UDEF` (target/arm/cpu.h).
const UDEF: u32 = 1;

/// ESR_ELx.IL: a word of 32 bits.
const IL: u32 = 1 << 25;
/// ESR_ELx.EC of BRK in AArch64 state (DDI0487 D24.2.40); that of what is not allocated is 0.
const EC_BRK: u32 = 0x3c << 26;

/// How far in QEMU's `CPUARMState` the file of X registers is behind its beginning: behind the sixteen registers of 32
/// bits (target/arm/cpu.h).
const BEFORE: usize = 64;

/// QEMU's own functions.
#[derive(Clone, Copy, Debug)]
struct Functions {
    breakpoint: unsafe extern "C" fn(*mut c_void, u32),
    exception: unsafe extern "C" fn(*mut c_void, u32, u32),
}

static FUNCTIONS: OnceLock<Functions> = OnceLock::new();

/// Looks the functions up. To be called at installation.
///
/// # Errors
/// What is missing, as the rest of a line.
pub fn prepare() -> Result<(), String> {
    // SAFETY: each pointer is the function of that name, with the type that it has in QEMU 11.1's target/arm/helper.h
    // (the same since before 10.0). Neither returns.
    let functions = unsafe {
        Functions {
            breakpoint: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut c_void, u32)>(exported(
                c"helper_exception_bkpt_insn",
            )?),
            exception: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut c_void, u32, u32)>(exported(
                c"helper_exception_with_syndrome",
            )?),
        }
    };
    let _ = FUNCTIONS.set(functions);
    Ok(())
}

/// Raises the exception of BRK.
///
/// # Safety
/// See [`Raise::raise`]: `vcpu` is the Arm part of the vCPU whose callback leaves its block.
unsafe fn breakpoint(vcpu: *mut c_void, constant: u32) {
    if let Some(functions) = FUNCTIONS.get() {
        // SAFETY: the caller's promise.
        unsafe { (functions.breakpoint)(vcpu, EC_BRK | IL | constant) }
    }
}

/// Raises the exception of a word that is no instruction.
///
/// # Safety
/// As [`breakpoint`].
unsafe fn undefined(vcpu: *mut c_void, _code: u32) {
    if let Some(functions) = FUNCTIONS.get() {
        // SAFETY: the caller's promise.
        unsafe { (functions.exception)(vcpu, UDEF, IL) }
    }
}

/// Where in QEMU's vCPU the file of X registers lies, in bytes; 0: not found yet. The same for all vCPUs of a machine.
static FILE: AtomicUsize = AtomicUsize::new(0);

/// An instruction that the interpreter knows, and what it depends on.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The instruction.
    pub bytes: Vec<u8>,
    /// The registers. The program counter is that of the translation.
    pub registers: Registers,
    /// What it loads there.
    pub loaded: u64,
    /// QEMU's handles of X0 to X30, by number.
    pub general: [Register; 31],
    /// Of SP.
    pub sp: Register,
    /// Of PSTATE.
    pub pstate: Register,
    /// The program counter.
    pub counter: &'static NamedRegister,
}

/// What an access reads.
#[must_use]
pub fn load(cpu: &CurrentCpu, access: Access) -> Option<u64> {
    let bytes = cpu.memory(access.linear, access.len.into())?;
    Some(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

impl CarriesOut for Planned {
    fn carry_out(&self, cpu: &CurrentCpu, block: &mut RunningBlock<'_>) -> Result<(), &'static str> {
        let mut registers = self.registers;
        let RegisterFile { whole, registers: file } =
            RegisterFile::find(&registers.general, &FILE).ok_or("QEMU's register file was not found")?;
        // SAFETY: `whole` is of this thread's vCPU.
        unsafe { block.restore(whole, registers.pc)? };
        registers.pc = self.counter.read(cpu).unwrap_or(registers.pc);
        // It was planned before, and whether it can be does not depend on where it is.
        let Ok(plan) = plan(&self.bytes, &registers) else { return Ok(()) };
        let loaded = plan.load.and_then(|access| load(cpu, access)).unwrap_or(self.loaded);
        let Effects { general, sp, pstate, next } = plan.carry_out(&registers, loaded);
        if let Some((number, value)) = general {
            block.set(self.general[usize::from(number)], value);
        }
        if let Some(value) = sp {
            block.set(self.sp, value);
        }
        if pstate != registers.pstate {
            block.set(self.pstate, pstate);
        }
        let raise = |raise, code| {
            // SAFETY: the file is that far behind the beginning of the Arm part, which lies in the same object.
            let vcpu = unsafe { file.byte_sub(BEFORE) };
            Leave::Raise(Raise { raise, vcpu, code })
        };
        block.leave(match next {
            Next::At(linear) => Leave::At(linear),
            Next::Breakpoint(constant) => raise(breakpoint as unsafe fn(_, _), constant.into()),
            Next::Undefined => raise(undefined, 0),
        });
        Ok(())
    }
}
