//! What the plugin must look up on an architecture, and what only its own rules tell.
//!
//! It is asked when code is translated, where an instruction of a few kinds runs that are rare and read registers
//! anyway, and on slow paths. What is met more often than that is data ([`Facts`]), read once.

use super::caller::Caller;
use super::known_finding::KnownFinding;
use super::linux_abi::LinuxAbi;
use super::store_form::StoreForm;
use crate::qemu::cpu::{CurrentCpu, NamedRegister};
use crate::qemu::divert::Divert;
use icsan_model::addr::{Linear, Vcpu};
use icsan_model::arch::architecture::Architecture;
use icsan_model::arch::decode::Decode;
use icsan_model::arch::maintenance::{Accesses, CacheType, Domain, Maintenance};
use icsan_model::arch::profile::Profile;
use icsan_model::arch::sync_event::{SyncEventId, SyncEventSet};
use icsan_symbols::linux::entries::KernelEntry;
use icsan_symbols::linux::kaslr::PlaceEvidence;
use icsan_symbols::{Names, Symbolizer};
use std::fmt::Debug;
use std::ops::Range;

/// What is known of an architecture without looking at anything.
#[derive(Debug)]
pub struct Facts {
    /// Its events, profiles and rules.
    pub arch: &'static Architecture,
    /// Its instructions by their lengths.
    pub decoder: Decoder,
    /// Linux on it.
    pub linux: &'static LinuxAbi,
    /// The program counter.
    pub counter: &'static NamedRegister,
    /// From there on the program counter is the linear address of the instruction.
    pub counter_is_linear_from: Linear,
    /// The longest call instruction, in bytes.
    pub longest_call: usize,
    /// Where a processor may begin that was reset.
    pub reset_vectors: &'static [Linear],
    /// Guest-physical addresses at which what is RAM may be something else at times: code there is at no certain place
    /// in the host's memory. Empty: there are none.
    pub ram_hidden: Range<u64>,
    /// Guest-physical addresses where stores may be lost, or go elsewhere than to RAM: they prove nothing.
    pub ram_unproven: Range<u64>,
    /// The instruction after which QEMU's own idea of the vCPU's state is exact, although it does not end a block
    /// there. Empty: there is none.
    pub exact_after: &'static [u8],
    /// What is carried out in place of an instruction that QEMU lacks ([`Platform::is_lacking`]): an instruction of the
    /// same length without effect.
    pub in_place_of_lacking: &'static [u8],
    /// After which events linear addresses may mean other memory: whatever empties the TLB, or changes what it is
    /// filled from.
    pub changes_mapping: SyncEventSet,
    /// Those of them that other vCPUs' addresses follow, too: at the latest when the vCPU has carried out its next
    /// barrier.
    pub changes_mapping_of_all: SyncEventSet,
    /// The returns from interrupts, faults and the like: what runs next is not the next instruction, although no branch
    /// leads there.
    pub returns: SyncEventSet,
    /// The event of a return that goes by the interrupt or exception that it returns from.
    pub interrupt_return: SyncEventId,
    /// The event of an entry from an interrupt or exception, where that is one: QEMU tells of each. `None`: entries are
    /// none.
    pub entry: Option<SyncEventId>,
    /// The event of a reset.
    pub reset: SyncEventId,
    /// The event of a state that is restored.
    pub restored: SyncEventId,
    /// What people call a privilege level, and a page table.
    pub words: Words,
}

/// Instructions by their lengths, as the model asks for them.
#[derive(Clone, Copy, Debug)]
pub struct Decoder(pub &'static dyn Decode);

impl Decode for Decoder {
    fn len(&self, bytes: &[u8]) -> Option<usize> {
        self.0.len(bytes)
    }

    fn len_like(&self, bytes: &[u8], memory: &[u8]) -> Option<usize> {
        self.0.len_like(bytes, memory)
    }

    fn max_len(&self) -> usize {
        self.0.max_len()
    }
}

/// What people call something on an architecture.
#[derive(Debug)]
pub struct Words {
    /// A privilege level.
    pub privilege: &'static str,
    /// The page table that a vCPU uses.
    pub space: &'static str,
    /// How a kernel that starts gives its place away.
    pub kernel_place: &'static str,
    /// The return from an interrupt, and the entries that it is told apart by (`without=EVENT@SYMBOL`).
    pub entries: &'static str,
}

/// The event of an instruction, from its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Synchronizing {
    /// This one.
    Fixed(SyncEventId),
    /// It depends on registers or memory, and is told when it runs ([`Platform::resolve`]). With what that must know of
    /// the instruction, below [`TAGS`](crate::points::TAGS), and whether it tells what must be known whatever
    /// the profile counts: the place of the kernel, or a mode whose instructions are not decoded.
    AtRunTime {
        /// What [`Platform::resolve`] is given.
        tag: u8,
        /// Is it watched whatever the profile counts?
        always: bool,
    },
}

