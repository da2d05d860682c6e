//! Why an instruction is not carried out.

use iced_x86::Mnemonic;

/// Why an instruction is not carried out. Nothing was done then.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotCarriedOut {
    /// The bytes end before the instruction does, or before it is plain that they are none.
    #[error("the instruction is cut off")]
    Truncated,
    /// It is longer than 15 bytes, which is #GP.
    #[error("the instruction is longer than 15 bytes")]
    TooLong,
    /// It is an instruction that this interpreter does not know.
    #[error("{0:?} is not known to the interpreter")]
    Unsupported(Mnemonic),
    /// It has a LOCK prefix, or is an XCHG with memory, which implies one: the caller's load and store are two
    /// accesses.
    #[error("the instruction is atomic")]
    Locked,
    /// A near branch with an operand-size prefix: Intel ignores the prefix, AMD truncates the target.
    #[error("a near branch with an operand-size prefix, on which vendors differ")]
    OperandSizeBranch,
    /// It would load, store, branch or run on to an address that is not canonical.
    #[error("{0:#x} is not canonical")]
    NonCanonical(u64),
    /// RFLAGS.TF is set: a debug exception would follow the instruction.
    #[error("the guest is single-stepping")]
    SingleStep,
}
