//! `neighbour/`, and the rows like them: what the executor ran before the change is not what is changed, but stands in
//! the same chunk.

use crate::code_page::CodePage;
use crate::commit::committed;
use crate::executor::Executor;
use crate::outcome::Attempt;
use crate::pace::Pace;
use crate::sys::pin;
use icsan_guest_tests::code::x86::RET;
use icsan_guest_tests::code::{return_value, serialize};
use icsan_guest_tests::table::{WRITER, executor};
use std::io;

/// `mov eax, imm32; ret` at `instruction`; the neighbour, a RET, is at 0.
#[derive(Clone, Copy, Debug)]
struct Layout {
    instruction: usize,
}

/// Both in one chunk; the immediate straddles two aligned quadwords.
const SAME_CHUNK: Layout = Layout { instruction: 5 };
/// The neighbour in one chunk, the changed bytes of the instruction in the next.
const OTHER_CHUNK: Layout = Layout { instruction: 21 };
/// The neighbour in the first of the two chunks that the immediate straddles.
const STRADDLING: Layout = Layout { instruction: 13 };

/// The executor runs the neighbour; the writer changes the instruction; the executor runs that.
fn run(
    layout: Layout,
    between: Option<fn()>,
    good: bool,
    store: fn(&CodePage, usize, u32) -> io::Result<()>,
) -> Attempt {
    pin(WRITER)?;
    let page = CodePage::anonymous(1)?;
    page.store8(0, RET);
    page.store_bytes(layout.instruction, &return_value(0));
    let (neighbour, function) = (page.function(0), page.function(layout.instruction));
    let executor = Executor::start(executor(2), move |changed| {
        if changed == 0 {
            serialize();
            return neighbour(0);
        }
        if let Some(between) = between {
            between();
        }
        function(0)
    })?;
    let mut pace = if good { Pace::of_good() } else { Pace::of_bad() };
    while let Some(n) = pace.next() {
        let value = u32::from(n as u8) * 0x0101_0101;
        executor.call(0)?;
        store(&page, layout.instruction + 1, value)?;
        let got = executor.call(1)?;
        if let Some(outcome) = pace.ran(value.into(), got) {
            return Ok(outcome);
        }
    }
    drop(executor);
    Ok(pace.outcome())
}

fn once(page: &CodePage, at: usize, value: u32) -> io::Result<()> {
    page.store32(at, value);
    Ok(())
}

/// The chunk that was run first is stored first, so its old half never stood beside the new one.
fn halves(page: &CodePage, at: usize, value: u32) -> io::Result<()> {
    page.store16(at, value as u16);
    page.store16(at + 2, (value >> 16) as u16);
    Ok(())
}

/// One store into the chunk that holds the neighbour.
pub fn in_chunk(fenced: bool) -> Attempt {
    run(SAME_CHUNK, fenced.then_some(serialize as fn()), fenced, once)
}

/// One store into the next chunk, which no CPU brought in.
pub fn in_other_chunk() -> Attempt {
    run(OTHER_CHUNK, None, true, once)
}

/// Two stores, one into each chunk.
pub fn torn(fenced: bool) -> Attempt {
    run(STRADDLING, fenced.then_some(serialize as fn()), fenced, halves)
}

/// One store, committed.
pub fn stale() -> Attempt {
    run(SAME_CHUNK, None, false, |page, at, value| committed(|| once(page, at, value)))
}
