//! QEMU's own stale translations, closed (docs/emulator.md has the argument).
//!
//! QEMU protects a page with code against stores only when a block of it is complete, and drops blocks *before* the
//! store that it traps is made. A block that is decoded in one of these two moments holds bytes that memory does not
//! hold any more, and nothing drops it. Three of QEMU's functions are hooked here:
//!
//! - `tb_lock_page0(page)` and `tb_lock_page1(page0, page1)`, which lock the pages of a block before QEMU decodes what
//!   is in them: with the lock held, the translation is counted and the page is protected
//!   (`tlb_protect_code`), *before* anything is decoded.
//! - `tb_invalidate_phys_range_fast(ram, size, return address)` (11.1: the vCPU first), which `notdirty_write()` calls
//!   before a store to a protected page is made: the store is announced, with the count of its page. After it was made
//!   ([`super::store_helpers`]) the count is looked at again: if a translation began in between, what it made is
//!   dropped once more. It cannot be missed: the translation holds the page's lock until its block can be found, and
//!   dropping waits for that.
//!
//! A `ram` address is QEMU's `ram_addr_t`: bytes in all of the machine's RAM and ROM, whatever its physical addresses.

use super::trapped_stores::StoredBy;
use super::{HookError, are_on, break_down, exported, locked_pages, to_ours, trapped_stores};
use crate::qemu::api::Generation;
use crate::qemu::current;
use crate::qemu::host::detour::Detour;
use icsan_model::addr::Phys;
use libc::c_void;
use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};

/// QEMU's page of translated code, in bytes: that of all machines whose QEMU is hooked.
const PAGE: u64 = 4096;

type LockPage0 = unsafe extern "C" fn(u64);
type LockPage1 = unsafe extern "C" fn(u64, u64);
type InvalidateV4 = unsafe extern "C" fn(u64, u32, usize);
type InvalidateV7 = unsafe extern "C" fn(*mut c_void, u64, u32, usize);

static LOCK_PAGE0: AtomicUsize = AtomicUsize::new(0);
static LOCK_PAGE1: AtomicUsize = AtomicUsize::new(0);
static INVALIDATE: AtomicUsize = AtomicUsize::new(0);
/// Does the function to drop blocks take the vCPU?
static TAKES_CPU: AtomicBool = AtomicBool::new(false);

/// What is called besides.
#[derive(Clone, Copy, Debug)]
struct Functions {
    /// `void tlb_protect_code(ram_addr_t)`.
    protect: unsafe extern "C" fn(u64),
    /// `void tlb_reset_dirty(CPUState *, uintptr_t start, uintptr_t length)`: stores of a vCPU to that part of the
    /// host's memory are trapped again.
    trap_again: unsafe extern "C" fn(*mut c_void, usize, usize),
    /// `void *qemu_map_ram_ptr(RAMBlock *, ram_addr_t)`.
    host_of: unsafe extern "C" fn(*mut c_void, u64) -> *mut c_void,
    /// `ram_addr_t qemu_ram_addr_from_host(void *)`.
    ram_of: unsafe extern "C" fn(*mut c_void) -> u64,
}

static FUNCTIONS: OnceLock<Functions> = OnceLock::new();

/// Pages that share a count. A power of two.
const COUNTS: usize = 1 << 12;
/// How many translations began in a page.
static BEGUN: [AtomicU32; COUNTS] = [const { AtomicU32::new(0) }; COUNTS];
/// Stores after which blocks were dropped once more.
static DROPPED_AGAIN: AtomicU64 = AtomicU64::new(0);

/// A store to a page that QEMU protects, before it is made.
#[derive(Clone, Copy, Debug)]
struct Announced {
    ram: u64,
    len: u32,
    /// Where generated code goes on after it.
    back: usize,
    /// The count of its page.
    begun: u32,
    /// Where it is in physical memory, if its page is one whose stores are told of.
    place: Option<Phys>,
    /// The instruction, if so.
    by: Option<StoredBy>,
}

impl Announced {
    const NONE: Self = Self { ram: 0, len: 0, back: 0, begun: 0, place: None, by: None };
}

/// A store that a helper has made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Made {
    /// The address that the helper was given.
    pub linear: u64,
    /// The value that it was given; `None`: it is an operand.
    pub value: Option<u128>,
    /// How many bytes; `None`: as many as were announced, all in one page.
    pub len: Option<u64>,
    /// Where generated code goes on.
    pub back: usize,
}

