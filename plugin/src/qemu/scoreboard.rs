//! Slots: for every watched run of code one `u64` a vCPU, which QEMU's generated code tests before it calls back.
//!
//! Behind its slots each vCPU's part has a list of those that are set, so that they can all be cleared at once. It is kept here and not behind a lock since it is
//! touched on every callback, by the vCPU's own thread only.

use super::api::api;
use icsan_model::addr::Vcpu;
use qemu_plugin_sys as sys;
use std::marker::PhantomData;

/// Number of a slot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(transparent)]
pub struct SlotId(pub u32);

/// A table of slots for each vCPU. QEMU allocates it for 16 vCPUs at first (16 x 8 bytes a slot) and grows it when a vCPU beyond that appears.
#[derive(Debug)]
pub struct Slots {
    score: *mut sys::qemu_plugin_scoreboard,
    len: u32,
}

// SAFETY: the pointer is QEMU's handle, valid for the life of the process (never freed here). QEMU takes its own lock to change the table, and stops all vCPUs
// to move it; each vCPU's part is only touched from that vCPU's thread.
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
            (len as usize * size_of::<u64>() + size_of::<u64>() + len as usize * size_of::<SlotId>()).next_multiple_of(size_of::<u64>());
        // SAFETY: any size is valid; QEMU aborts the process if memory runs out, at start.
        let score = unsafe { (api.qemu_plugin_scoreboard_new)(size) };
        (!score.is_null()).then_some(Self { score, len })
    }

    /// A slot's place, as QEMU's conditional callbacks want it.
    pub(super) fn entry(&self, slot: SlotId) -> sys::qemu_plugin_u64 {
        debug_assert!(slot.0 < self.len);
        sys::qemu_plugin_u64 { score: self.score, offset: slot.0 as usize * size_of::<u64>() }
    }

    /// One vCPU's part of the table. To be called in a callback of that vCPU. `None` outside of QEMU.
    #[must_use]
    pub fn of(&self, vcpu: Vcpu) -> Option<VcpuSlots<'_>> {
        // SAFETY: `score` is a live scoreboard, and the vCPU exists since it runs this callback.
        let part = unsafe { (api()?.qemu_plugin_scoreboard_find)(self.score, u32::from(vcpu.0)) };
        (!part.is_null()).then_some(VcpuSlots { part: part.cast(), len: self.len, _table: PhantomData })
    }
}

/// The slots of the vCPU whose callback is running. Neither sent nor shared: only that vCPU's thread touches them.
#[derive(Debug)]
pub struct VcpuSlots<'a> {
    part: *mut u64,
    len: u32,
    _table: PhantomData<&'a Slots>,
}

impl VcpuSlots<'_> {
    /// The length of the list of slots that are set, and the list.
    fn list(&self) -> (*mut u64, *mut SlotId) {
        // SAFETY: `Slots::new` made the part large enough for both behind its slots.
        unsafe { (self.part.add(self.len as usize), self.part.add(self.len as usize + 1).cast()) }
    }

    /// Sets a slot, to anything but 0.
    pub fn set(&self, slot: SlotId, value: u64) {
        debug_assert_ne!(value, 0);
        if slot.0 >= self.len {
            return;
        }
        // SAFETY: the part has `len` u64s, then the list's length, then room for `len` slots; a slot comes into the list only when it was clear, so once at most.
        // Only this vCPU's thread reads or writes them, and it is here. QEMU moves the table only while no callback runs.
        unsafe {
            let place = self.part.add(slot.0 as usize);
            if place.read() == 0 {
                let (length, list) = self.list();
                list.add(length.read() as usize).write(slot);
                length.write(length.read() + 1);
            }
            place.write(value);
        }
    }

    /// Clears every slot that is set.
    pub fn clear(&self) {
        let (length, list) = self.list();
        // SAFETY: as above; what is in the list is below `len`.
        unsafe {
            for index in 0..length.read() as usize {
                self.part.add(list.add(index).read().0 as usize).write(0);
            }
            length.write(0);
        }
    }

    /// The value of a slot.
    #[must_use]
    pub fn get(&self, slot: SlotId) -> u64 {
        // SAFETY: as above.
        if slot.0 < self.len { unsafe { self.part.add(slot.0 as usize).read() } } else { 0 }
    }
}
