//! Stores to code, told by QEMU's own trap: no callback is registered for any store.
//!
//! QEMU protects pages with code, and comes to `notdirty_write()` before each store to one. That a store is about to be
//! made is told by [`super::stale_translations`], that it has been made by [`super::store_helpers`]. Here it becomes
//! one that ICSAN knows: where in physical memory, and by which instruction.
//!
//! - **Pages that ICSAN takes for code stay protected** though QEMU has no block of theirs any more
//!   (`tlb_unprotect_code(ram)` is hooked, and passed on for other pages only): a vCPU may still hold what was there,
//!   and the next block must be compared with what is known.
//! - **Where it is**: when a block is translated, its pages are known both as QEMU locked them and by where they are in
//!   physical memory ([`watch`]); that is looked up again at the store.
//! - **By which instruction**: `tcg_tb_lookup(return address)` gives QEMU's block, of which it is known where its first
//!   instruction was translated: `plugin_gen_tb_start(vcpu, db)` is hooked, whose `db` begins with the block and that
//!   address. `cpu_unwind_state_data(vcpu, return address, words)` gives what the translator noted at the storing
//!   instruction; the first word is its address, or, in code that does not depend on where it is mapped, the address's
//!   part within the page.
//!
//! What is stored by no helper of [`super::store_helpers`] (a page that is checked first and written to later: FXSAVE,
//! DC ZVA) is announced, and told by nobody; no plugin callback is made for such a store either.

use super::{HookError, are_on, exported, locked_pages, to_ours};
use crate::arch::store_form::PLAIN;
use crate::qemu::cpu::{CurrentCpu, CurrentVcpu};
use crate::qemu::current;
use crate::qemu::guard::guard;
use crate::qemu::host::detour::Detour;
use icsan_model::addr::{Linear, Phys};
use libc::c_void;
use parking_lot::RwLock;
use rustc_hash::FxHashMap;
use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// See [`super::stale_translations`].
pub(super) const PAGE: u64 = 4096;

type Unprotect = unsafe extern "C" fn(u64);
static UNPROTECT: AtomicUsize = AtomicUsize::new(0);

/// `bool cpu_unwind_state_data(CPUState *, uintptr_t, uint64_t *)`.
/// `bool plugin_gen_tb_start(CPUState *, DisasContextBase *)`.
type Begin = unsafe extern "C" fn(*mut c_void, *mut c_void) -> bool;
static BEGIN: AtomicUsize = AtomicUsize::new(0);

/// `TranslationBlock *tcg_tb_lookup(uintptr_t)`.
type LookUp = unsafe extern "C" fn(usize) -> *mut c_void;
static LOOK_UP: OnceLock<LookUp> = OnceLock::new();

/// A block of QEMU's, by its address.
#[derive(Debug)]
struct Block {
    /// Where its first instruction was translated.
    start: Linear,
    /// Instructions in it that do not store plainly, by the last 12 bits of their addresses.
    forms: Vec<(u16, u8)>,
}

static BLOCKS: RwLock<Option<FxHashMap<usize, Block>>> = RwLock::new(None);

thread_local! {
    /// The block that the vCPU of this thread translates.
    static TRANSLATED: Cell<usize> = const { Cell::new(0) };
    /// The last instruction that this vCPU stored by: where generated code goes on behind it, and how often all of that
    /// had been dropped.
    static LATEST: Cell<Option<(usize, u64, StoredBy)>> = const { Cell::new(None) };
}

type Unwind = unsafe extern "C" fn(*mut c_void, usize, *mut u64) -> bool;
static UNWIND: OnceLock<Unwind> = OnceLock::new();
/// More words than any translator notes at an instruction.
const WORDS: usize = 16;

/// A store that was trapped, and has been made.
#[derive(Debug)]
pub struct Trapped {
    /// The vCPU that stored: the key to what is its own.
    pub vcpu: CurrentVcpu,
    /// Its address, as the instruction has it.
    pub linear: Linear,
    /// How many bytes, up to 16.
    pub len: u64,
    /// Where the part in each page lies: in the one that it begins in, and in the next. `None`: it has none there, or
    /// that page holds no code.
    pub parts: [Option<Phys>; 2],
    /// What the instruction stored, unless memory has to be asked; swapped, if the instruction swaps.
    pub value: Option<u128>,
    /// The instruction; `None`: no block made the store, or none that is known.
    pub by: Option<StoredBy>,
}

/// An instruction that stores.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoredBy {
    /// Its address, where it was translated.
    pub pc: Linear,
    /// The number of its [`StoreForm`](crate::arch::store_form::StoreForm).
    pub form: u8,
}

