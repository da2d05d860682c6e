//! One x86-64 instruction carried out on registers that are given, in 64-bit mode. Only with the feature `iced`, which
//! decodes.
//!
//! It exists to run an *old* instruction in a guest, one that does not stand in memory any more, and so it knows what
//! patched kernels and programs are patched from and to: NOPs, branches, breakpoints, moves, the stack, and the plain
//! arithmetic. What it does not know it says so of ([`NotCarriedOut`]), before anything was done.
//!
//! It happens in two steps, because the caller owns the memory. [`plan`] decodes and says what must be read;
//! [`Plan::carry_out`] is given that and answers with all that changes. Nothing here reads or writes memory, fails
//! after the plan, or has anything to drop.
//!
//! `icsan-interpret` in `guest-tests` compares it with the CPU that it runs on, form by form. Host and TCG of QEMU 11.1
//! agree with it everywhere.
//!
//! # Deviations from the manuals, by number
//! 1. *Addresses have 48 bits.* With five-level paging more of them are canonical; those are refused, not misread.
//! 2. *A branch target out of memory is not checked*: RET, and JMP and CALL through memory, go to a target that is not
//!    canonical, and the fault comes from there, as under QEMU and on AMD's CPUs for RET. Intel's fault at the branch
//!    itself. [`canonical`] tells.
//! 3. *No shadow stack, no indirect branch tracking*: ENDBR and RDSSP do nothing, as on a CPU without CET, TCG's among
//!    them.
//! 4. *No alignment checks.* RFLAGS.AC is not looked at.
//! 5. *Prefixes that choose nothing are ignored*, as everybody does: BND and XRELEASE among them.
//!
//! The manuals leave AF open after AND, OR, XOR and TEST; it is cleared, as CPUs and TCG do. TCG of QEMU 10.0 deviates
//! from the manuals where this does not: it takes the operand of RET as signed, has INTO, AAM, AAD and SALC in 64-bit
//! mode, does not know F6 /1 and F7 /1 (TEST again), and lets a CS, DS, ES or SS prefix undo an FS or GS before it.
//! QEMU 11.1 has none of that.

mod address;
mod arithmetic;
mod carry_out;
mod decode;
mod error;
mod flags;
mod operand;
mod operation;

pub use address::canonical;
pub use error::NotCarriedOut;

use operation::Operation;

/// What of a CPU an instruction in 64-bit mode depends on, besides memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Registers {
    /// By the numbers that encodings use: RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15.
    pub general: [u64; 16],
    /// The linear address of the instruction.
    pub rip: u64,
    /// RFLAGS.
    pub flags: u64,
    /// The linear address where FS begins.
    pub fs_base: u64,
    /// The linear address where GS begins.
    pub gs_base: u64,
}

/// A place in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    /// Its linear address. The whole access is canonical.
    pub linear: u64,
    /// How many bytes: 1, 2, 4 or 8.
    pub len: u8,
}

/// An instruction that can be carried out, and what it must read first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plan {
    /// What must be read, if anything.
    pub load: Option<Access>,
    store: Option<Access>,
    operation: Operation,
    rip: u64,
    len: u8,
}

/// All that an instruction changes. The caller checks that it may store before it changes anything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Effects {
    /// What is stored, and where. The value has no bits beyond the access.
    pub store: Option<(Access, u64)>,
    /// Numbers of registers, each with its whole new value, however little of it the instruction names. No number is
    /// there twice.
    pub general: [Option<(u8, u64)>; 2],
    /// The whole new RFLAGS. Only arithmetic bits ever differ: CF, PF, AF, ZF, SF, OF.
    pub flags: Option<u64>,
    /// Where it goes on.
    pub next: Next,
}

/// Where it goes on after an instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// At this linear address.
    At(u64),
    /// With #BP, the trap of INT3. Its return address is behind the instruction.
    Breakpoint {
        /// How long the instruction is, prefixes included.
        len: u8,
    },
    /// With #UD, the fault of bytes that are no instruction. Its return address is the instruction's.
    Undefined,
}

/// Decodes the instruction that `bytes` begin with, and finds out what it must read. Bytes behind the instruction do
/// not matter.
///
/// # Errors
/// It cannot be carried out, or not by us.
pub fn plan(bytes: &[u8], registers: &Registers) -> Result<Plan, NotCarriedOut> {
    decode::plan(bytes, registers)
}

impl Plan {
    /// How long the instruction is. For bytes that are no instruction, how many it took to see that, and at least 1.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "no instruction is empty")]
    pub fn len(&self) -> u8 {
        self.len
    }

    /// What it will store to, if anything.
    #[must_use]
    pub fn store(&self) -> Option<Access> {
        self.store
    }

    /// What the instruction does. `registers` are those of the plan; `loaded` is what stood at [`Plan::load`], little
    /// endian, and is not looked at if there is none.
    #[must_use]
    pub fn carry_out(&self, registers: &Registers, loaded: u64) -> Effects {
        carry_out::carry_out(self, registers, loaded)
    }
}
