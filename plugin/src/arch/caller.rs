//! Who called.

/// A return address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Caller {
    /// Where it returns to.
    pub address: u64,
    /// Is it certain, and no guess?
    pub sure: bool,
}