impl Trapped {
    /// The vCPU that stored. Its registers cannot be read.
    #[must_use]
    pub fn cpu(&self) -> CurrentCpu {
        // SAFETY: this value exists within the helper that made the store, on the vCPU's thread.
        unsafe { CurrentCpu::new(false) }
    }
}

/// Who is told of stores that are trapped.
pub trait TrapWatch: Sync {
    /// One has been made, by the vCPU whose thread this is.
    fn trapped(&self, store: &Trapped);
}

static WATCH: OnceLock<&'static dyn TrapWatch> = OnceLock::new();
static ARE_TOLD: AtomicBool = AtomicBool::new(false);

/// From now on this one is told, if there are hooks. To be called before anything is translated.
pub fn tell(watch: &'static dyn TrapWatch) {
    if are_on() && UNWIND.get().is_some() && WATCH.set(watch).is_ok() {
        ARE_TOLD.store(true, Ordering::Relaxed);
    }
}

/// Are stores to code told of in this way? Then no callbacks are needed for them.
#[inline]
#[must_use]
pub fn are_told() -> bool {
    ARE_TOLD.load(Ordering::Relaxed) && are_on()
}

/// Pages that have a bit of their own; others share them, which costs time and no store. 64 GiB.
const BITS: usize = 1 << 24;
static MAY_BE_CODE: [AtomicU64; BITS / 64] = [const { AtomicU64::new(0) }; BITS / 64];

/// Pages of code, by QEMU's address and by physical address.
#[derive(Debug, Default)]
struct Pages {
    by_ram: FxHashMap<u64, Phys>,
    by_phys: FxHashMap<Phys, u64>,
}

static PAGES: RwLock<Option<Pages>> = RwLock::new(None);

fn bit(page: u64) -> (&'static AtomicU64, u64) {
    let page = (page / PAGE) as usize % BITS;
    (&MAY_BE_CODE[page / 64], 1 << (page % 64))
}

/// The vCPU whose thread this is translates a block in these physical pages: the one that it begins in, and the next.
/// Stores to them are told of from now on. To be called before what they hold is read.
pub fn watch(pages: [Option<Phys>; 2]) {
    let locked = locked_pages::get();
    for (ram, phys) in locked.into_iter().zip(pages) {
        let Some(phys) = phys.map(|phys| phys.align_down(PAGE)).filter(|_| ram != locked_pages::NONE) else { continue };
        let ram = ram & !(PAGE - 1);
        let (word, mask) = bit(ram);
        let is_known = word.load(Ordering::Relaxed) & mask != 0
            && PAGES.read().as_ref().is_some_and(|pages| pages.by_ram.get(&ram) == Some(&phys));
        if is_known {
            continue;
        }
        let mut pages = PAGES.write();
        let pages = pages.get_or_insert_default();
        if let Some(before) = pages.by_ram.insert(ram, phys).filter(|before| *before != phys) {
            pages.by_phys.remove(&before);
        }
        pages.by_phys.insert(phys, ram);
        word.fetch_or(mask, Ordering::SeqCst);
    }
}

/// The physical page holds no code any more, and stores to it need not be told.
pub fn give_up(phys: Phys) {
    let mut pages = PAGES.write();
    let Some(pages) = pages.as_mut() else { return };
    if let Some(ram) = pages.by_phys.remove(&phys.align_down(PAGE)) {
        pages.by_ram.remove(&ram);
        let (word, mask) = bit(ram);
        if !pages.by_ram.keys().any(|other| bit(*other).0.as_ptr() == word.as_ptr() && bit(*other).1 == mask) {
            word.fetch_and(!mask, Ordering::SeqCst);
        }
    }
}

/// The physical address of a byte, if its page is one whose stores are told of.
pub(super) fn place(ram: u64) -> Option<Phys> {
    let (word, mask) = bit(ram);
    if word.load(Ordering::SeqCst) & mask == 0 {
        return None;
    }
    let page = *PAGES.read().as_ref()?.by_ram.get(&(ram & !(PAGE - 1)))?;
    Some(page.offset(ram % PAGE))
}

/// # Errors
/// A function is missing.
pub(super) fn detours() -> Result<Vec<Detour>, HookError> {
    // SAFETY: the functions of these names, with the types that they have in QEMU 10.0 and 11.1.
    let (unwind, look_up) = unsafe {
        (
            std::mem::transmute::<usize, Unwind>(exported(c"cpu_unwind_state_data")?),
            std::mem::transmute::<usize, LookUp>(exported(c"tcg_tb_lookup")?),
        )
    };
    let _ = UNWIND.set(unwind);
    let _ = LOOK_UP.set(look_up);
    Ok(vec![
        to_ours(c"tlb_unprotect_code", unprotect as *const () as usize, &UNPROTECT)?,
        to_ours(c"plugin_gen_tb_start", begin as *const () as usize, &BEGIN)?,
    ])
}

