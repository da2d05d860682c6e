//! `publish/`: steps that are left out between the store and the execution.

use crate::code_page::CodePage;
use crate::executor::Executor;
use crate::hand_over::{BARE, HandOver, SERIALIZED, hand_over_paced, nothing};
use crate::outcome::Attempt;
use crate::own_code::changes_then_calls;
use crate::pace::{FEWER_CHANGES, INJECTED_CHANGES, INJECTED_LIMIT, PATIENT, Pace, injected};
use crate::shape::{Kind, Shape};
use crate::sys::pin;
use icsan_guest_tests::code::aarch64::{
    RET, clean_line, data_line, dmb, dsb_inner, dsb_own, dsb_stores, instruction_line, invalidate_line, movz,
};
use icsan_guest_tests::code::serialize;
use icsan_guest_tests::table::{WRITER, executor};
use std::sync::Arc;

/// What a writer does after its store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// DC CVAU.
    Clean,
    /// The same, of the next line.
    CleanNext,
    /// IC IVAU.
    Invalidate,
    /// The same, of the next line.
    InvalidateNext,
    /// DSB ISH.
    Barrier,
    /// DSB NSH.
    Narrow,
    /// DSB ISHST.
    Stores,
    /// DMB ISH.
    Memory,
}

use Step::{Barrier, Clean, CleanNext, Invalidate, InvalidateNext, Memory, Narrow, Stores};

/// No step is left out.
const ALL: &[Step] = &[Clean, Barrier, Invalidate, Barrier];
const NO_CLEAN: &[Step] = &[Barrier, Invalidate, Barrier];
const NO_INVALIDATE: &[Step] = &[Clean, Barrier, Barrier];

impl Step {
    fn carry_out(self, shape: &Shape) {
        let (written, executed) = (shape.page().target(shape.site(), 4), shape.page().address(shape.site()));
        match self {
            Clean => clean_line(written),
            CleanNext => clean_line(written.wrapping_add(data_line())),
            Invalidate => invalidate_line(executed),
            InvalidateNext => invalidate_line(executed.wrapping_add(instruction_line())),
            Barrier => dsb_inner(),
            Narrow => dsb_own(),
            Stores => dsb_stores(),
            Memory => dmb(),
        }
    }
}

/// The pace of what is bad, and what no interrupt makes good: what is lacking is not that a CPU serializes.
fn of_unhidden() -> Pace {
    Pace::new((FEWER_CHANGES, PATIENT), (INJECTED_CHANGES, INJECTED_LIMIT), false, false, injected())
}

/// Stores, and takes these steps.
fn changed_by(shape: &Shape, n: u32, steps: &[Step]) {
    shape.store_only(n);
    steps.iter().for_each(|step| step.carry_out(shape));
}

/// The executor synchronizes; what it may fetch then is the writer's business.
const SYNCHRONIZED: HandOver = HandOver { writer: nothing, executor: serialize, serializes: false };

fn handed_over(how: HandOver, pace: Pace, shape: Shape, steps: &'static [Step]) -> Attempt {
    let shape = Arc::new(shape);
    let theirs = Arc::clone(&shape);
    hand_over_paced(how, pace, &shape, shape.function(), move |n| {
        changed_by(&theirs, n, steps);
        Ok(())
    })
}

/// The writer takes these steps, which do not suffice; the executor synchronizes.
fn by(steps: &'static [Step]) -> Attempt {
    handed_over(SYNCHRONIZED, of_unhidden(), Shape::new(Kind::PLAIN)?, steps)
}

/// The same through a second mapping.
fn by_alias(steps: &'static [Step]) -> Attempt {
    handed_over(SYNCHRONIZED, of_unhidden(), Shape::on(Kind::PLAIN, CodePage::aliased()?), steps)
}

/// Stores and then calls, with these steps and this between.
fn own(steps: &'static [Step], between: fn(), pace: Pace) -> Attempt {
    let shape = Shape::new(Kind::PLAIN)?;
    changes_then_calls(&shape, |n| changed_by(&shape, n, steps), between, pace)
}

