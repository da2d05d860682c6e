//! `own/`: a thread changes code that it runs itself.

use crate::code_page::CodePage;
use crate::outcome::Attempt;
use crate::pace::Pace;
use crate::shape::{Kind, Shape};
use crate::sys::{cpus, pin};
use icsan_guest_tests::code::serialize;
use icsan_guest_tests::table::executor;

/// The pace of changes whose outcome is judged, or not.
pub fn pace(judged: bool) -> Pace {
    if judged { Pace::of_judged() } else { Pace::of_bad() }
}

/// Stores, does `between`, and calls.
pub fn calls(between: fn(), serializes: bool) -> Attempt {
    stores_then_calls(&Shape::new(Kind::PLAIN)?, between, serializes)
}

/// Stores through a second mapping, does `between`, and calls. Without a serializing instruction the outcome is not
/// judged.
pub fn alias(between: fn(), serializes: bool) -> Attempt {
    stores_then_calls(&Shape::on(Kind::PLAIN, CodePage::aliased()?), between, serializes)
}

fn stores_then_calls(shape: &Shape, between: fn(), judged: bool) -> Attempt {
    changes_then_calls(shape, |n| shape.store(n), between, pace(judged))
}

/// Changes the code in any way, does `between`, and calls it, at this pace.
pub fn changes_then_calls(shape: &Shape, store: impl Fn(u32), between: fn(), mut pace: Pace) -> Attempt {
    pin(executor(cpus()))?;
    let function = shape.function();
    while let Some(n) = pace.next() {
        function(0);
        store(n);
        between();
        if let Some(outcome) = pace.ran(shape.expected(n), function(0)) {
            return Ok(outcome);
        }
    }
    Ok(pace.outcome())
}

/// Stores through a second mapping into two chunks.
pub fn alias_split(between: fn(), serializes: bool) -> Attempt {
    stores_then_calls(&Shape::on(Kind::SPLIT, CodePage::aliased()?), between, serializes)
}

/// The same memory at two addresses, both executable.
fn two_views() -> std::io::Result<[Shape; 2]> {
    Ok(CodePage::twice()?.map(|view| Shape::on(Kind::PLAIN, view)))
}

/// Calls the code at one address, stores through that, and calls it at the other one, where it has not been since it
/// serialized. The emulator may have translated the old code there, and use that translation for both addresses.
pub fn at_other_address() -> Attempt {
    let [here, there] = two_views()?;
    pin(executor(cpus()))?;
    let mut pace = pace(true);
    while let Some(n) = pace.next() {
        serialize();
        here.function()(0);
        here.store(n);
        if let Some(outcome) = pace.ran(there.expected(n), there.function()(0)) {
            return Ok(outcome);
        }
    }
    Ok(pace.outcome())
}

/// Calls the code at one address, stores through the other one, does `between`, and calls it again. Its translation may
/// stem from the other address.
pub fn through_other_address(between: fn(), serializes: bool) -> Attempt {
    let [here, there] = two_views()?;
    pin(executor(cpus()))?;
    let mut pace = pace(serializes);
    while let Some(n) = pace.next() {
        here.store(n + 100);
        there.function()(0);
        serialize();
        here.function()(0);
        there.store(n);
        between();
        if let Some(outcome) = pace.ran(here.expected(n), here.function()(0)) {
            return Ok(outcome);
        }
    }
    Ok(pace.outcome())
}
