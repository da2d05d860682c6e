//! Slots: for every watched run of code a flag and a moment for each vCPU. QEMU's generated code tests the flag before it calls back.
//!
//! The flags lie in scoreboards of QEMU's, close together, since they are looked at on every execution of a block. The moments, and for each vCPU a list of the slots
//! whose flag is set, so that they can all be cleared at once, are touched only when a callback comes and lie elsewhere.
//! All of it is touched by the vCPU's own thread, without a lock; others may look at flags and moments, and change a flag from [`Flag::Executed`] to [`Flag::LookAgain`].

use super::api::api;
use super::fence;
use icsan_model::addr::{Seq, Vcpu};
use qemu_plugin_sys as sys;
use std::cell::UnsafeCell;
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

/// Flags from this value on keep the callback from being called.
pub const DONE: u64 = 2;

/// Number of a slot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(transparent)]
pub struct SlotId(pub u32);

/// What a vCPU did with a run of code in its current epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum Flag {
    /// Nothing.
    Clear = 0,
    /// It executed the run, and then something happened to the code: look again.
    LookAgain = 1,
    /// It executed the run.
    Executed = DONE,
    /// It ran the block, but memory had other bytes. That is no evidence, and need not be looked at again in this epoch.
    Outlived = DONE + 1,
}

impl Flag {
    fn of(value: u64) -> Self {
        match value {
            0 => Self::Clear,
            1 => Self::LookAgain,
            DONE => Self::Executed,
            _ => Self::Outlived,
        }
    }

    /// Did the vCPU execute the run, with memory's bytes?
    #[must_use]
    pub fn executed(self) -> bool {
        matches!(self, Self::LookAgain | Self::Executed)
    }
}

/// QEMU allocates scoreboards for so many vCPUs at first (plugins/core.c), and moves them when a vCPU beyond that appears.
const NEVER_MOVED: usize = 16;

/// Slots of one scoreboard, a power of two: generated code then finds a vCPU's flags by a shift and not by a multiplication. Scoreboards are made as slots are needed, since QEMU
/// makes each for 16 vCPUs, and fills it: 8 MiB.
const BOARD: usize = 1 << 16;

/// The most slots that there can be: a bound on memory. Where QEMU may move scoreboards they all have to be made at installation, and there are fewer.
const MOST: usize = 1 << 20;
const MOST_IF_MOVED: usize = 1 << 18;

/// One of QEMU's scoreboards.
#[derive(Debug)]
struct Board(*mut sys::qemu_plugin_scoreboard);

// SAFETY: the pointer is QEMU's handle, valid for the life of the process (never freed here). QEMU takes its own lock to change the table, and stops all vCPUs to move it.
unsafe impl Send for Board {}
// SAFETY: as above.
unsafe impl Sync for Board {}

impl Board {
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
    /// For each slot the first execution in the last epoch with one. It stays when the flag is cleared.
    moments: OnceLock<Box<[AtomicU64; BOARD]>>,
}

/// What is kept for a vCPU.
#[derive(Debug)]
struct Part {
    boards: Box<[PartOfBoard]>,
    /// The slots whose flag is set. The vCPU's own thread only.
    set: UnsafeCell<Vec<SlotId>>,
    /// Does it execute anything at present?
    runs: AtomicBool,
}

/// A table of slots for each vCPU.
#[derive(Debug)]
pub struct Slots {
    boards: Box<[OnceLock<Board>]>,
    /// Will anybody ask since when?
    moments: bool,
    parts: Box<[Part]>,
}

// SAFETY: flags and moments are atomics; the list of a vCPU's part is only touched from that vCPU's thread (see `VcpuSlots`).
unsafe impl Sync for Slots {}

impl Slots {
    /// Makes a table, for a machine that can have `vcpus`; `moments`: will anybody ask since when? To be called at installation only. `None` outside of QEMU.
    #[must_use]
    pub fn new(vcpus: usize, moments: bool) -> Option<Self> {
        let most = if vcpus > NEVER_MOVED { MOST_IF_MOVED } else { MOST };
        let boards: Box<[OnceLock<Board>]> = (0..most / BOARD).map(|_| OnceLock::new()).collect();
        let now = if vcpus > NEVER_MOVED { boards.len() } else { 1 };
        for board in &boards[..now] {
            let _ = board.set(Board::new()?);
        }
        let part = || Part {
            boards: (0..boards.len()).map(|_| PartOfBoard::default()).collect(),
            set: UnsafeCell::default(),
            runs: AtomicBool::new(false),
        };
        let parts = (0..vcpus).map(|_| part()).collect();
        Some(Self { boards, moments, parts })
    }

