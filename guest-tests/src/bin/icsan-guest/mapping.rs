//! `mapping/`: the code changes because the mapping does, or behind the mapping's back.

use crate::code_page::CodePage;
use crate::executor::Executor;
use crate::hand_over::{HandOver, hand_over_by, hand_over_paced, nothing};
use crate::membarrier::sync_core;
use crate::outcome::Attempt;
use crate::pace::Pace;
use crate::shape::{Kind, Shape};
use crate::sys::{Membarrier, membarrier, pin};
use icsan_guest_tests::code::{REMAPPING_SERIALIZES, return_value};
use icsan_guest_tests::table::{WRITER, executor};
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{Acquire, Release};

const SHAPE: Kind = Kind::PLAIN;

/// Nothing but what the kernel does. Where that serializes the executor, or it would be broken, the outcome is judged.
pub const BY_FLUSH: HandOver = HandOver { writer: nothing, executor: || {}, serializes: REMAPPING_SERIALIZES };

/// Each time a page at an address of its own. All of them stay mapped until the end.
pub fn fresh() -> Attempt {
    pin(WRITER)?;
    let target = Arc::new(AtomicUsize::new(0));
    let theirs = Arc::clone(&target);
    let executor = Executor::start(executor(2), move |_| {
        let function = theirs.load(Acquire);
        // SAFETY: the writer put a function there before it gave the command.
        let function = unsafe { std::mem::transmute::<usize, crate::code_page::Function>(function) };
        function(0)
    })?;
    let mut pages = Vec::new();
    let mut pace = Pace::of_good();
    while let Some(n) = pace.next() {
        let page = CodePage::anonymous(1)?;
        page.store_bytes(0, &return_value(n));
        page.publish(0, size_of_val(&return_value(n)));
        target.store(page.address(0) as usize, Release);
        pages.push(page);
        let got = executor.call(0)?;
        if let Some(outcome) = pace.ran(n.into(), got) {
            return Ok(outcome);
        }
    }
    drop(executor);
    Ok(pace.outcome())
}

/// A change of mappings takes system calls, so where the executor does not serialize it takes longer than others.
fn remapped(how: HandOver, shape: &Shape, change: impl Fn(u32) -> io::Result<()>) -> Attempt {
    let pace = if how.serializes { Pace::of_good() } else { Pace::of_bad() };
    hand_over_paced(how, pace, shape, shape.function(), change)
}

/// munmap, then mmap at the same address, then the new code.
pub fn unmap_and_map(how: HandOver) -> Attempt {
    let shape = Arc::new(Shape::new(SHAPE)?);
    let theirs = Arc::clone(&shape);
    remapped(how, &shape, move |n| {
        theirs.page().map_again()?;
        theirs.lay_out();
        theirs.store(n);
        Ok(())
    })
}

/// mmap with MAP_FIXED of a file that holds the new code already. The executor's page fault serializes, if nothing does
/// before.
pub fn map_fixed() -> Attempt {
    let how = HandOver { serializes: true, ..BY_FLUSH };
    let shape = Arc::new(Shape::on(SHAPE, CodePage::aliased()?));
    let theirs = Arc::clone(&shape);
    hand_over_by(how, &shape, shape.function(), move |n| {
        let next = Shape::on(SHAPE, CodePage::aliased()?);
        next.store(n);
        theirs.page().map_over(next.page())
    })
}

/// mremap over it.
pub fn moved(how: HandOver) -> Attempt {
    let shape = Arc::new(Shape::new(SHAPE)?);
    let theirs = Arc::clone(&shape);
    remapped(how, &shape, move |n| {
        let next = Shape::new(SHAPE)?;
        next.store(n);
        theirs.page().move_here(next.into_page())
    })
}

/// Never writable and executable at once.
pub fn flip(how: HandOver) -> Attempt {
    let shape = Arc::new(Shape::new(SHAPE)?);
    shape.page().protect(false)?;
    let theirs = Arc::clone(&shape);
    remapped(how, &shape, move |n| {
        theirs.page().protect(true)?;
        theirs.store(n);
        theirs.page().protect(false)
    })
}

/// The kernel stores into the executor's page, by a system call of the writer's.
pub fn pwrite(how: HandOver) -> Attempt {
    let shape = Arc::new(Shape::on(SHAPE, CodePage::aliased()?));
    let theirs = Arc::clone(&shape);
    hand_over_by(how, &shape, shape.function(), move |n| {
        theirs.page().pwrite(theirs.site(), &theirs.bytes(n))?;
        theirs.publish();
        Ok(())
    })
}

/// Without a sync.
pub fn pwrite_only() -> Attempt {
    pwrite(HandOver { writer: nothing, executor: || {}, serializes: false })
}

/// With one.
pub fn pwrite_and_sync() -> Attempt {
    membarrier(Membarrier::RegisterSyncCore)?;
    pwrite(HandOver { writer: sync_core, executor: || {}, serializes: true })
}