/// A thread runs code on one CPU, only stores to it on another, and comes back.
fn migrated() -> Attempt {
    let shape = Shape::new(Kind::PLAIN)?;
    let function = shape.function();
    let mut pace = of_unhidden();
    while let Some(n) = pace.next() {
        pin(executor(2))?;
        function(0);
        pin(WRITER)?;
        shape.store_only(n);
        pin(executor(2))?;
        if let Some(outcome) = pace.ran(shape.expected(n), function(0)) {
            return Ok(outcome);
        }
    }
    Ok(pace.outcome())
}

/// Two functions in one line, in two chunks; the second one's operand is changed, and nothing else is done.
const NEIGHBOUR: usize = 0;
const CHANGED: usize = 32;

/// The executor runs the neighbour of what is changed, or what is changed.
fn neighbour(runs_changed: bool) -> Attempt {
    pin(WRITER)?;
    let page = CodePage::anonymous(1)?;
    for (at, value) in [(NEIGHBOUR, 7), (CHANGED, 0)] {
        page.store32(at, movz(value));
        page.store32(at + 4, RET);
    }
    page.publish(0, CHANGED + 8);
    let (neighbour, changed) = (page.function(NEIGHBOUR), page.function(CHANGED));
    // Both are run, so that the page holds the code of both. From then on only one is.
    let executor = Executor::start(executor(2), move |both| {
        serialize();
        if both == 1 {
            changed(0);
        }
        if runs_changed { changed(0) } else { neighbour(0) }
    })?;
    executor.call(1)?;
    let mut pace = if runs_changed { of_unhidden() } else { Pace::of_good() };
    while let Some(n) = pace.next() {
        executor.call(0)?;
        page.store32(CHANGED, movz(n as u16));
        let expected = if runs_changed { u64::from(n as u16) } else { 7 };
        if let Some(outcome) = pace.ran(expected, executor.call(0)?) {
            return Ok(outcome);
        }
    }
    drop(executor);
    Ok(pace.outcome())
}

/// Which function carries a row out.
pub fn function(name: &str) -> Option<fn() -> Attempt> {
    Some(match name {
        "publish/all" => || handed_over(SERIALIZED, Pace::of_good(), Shape::new(Kind::PLAIN)?, ALL),
        "publish/nothing" => || by(&[]),
        "publish/no-clean" => || by(NO_CLEAN),
        "publish/no-invalidate" => || by(NO_INVALIDATE),
        "publish/no-first-barrier" => || by(&[Clean, Invalidate, Barrier]),
        "publish/no-second-barrier" => || by(&[Clean, Barrier, Invalidate]),
        "publish/narrow-first-barrier" => || by(&[Clean, Narrow, Invalidate, Barrier]),
        "publish/narrow-second-barrier" => || by(&[Clean, Barrier, Invalidate, Narrow]),
        "publish/stores-first-barrier" => || by(&[Clean, Stores, Invalidate, Barrier]),
        "publish/memory-barriers" => || by(&[Clean, Memory, Invalidate, Memory]),
        "publish/other-clean" => || by(&[CleanNext, Barrier, Invalidate, Barrier]),
        "publish/other-invalidate" => || by(&[Clean, Barrier, InvalidateNext, Barrier]),
        "publish/reversed" => || by(&[Invalidate, Barrier, Clean, Barrier]),
        "publish/no-synchronization" => || handed_over(BARE, Pace::of_bad(), Shape::new(Kind::PLAIN)?, ALL),
        "publish/neighbour" => || neighbour(false),
        "publish/neighbour-run" => || neighbour(true),
        "publish/own-nothing" => || own(&[], || {}, Pace::of_bad()),
        "publish/own-no-invalidate" => || own(NO_INVALIDATE, serialize, of_unhidden()),
        "publish/alias-no-invalidate" => || by_alias(NO_INVALIDATE),
        "publish/alias-no-clean" => || by_alias(NO_CLEAN),
        "publish/migrated" => migrated,
        _ => return None,
    })
}
