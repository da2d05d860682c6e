//! `commit/`: the moment at which the author of a patch takes it for done.

use crate::cross_modify::{HandOver, hand_over, hand_over_by};
use crate::membarrier::sync_core;
use crate::outcome::Attempt;
use crate::shape::{Kind, Shape};
use crate::sys::{Membarrier, membarrier};
use std::io;
use std::sync::Arc;

/// What is done inside of [`guest_patch_commit`], and what came of it.
struct Patch<'a> {
    step: &'a mut dyn FnMut() -> io::Result<()>,
    result: io::Result<()>,
}

/// The patching function that a plugin can be told of (`commit=guest_patch_commit`): when it returns, the stores that were made inside of it are done.
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
    hand_over(Kind::Imm32Split, HandOver { writer: sync_core, executor: || {}, serializes: true })
}

/// Across two chunks, with the one that only interrupts.
pub fn by_plain() -> Attempt {
    membarrier(Membarrier::RegisterPrivateExpedited)?;
    hand_over(Kind::Imm32Split, HandOver { writer: || membarrier(Membarrier::PrivateExpedited), executor: || {}, serializes: true })
}

/// One aligned store, by the function that commits.
pub fn by_symbol(how: HandOver) -> Attempt {
    let shape = Arc::new(Shape::new(Kind::Imm32)?);
    let theirs = Arc::clone(&shape);
    hand_over_by(how, &shape, shape.function(), move |n| {
        committed(|| {
            theirs.store(n);
            Ok(())
        })
    })
}
