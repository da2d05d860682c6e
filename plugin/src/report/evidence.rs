//! What was seen when a hazard happened.

use crate::arch::caller::Caller;
use crate::exposure::{Ended, ExposureId};
use crate::patching::{Asker, Context, Covering, Missing, Writer};
use icsan_model::addr::{Epoch, Linear, Phys, Seq, Vcpu};
use icsan_model::detector::sync_log::SyncAt;
use icsan_model::detector::sync_origin::SyncOrigin;
use icsan_model::verdict::hazard::Write;
use icsan_model::verdict::kind::Kind;
use icsan_model::verdict::last_sync::LastSync;
use std::sync::Arc;

/// What was seen when a hazard happened.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// Who executed.
    pub vcpu: Vcpu,
    /// The instruction's address.
    pub linear: Linear,
    /// Its physical address, where that is known.
    pub physical: Option<Phys>,
    /// What is in memory: one instruction.
    pub memory: Vec<u8>,
    /// What may be executed, memory's instruction first.
    pub candidates: Vec<Shown>,
    /// Are those all candidates? If not, a bound was hit.
    pub all_candidates: bool,
    /// What the vCPU was made to execute instead of what is in memory.
    pub injected: Option<Vec<u8>>,
    /// The stores that separate the candidates from memory, oldest first. `None`: stores are not watched, or not these.
    pub writes: Option<Vec<Write>>,
    /// Who made them, as far as it is remembered; as many as there are writes.
    pub writers: Vec<Option<Writer>>,
    /// Where the executor is.
    pub context: Context,
    /// Who called it.
    pub chain: Vec<Caller>,
    /// Did a page of the instruction move in this epoch?
    pub moved: bool,
    /// The vCPU's last serializing event.
    pub last_sync: Option<LastSync>,
    /// What that one belonged to.
    pub last_origin: Option<SyncOrigin>,
    /// The vCPU's epoch.
    pub epoch: Epoch,
    /// In which boot: each has its own place for the kernel.
    pub boot: usize,
    /// Value of the last marker that any vCPU executed before.
    pub marker: u64,
    /// Of [`Kind::Unsynced`]: it is about no execution, and `linear` is the first address that was patched.
    pub unsynced: Option<Box<Unsynced>>,
}

/// One byte string that may be executed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shown {
    /// One instruction.
    pub bytes: Vec<u8>,
    /// Where it comes from.
    pub origin: Origin,
}

/// Where a byte string comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// It is in memory.
    Memory,
    /// This vCPU executed it earlier in the epoch (light mode).
    Earlier,
    /// Fetch chunks of both (light mode).
    Mix,
    /// It is what chunks held at some time: for each byte, the store that made it.
    Versions {
        /// By byte; 0 is "before all history".
        versions: Vec<Seq>,
        /// Its first separating store: it is older than that.
        before: Option<Seq>,
        /// What executing it would be.
        kind: Kind,
        /// Covered by an exemption.
        exempt: bool,
    },
}

impl Evidence {
    /// The instruction that made the last of the separating stores.
    #[must_use]
    pub fn writer(&self) -> Option<Linear> {
        self.writes.iter().flatten().rev().find_map(|write| write.pc)
    }
}

/// What a protocol did not do for a vCPU.
#[derive(Clone, Debug)]
pub struct Unsynced {
    /// Who was asked.
    pub asker: Asker,
    /// How it makes CPUs serialize.
    pub covering: Covering,
    /// Where it should have made the vCPU serialize.
    pub missing: Missing,
    /// The vCPU on which the protocol goes on.
    pub goes_on: Vcpu,
    /// The vCPU that patches: it made the last store.
    pub patcher: Vcpu,
    /// What serialized the vCPU by chance, first, until it was asked.
    pub luck: Option<SyncAt>,
    /// If nothing has serialized it: the exposure that begins.
    pub exposure: Option<ExposureId>,
    /// How that ended, once it has.
    pub ended: Option<Box<Ended>>,
    /// Does the vCPU sleep?
    pub sleeps: bool,
    /// Is it in user mode? `None`: the kernel's entries are not known.
    pub user_mode: Option<bool>,
    /// How many changed pieces of code it holds from before their change, of how many.
    pub held: usize,
    /// See there.
    pub changed: usize,
    /// How many stores it was asked about.
    pub stores: usize,
    /// Who called the function.
    pub chain: Arc<[Caller]>,
    /// Who patches.
    pub context: Context,
}
