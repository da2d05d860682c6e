//! Slots: for every watched run of code a flag and a moment for each vCPU. QEMU's generated code tests the flag before it calls back.
//!
//! Behind its slots each vCPU's part has a list of those whose flag is set, so that they can all be cleared at once. It is kept here and not behind a lock since it is
//! touched on every callback, by the vCPU's own thread only.

use super::api::api;
use icsan_model::addr::{Seq, Vcpu};
use qemu_plugin_sys as sys;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering, fence};

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

#[derive(Debug)]
#[repr(C)]
struct Slot {
    flag: AtomicU64,
    /// The first execution in the last epoch with one. It stays when the flag is cleared.
    since: AtomicU64,
}

/// A table of slots for each vCPU. QEMU allocates it for 16 vCPUs at first (16 x 20 bytes a slot) and grows it when a vCPU beyond that appears.
#[derive(Debug)]
pub struct Slots {
    score: *mut sys::qemu_plugin_scoreboard,
    len: u32,
}

// SAFETY: the pointer is QEMU's handle, valid for the life of the process (never freed here). QEMU takes its own lock to change the table, and stops all vCPUs
// to move it. Slots are atomics; the list of each vCPU's part is only touched from that vCPU's thread (see `VcpuSlots`).
unsafe impl Send for Slots {}
// SAFETY: as above.
unsafe impl Sync for Slots {}

impl Slots {
    /// Makes a table. To be called at installation only: from a translation callback it could wait for a lock whose holder waits for this vCPU.
    /// `None` outside of QEMU.
    #[must_use]
    pub fn new(len: u32) -> Option<Self> {
        let api = api()?;
        // The slots, the length of the list, the list; whole u64s, so that the next vCPU's part is aligned, too.
        let size =
            (len as usize * size_of::<Slot>() + size_of::<u64>() + len as usize * size_of::<SlotId>()).next_multiple_of(size_of::<u64>());
        // SAFETY: any size is valid; QEMU aborts the process if memory runs out, at start.
        let score = unsafe { (api.qemu_plugin_scoreboard_new)(size) };
        (!score.is_null()).then_some(Self { score, len })
    }

    /// A flag's place, as QEMU's conditional callbacks want it.
    pub(super) fn entry(&self, slot: SlotId) -> sys::qemu_plugin_u64 {
        debug_assert!(slot.0 < self.len);
        sys::qemu_plugin_u64 { score: self.score, offset: slot.0 as usize * size_of::<Slot>() }
    }

    /// The part of the vCPU whose callback is running. `None` outside of QEMU.
    #[must_use]
    pub fn of(&self, vcpu: Vcpu) -> Option<VcpuSlots<'_>> {
        Some(VcpuSlots { part: self.part(vcpu)?, len: self.len, _table: PhantomData })
    }

    /// The part of a vCPU that has started. To be called in a callback of any vCPU: QEMU moves the table only while none runs.
    fn part(&self, vcpu: Vcpu) -> Option<*mut Slot> {
        // SAFETY: `score` is a live scoreboard, and the vCPU exists.
        let part = unsafe { (api()?.qemu_plugin_scoreboard_find)(self.score, u32::from(vcpu.0)) };
        (!part.is_null()).then_some(part.cast())
    }

    /// Since when a vCPU that has started holds a run, if it executed it in its current epoch. Called by any vCPU's thread; the answer is as of some moment during the call.
    #[must_use]
    pub fn held_since(&self, vcpu: Vcpu, slot: SlotId) -> Option<Seq> {
        let part = self.part(vcpu).filter(|_| slot.0 < self.len)?;
        // SAFETY: the part has `len` slots, which are atomics.
        let slot = unsafe { &*part.add(slot.0 as usize) };
        Flag::of(slot.flag.load(Ordering::SeqCst)).executed().then(|| Seq(slot.since.load(Ordering::SeqCst)))
    }

    /// The first execution of a run by a vCPU that has started, in its last epoch with one; 0 if it never ran. Called by any vCPU's thread.
    #[must_use]
    pub fn last_ran(&self, vcpu: Vcpu, slot: SlotId) -> Seq {
        // SAFETY: the part has `len` slots, which are atomics.
        let since = |part: *mut Slot| unsafe { &(*part.add(slot.0 as usize)).since }.load(Ordering::Relaxed);
        Seq(self.part(vcpu).filter(|_| slot.0 < self.len).map_or(0, since))
    }

    /// Makes the callback of a run fire again on `vcpu`, which has started, if it executed the run in its current epoch. Called by any vCPU's thread, after
    /// whatever it is that the callback shall find.
    pub fn look_again(&self, vcpu: Vcpu, slot: SlotId) {
        let Some(part) = self.part(vcpu).filter(|_| slot.0 < self.len) else { return };
        // SAFETY: the part has `len` slots, which are atomics.
        let flag = unsafe { &(*part.add(slot.0 as usize)).flag };
        let _ = flag.compare_exchange(Flag::Executed as u64, Flag::LookAgain as u64, Ordering::SeqCst, Ordering::SeqCst);
    }
}

