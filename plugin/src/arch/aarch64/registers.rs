//! The registers that run-time distinctions need, by QEMU's names for them. System registers have their suffix of an
//! exception level in 11.1, and lack it in 10.0.

use crate::qemu::cpu::{CurrentCpu, NamedRegister, Register};

const fn named(name: &'static str) -> NamedRegister {
    NamedRegister::new(name)
}

/// X0 to X30.
pub static GENERAL: [NamedRegister; 31] = [
    named("x0"),
    named("x1"),
    named("x2"),
    named("x3"),
    named("x4"),
    named("x5"),
    named("x6"),
    named("x7"),
    named("x8"),
    named("x9"),
    named("x10"),
    named("x11"),
    named("x12"),
    named("x13"),
    named("x14"),
    named("x15"),
    named("x16"),
    named("x17"),
    named("x18"),
    named("x19"),
    named("x20"),
    named("x21"),
    named("x22"),
    named("x23"),
    named("x24"),
    named("x25"),
    named("x26"),
    named("x27"),
    named("x28"),
    named("x29"),
    named("x30"),
];

/// X0.
pub static X0: &NamedRegister = &GENERAL[0];
/// X8: the number of a system call.
pub static X8: &NamedRegister = &GENERAL[8];
/// X29: the frame pointer.
pub static X29: &NamedRegister = &GENERAL[29];
/// X30: the link register.
pub static X30: &NamedRegister = &GENERAL[30];
/// The stack pointer of the current exception level.
pub static SP: NamedRegister = named("sp");
/// The program counter.
pub static PC: NamedRegister = named("pc");
/// NZCV, and of PSTATE the exception level, DAIF and others.
pub static CPSR: NamedRegister = named("cpsr");
/// SP_EL0: in the kernel, the running `task_struct`.
pub static SP_EL0: NamedRegister = named("SP_EL0");
/// TTBR0_EL1: the table of user addresses.
pub static TTBR0: NamedRegister = named("TTBR0_EL1");
/// SPSR_EL1: the state that ERET restores at EL1.
pub static SPSR_EL1: NamedRegister = named("SPSR_EL1");
/// The same at EL2.
pub static SPSR_EL2: NamedRegister = named("SPSR_EL2");
/// ELR_EL1: where ERET returns to at EL1.
pub static ELR_EL1: NamedRegister = named("ELR_EL1");
/// The same at EL2.
pub static ELR_EL2: NamedRegister = named("ELR_EL2");
/// VBAR_EL1: where exceptions enter EL1.
pub static VBAR_EL1: NamedRegister = NamedRegister::formerly("VBAR_EL1", "VBAR");
/// The same of EL2.
pub static VBAR_EL2: NamedRegister = named("VBAR_EL2");
/// SCTLR_EL1.
pub static SCTLR_EL1: NamedRegister = NamedRegister::formerly("SCTLR_EL1", "SCTLR");
/// CTR_EL0: the cache type.
pub static CTR: NamedRegister = named("CTR_EL0");
/// CLIDR_EL1: the levels of caches.
pub static CLIDR: NamedRegister = named("CLIDR");

/// A general register, by its number; XZR is 0.
#[must_use]
pub fn general(cpu: &CurrentCpu, number: u8) -> Option<u64> {
    match GENERAL.get(usize::from(number)) {
        Some(register) => register.read(cpu),
        None => Some(0),
    }
}

/// The handles of X0 to X30, by number, if the machine has all of them.
#[must_use]
pub fn all_general() -> Option<[Register; 31]> {
    let mut all = [GENERAL[0].handle()?; 31];
    for (handle, known) in all.iter_mut().zip(&GENERAL) {
        *handle = known.handle()?;
    }
    Some(all)
}
