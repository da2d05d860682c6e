//! `int3/`: the one-byte breakpoint protocol in user space, with a SIGTRAP handler that carries out the new
//! instruction.
//!
//! The site straddles two chunks: byte 0 and 1 of the instruction in the first, the rest in the second. That is where a
//! missing sync shows. The function takes a second way past the site, which brings both chunks into the executor's
//! buffers without running it.

use crate::code_page::CodePage;
use crate::commit::committed;
use crate::executor::{Executor, Spinner};
use crate::membarrier::sync_core;
use crate::outcome::{Attempt, wrong};
use crate::pace::Pace;
use crate::sys::{Membarrier, check, membarrier, pin};
use crate::x86::shape::{FELL_THROUGH, JMP_PAGES, JMP5, JUMPED, NOP5, jump_target, lay_out_jump};
use icsan_guest_tests::code::return_value;
use icsan_guest_tests::table::{WRITER, executor};
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// Offset of the site.
const SITE: usize = 14;
/// Argument: run through the site.
const THROUGH: u64 = 0;
/// Argument: go past the site.
const PAST: u64 = 1;

/// Address of the site, for the handler.
static SITE_ADDRESS: AtomicUsize = AtomicUsize::new(0);
/// Where the handler resumes: what the new instruction would do.
static RESUME: AtomicUsize = AtomicUsize::new(0);
/// Breakpoints taken.
static TRAPS: AtomicUsize = AtomicUsize::new(0);
/// What the patcher thinks: not 0 while a breakpoint may be met.
static ACTIVE: AtomicUsize = AtomicUsize::new(0);
/// Breakpoints taken after the patch that planted them ended.
static STRAY: AtomicUsize = AtomicUsize::new(0);

extern "C" fn on_trap(_signal: libc::c_int, _info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid context to a handler installed with SA_SIGINFO.
    let rip = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs[libc::REG_RIP as usize] };
    if *rip as usize - 1 != SITE_ADDRESS.load(Relaxed) {
        // SAFETY: ends the process at once. No breakpoint of this scenario's.
        unsafe { libc::_exit(3) };
    }
    if ACTIVE.load(Acquire) == 0 {
        STRAY.fetch_add(1, Relaxed);
    }
    *rip = RESUME.load(Acquire) as i64;
    TRAPS.fetch_add(1, Release);
}

/// What is wrong about that.
const BREAKPOINT_GONE: &str = "a breakpoint that was gone";

#[derive(Debug)]
struct Site {
    page: CodePage,
}

impl Site {
    fn new() -> io::Result<Self> {
        membarrier(Membarrier::RegisterSyncCore)?;
        let page = CodePage::anonymous(JMP_PAGES)?;
        // test edi, edi; jnz past; NOP of ten bytes; the site. Past it, in the second chunk: mov eax, 3; ret.
        page.store_bytes(0, &[0x85, 0xFF, 0x75, 25 - 4, 0x66, 0x2E, 0x0F, 0x1F, 0x84, 0, 0, 0, 0, 0]);
        lay_out_jump(&page, SITE);
        page.store_bytes(25, &return_value(3));
        SITE_ADDRESS.store(page.address(SITE) as usize, Release);
        // SAFETY: sigaction is plain data, for which all zero is valid.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = on_trap as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        // SAFETY: the handler only touches its context and atomics.
        check(unsafe { libc::sigaction(libc::SIGTRAP, &action, std::ptr::null_mut()) }.into())?;
        Ok(Self { page })
    }

    fn instruction(version: u32) -> [u8; 5] {
        if version % 2 == 1 { JMP5 } else { NOP5 }
    }

    fn expected(version: u32) -> u64 {
        if version % 2 == 1 { JUMPED } else { FELL_THROUGH }
    }

    fn breakpoint(&self, version: u32) {
        RESUME.store(self.page.address(jump_target(SITE, version)) as usize, Release);
        ACTIVE.store(1, Release);
        self.page.store8(SITE, 0xCC);
    }

    fn tail(&self, version: u32) {
        self.page.store_bytes(SITE + 1, &Self::instruction(version)[1..]);
    }

