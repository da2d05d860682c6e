//! `cross/`: one thread runs code, without a system call, while another changes it.

use crate::code_page::CodePage;
use crate::cpu::cpuid;
use crate::executor::{Executor, SIGHT, Spinner};
use crate::membarrier::sync_core;
use crate::outcome::Attempt;
use crate::pace::Pace;
use crate::shape::{Kind, Shape};
use crate::sys::{Membarrier, membarrier, pin};
use icsan_guest_tests::table::{WRITER, executor};
use std::sync::Arc;

/// Changes the code under a spinning thread. Each change begins an epoch of the executor's, so that only one store
/// separates what it may run: that is what AMD's exemption asks for.
pub fn under_spinner(kind: Kind) -> Attempt {
    pin(WRITER)?;
    membarrier(Membarrier::RegisterSyncCore)?;
    let shape = Shape::new(kind)?;
    let function = shape.function();
    let spinner = Spinner::start(executor(2), move || function(0))?;
    let mut pace = Pace::of_bad();
    while let Some(n) = next_epoch(&mut pace)? {
        // It has just run the old version.
        spinner.ran(2);
        shape.store(n);
        let expected = shape.expected(n);
        if let Some(outcome) = pace.ran(expected, spinner.runs_into(expected, SIGHT)) {
            return Ok(outcome);
        }
    }
    drop(spinner);
    Ok(pace.outcome())
}

/// Begins an epoch on every CPU that runs this process, and then the next change, whose time does not include that.
pub fn next_epoch(pace: &mut Pace) -> std::io::Result<Option<u32>> {
    sync_core()?;
    Ok(pace.next())
}

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
    let shape = Arc::new(Shape::on(Kind::Imm32TwoQuadwords, CodePage::aliased()?));
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
    function: crate::code_page::Function,
    store: impl Fn(u32) -> std::io::Result<()>,
) -> Attempt {
    pin(WRITER)?;
    let between = how.executor;
    let executor = Executor::start(executor(2), move |changed| {
        if changed == 1 {
            between()
        } else {
            cpuid()
        }
        function(0)
    })?;
    // Under some profile or other, a plain membarrier is bad.
    let mut pace = if how.serializes { Pace::of_good() } else { Pace::of_bad() };
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
pub const CPUID: HandOver = HandOver { writer: nothing, executor: cpuid, serializes: true };
