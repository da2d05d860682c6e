//! Exemptions: differences between what is in memory and what may be executed that a profile's rules allow.
//!
//! An exemption covers a running patch only. It ends with the patch's commit: after that, an older version is `stale`
//! however harmless it was before.

/// One rule that allows a difference. Sources stand with the profiles that use it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exemption {
    /// A breakpoint instruction on either side: executing the breakpoint or the whole instruction that it stands for is
    /// equally right while a breakpoint protocol runs, since its handler carries out the instruction.
    Breakpoint(&'static [u8]),
    /// All stores between the two versions lie within one naturally aligned block of that many bytes (a power of two),
    /// each of them single-copy atomic.
    AlignedStore(u8),
}

impl Exemption {
    /// Is exactly one side the breakpoint instruction (the first bytes of it at least)?
    #[must_use]
    pub fn covers_breakpoint(self, memory: &[u8], candidate: &[u8]) -> bool {
        match self {
            Self::Breakpoint(breakpoint) => memory.starts_with(breakpoint) != candidate.starts_with(breakpoint),
            Self::AlignedStore(_) => false,
        }
    }
}
