//! The one type of everything that the model is told.
//!
//! A plugin produces it, a recording stores it, a replay feeds it to [`crate::machine::model::Model::apply`]. Each
//! applied event takes the next [`Seq`]. Times are places in that order; there is no clock.

use crate::addr::{Linear, Phys, Seq, Vcpu};
use crate::arch::maintenance::{Accesses, Domain, Maintenance};
use crate::arch::sync_event::SyncEventId;
use serde::{Deserialize, Serialize};

/// A store that is single-copy atomic: all its bytes change together.
///
/// An access that is not atomic is given as several of these, one for each part that is, lowest address first. A store
/// never crosses a page ([`crate::memory::PAGE`]).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Store {
    /// Who wrote. `None`: nobody that was seen (DMA, a loader, a debugger).
    pub vcpu: Option<Vcpu>,
    /// The storing instruction.
    pub pc: Option<Linear>,
    /// The linear address that was written through; `None` for an unknown writer.
    pub linear: Option<Linear>,
    /// The physical address of the first byte.
    pub phys: Phys,
    /// The new bytes.
    pub bytes: Vec<u8>,
}

/// One thing that happened in the guest.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Event {
    /// The translation of a linear page, as `vcpu` walks it from now on. `phys` is `None` when the page is unmapped.
    Remap {
        /// Whose translations change.
        vcpu: Vcpu,
        /// Start of the page, aligned to [`crate::memory::PAGE`] bytes.
        linear: Linear,
        /// Start of the physical page.
        phys: Option<Phys>,
    },
    /// Contents that are seen for the first time; they are taken to have always been there. They never cross a page.
    Contents {
        /// The physical address of the first byte.
        phys: Phys,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// A store. With no writer: a change that was noticed, and that nobody was seen to make.
    Store(Store),
    /// The writer of an earlier store that nobody was seen to make has turned out. An emulator may let others see a
    /// store before it tells of it.
    Attribute {
        /// The place of the store in the order of events.
        store: Seq,
        /// Who wrote.
        vcpu: Vcpu,
        /// The storing instruction.
        pc: Option<Linear>,
        /// The linear address that was written through, of the store's first byte.
        linear: Option<Linear>,
    },
    /// `vcpu` fetched and executed one instruction of `len` bytes.
    Fetch {
        /// Who executes.
        vcpu: Vcpu,
        /// Address of the instruction's first byte.
        linear: Linear,
        /// Its length as decoded from memory, in bytes.
        len: u8,
    },
    /// `vcpu` took a branch (the instruction fetched before this event was one).
    Branch {
        /// Who branched.
        vcpu: Vcpu,
    },
    /// `vcpu` completed an event of the architecture's table. Whether it serializes is the profile's choice.
    Sync {
        /// Who.
        vcpu: Vcpu,
        /// Which row of the table.
        event: SyncEventId,
        /// The instruction.
        pc: Linear,
    },
    /// The author of these stores takes the patch for done.
    Commit {
        /// The places of the stores in the order of events.
        stores: Vec<Seq>,
    },
    /// `vcpu` was reset: its buffers are empty, whatever the profile says.
    Reset {
        /// Who.
        vcpu: Vcpu,
    },
    /// `vcpu` carried out a maintenance instruction, and it did not trap. Only where a profile's caches do not see
    /// stores does it mean anything.
    Maintain {
        /// Who.
        vcpu: Vcpu,
        /// Which, and of what line.
        operation: Maintenance,
    },
    /// `vcpu` carried out a barrier that waits for accesses, and, if for all, for maintenance.
    Barrier {
        /// Who.
        vcpu: Vcpu,
        /// How far it reaches.
        domain: Domain,
        /// What it waits for.
        accesses: Accesses,
    },
    /// From now on `vcpu` stores through its caches, or past them. In the beginning it does.
    Caches {
        /// Who.
        vcpu: Vcpu,
        /// Through them?
        on: bool,
    },
}