/// An event that was told when it ran, and what else it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Resolved {
    /// The event.
    pub event: SyncEventId,
    /// What else.
    pub does: Does,
}

/// What a synchronizing instruction does besides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Does {
    /// Nothing that matters.
    Nothing,
    /// It returns from the kernel to the kernel, by the frame at this address.
    ReturnsToKernel {
        /// Where the saved program counter is.
        frame: u64,
    },
    /// It returns from the kernel to user mode.
    ReturnsToUser,
    /// The same, to a mode whose instructions are not decoded.
    ReturnsToForeign,
    /// From now on it stores through its caches, or past them.
    Caches {
        /// Through them?
        on: bool,
    },
    /// It enters the address space of another page table, or of the same once more.
    EntersSpace {
        /// The one before, if that can be read.
        from: Option<u64>,
        /// The physical address of the page table.
        to: u64,
    },
    /// It tells where the kernel is.
    TellsPlace {
        /// What may be there.
        evidence: &'static PlaceEvidence,
        /// The runtime address.
        runtime: u64,
    },
}

/// What an instruction does besides loading, storing and synchronizing, from its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CacheEffect {
    /// It maintains caches: what, is told when it runs ([`Platform::maintenance`]), which is given this, below
    /// [`TAGS`](crate::points::TAGS).
    Maintains(u8),
    /// It is a barrier.
    Completes(Domain, Accesses),
    /// It stores, and QEMU tells of no access: where, is told when it runs ([`Platform::unseen_store`]), which is given
    /// this, likewise.
    StoresUnseen(u8),
}

/// A kernel's entry by which a vCPU just came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entered {
    /// From user mode.
    FromUser,
    /// From the kernel, which will be returned to by the frame at this address.
    FromKernel {
        /// By what the frame is known again at the return: the stack pointer that was interrupted, or an address right
        /// below it. What is interrupted is there or above, and what the interrupt calls is below.
        frame: u64,
    },
}

/// A store as QEMU told of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ToldStore {
    /// The value that was told.
    pub stored: u128,
    /// What the same instruction was told to have loaded from there right before, where its form asks for that.
    pub loaded: Option<u128>,
    /// How many bytes.
    pub len: u8,
    /// Was it carried out by one operation of the host's?
    pub atomic: bool,
}

/// Where an instruction was translated at an address.
pub type InstructionAt<'a> = &'a dyn Fn(Linear) -> Option<Vec<u8>>;

/// An architecture, as far as it must be asked.
pub trait Platform: Sync + Debug {
    /// What is known without looking.
    fn facts(&self) -> &'static Facts;

    /// Does the plugin learn of the event at all?
    fn can_see(&self, event: SyncEventId) -> bool;
    /// The event of an instruction, if it has one.
    fn synchronizing(&self, bytes: &[u8]) -> Option<Synchronizing>;
    /// May this instruction serialize under that profile? It is asked for every translated instruction.
    fn may_synchronize(&self, bytes: &[u8], profile: &Profile) -> bool;
    /// Does the store side have to know of this instruction, whatever the profile counts? It may change the mapping,
    /// enter an address space, or return from an interrupt, which is a branch.
    fn concerns_stores(&self, bytes: &[u8]) -> bool;
    /// May it store? It is asked for every translated instruction.
    fn may_store(&self, bytes: &[u8]) -> bool;
    /// Tells of bytes that begin with an instruction: may it store by a function of QEMU's that checks its pages first,
    /// and stores to them later, past the functions by which all others store?
    fn past_helpers(&self) -> fn(&[u8]) -> bool;
    /// How it stores.
    fn store_form(&self, bytes: &[u8]) -> StoreForm;
    /// Does it go to user mode, without an event that tells of that?
    fn goes_to_user_mode(&self, bytes: &[u8]) -> bool;
    /// Is it the marker?
    fn is_marker(&self, bytes: &[u8]) -> bool;
    /// The target of a direct call that ends with the last of these bytes and returns to `at`, if one may.
    fn call_before(&self, bytes: &[u8], at: Linear) -> Option<u64>;
    /// What does it do besides? It is asked for every translated instruction.
    fn cache_effect(&self, bytes: &[u8]) -> Option<CacheEffect>;
    /// Is it an instruction that QEMU lacks, and that does nothing but serialize? See [`Facts::in_place_of_lacking`].
    fn is_lacking(&self, bytes: &[u8]) -> bool;