    /// Is there such a slot? It is made if it can be; slots are asked for in order. To be called in a translation callback.
    #[must_use]
    pub fn reserve(&self, slot: SlotId) -> bool {
        let Some(board) = self.boards.get(slot.0 as usize / BOARD) else { return false };
        // Making one takes QEMU's lock, whose holder waits for this vCPU only where scoreboards are moved; there all exist.
        board.get().is_some() || Board::new().is_some_and(|made| board.set(made).is_ok())
    }

    /// A flag's place, as QEMU's conditional callbacks want it. `None`: it was not reserved.
    pub(super) fn entry(&self, slot: SlotId) -> Option<sys::qemu_plugin_u64> {
        let board = self.boards.get(slot.0 as usize / BOARD)?.get()?;
        Some(sys::qemu_plugin_u64 { score: board.0, offset: slot.0 as usize % BOARD * size_of::<u64>() })
    }

    /// The slots of the vCPU whose callback is running.
    #[inline(always)]
    #[must_use]
    pub fn of(&self, vcpu: Vcpu) -> Option<VcpuSlots<'_>> {
        Some(VcpuSlots { slots: self, vcpu, part: self.parts.get(usize::from(vcpu.0))? })
    }

    /// A vCPU runs, or sleeps, from now on. Called by its own thread, which executes nothing while it sleeps.
    pub fn runs(&self, vcpu: Vcpu, runs: bool) {
        if let Some(part) = self.parts.get(usize::from(vcpu.0)) {
            part.runs.store(runs, Ordering::SeqCst);
        }
    }

    /// To be called by a vCPU's thread between something that others shall see when they execute the next time, and a look at what they executed: a [`fence::heavy`], unless
    /// no other vCPU runs. Flags of one that sleeps are visible, and it sees what was written before it said that it runs.
    pub fn fence(&self) {
        if self.parts.iter().filter(|part| part.runs.load(Ordering::SeqCst)).nth(1).is_some() {
            fence::heavy();
        }
    }

    /// A flag of a vCPU that has started. To be called in a callback of any vCPU: QEMU moves the table only while none runs.
    #[inline(always)]
    fn flag(&self, vcpu: Vcpu, part: &PartOfBoard, slot: SlotId) -> Option<&AtomicU64> {
        let mut flags = part.flags.load(Ordering::Relaxed);
        if flags.is_null() {
            flags = self.find(vcpu, part, slot)?;
        }
        // SAFETY: the vCPU's part of the scoreboard has BOARD u64s, all of them touched as atomics only, but for QEMU's generated code, which reads them. It stays where it is
        // while the callback runs, which is no shorter than the answer lives.
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

    /// A flag and a moment of a vCPU that has started.
    fn slot(&self, vcpu: Vcpu, slot: SlotId) -> Option<(&AtomicU64, &AtomicU64)> {
        let part = self.parts.get(usize::from(vcpu.0))?.boards.get(slot.0 as usize / BOARD)?;
        let moments = part.moments.get()?;
        Some((self.flag(vcpu, part, slot)?, &moments[slot.0 as usize % BOARD]))
    }

    /// Since when a vCPU that has started holds a run, if it executed it in its current epoch. Called by any vCPU's thread, after a [`Slots::fence`] that follows whatever it is that
    /// the vCPU shall have seen if the answer does not count it.
    #[must_use]
    pub fn held_since(&self, vcpu: Vcpu, slot: SlotId) -> Option<Seq> {
        let (flag, since) = self.slot(vcpu, slot)?;
        Flag::of(flag.load(Ordering::SeqCst)).executed().then(|| Seq(since.load(Ordering::SeqCst)))
    }

    /// The first execution of a run by a vCPU that has started, in its last epoch with one; 0 if it never ran. Called by any vCPU's thread.
    #[must_use]
    pub fn last_ran(&self, vcpu: Vcpu, slot: SlotId) -> Seq {
        Seq(self.slot(vcpu, slot).map_or(0, |(_, since)| since.load(Ordering::Relaxed)))
    }

    /// Makes the callback of a run fire again on `vcpu`, which has started, if it executed the run in its current epoch. Called by any vCPU's thread, after
    /// whatever it is that the callback shall find, and a [`Slots::fence`].
    pub fn look_again(&self, vcpu: Vcpu, slot: SlotId) {
        if let Some((flag, _)) = self.slot(vcpu, slot) {
            let _ = flag.compare_exchange(Flag::Executed as u64, Flag::LookAgain as u64, Ordering::SeqCst, Ordering::SeqCst);
        }
    }
}

/// The slots of the vCPU whose callback is running. Neither sent nor shared: only that vCPU's thread sets and clears them.
#[derive(Debug)]
pub struct VcpuSlots<'a> {
    slots: &'a Slots,
    vcpu: Vcpu,
    part: &'a Part,
}