unsafe extern "C" fn unprotect(ram: u64) {
    if are_told() && place(ram).is_some() {
        return;
    }
    // SAFETY: what the detour left there is the function of this type, moved; QEMU's own argument.
    unsafe { std::mem::transmute::<usize, Unprotect>(UNPROTECT.load(Ordering::Relaxed))(ram) }
}

unsafe extern "C" fn begin(cpu: *mut c_void, db: *mut c_void) -> bool {
    if are_told() {
        // SAFETY: `db` begins with the block and the address of its first instruction (`DisasContextBase`).
        let (block, start) = unsafe { (db.cast::<usize>().read(), db.cast::<u64>().add(1).read()) };
        TRANSLATED.set(block);
        guard(|| {
            let block = (block, Block { start: Linear(start), forms: Vec::new() });
            BLOCKS.write().get_or_insert_default().extend([block]);
        });
    }
    // SAFETY: what the detour left there is the function of this type, moved; QEMU's own arguments.
    unsafe { std::mem::transmute::<usize, Begin>(BEGIN.load(Ordering::Relaxed))(cpu, db) }
}

/// The instructions that do not store plainly, of the block that the vCPU of this thread translates: their addresses,
/// and the numbers of their forms.
pub fn note_forms(forms: &[(Linear, u8)]) {
    if forms.is_empty() {
        return;
    }
    let mut blocks = BLOCKS.write();
    if let Some(block) = blocks.as_mut().and_then(|blocks| blocks.get_mut(&TRANSLATED.get())) {
        block.forms = forms.iter().map(|(at, form)| ((at.0 % PAGE) as u16, *form)).collect();
    }
}

/// How often QEMU dropped all blocks.
static FLUSHES: AtomicU64 = AtomicU64::new(0);

/// QEMU has dropped all blocks, and no vCPU runs one.
pub fn flushed() {
    FLUSHES.fetch_add(1, Ordering::Relaxed);
    if let Some(blocks) = BLOCKS.write().as_mut() {
        blocks.clear();
    }
}

/// The instruction of a block that goes on at `back`. `None`: `back` is not in a block that is known.
pub(super) fn stored_by(back: usize) -> Option<StoredBy> {
    // A loop stores by one instruction: generated code stays where it is until all of it is dropped.
    let flushes = FLUSHES.load(Ordering::Relaxed);
    if let Some((_, _, by)) = LATEST.get().filter(|(at, seen, _)| (*at, *seen) == (back, flushes)) {
        return Some(by);
    }
    let by = look_up(back)?;
    LATEST.set(Some((back, flushes, by)));
    Some(by)
}

fn look_up(back: usize) -> Option<StoredBy> {
    let (unwind, look_up, cpu) = (UNWIND.get()?, LOOK_UP.get()?, current::object()?);
    let mut words = [0; WORDS];
    // SAFETY: the vCPU is this thread's, and runs the block that `back` is in, if any; there is room for more words
    // than are written. The block is found by an address within its instruction's code.
    let block = unsafe {
        if !unwind(cpu, back, words.as_mut_ptr()) {
            return None;
        }
        look_up(back - 1)
    };
    let blocks = BLOCKS.read();
    let Block { start, forms } = blocks.as_ref()?.get(&(block as usize))?;
    let noted = words[0];
    let pc = if noted >= PAGE {
        Linear(noted)
    } else {
        let here = start.align_down(PAGE).offset(noted);
        // It begins in the block's second page.
        if here < *start { here.offset(PAGE) } else { here }
    };
    let form = forms.iter().find(|(at, _)| u64::from(*at) == pc.0 % PAGE).map_or(PLAIN, |(_, form)| *form);
    Some(StoredBy { pc, form })
}

/// A store of the vCPU whose thread this is has been made that was announced.
pub(super) fn tells(linear: u64, len: u64, parts: [Option<Phys>; 2], value: Option<u128>, by: Option<StoredBy>) {
    let (Some(watch), Some(vcpu)) = (WATCH.get(), current::vcpu()) else { return };
    guard(|| {
        // SAFETY: in a helper that the vCPU's block called, on the vCPU's thread; no callback of it runs, and this is
        // the one value.
        let vcpu = unsafe { CurrentVcpu::new(vcpu.0.into()) };
        watch.trapped(&Trapped { vcpu, linear: Linear(linear), len, parts, value, by });
    });
}
