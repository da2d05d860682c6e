//! QEMU's note of each access's value, left out where no callback asks for it.
//!
//! While an instruction is translated for a plugin, QEMU's generator adds to each of its loads and stores code that
//! notes the value that was read or written, in case a plugin asks for callbacks on accesses when the block is
//! complete (`plugin_gen_mem_callbacks`, tcg/tcg-op-ldst.c). None does in the light mode, nor, but for a few
//! instructions, where stores are trapped. The generator asks whether
//! there is a `tcg_ctx->plugin_insn`; it is there from `plugin_gen_insn_start(cpu, db)` to `plugin_gen_insn_end()`, and
//! is taken away between the two, and put back.
//!
//! **What is relied on**: in the translator's context (the thread-local `tcg_ctx`) the pointer `plugin_insn` lies right
//! behind `plugin_db`, which is `db`; the first word of what it points to is the instruction's address, and that is the
//! third word of `db` (`pc_next`). The second one is the address of the block's first instruction, and the seventh
//! where that is in the host's memory: by these it is seen which instruction begins, and some keep their notes. **How
//! it is proven**: the place is looked for at the first instruction, by all three; it must be one only, and hold the
//! same at each further instruction. If it does not, the note stays: that costs time, and no verdict.

use super::trapped_stores::PAGE;
use super::{HookError, are_on, exported, to_ours};
use crate::qemu::api::find;
use crate::qemu::host::detour::Detour;
use libc::c_void;
use std::cell::Cell;
use std::ffi::CStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

type Start = unsafe extern "C" fn(*mut c_void, *mut c_void);
type End = unsafe extern "C" fn();

static START: AtomicUsize = AtomicUsize::new(0);
static END: AtomicUsize = AtomicUsize::new(0);

const CONTEXT: &CStr = c"tcg_ctx";
/// Words of the context among which the place is; it has many more.
const WORDS: usize = 128;
/// The word of `DisasContextBase` that holds the address of the instruction being translated.
const PC_NEXT: usize = 2;

/// The word of the context that is `plugin_db`. 0: not looked for yet.
static PLACE: AtomicUsize = AtomicUsize::new(0);
/// It was not found, or did not hold what it should.
const NOWHERE: usize = usize::MAX;

/// No callback on an access is asked for.
static UNWANTED: AtomicBool = AtomicBool::new(false);

/// From the next block on: will callbacks on accesses be asked for, of any instruction but those that are `kept`?
pub fn is_wanted(wanted: bool, kept: Kept) {
    let _ = KEPT.set(kept);
    UNWANTED.store(!wanted, Ordering::Relaxed);
}

/// Does an instruction that these bytes begin with keep its notes?
pub type Kept = fn(&[u8]) -> bool;
static KEPT: OnceLock<Kept> = OnceLock::new();

/// The word of `DisasContextBase` that holds the address of the block's first instruction, and the one that holds where
/// that is in the host's memory (`host_addr[0]`).
const PC_FIRST: usize = 1;
const HOST_ADDR: usize = 6;
/// Bytes that tell whether an instruction is kept; what begins nearer to the end of its page is.
const TELLING: u64 = 16;

/// # Safety
/// `db` is that of the block under translation.
unsafe fn is_kept(db: *mut c_void) -> bool {
    let Some(kept) = KEPT.get() else { return true };
    // SAFETY: the caller's promise. The host's address is that of the guest's page, which is whole in the host's
    // memory.
    unsafe {
        let word = |index: usize| db.cast::<u64>().add(index).read();
        let (first, next, host) = (word(PC_FIRST), word(PC_NEXT), word(HOST_ADDR));
        if host == 0 || first / PAGE != next / PAGE || next % PAGE > PAGE - TELLING {
            return true;
        }
        let at = (host + (next - first)) as *const u8;
        // Other vCPUs may store there; single bytes have no invalid values.
        let bytes: [u8; TELLING as usize] = std::array::from_fn(|offset| at.add(offset).read_volatile());
        kept(&bytes)
    }
}

