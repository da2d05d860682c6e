//! Shapes: a piece of code with versions 0, 1, 2, …; running version `n` returns [`Shape::expected`]`(n)`.
//!
//! Which bytes of which instruction change, and by which stores, is the architecture's: its `Kind`s. Each has the kinds
//! that the scenarios of any architecture ask for.

pub use crate::architecture::shape::{BEHIND_NOP, Kind, text_target};
use crate::code_page::{CodePage, Function};
use std::io;

/// Where it takes more than a store to have code fetched, no shape is longer than this, and what changes begins at the
/// site, and is no longer than that.
const LAID_OUT: usize = 64;
const CHANGED: usize = 8;

/// Code with versions.
#[derive(Debug)]
pub struct Shape {
    kind: Kind,
    page: CodePage,
}

impl Shape {
    /// Maps and lays out version 0.
    pub fn new(kind: Kind) -> io::Result<Self> {
        Ok(Self::on(kind, kind.map()?))
    }

    /// Lays out version 0 on a page that is mapped already. Only for what fits into one page.
    pub fn on(kind: Kind, page: CodePage) -> Self {
        let shape = Self { kind, page };
        shape.lay_out();
        shape
    }

    /// Writes version 0 as a whole, and publishes it.
    pub fn lay_out(&self) {
        self.kind.lay_out(&self.page);
        self.page.publish(self.kind.entry(), LAID_OUT);
    }

    /// The code.
    pub fn function(&self) -> Function {
        self.page.function(self.kind.entry())
    }

    /// The memory that it stands in.
    pub fn page(&self) -> &CodePage {
        &self.page
    }

    /// The same, without the shape.
    pub fn into_page(self) -> CodePage {
        self.page
    }

    /// What version `n` returns.
    pub fn expected(&self, n: u32) -> u64 {
        self.kind.expected(n)
    }

    /// The bytes of version `n` from [`Shape::site`] on, for a writer of its own.
    pub fn bytes(&self, n: u32) -> [u8; 4] {
        self.kind.bytes(n)
    }

    /// Where the changed bytes begin.
    pub fn site(&self) -> usize {
        self.kind.site()
    }

    /// Changes version `n - 1` into version `n`, and publishes it: all is done but that a CPU serializes.
    pub fn store(&self, n: u32) {
        self.store_only(n);
        self.publish();
    }

    /// The same, and nothing is published.
    pub fn store_only(&self, n: u32) {
        self.kind.store(&self.page, n);
    }

    /// Makes the fetches of all CPUs find what was stored.
    pub fn publish(&self) {
        self.page.publish(self.site(), CHANGED);
    }
}
