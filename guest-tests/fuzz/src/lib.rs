//! What must hold for any bytes.
//!
//! A [`Target`] reads bytes as a user's file, as arguments, or as a history of events, and checks what the libraries
//! promise of them; it panics if that does not hold. The tests run each over its corpus and random changes of it
//! (`tests/corpus.rs`, a second each); `scripts/fuzz` runs the same ones under libFuzzer for as long as one likes
//! (`libfuzzer/`, one wrapper for all).
//!
//! The corpus (`corpus/TARGET/`) is small, and of the project's own making: the little kernels and programs that
//! `cli/symbols/tests/common` writes, recordings of toy histories, texts. What a fuzzer finds is mended with a test
//! where the fault is.

#![forbid(unsafe_code)]

mod events;
mod recordings;
mod symbols;
mod texts;

/// One kind of input.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, and its corpus'.
    pub name: &'static str,
    /// The check. It panics if something does not hold.
    pub check: fn(&[u8]),
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "symbols", check: symbols::file },
    Target { name: "payload", check: symbols::payload },
    Target { name: "image", check: symbols::image },
    Target { name: "zboot", check: symbols::zboot },
    Target { name: "btf", check: symbols::btf },
    Target { name: "recording", check: recordings::file },
    Target { name: "records", check: recordings::records },
    Target { name: "suppressions", check: texts::suppressions },
    Target { name: "arguments", check: texts::arguments },
    Target { name: "events", check: events::history },
];

/// Looks a target up.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