/// Instructions that were translated without notes.
static WITHOUT: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// The context of this thread.
    static CONTEXT_OF: Cell<*mut *mut c_void> = const { Cell::new(std::ptr::null_mut()) };
    /// What was taken away.
    static TAKEN: Cell<*mut c_void> = const { Cell::new(std::ptr::null_mut()) };
}

/// # Errors
/// A function is missing.
pub(super) fn detours() -> Result<Vec<Detour>, HookError> {
    exported(CONTEXT)?;
    Ok(vec![
        to_ours(c"plugin_gen_insn_start", start as *const () as usize, &START)?,
        to_ours(c"plugin_gen_insn_end", end as *const () as usize, &END)?,
    ])
}

/// The words of this thread's context.
fn context() -> Option<*mut *mut c_void> {
    let known = CONTEXT_OF.get();
    if !known.is_null() {
        return Some(known);
    }
    // SAFETY: dlsym gives this thread's instance of a thread-local variable; it is a pointer, which is set before the
    // thread translates anything and does not change.
    let context = unsafe { find(CONTEXT).ok()?.cast::<*mut *mut c_void>().read() };
    CONTEXT_OF.set(context);
    (!context.is_null()).then_some(context)
}

/// Does the word of the context hold `db`, and the next one an instruction at the address that `db` is at?
///
/// # Safety
/// `context` is the translator's, with a `word` and another one; `db` is that of the block under translation.
unsafe fn is_place(context: *mut *mut c_void, word: usize, db: *mut c_void) -> bool {
    // SAFETY: the caller's promise. What comes behind a pointer to `db` is read only if it can be one: `plugin_insn`
    // has just been set.
    unsafe {
        let instruction = context.add(word + 1).read();
        context.add(word).read() == db
            && !instruction.is_null()
            && (instruction as usize).is_multiple_of(align_of::<u64>())
            && instruction.cast::<u64>().read() == db.cast::<u64>().add(PC_NEXT).read()
    }
}

unsafe extern "C" fn start(cpu: *mut c_void, db: *mut c_void) {
    // SAFETY: what the detour left there is the function of this type, moved; QEMU's own arguments.
    unsafe { std::mem::transmute::<usize, Start>(START.load(Ordering::Relaxed))(cpu, db) };
    TAKEN.set(std::ptr::null_mut());
    let mut place = PLACE.load(Ordering::Relaxed);
    if place == NOWHERE || !UNWANTED.load(Ordering::Relaxed) || !are_on() {
        return;
    }
    let Some(context) = context() else { return };
    if place == 0 {
        // SAFETY: the context has more words than these.
        let mut found = (1..WORDS).filter(|word| unsafe { context.add(*word).read() } == db);
        place = match (found.next(), found.next()) {
            (Some(only), None) => only,
            _ => NOWHERE,
        };
        PLACE.store(place, Ordering::Relaxed);
    }
    // SAFETY: a place among the words of the context.
    if place == NOWHERE || !unsafe { is_place(context, place, db) } {
        PLACE.store(NOWHERE, Ordering::Relaxed);
        return;
    }
    // SAFETY: the block under translation.
    if unsafe { is_kept(db) } {
        return;
    }
    // SAFETY: the place of `plugin_insn`; only this thread translates with this context.
    unsafe { TAKEN.set(context.add(place + 1).replace(std::ptr::null_mut())) };
    WITHOUT.fetch_add(1, Ordering::Relaxed);
}

unsafe extern "C" fn end() {
    let taken = TAKEN.replace(std::ptr::null_mut());
    if !taken.is_null()
        && let Some(context) = context()
    {
        // SAFETY: where it was taken from.
        unsafe { context.add(PLACE.load(Ordering::Relaxed) + 1).write(taken) };
    }
    // SAFETY: as in `start`.
    unsafe { std::mem::transmute::<usize, End>(END.load(Ordering::Relaxed))() };
}

/// How many instructions were translated without notes.
#[must_use]
pub fn left_out() -> u64 {
    WITHOUT.load(Ordering::Relaxed)
}
