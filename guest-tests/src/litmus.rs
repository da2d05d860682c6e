//! Litmus tests: does `inject=` show exactly what the model allows?
//!
//! A [`Litmus`] is a few bytes of code and a list of steps: a CPU calls the code, a CPU stores to it, a CPU serializes.
//! The steps are carried out strictly one after the other, those of two CPUs, too, so the only thing that can make two
//! rounds differ is an instruction that is older than memory. The outcome of a round is the list of what its calls came
//! to ([`End`]).
//!
//! Three ways lead to a set of outcomes, and they must agree ([`compare`]):
//! - **the model** ([`explore`]): every outcome that [`icsan_model::machine::model::Model`] allows, worked out
//!   exhaustively;
//! - **injection**: the guest runs the test some thousand times under `inject=random:…`. All that it shows must be
//!   allowed (else the plugin executes what no CPU may: unsound), and all that is allowed must be shown (else it misses
//!   something: incomplete);
//! - **a CPU**: the same program without injection, under QEMU and natively. It shows hardly more than one outcome a
//!   test, and never one that is not allowed.
//!
//! The return from an interrupt between two steps serializes, which takes choices away and adds none. So rounds need
//! not be free of them, there must only be enough.

#[cfg(feature = "interpret")]
pub mod compare;
#[cfg(feature = "interpret")]
pub mod explore;
pub mod outcome;
#[cfg(all(test, feature = "interpret"))]
mod tests;
mod x86;

pub use outcome::{End, Outcome};
pub use x86::{FILL, TABLE};

/// Bytes in a page.
pub const PAGE: usize = 4096;

/// Through which mapping of the code a store goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum View {
    /// The one that the code is executed from.
    Own,
    /// Another one.
    Alias,
}

/// What a CPU does in one step. Its own code is elsewhere, does not change, and branches between any two steps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Calls the function at this offset, with this second argument. The first one is the address of the alias. Its
    /// result is what comes back.
    Execute(u16, u32),
    /// One store of 1, 2, 4 or 8 bytes.
    Store(u16, &'static [u8], View),
    /// The CPU forgets all instructions that it has fetched.
    Serialize,
}

/// Who does what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    /// The CPU: 0 or 1.
    pub cpu: u16,
    /// What it does.
    pub action: Action,
}

/// One test. Before each round the code is laid out, and every CPU serializes.
#[derive(Clone, Copy, Debug)]
pub struct Litmus {
    /// Stable name, without spaces.
    pub name: &'static str,
    /// What it is about.
    pub what: &'static str,
    /// How many pages there are.
    pub pages: usize,
    /// Pieces of code and their offsets; [`FILL`] stands between them.
    pub code: &'static [(usize, &'static [u8])],
    /// What is done.
    pub steps: &'static [Step],
}

impl Litmus {
    /// How many CPUs it takes.
    #[must_use]
    pub fn cpus(&self) -> usize {
        self.steps.iter().map(|step| usize::from(step.cpu) + 1).max().unwrap_or(1)
    }

    /// The memory that a round begins with.
    #[must_use]
    pub fn image(&self) -> Vec<u8> {
        let mut image = vec![FILL; self.pages * PAGE];
        for (at, bytes) in self.code {
            image[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        image
    }
}

/// The test of that name.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static Litmus> {
    TABLE.iter().find(|test| test.name == name)
}