/// A store has two parts at most; C helpers may announce several before the vCPU comes to a place where they can be
/// looked at.
const PENDING: usize = 8;

thread_local! {
    /// How many stores of this vCPU are announced and not looked at.
    static COUNT: Cell<usize> = const { Cell::new(0) };
    static STORES: Cell<[Announced; PENDING]> =
        const { Cell::new([Announced::NONE; PENDING]) };
}

/// # Errors
/// A function is missing.
pub(super) fn detours(generation: Generation) -> Result<Vec<Detour>, HookError> {
    // SAFETY: the functions of these names, with the types that they have in QEMU 10.0 and 11.1.
    let functions = unsafe {
        Functions {
            protect: std::mem::transmute::<usize, unsafe extern "C" fn(u64)>(exported(c"tlb_protect_code")?),
            trap_again: std::mem::transmute::<usize, unsafe extern "C" fn(*mut c_void, usize, usize)>(exported(
                c"tlb_reset_dirty",
            )?),
            host_of: std::mem::transmute::<usize, unsafe extern "C" fn(*mut c_void, u64) -> *mut c_void>(exported(
                c"qemu_map_ram_ptr",
            )?),
            ram_of: std::mem::transmute::<usize, unsafe extern "C" fn(*mut c_void) -> u64>(exported(
                c"qemu_ram_addr_from_host",
            )?),
        }
    };
    exported(current::CURRENT_CPU)?;
    let _ = FUNCTIONS.set(functions);
    let takes_cpu = generation >= Generation::V7;
    TAKES_CPU.store(takes_cpu, Ordering::Relaxed);
    let invalidate = if takes_cpu { invalidate_v7 as *const () } else { invalidate_v4 as *const () };
    Ok(vec![
        to_ours(c"tb_lock_page0", lock_page0 as *const () as usize, &LOCK_PAGE0)?,
        to_ours(c"tb_lock_page1", lock_page1 as *const () as usize, &LOCK_PAGE1)?,
        to_ours(c"tb_invalidate_phys_range_fast", invalidate as usize, &INVALIDATE)?,
    ])
}

fn slot(ram: u64) -> &'static AtomicU32 {
    &BEGUN[(ram / PAGE) as usize % COUNTS]
}

/// The vCPU has locked the page, and is about to decode what is in it.
fn begins(ram: u64) {
    // Before memory is read: a vCPU that stores counts after its store, so that either this translation sees the store,
    // or the storing vCPU sees that it began.
    slot(ram).fetch_add(1, Ordering::SeqCst);
    if let Some(functions) = FUNCTIONS.get() {
        // SAFETY: the function that links a block calls it in the same place, with the page's lock held.
        unsafe { (functions.protect)(ram & !(PAGE - 1)) };
    }
    fence(Ordering::SeqCst);
}

unsafe extern "C" fn lock_page0(page: u64) {
    settle();
    // SAFETY: the address that the detour left there is that of the function of this type, moved. It does not return
    // without the lock.
    unsafe { std::mem::transmute::<usize, LockPage0>(LOCK_PAGE0.load(Ordering::Relaxed))(page) };
    if are_on() {
        locked_pages::begins(page);
        begins(page);
    }
}

unsafe extern "C" fn lock_page1(page0: u64, page1: u64) {
    // SAFETY: as above. It may leave by longjmp: nothing is held here.
    unsafe { std::mem::transmute::<usize, LockPage1>(LOCK_PAGE1.load(Ordering::Relaxed))(page0, page1) };
    if are_on() {
        locked_pages::goes_on(page1);
        begins(page1);
    }
}

unsafe extern "C" fn invalidate_v4(ram: u64, len: u32, back: usize) {
    announce(ram, len, back);
    // SAFETY: as above; QEMU's own arguments. It may leave by longjmp: nothing is held here.
    unsafe { std::mem::transmute::<usize, InvalidateV4>(INVALIDATE.load(Ordering::Relaxed))(ram, len, back) }
}

unsafe extern "C" fn invalidate_v7(cpu: *mut c_void, ram: u64, len: u32, back: usize) {
    announce(ram, len, back);
    // SAFETY: as above.
    unsafe { std::mem::transmute::<usize, InvalidateV7>(INVALIDATE.load(Ordering::Relaxed))(cpu, ram, len, back) }
}

