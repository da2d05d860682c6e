//! Slots in QEMU's scoreboards: for every segment a flag and a first fetch for each vCPU. QEMU's generated code tests
//! the flag before it calls back. What they mean is in [`icsan_model::detector::flags`]; here is where they lie.
//!
//! The flags lie in scoreboards of QEMU's, close together, since they are looked at on every execution of a block. The
//! first fetches, and for each vCPU a list of the slots whose flag is set, so that they can all be cleared at once, are
//! touched only when a callback comes and lie elsewhere. All of it is set and cleared by the vCPU's own thread, without
//! a lock: only a [`CurrentVcpu`] opens it.

use super::api::api;
use super::cpu::CurrentVcpu;
use super::fence;
use icsan_model::addr::Vcpu;
use icsan_model::detector::flags::{Board, OwnBoard, SetSlots, Slot, SlotId};
use qemu_plugin_sys as sys;
use std::cell::UnsafeCell;
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

/// QEMU allocates scoreboards for so many vCPUs at first (plugins/core.c), and moves them when a vCPU beyond that
/// appears.
const NEVER_MOVED: usize = 16;

/// Slots of one scoreboard, a power of two: generated code then finds a vCPU's flags by a shift and not by a
/// multiplication. Scoreboards are made as slots are needed, since QEMU makes each for 16 vCPUs, and fills it: 8 MiB.
const BOARD: usize = 1 << 16;

/// The most slots that there can be: a bound on memory. Where QEMU may move scoreboards they all have to be made at
/// installation, and there are fewer.
const MOST: usize = 1 << 20;
const MOST_IF_MOVED: usize = 1 << 18;

/// One of QEMU's scoreboards.
#[derive(Debug)]
struct Score(*mut sys::qemu_plugin_scoreboard);

// SAFETY: the pointer is QEMU's handle, valid for the life of the process (never freed here). QEMU takes its own lock
// to change the table, and stops all vCPUs to move it.
unsafe impl Send for Score {}
// SAFETY: as above.
unsafe impl Sync for Score {}

impl Score {
    fn new() -> Option<Self> {
        // SAFETY: any size is valid; QEMU aborts the process if memory runs out.
        let score = unsafe { (api()?.qemu_plugin_scoreboard_new)(BOARD * size_of::<u64>()) };
        (!score.is_null()).then_some(Self(score))
    }
}

/// A vCPU's part of a scoreboard.
#[derive(Debug, Default)]
struct PartOfBoard {
    /// Its flags, once they were asked for; only where the scoreboard is never moved.
    flags: AtomicPtr<AtomicU64>,
    /// The first fetches.
    first_fetches: OnceLock<Box<[AtomicU64; BOARD]>>,
}

/// What is kept for a vCPU.
#[derive(Debug)]
struct Part {
    boards: Box<[PartOfBoard]>,
    /// The slots whose flag is set. Opened by the vCPU's own token only.
    set: UnsafeCell<SetSlots>,
}

/// A table of slots for each vCPU.
#[derive(Debug)]
pub struct Slots {
    boards: Box<[OnceLock<Score>]>,
    /// Will anybody ask since when?
    first_fetches: bool,
    parts: Box<[Part]>,
}

// SAFETY: flags and first fetches are atomics; the list of a vCPU's part is only touched with that vCPU's token, which
// does not leave its thread (see `VcpuSlots::push`).
unsafe impl Sync for Slots {}

impl Slots {
    /// Makes a table, for a machine that can have `vcpus`; `first_fetches`: will anybody ask since when? To be called
    /// at installation only. `None` outside of QEMU.
    #[must_use]
    pub fn new(vcpus: usize, first_fetches: bool) -> Option<Self> {
        let most = if vcpus > NEVER_MOVED { MOST_IF_MOVED } else { MOST };
        let boards: Box<[OnceLock<Score>]> = (0..most / BOARD).map(|_| OnceLock::new()).collect();
        let now = if vcpus > NEVER_MOVED { boards.len() } else { 1 };
        for board in &boards[..now] {
            let _ = board.set(Score::new()?);
        }
        let part =
            || Part { boards: (0..boards.len()).map(|_| PartOfBoard::default()).collect(), set: UnsafeCell::default() };
        let parts = (0..vcpus).map(|_| part()).collect();
        Some(Self { boards, first_fetches, parts })
    }

    /// Is there such a slot? It is made if it can be; slots are asked for in order. To be called in a translation
    /// callback.
    #[must_use]
    pub fn reserve(&self, slot: SlotId) -> bool {
        let Some(board) = self.boards.get(slot.0 as usize / BOARD) else { return false };
        // Making one takes QEMU's lock, whose holder waits for this vCPU only where scoreboards are moved; there all
        // exist.
        board.get().is_some() || Score::new().is_some_and(|made| board.set(made).is_ok())
    }

