//! By how much KASLR moves a kernel, and what tells where it put it.

/// Which offsets KASLR may choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KaslrRange {
    /// Every offset is a multiple of this.
    pub alignment: u64,
    /// Every offset is below this.
    pub limit: u64,
}

/// A system register that a kernel which starts sets to the address of a symbol of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlaceEvidence {
    /// The register, by the number that the architecture has for it.
    pub register: u64,
    /// The symbols that may be there: one of them is.
    pub symbols: &'static [&'static str],
    /// Does it tell the place (then there is one symbol)? Otherwise it only confirms, or contradicts, what is known.
    pub decides: bool,
    /// The functions that set it so first; empty: it does not matter which.
    pub writers: &'static [&'static str],
    /// What another value says ([`Symbolizer::tells`](crate::Symbolizer::tells)).
    pub others: OtherValues,
}

/// What it says if a register is set to something that is not the symbol's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtherValues {
    /// The kernel is another one, or at another place.
    Contradict,
    /// The same; but nothing where the address is one at which no kernel of that architecture begins, or within these
    /// symbols: the kernel sets the register to those as well, and so does firmware.
    SayNothing {
        /// The symbols, each up to the next one.
        within: &'static [&'static str],
    },
}