/// The slots of the vCPU whose callback is running. Neither sent nor shared: only that vCPU's thread sets and clears them.
#[derive(Debug)]
pub struct VcpuSlots<'a> {
    part: *mut Slot,
    len: u32,
    _table: PhantomData<&'a Slots>,
}

impl VcpuSlots<'_> {
    /// The length of the list of slots that are set, and the list.
    fn list(&self) -> (*mut u64, *mut SlotId) {
        // SAFETY: `Slots::new` made the part large enough for both behind its slots.
        unsafe {
            let behind: *mut u64 = self.part.add(self.len as usize).cast();
            (behind, behind.add(1).cast())
        }
    }

    fn slot(&self, slot: SlotId) -> Option<&Slot> {
        // SAFETY: the part has `len` slots. QEMU moves the table only while no callback runs.
        (slot.0 < self.len).then(|| unsafe { &*self.part.add(slot.0 as usize) })
    }

    /// Sets a flag. The first one in an epoch says since when, too.
    pub fn set(&self, id: SlotId, value: Flag, now: Seq) {
        let Some(slot) = self.slot(id) else { return };
        if slot.flag.load(Ordering::Relaxed) == Flag::Clear as u64 {
            slot.since.store(now.0, Ordering::Relaxed);
            // SAFETY: the list's length is followed by room for `len` slots; a slot comes into the list only when its flag was clear, so once at most. Only this vCPU's
            // thread touches the list, and it is here.
            unsafe {
                let (length, list) = self.list();
                list.add(length.read() as usize).write(id);
                length.write(length.read() + 1);
            }
        }
        slot.flag.store(value as u64, Ordering::Release);
    }

    /// Makes the flag that was set visible to whoever looks for it from now on, and everything that was done before such a look visible here.
    pub fn publish(&self) {
        fence(Ordering::SeqCst);
    }

    /// Clears every flag that is set.
    pub fn clear(&self) {
        let (length, list) = self.list();
        // SAFETY: as above; what is in the list is below `len`.
        unsafe {
            for index in 0..length.read() as usize {
                (*self.part.add(list.add(index).read().0 as usize)).flag.store(Flag::Clear as u64, Ordering::Release);
            }
            length.write(0);
        }
    }

    /// A run's flag.
    #[must_use]
    pub fn flag(&self, slot: SlotId) -> Flag {
        self.slot(slot).map_or(Flag::Clear, |slot| Flag::of(slot.flag.load(Ordering::Relaxed)))
    }

    /// The moment of the run's first execution in the last epoch with one; 0 if it never ran.
    #[must_use]
    pub fn since(&self, slot: SlotId) -> Seq {
        self.slot(slot).map_or(Seq(0), |slot| Seq(slot.since.load(Ordering::Relaxed)))
    }
}
