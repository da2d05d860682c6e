//! Entries of a kernel: where interrupts and exceptions enter it, by symbol.

/// How an entry is reached, and what it does to its frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct KernelEntry {
    /// Its symbol; with `*` at its end, all that begin like that.
    pub symbol: &'static str,
    /// What lies on the stack above the saved RIP (that is, at lower addresses) when the first instruction runs, in
    /// bytes: an error code, or the vector.
    pub pushed: u64,
    /// How far down its frame moves if the kernel was interrupted: IRET finds the saved RIP at an address that is so
    /// much lower.
    pub moves: u64,
    /// Where this is to be read.
    pub source: &'static str,
}

/// Is the symbol meant by the pattern: the symbol itself, or the beginning of it and a `*`?
#[must_use]
pub fn fits(pattern: &str, symbol: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == symbol, |start| symbol.starts_with(start))
}