    /// A flag's place, as QEMU's conditional callbacks want it. `None`: it was not reserved.
    pub(super) fn entry(&self, slot: SlotId) -> Option<sys::qemu_plugin_u64> {
        let board = self.boards.get(slot.0 as usize / BOARD)?.get()?;
        Some(sys::qemu_plugin_u64 { score: board.0, offset: slot.0 as usize % BOARD * size_of::<u64>() })
    }

    /// The slots of the vCPU whose callback is running. `None`: a vCPU that the machine did not say it can have.
    #[inline(always)]
    #[must_use]
    pub fn of<'a>(&'a self, current: &'a CurrentVcpu) -> Option<VcpuSlots<'a>> {
        Some(VcpuSlots { slots: self, current, part: self.parts.get(usize::from(current.id().0))? })
    }

    /// A flag of a vCPU that has started. To be called in a callback of any vCPU: QEMU moves the table only while none
    /// runs.
    #[inline(always)]
    fn flag(&self, vcpu: Vcpu, part: &PartOfBoard, slot: SlotId) -> Option<&AtomicU64> {
        let mut flags = part.flags.load(Ordering::Relaxed);
        if flags.is_null() {
            flags = self.find(vcpu, part, slot)?;
        }
        // SAFETY: the vCPU's part of the scoreboard has BOARD u64s, all of them touched as atomics only, but for QEMU's
        // generated code, which reads them. It stays where it is while the callback runs, which is no shorter than the
        // answer lives.
        Some(unsafe { &*flags.add(slot.0 as usize % BOARD) })
    }

    /// Where the flags of a vCPU are.
    #[cold]
    #[inline(never)]
    fn find(&self, vcpu: Vcpu, part: &PartOfBoard, slot: SlotId) -> Option<*mut AtomicU64> {
        let board = self.boards.get(slot.0 as usize / BOARD)?.get()?;
        // SAFETY: the scoreboard is live, and the vCPU exists.
        let flags: *mut AtomicU64 = unsafe { (api()?.qemu_plugin_scoreboard_find)(board.0, u32::from(vcpu.0)) }.cast();
        if self.parts.len() <= NEVER_MOVED {
            part.flags.store(flags, Ordering::Relaxed);
        }
        (!flags.is_null()).then_some(flags)
    }
}

impl Board for Slots {
    type Word = AtomicU64;

    fn slot(&self, vcpu: Vcpu, id: SlotId) -> Option<Slot<'_, AtomicU64>> {
        let part = self.parts.get(usize::from(vcpu.0))?.boards.get(id.0 as usize / BOARD)?;
        let first_fetches = part.first_fetches.get()?;
        Some(Slot { id, flag: self.flag(vcpu, part, id)?, first_fetch: Some(&first_fetches[id.0 as usize % BOARD]) })
    }

    fn full(&self) {
        std::sync::atomic::fence(Ordering::SeqCst);
    }

    fn heavy(&self) {
        fence::heavy();
    }
}

/// The slots of the vCPU whose callback is running. Neither sent nor shared, as the token that it holds.
#[derive(Debug)]
pub struct VcpuSlots<'a> {
    slots: &'a Slots,
    current: &'a CurrentVcpu,
    part: &'a Part,
}

impl OwnBoard for VcpuSlots<'_> {
    type Word = AtomicU64;

    fn vcpu(&self) -> Vcpu {
        self.current.id()
    }

    fn slot(&self, id: SlotId) -> Option<Slot<'_, AtomicU64>> {
        let part = self.part.boards.get(id.0 as usize / BOARD)?;
        let flag = self.slots.flag(self.current.id(), part, id)?;
        let first_fetches = || part.first_fetches.get_or_init(|| Box::new([const { AtomicU64::new(0) }; BOARD]));
        Some(Slot { id, flag, first_fetch: self.slots.first_fetches.then(|| &first_fetches()[id.0 as usize % BOARD]) })
    }

    #[inline(always)]
    fn known(&self, id: SlotId) -> Option<Slot<'_, AtomicU64>> {
        let part = self.part.boards.get(id.0 as usize / BOARD)?;
        let flags = NonNull::new(part.flags.load(Ordering::Relaxed))?;
        let first_fetch =
            if self.slots.first_fetches { Some(&part.first_fetches.get()?[id.0 as usize % BOARD]) } else { None };
        // SAFETY: as in `Slots::flag`.
        Some(Slot { id, flag: unsafe { flags.add(id.0 as usize % BOARD).as_ref() }, first_fetch })
    }

    #[inline(always)]
    fn push(&self, id: SlotId) -> bool {
        // SAFETY: the vCPU's token is here, of which there is one, and it does not leave its thread; so nobody else is
        // in this list, and no reference to it outlives a method here.
        unsafe { (*self.part.set.get()).push(id) }
    }

    fn reserve(&self) {
        // SAFETY: as above.
        unsafe { (*self.part.set.get()).reserve() }
    }

    fn swap_list(&self, list: SetSlots) -> SetSlots {
        // SAFETY: as above.
        unsafe { std::mem::replace(&mut *self.part.set.get(), list) }
    }

    #[inline(always)]
    fn light(&self) {
        fence::light();
    }
}