/// This vCPU is about to store there; generated code goes on at `back`, if it called.
fn announce(ram: u64, len: u32, back: usize) {
    if !are_on() {
        return;
    }
    if COUNT.get() == PENDING {
        // No store has so many parts: these were announced by helpers that check pages first.
        settle();
    }
    let (count, mut stores) = (COUNT.get(), STORES.get());
    let place = if trapped_stores::are_told() { trapped_stores::place(ram) } else { None };
    let by = place.and_then(|_| trapped_stores::stored_by(back));
    stores[count] = Announced { ram, len, back, begun: slot(ram).load(Ordering::SeqCst), place, by };
    STORES.set(stores);
    COUNT.set(count + 1);
}

/// Are stores of this vCPU announced that were not looked at?
#[inline]
pub(super) fn is_pending() -> bool {
    COUNT.get() != 0
}

/// Every store of this vCPU that was announced has been made. To be called on its own thread, where QEMU holds no lock
/// of a page.
#[inline]
pub fn settle() {
    if is_pending() {
        settle_all(None);
    }
}

/// A helper of this vCPU has made that store.
#[inline]
pub(super) fn made(made: Made) {
    if is_pending() {
        settle_all(Some(made));
    }
}

/// A store that was made, by what was announced of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Parts {
    len: u64,
    /// The part in the page that it begins in, and the one in the next.
    places: [Option<Phys>; 2],
    by: Option<StoredBy>,
}

impl Parts {
    /// Finds what was announced of a store in one page or in two. `None`: nothing that has a place. (A walk of the page
    /// tables on the store's behalf may have announced a store of its own, to an entry's bits.)
    fn of(announced: &[Announced], made: Made) -> Option<Self> {
        let start = made.linear % PAGE;
        // Atomic operations announce an address within the call instruction, and not the one behind it (GETPC_ADJ).
        let is_at = |back: usize| back == made.back || back + 2 == made.back;
        let part = |offset: u64, len: Option<u64>| {
            announced.iter().find(|part| {
                is_at(part.back) && part.ram % PAGE == offset && len.is_none_or(|len| len == u64::from(part.len))
            })
        };
        let first = part(start, made.len.map(|len| len.min(PAGE - start)));
        let beyond = made.len.and_then(|len| (start + len).checked_sub(PAGE)).filter(|beyond| *beyond > 0);
        let second = beyond.and_then(|beyond| part(0, Some(beyond)));
        let places = [first, second].map(|part| part.and_then(|part| part.place));
        places.iter().any(Option::is_some).then_some(())?;
        let len = made.len.or(first.map(|first| first.len.into()))?;
        Some(Self { len, places, by: [first, second].into_iter().flatten().find_map(|part| part.by) })
    }
}

#[cold]
fn settle_all(made: Option<Made>) {
    let stores = STORES.get();
    let count = COUNT.replace(0);
    // What was stored is seen before it is asked whether a translation began.
    fence(Ordering::SeqCst);
    if let Some(made) = made
        && let Some(Parts { len, places, by }) = Parts::of(&stores[..count], made)
    {
        trapped_stores::tells(made.linear, len, places, made.value, by);
    }
    for store in &stores[..count] {
        if slot(store.ram).load(Ordering::SeqCst) != store.begun {
            DROPPED_AGAIN.fetch_add(1, Ordering::Relaxed);
            drop_blocks(store.ram, store.len);
        }
    }
}

/// QEMU drops every block that has one of these bytes, and the vCPU's stores to their page are trapped from now on.
fn drop_blocks(ram: u64, len: u32) {
    let (Some(functions), Some(cpu)) = (FUNCTIONS.get(), current::object()) else { return };
    // SAFETY: QEMU's own function, in a place where it calls it, with no return address: the block that runs goes on to
    // its end. The page is RAM, since a store to it was trapped or a block lies in it; the vCPU is this thread's.
    unsafe {
        // While this vCPU took its page for one without code (`notdirty_write`), it may have become one with.
        let page = ram & !(PAGE - 1);
        let host = (functions.host_of)(std::ptr::null_mut(), page);
        (functions.trap_again)(cpu, host as usize, PAGE as usize);
        let invalidate = INVALIDATE.load(Ordering::Relaxed);
        if TAKES_CPU.load(Ordering::Relaxed) {
            std::mem::transmute::<usize, InvalidateV7>(invalidate)(cpu, ram, len, 0);
        } else {
            std::mem::transmute::<usize, InvalidateV4>(invalidate)(ram, len, 0);
        }
    }
}