    /// The event of a [`Synchronizing::AtRunTime`] at `at`, where the vCPU is.
    fn resolve(&self, tag: u8, at: Linear, cpu: &CurrentCpu) -> Resolved;
    /// The maintenance of a [`CacheEffect::Maintains`] that the vCPU is at. `None`: it traps, or there is no memory at
    /// its address.
    fn maintenance(&self, tag: u8, cpu: &CurrentCpu) -> Option<Maintenance>;
    /// Where a [`CacheEffect::StoresUnseen`] that the vCPU is at stores: from where on, and how many bytes at most. It
    /// may still fault.
    fn unseen_store(&self, tag: u8, at: Linear, cpu: &CurrentCpu) -> Option<(Linear, u64)>;
    /// What the machine's caches need, by the registers that say so on an architecture where they differ. The vCPU has
    /// just started.
    fn cache_type(&self, cpu: &CurrentCpu) -> Option<CacheType>;
    /// Asks QEMU to tell of this vCPU's entries from interrupts and exceptions, where its API does not. The vCPU has
    /// just started. `false`: it cannot be asked.
    fn watch_entries(&self, vcpu: Vcpu) -> bool;
    /// Does a vCPU that starts store past its caches?
    fn starts_uncached(&self) -> bool;
    /// Is it the first instruction of an interrupt's or exception's entry, of those that the vCPU has now?
    fn is_vector(&self, at: Linear, cpu: &CurrentCpu) -> bool;
    /// The address that the interrupt or exception returns to by which the vCPU has just come to its entry.
    fn interrupted(&self, cpu: &CurrentCpu) -> Option<Linear>;
    /// How the vCPU, which is at this entry's first instruction, came there. `None`: its stack cannot be read.
    fn entered(&self, entry: &KernelEntry, cpu: &CurrentCpu) -> Option<Entered>;
    /// Is the vCPU, which is at the reset vector, there because of a reset?
    fn was_reset(&self, cpu: &CurrentCpu) -> bool;
    /// The value of the marker that the vCPU is at.
    fn marker(&self, cpu: &CurrentCpu) -> Option<u64>;
    /// The physical address of the page table that the vCPU uses.
    fn space(&self, cpu: &CurrentCpu) -> Option<u64>;
    /// The vCPU's privilege level: 0 is the highest of x86, and the lowest of Arm.
    fn privilege(&self, cpu: &CurrentCpu) -> Option<u8>;
    /// The instruction that memory holds there, if it can be read and is one.
    fn instruction_at(&self, cpu: &CurrentCpu, linear: Linear) -> Option<Vec<u8>>;
    /// The callers of what executes now, innermost first.
    fn callers(&self, cpu: &CurrentCpu, symbols: &Symbolizer) -> Vec<Caller>;
    /// The same at a function's first instruction: the first one is certain.
    fn callers_at_entry(&self, cpu: &CurrentCpu, symbols: &Symbolizer) -> Vec<Caller>;

    /// The values that memory may hold right after a store of this form, if no other vCPU stored there.
    fn stored(&self, form: u8, store: ToldStore) -> Vec<u128>;
    /// The parts of a store of this form that change at once, each as a range of its bytes.
    fn atomic_parts(&self, form: u8, linear: u64, len: u64) -> Vec<Range<usize>>;
    /// Does execution get from the instruction at `from` to the one at `to` without any branch instruction in between?
    fn is_straight(&self, from: Linear, to: Linear, instruction: InstructionAt<'_>) -> bool;

    /// The text of the instruction that `bytes` start with at the linear address `at`.
    fn text(&self, bytes: &[u8], at: u64, symbols: Names<'_>) -> String;
    /// How many of the bytes the first instruction takes, in the mode in which `like` is one whole instruction; all of
    /// them if they are no instruction.
    fn first_instruction<'a>(&self, bytes: &'a [u8], like: &[u8]) -> &'a [u8];
    /// Where the instruction at that address jumps to, if it always does.
    fn jump_target(&self, bytes: &[u8], at: Linear) -> Option<u64>;
    /// The hazards of unmodified kernels that are explained.
    fn known_findings(&self) -> &'static [KnownFinding];

    /// Looks up in QEMU what [`Platform::carry_out`] needs. To be called at installation.
    ///
    /// # Errors
    /// What is missing, as the rest of a line.
    fn prepare_to_carry_out(&self) -> Result<(), String>;
    /// What it takes to execute `bytes` in place of the instruction at `linear`, at which the vCPU is.
    ///
    /// # Errors
    /// Why that cannot be done here, as the rest of a sentence.
    fn carry_out(&self, cpu: &CurrentCpu, bytes: &[u8], linear: Linear) -> Result<Divert, String>;
}
