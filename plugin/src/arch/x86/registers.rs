//! The registers that run-time distinctions need, by gdb's names for them.

use crate::qemu::cpu::{CurrentCpu, NamedRegister, Register};

const fn named(name: &'static str) -> NamedRegister {
    NamedRegister::new(name)
}

/// The general registers in the order of their numbers in ModRM and REX.
pub static GENERAL: [NamedRegister; 16] = [
    named("rax"),
    named("rcx"),
    named("rdx"),
    named("rbx"),
    named("rsp"),
    named("rbp"),
    named("rsi"),
    named("rdi"),
    named("r8"),
    named("r9"),
    named("r10"),
    named("r11"),
    named("r12"),
    named("r13"),
    named("r14"),
    named("r15"),
];

/// RAX.
pub static RAX: &NamedRegister = &GENERAL[0];
/// RCX.
pub static RCX: &NamedRegister = &GENERAL[1];
/// RDX.
pub static RDX: &NamedRegister = &GENERAL[2];
/// RBX.
pub static RBX: &NamedRegister = &GENERAL[3];
/// RSP.
pub static RSP: &NamedRegister = &GENERAL[4];
/// RSI.
pub static RSI: &NamedRegister = &GENERAL[6];
/// RDI.
pub static RDI: &NamedRegister = &GENERAL[7];
/// RIP.
pub static RIP: NamedRegister = named("rip");
/// RFLAGS, but for the arithmetic flags: those QEMU computes when it needs them, and the register does not show them.
pub static EFLAGS: NamedRegister = named("eflags");
/// The code segment's selector.
pub static CS: NamedRegister = named("cs");
/// The base of FS.
pub static FS_BASE: NamedRegister = named("fs_base");
/// The base of GS: in the kernel, that of the per-CPU variables.
pub static GS_BASE: NamedRegister = named("gs_base");
/// CR0.
pub static CR0: NamedRegister = named("cr0");
/// CR3.
pub static CR3: NamedRegister = named("cr3");
/// CR4.
pub static CR4: NamedRegister = named("cr4");
/// The MSR EFER.
pub static EFER: NamedRegister = named("efer");

/// A general register, by its number.
#[must_use]
pub fn general(cpu: &CurrentCpu, number: u8) -> Option<u64> {
    GENERAL.get(usize::from(number))?.read(cpu)
}

/// The handles of the general registers, by number, if the machine has all of them.
#[must_use]
pub fn all_general() -> Option<[Register; 16]> {
    let mut all = [GENERAL[0].handle()?; 16];
    for (handle, known) in all.iter_mut().zip(&GENERAL) {
        *handle = known.handle()?;
    }
    Some(all)
}
