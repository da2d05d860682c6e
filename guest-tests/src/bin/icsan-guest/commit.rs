//! `commit/`: the moment at which the author of a patch takes it for done.

use crate::code_page::CodePage;
use crate::executor::Executor;
use crate::hand_over::{HandOver, hand_over, hand_over_by};
use crate::membarrier::sync_core;
use crate::outcome::Attempt;
use crate::pace::Pace;
use crate::processes::wait_for;
use crate::shape::{Kind, Shape};
use crate::sys::{Membarrier, check, membarrier, pin};
use icsan_guest_tests::code::serialize;
use icsan_guest_tests::table::{WRITER, executor};
use std::io::{self, Read, Write};
use std::sync::Arc;

/// What is done inside of [`guest_patch_commit`], and what came of it.
struct Patch<'a> {
    step: &'a mut dyn FnMut() -> io::Result<()>,
    result: io::Result<()>,
}

/// The patching function that a plugin can be told of (`commit=guest_patch_commit`): when it returns, the stores that
/// were made inside of it are done.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn guest_patch_commit(patch: &mut Patch<'_>) {
    patch.result = (patch.step)();
    // Or the call above would be the last thing that it does, and it would not return itself.
    std::hint::black_box(patch);
}

/// Carries out a patch, and commits it.
pub fn committed(mut patch: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    let mut patch = Patch { step: &mut patch, result: Ok(()) };
    guest_patch_commit(&mut patch);
    patch.result
}

/// Across two chunks, with the membarrier that serializes.
pub fn by_sync_core() -> Attempt {
    membarrier(Membarrier::RegisterSyncCore)?;
    hand_over(Kind::SPLIT, HandOver { writer: sync_core, executor: || {}, serializes: true })
}

/// Across two chunks, with the one that only interrupts.
pub fn by_plain() -> Attempt {
    membarrier(Membarrier::RegisterPrivateExpedited)?;
    hand_over(
        Kind::SPLIT,
        HandOver { writer: || membarrier(Membarrier::PrivateExpedited), executor: || {}, serializes: true },
    )
}

/// One aligned store, by the function that commits.
pub fn by_symbol(how: HandOver) -> Attempt {
    let shape = Arc::new(Shape::new(Kind::ALIGNED)?);
    let theirs = Arc::clone(&shape);
    hand_over_by(how, &shape, shape.function(), move |n| {
        committed(|| {
            theirs.store(n);
            Ok(())
        })
    })
}

/// Changes of a round of [`by_fork`] that serializes: each takes a fork and two switches of processes.
const CHANGES: u32 = 40;

/// When the executor runs the code of [`by_fork`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Runs {
    /// After the child came back from the function, while the parent is still inside.
    BeforeTheParentReturns,
    /// After both came back.
    AfterTheParentReturned,
    /// The same, serialized before it.
    Serialized,
}

/// The function that commits forks, and then stores: parent and child come back from it on the same stack, to the same
/// address. Only the parent's return commits what the parent stored.
pub fn by_fork(runs: Runs) -> Attempt {
    pin(WRITER)?;
    // Memory that a fork shares: nothing is copied on the first store, which would interrupt the executor.
    let shape = Shape::on(Kind::ALIGNED, CodePage::aliased()?);
    let function = shape.function();
    let thread = Executor::start(executor(2), move |changed| {
        if changed == 0 || runs == Runs::Serialized {
            serialize();
        }
        function(0)
    })?;
    let mut pace = if runs == Runs::Serialized { Pace::of_few(CHANGES) } else { Pace::of_bad() };
    loop {
        let ((mut stored, mut stores), (mut came_back, mut comes_back)) = (io::pipe()?, io::pipe()?);
        let (mut is_ready, mut ready) = io::pipe()?;
        let (mut child, mut change) = (0, None);
        let run = |pace: &mut Pace, n: u32| Ok::<_, io::Error>(pace.ran(shape.expected(n), thread.call(1)?));
        let mut outcome = None;
        committed(|| {
            // SAFETY: the child calls nothing but read, write and _exit.
            child = check(unsafe { libc::fork() }.into())? as libc::pid_t;
            if child == 0 {
                ready.write_all(&[0])?;
                return stored.read_exact(&mut [0]);
            }
            // What the fork does to the executor's page tables is over, and the child has run: its page faults take
            // longer than a tick, and need not be taken between the change and the execution.
            is_ready.read_exact(&mut [0])?;
            change = pace.next();
            let Some(n) = change else { return stores.write_all(&[0]) };
            thread.call(0)?;
            shape.store(n);
            stores.write_all(&[0])?;
            came_back.read_exact(&mut [0])?;
            if runs == Runs::BeforeTheParentReturns {
                outcome = run(&mut pace, n)?;
            }
            Ok(())
        })?;
        if child == 0 {
            let _ = comes_back.write_all(&[0]);
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(0) };
        }
        if let Some(n) = change.filter(|_| runs != Runs::BeforeTheParentReturns) {
            outcome = run(&mut pace, n)?;
        }
        wait_for(child)?;
        if outcome.is_some() || change.is_none() {
            return Ok(outcome.unwrap_or_else(|| pace.outcome()));
        }
    }
}