/// A block that this vCPU was about to run is older than memory: it is dropped. `host`: where its first byte is in the
/// host's memory; `len`: its length. To be called where [`settle`] may be.
pub fn drop_outdated(host: usize, len: u64) {
    let Some(functions) = FUNCTIONS.get().filter(|_| are_on()) else { return };
    // SAFETY: any host address may be asked about.
    let ram = unsafe { (functions.ram_of)(host as *mut c_void) };
    if ram != u64::MAX {
        let len = len.min(PAGE - ram % PAGE) as u32;
        drop_blocks(ram, len);
    }
}

/// The vCPU whose thread this is translated a block whose first byte is at `host`. That must lie in the page that QEMU
/// locked for it.
pub fn prove(host: usize) {
    let Some(functions) = FUNCTIONS.get().filter(|_| are_on()) else { return };
    // SAFETY: any host address may be asked about.
    let ram = unsafe { (functions.ram_of)(host as *mut c_void) };
    if ram / PAGE != locked_pages::get()[0] / PAGE {
        break_down();
    }
}

/// How often blocks were dropped once more after a store.
#[must_use]
pub fn dropped_again() -> u64 {
    DROPPED_AGAIN.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use icsan_model::addr::Linear;

    const BACK: usize = 0x7000;
    const BY: Option<StoredBy> = Some(StoredBy { pc: Linear(0x40_0010), form: 0 });

    fn announced(ram: u64, len: u32, back: usize, place: Option<u64>) -> Announced {
        Announced { ram, len, back, begun: 0, place: place.map(Phys), by: place.and(BY) }
    }

    fn made(linear: u64, len: Option<u64>) -> Made {
        Made { linear, value: None, len, back: BACK }
    }

    #[test]
    fn a_store_is_known_by_all_that_was_announced_of_it() {
        let parts =
            |announced: &[Announced], made: Made| Parts::of(announced, made).map(|parts| (parts.len, parts.places));
        let one = announced(0x5ff8, 8, BACK, Some(0x9ff8));
        assert_eq!(parts(&[one], made(0x1ff8, Some(8))), Some((8, [Some(Phys(0x9ff8)), None])));
        assert_eq!(Parts::of(&[one], made(0x1ff8, Some(8))).unwrap().by, BY);
        // In two pages, in the first of them, in the second.
        let (first, second) = (announced(0x5ffe, 2, BACK, Some(0x9ffe)), announced(0x8000, 6, BACK, Some(0xa000)));
        let crossing = made(0x1ffe, Some(8));
        assert_eq!(parts(&[first, second], crossing), Some((8, [Some(Phys(0x9ffe)), Some(Phys(0xa000))])));
        assert_eq!(parts(&[first], crossing), Some((8, [Some(Phys(0x9ffe)), None])));
        assert_eq!(parts(&[second], crossing), Some((8, [None, Some(Phys(0xa000))])));
        // An atomic operation does not say how long it is, and is announced within its call.
        let atomic = announced(0x5010, 4, BACK - 2, Some(0x9010));
        assert_eq!(parts(&[atomic], made(0x1010, None)), Some((4, [Some(Phys(0x9010)), None])));
    }

    #[test]
    fn what_others_announced_is_not_the_stores() {
        let store = made(0x1f20, Some(4));
        for other in [
            // A walk of the page tables sets a bit in a page that holds code as well, at another offset, or at the
            // same.
            announced(0x5008, 1, 0, Some(0x9008)),
            announced(0x5f20, 1, 0, Some(0x9f20)),
            // Another length, another place in generated code, a page without code.
            announced(0x5f20, 8, BACK, Some(0x9f20)),
            announced(0x5f20, 4, BACK + 8, Some(0x9f20)),
            announced(0x5f20, 4, BACK, None),
        ] {
            assert_eq!(Parts::of(&[other], store), None, "{other:?}");
        }
        assert_eq!(Parts::of(&[], store), None);
    }
}