/// One slot of the vCPU whose callback is running. There is room for it in the list.
#[derive(Debug)]
pub struct VcpuSlot<'a> {
    of: &'a VcpuSlots<'a>,
    id: SlotId,
    flag: &'a AtomicU64,
    /// If anybody asks for moments.
    since: Option<&'a AtomicU64>,
}

impl VcpuSlots<'_> {
    /// The slots that are set.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    fn list(&self) -> &mut Vec<SlotId> {
        // SAFETY: only the vCPU's own thread has a `VcpuSlots`, which is not `Sync`, and only within its methods is the list borrowed; none of them calls another one meanwhile.
        unsafe { &mut *self.part.set.get() }
    }

    /// A slot. `None`: it was not reserved.
    #[must_use]
    pub fn slot(&self, id: SlotId) -> Option<VcpuSlot<'_>> {
        let part = self.part.boards.get(id.0 as usize / BOARD)?;
        let flag = self.slots.flag(self.vcpu, part, id)?;
        let moments = || part.moments.get_or_init(|| Box::new([const { AtomicU64::new(0) }; BOARD]));
        self.list().reserve(1);
        Some(VcpuSlot { of: self, id, flag, since: self.slots.moments.then(|| &moments()[id.0 as usize % BOARD]) })
    }

    /// A slot, if nothing has to be found or made for it: no call.
    #[inline(always)]
    #[must_use]
    pub fn known(&self, id: SlotId) -> Option<VcpuSlot<'_>> {
        let part = self.part.boards.get(id.0 as usize / BOARD)?;
        let flags = NonNull::new(part.flags.load(Ordering::Relaxed))?;
        let since = if self.slots.moments { Some(&part.moments.get()?[id.0 as usize % BOARD]) } else { None };
        let list = self.list();
        // SAFETY: as in `Slots::flag`.
        (list.len() < list.capacity()).then(|| VcpuSlot { of: self, id, flag: unsafe { flags.add(id.0 as usize % BOARD).as_ref() }, since })
    }

    /// Sets a flag. The first one in an epoch says since when, too.
    pub fn set(&self, id: SlotId, value: Flag, now: Seq) {
        if let Some(slot) = self.slot(id) {
            slot.set(value, now);
        }
    }

    /// Clears every flag that is set.
    pub fn clear(&self) {
        for id in self.list().drain(..) {
            let Some(part) = self.part.boards.get(id.0 as usize / BOARD) else { continue };
            if let Some(flag) = self.slots.flag(self.vcpu, part, id) {
                flag.store(Flag::Clear as u64, Ordering::Release);
            }
        }
    }

    /// A run's flag.
    #[inline]
    #[must_use]
    pub fn flag(&self, id: SlotId) -> Flag {
        self.slot(id).map_or(Flag::Clear, |slot| slot.flag())
    }

    /// The moment of the run's first execution in the last epoch with one; 0 if it never ran.
    #[must_use]
    pub fn since(&self, id: SlotId) -> Seq {
        self.slot(id).map_or(Seq(0), |slot| slot.since())
    }
}

impl VcpuSlot<'_> {
    /// Sets the flag. The first one in an epoch says since when, too.
    #[inline(always)]
    pub fn set(&self, value: Flag, now: Seq) {
        if self.flag.load(Ordering::Relaxed) == Flag::Clear as u64 {
            let list = self.of.list();
            let len = list.len();
            if len == list.capacity() {
                // Never: there is room. It stays clear, and is asked for again.
                return;
            }
            // SAFETY: the list has room behind its end. (`push` would be right, too, but for the call in it: this is done at every first execution.)
            unsafe {
                list.as_mut_ptr().add(len).write(self.id);
                list.set_len(len + 1);
            }
            if let Some(since) = self.since {
                since.store(now.0, Ordering::Relaxed);
            }
        }
        self.flag.store(value as u64, Ordering::Release);
    }

    /// Sets the flag as [`VcpuSlot::set`], and makes it visible to whoever looks for it from his next [`Slots::fence`] on, and what he did before that visible here.
    #[inline(always)]
    pub fn publish(&self, value: Flag, now: Seq) {
        self.set(value, now);
        fence::light();
    }

    /// The flag.
    #[inline(always)]
    #[must_use]
    pub fn flag(&self) -> Flag {
        Flag::of(self.flag.load(Ordering::Relaxed))
    }

    /// The moment of the run's first execution in the last epoch with one; 0 if it never ran.
    #[inline(always)]
    #[must_use]
    pub fn since(&self) -> Seq {
        Seq(self.since.map_or(0, |since| since.load(Ordering::Relaxed)))
    }
}
