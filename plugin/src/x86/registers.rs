//! The registers that run-time distinctions need, by gdb's names for them.

use crate::qemu::cpu::{CurrentCpu, Register};
use std::sync::OnceLock;

/// The general registers in the order of their numbers in ModRM and REX.
const GENERAL: [&str; 16] =
    ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"];

/// Handles of the registers; those that the machine lacks are `None`.
#[derive(Debug)]
pub struct Registers {
    general: [Option<Register>; 16],
    rip: Option<Register>,
    cs: Option<Register>,
    cr0: Option<Register>,
    cr3: Option<Register>,
    cr4: Option<Register>,
    efer: Option<Register>,
    eflags: Option<Register>,
    fs_base: Option<Register>,
    gs_base: Option<Register>,
}

static REGISTERS: OnceLock<Registers> = OnceLock::new();

impl Registers {
    /// The handles, looked up at the first use within a callback.
    pub fn get() -> &'static Self {
        REGISTERS.get_or_init(|| Self {
            general: GENERAL.map(Register::find),
            rip: Register::find("rip"),
            cs: Register::find("cs"),
            cr0: Register::find("cr0"),
            cr3: Register::find("cr3"),
            cr4: Register::find("cr4"),
            efer: Register::find("efer"),
            eflags: Register::find("eflags"),
            fs_base: Register::find("fs_base"),
            gs_base: Register::find("gs_base"),
        })
    }

    /// General register by number.
    pub fn general(&self, cpu: &CurrentCpu, number: u8) -> Option<u64> {
        cpu.read((*self.general.get(usize::from(number))?)?)
    }

    /// RIP.
    pub fn rip(&self, cpu: &CurrentCpu) -> Option<u64> {
        cpu.read(self.rip?)
    }

    /// RAX.
    pub fn rax(&self, cpu: &CurrentCpu) -> Option<u64> {
        self.general(cpu, 0)
    }

    /// RCX.
    pub fn rcx(&self, cpu: &CurrentCpu) -> Option<u64> {
        self.general(cpu, 1)
    }

    /// RDX.
    pub fn rdx(&self, cpu: &CurrentCpu) -> Option<u64> {
        self.general(cpu, 2)
    }

    /// RSP.
    pub fn rsp(&self, cpu: &CurrentCpu) -> Option<u64> {
        self.general(cpu, 4)
    }

    /// RSI.
    pub fn rsi(&self, cpu: &CurrentCpu) -> Option<u64> {
        self.general(cpu, 6)
    }

    /// RDI.
    pub fn rdi(&self, cpu: &CurrentCpu) -> Option<u64> {
        self.general(cpu, 7)
    }

    /// The base of GS: in the kernel, that of the per-CPU variables.
    pub fn gs_base(&self, cpu: &CurrentCpu) -> Option<u64> {
        cpu.read(self.gs_base?)
    }

    /// The code segment's selector.
    pub fn cs(&self, cpu: &CurrentCpu) -> Option<u64> {
        cpu.read(self.cs?)
    }

    /// The handles of the general registers, by number, if the machine has all of them.
    pub fn all_general(&self) -> Option<[Register; 16]> {
        let mut all = [self.general[0]?; 16];
        for (handle, known) in all.iter_mut().zip(self.general) {
            *handle = known?;
        }
        Some(all)
    }

    /// RFLAGS, but for the arithmetic flags: those QEMU computes when it needs them, and the register does not show
    /// them.
    pub fn eflags(&self, cpu: &CurrentCpu) -> Option<u64> {
        cpu.read(self.eflags?)
    }

    /// The base of FS.
    pub fn fs_base(&self, cpu: &CurrentCpu) -> Option<u64> {
        cpu.read(self.fs_base?)
    }

    /// CR0.
    pub fn cr0(&self, cpu: &CurrentCpu) -> Option<u64> {
        cpu.read(self.cr0?)
    }

    /// CR4.
    pub fn cr4(&self, cpu: &CurrentCpu) -> Option<u64> {
        cpu.read(self.cr4?)
    }

    /// The MSR EFER.
    pub fn efer(&self, cpu: &CurrentCpu) -> Option<u64> {
        cpu.read(self.efer?)
    }

    /// CR3.
    pub fn cr3(&self, cpu: &CurrentCpu) -> Option<u64> {
        cpu.read(self.cr3?)
    }
}
