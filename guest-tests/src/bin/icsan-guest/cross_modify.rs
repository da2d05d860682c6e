//! `cross/`: one thread runs code, without a system call, while another changes it.

use crate::executor::{SIGHT, Spinner};
use crate::membarrier::sync_core;
use crate::outcome::Attempt;
use crate::pace::Pace;
use crate::shape::{Kind, Shape};
use crate::sys::{Membarrier, membarrier, pin};
use icsan_guest_tests::table::{WRITER, executor};

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
