//! `guard/`: a word says whether the code behind it may be entered (the shape of JDK-8310239).
//!
//! The patcher closes the guard, waits until the executor was turned away, changes the body and opens the guard. The
//! executor calls the function all the time; a closed guard returns 0 instead of running the body.

use crate::code_page::{CodePage, PAGE};
use crate::cross_modify::next_epoch;
use crate::executor::{SIGHT, Spinner, wait_until};
use crate::outcome::Attempt;
use crate::pace::Pace;
use crate::sys::{Membarrier, membarrier, pin};
use icsan_guest_tests::code::{pause, return_value, serialize};
use icsan_guest_tests::table::{WRITER, executor};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::Duration;

/// How long a scenario waits for what must come, on a busy host.
const PATIENCE: Duration = Duration::from_millis(500);

/// Where the body begins, where its immediate is, and the data guard: in another page than the code, so that closing it
/// stores to no code.
struct Layout {
    body_immediate: usize,
    guard: usize,
}

const OPEN: u32 = 0x0101_0101;
const CLOSED: u32 = 0xFEFE_FEFE;

/// `cmp dword ptr [rip + guard], OPEN; jne closed; mov eax, imm32; ret; closed: xor eax, eax; ret`
fn with_data_guard(page: &CodePage) -> Layout {
    let guard = PAGE;
    let [a, b, c, d] = (guard as u32 - 10).to_le_bytes();
    page.store_bytes(0, &[0x81, 0x3D, a, b, c, d, 1, 1, 1, 1]);
    // The body's immediate straddles two quadwords: 21 to 24.
    page.store_bytes(10, &[0x75, 26 - 12]);
    page.store_bytes(12, &[0x0F, 0x1F, 0x80, 0, 0, 0, 0, 0x90]);
    page.store_bytes(20, &return_value(OPEN));
    page.store_bytes(26, &[0x31, 0xC0, 0xC3]);
    page.store32(guard, OPEN);
    Layout { body_immediate: 21, guard }
}

/// `cmp edi, imm32; jne closed; mov eax, imm32; ret; closed: xor eax, eax; ret`, both immediates aligned
fn with_immediate_guard(page: &CodePage) -> Layout {
    page.store_bytes(0, &[0x66, 0x90, 0x81, 0xFF, 1, 1, 1, 1]);
    page.store_bytes(8, &[0x75, 21 - 10, 0x90, 0x90, 0x90, 0x90, 0x90]);
    page.store_bytes(15, &return_value(OPEN));
    page.store_bytes(21, &[0x31, 0xC0, 0xC3]);
    Layout { body_immediate: 16, guard: 4 }
}

/// The guard is data. With `fenced`, the executor leaves the slow path by CPUID.
pub fn data(fenced: bool) -> Attempt {
    guarded(with_data_guard, true, fenced)
}

/// The guard is an immediate operand.
pub fn immediate() -> Attempt {
    guarded(with_immediate_guard, false, false)
}

fn guarded(lay_out: fn(&CodePage) -> Layout, guard_is_data: bool, fenced: bool) -> Attempt {
    pin(WRITER)?;
    membarrier(Membarrier::RegisterSyncCore)?;
    let page = CodePage::anonymous(2)?;
    let layout = lay_out(&page);
    let function = page.function(0);
    let guard = page.address(layout.guard) as usize;
    let turned_away = Arc::new(AtomicU64::new(0));
    let theirs = Arc::clone(&turned_away);
    let spinner = Spinner::start(executor(2), move || {
        let value = function(u64::from(OPEN));
        if value == 0 {
            theirs.fetch_add(1, Release);
            if guard_is_data {
                // The slow path: wait for the guard as data.
                // SAFETY: the guard is an aligned word of the mapping that outlives this thread.
                while unsafe { (guard as *const u32).read_volatile() } != OPEN {
                    pause();
                }
                if fenced {
                    serialize();
                }
            }
        }
        value
    })?;
    let mut pace = if fenced { Pace::of_good() } else { Pace::of_bad() };
    // A new epoch each time, so that one store only separates the versions of a word: that is what AMD's exemption asks
    // for.
    while let Some(n) = next_epoch(&mut pace)? {
        // Never 0, which means turned away, and never what it was before.
        let value = (1 + n % 254) * 0x0101_0101;
        spinner.ran(2);
        let before = turned_away.load(Acquire);
        page.store32(layout.guard, CLOSED);
        // More than one for an immediate guard: the fetcher has surely seen it.
        let (times, limit) = if guard_is_data { (1, PATIENCE) } else { (3, SIGHT) };
        wait_until(limit, || turned_away.load(Acquire) >= before + times);
        page.store32(layout.body_immediate, value);
        page.store32(layout.guard, OPEN);
        let got = spinner.runs_into(value.into(), if fenced { PATIENCE } else { SIGHT });
        if let Some(outcome) = pace.ran(value.into(), got) {
            return Ok(outcome);
        }
    }
    drop(spinner);
    Ok(pace.outcome())
}
