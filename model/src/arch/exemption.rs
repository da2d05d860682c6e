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
    /// Both are instructions of a list: those that the architecture allows to be changed into each other under a
    /// running CPU, which then executes the old or the new one.
    Listed(&'static [WordPattern]),
}

/// Instructions of four bytes: those whose little-endian word has these bits under the mask.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WordPattern {
    /// Which bits decide.
    pub mask: u32,
    /// What they are.
    pub value: u32,
}

impl WordPattern {
    /// Is it one of them?
    #[must_use]
    pub const fn matches(self, word: u32) -> bool {
        word & self.mask == self.value
    }
}

impl Exemption {
    /// Is exactly one side the breakpoint instruction (the first bytes of it at least)?
    #[must_use]
    pub fn covers_breakpoint(self, memory: &[u8], candidate: &[u8]) -> bool {
        match self {
            Self::Breakpoint(breakpoint) => memory.starts_with(breakpoint) != candidate.starts_with(breakpoint),
            Self::AlignedStore(_) | Self::Listed(_) => false,
        }
    }

    /// Are both sides instructions of the list?
    #[must_use]
    pub fn covers_listed(self, memory: &[u8], candidate: &[u8]) -> bool {
        let Self::Listed(list) = self else { return false };
        let listed = |bytes: &[u8]| {
            let word = bytes.first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
            word.is_some_and(|word| list.iter().any(|pattern| pattern.matches(word)))
        };
        listed(memory) && listed(candidate)
    }
}
