//! The hand-over: the executor runs code and stands aside, the writer changes it, and the executor runs it again.

use crate::code_page::{CodePage, Function};
use crate::executor::Executor;
use crate::outcome::Attempt;
use crate::pace::Pace;
use crate::shape::{Kind, Shape};
use crate::sys::pin;
use icsan_guest_tests::code::serialize;
use icsan_guest_tests::table::{WRITER, executor};
use std::sync::Arc;

/// What the two sides do between the store and the next execution.
#[derive(Clone, Copy, Debug)]
pub struct HandOver {
    /// The writer, after its store.
    pub writer: fn() -> std::io::Result<()>,
    /// The executor, before it runs the code again.
    pub executor: fn(),
    /// Does it serialize the executor? Then the old version must not run again.
    pub serializes: bool,
}

/// The executor serializes, runs the code, stands aside, and runs it again after the change.
pub fn hand_over(kind: Kind, how: HandOver) -> Attempt {
    let shape = Arc::new(Shape::new(kind)?);
    let function = shape.function();
    let theirs = Arc::clone(&shape);
    hand_over_by(how, &shape, function, move |n| {
        theirs.store(n);
        Ok(())
    })
}

/// The same through a second mapping.
pub fn aliased(how: HandOver) -> Attempt {
    let shape = Arc::new(Shape::on(Kind::PLAIN, CodePage::aliased()?));
    let theirs = Arc::clone(&shape);
    hand_over_by(how, &shape, shape.function(), move |n| {
        theirs.store(n);
        Ok(())
    })
}

/// The same with a writer of the caller's own.
pub fn hand_over_by(
    how: HandOver,
    shape: &Shape,
    function: Function,
    store: impl Fn(u32) -> std::io::Result<()>,
) -> Attempt {
    // Under some profile or other, a plain membarrier is bad.
    let pace = if how.serializes { Pace::of_good() } else { Pace::of_bad() };
    hand_over_paced(how, pace, shape, function, store)
}

/// The same at a pace of the caller's own.
pub fn hand_over_paced(
    how: HandOver,
    mut pace: Pace,
    shape: &Shape,
    function: Function,
    store: impl Fn(u32) -> std::io::Result<()>,
) -> Attempt {
    pin(WRITER)?;
    let between = how.executor;
    let executor = Executor::start(executor(2), move |changed| {
        if changed == 1 {
            between()
        } else {
            serialize()
        }
        function(0)
    })?;
    while let Some(n) = pace.next() {
        executor.call(0)?;
        store(n)?;
        (how.writer)()?;
        let got = executor.call(1)?;
        if let Some(outcome) = pace.ran(shape.expected(n), got) {
            return Ok(outcome);
        }
    }
    drop(executor);
    Ok(pace.outcome())
}

/// Nothing on the writer's side.
pub fn nothing() -> std::io::Result<()> {
    Ok(())
}

/// Nothing on either side.
pub const BARE: HandOver = HandOver { writer: nothing, executor: || {}, serializes: false };

/// The executor's side of the corrected twins.
pub const SERIALIZED: HandOver = HandOver { writer: nothing, executor: serialize, serializes: true };