    fn first_byte(&self, version: u32) {
        self.page.store8(SITE, Self::instruction(version)[0]);
    }
}

/// The whole protocol, under a spinning thread that meets the breakpoint each time.
pub fn complete() -> Attempt {
    pin(WRITER)?;
    let site = Site::new()?;
    let function = site.page.function(0);
    let spinner = Spinner::start(executor(2), move || function(THROUGH))?;
    let mut pace = Pace::of_judged();
    while let Some(n) = pace.next() {
        spinner.ran(2);
        let traps = TRAPS.load(Acquire);
        committed(|| {
            site.breakpoint(n);
            crate::executor::wait_until(crate::executor::SIGHT, || TRAPS.load(Acquire) != traps);
            sync_core()?;
            site.tail(n);
            sync_core()?;
            site.first_byte(n);
            sync_core()?;
            ACTIVE.store(0, Release);
            Ok(())
        })?;
        // The run that is under way may have met the breakpoint before the last sync; the ones after it may not.
        spinner.ran(2);
        let stray = STRAY.swap(0, Relaxed);
        let (got, expected) = (spinner.last(), Site::expected(n));
        let why = || if stray > 1 { BREAKPOINT_GONE.into() } else { wrong(expected, got) };
        if let Some(outcome) = pace.saw(got == expected && stray <= 1, why) {
            return Ok(outcome);
        }
    }
    drop(spinner);
    Ok(pace.outcome())
}

/// Which sync is left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Missing {
    /// The one after the breakpoint.
    First,
    /// The one after the tail.
    Second,
    /// The one after the first byte.
    Third,
    /// All of them.
    All,
}

/// The stores and the syncs, up to the moment at which the patch is called done. Answers with what the site did before
/// that, if it was run.
fn steps(missing: Missing, site: &Site, executor: &Executor, n: u32) -> io::Result<Option<u64>> {
    let mut between = None;
    site.breakpoint(n);
    if matches!(missing, Missing::Second | Missing::Third) {
        sync_core()?;
    }
    if missing == Missing::Second {
        // Brings the old tail in.
        executor.call(PAST)?;
    }
    site.tail(n);
    if missing == Missing::First {
        // The old first byte may still be there, and the new tail is.
        between = Some(executor.call(THROUGH)?);
    }
    if matches!(missing, Missing::First | Missing::Third) {
        sync_core()?;
    }
    if missing == Missing::Third {
        // Brings the breakpoint in.
        executor.call(PAST)?;
    }
    site.first_byte(n);
    if missing == Missing::First {
        sync_core()?;
    }
    if missing == Missing::Third {
        ACTIVE.store(0, Release);
    }
    Ok(between)
}

/// The protocol with something left out, step by step, so that the executor is surely where it hurts.
pub fn without(missing: Missing) -> Attempt {
    pin(WRITER)?;
    let site = Arc::new(Site::new()?);
    let function = site.page.function(0);
    let executor = Executor::start(executor(2), move |way| function(way))?;
    let mut pace = Pace::of_bad();
    while let Some(n) = pace.next() {
        executor.call(THROUGH)?;
        let mut between = None;
        if missing == Missing::Third {
            committed(|| steps(missing, &site, &executor, n).map(drop))?;
        } else {
            between = steps(missing, &site, &executor, n)?;
        }
        let got = executor.call(THROUGH)?;
        if missing == Missing::Second {
            sync_core()?;
        }
        ACTIVE.store(0, Release);
        let stray = STRAY.swap(0, Relaxed);
        // While it is being patched the site may do what it did, or what it will do.
        let torn = between.filter(|got| ![Site::expected(n - 1), Site::expected(n)].contains(got));
        let (got, expected) = (torn.unwrap_or(got), Site::expected(n));
        let why = || if stray > 0 { BREAKPOINT_GONE.into() } else { wrong(expected, got) };
        if let Some(outcome) = pace.saw(got == expected && stray == 0, why) {
            return Ok(outcome);
        }
    }
    drop(executor);
    Ok(pace.outcome())
}
