//! The profiles of x86-64, the default first.
//!
//! Every set is derived from the words in the event table, so a corrected row corrects the profiles. Profiles with
//! Intel's list take an event that Intel says `Yes` to, however sure; `amd-apm` the same of AMD. Conflicting texts were
//! resolved in the table, towards `No`.

use super::events::{self, EVENTS};
use crate::arch::exemption::Exemption;
use crate::arch::maintenance::Caches;
use crate::arch::profile::{Buffers, OnlyAt, Profile, Text};
use crate::arch::sync_event::{SyncEventId, SyncEventSet, Word};

/// Place of Intel's claims in a row.
pub const INTEL: usize = 0;
/// Place of AMD's claims in a row.
pub const AMD: usize = 1;

/// The events that a vendor calls serializing, however sure we are that it does.
#[must_use]
pub const fn called_serializing(vendor: usize) -> SyncEventSet {
    let mut set = SyncEventSet::EMPTY;
    let mut row = 0;
    while row < EVENTS.len() {
        if matches!(EVENTS[row].claims[vendor].word, Word::Yes) {
            set = set.with(SyncEventId(row as u8));
        }
        row += 1;
    }
    set
}

/// INT3. A breakpoint protocol (`text_poke` and its kin) has a handler that carries out the instruction that the byte
/// stands for.
const INT3: Exemption = Exemption::Breakpoint(&[0xcc]);

/// AMD promises whole instructions when code is changed under a running CPU by a store inside one naturally aligned
/// quadword: APM vol. 2, 7.6.1, which we have from OpenJDK's use of it (secondary) and, as to the quadword, from
/// memory.
const QUADWORD: Exemption = Exemption::AlignedStore(8);

const LINUX: Profile = Profile {
    name: "linux-x86",
    note: "Intel's list, and the INT3 byte while its protocol runs: what Linux assumes",
    serializing: called_serializing(INTEL),
    exemptions: &[INT3],
    buffers: Buffers::DEFAULT,
    snoop: false,
    caches: Caches::Coherent,
    only_at: &[],
    text: Text::All,
};

/// What Linux does in order to serialize, of Intel's list. `sync_core()` (arch/x86/include/asm/sync_core.h) is
/// SERIALIZE, or IRET-to-self; from 6.1 on it is nowhere CPUID. The function that stores through a mapping of its own
/// writes CR3 twice (`__text_poke()`, arch/x86/kernel/alternative.c): its CPU serializes by that. CR0 is written where
/// a processor starts: what it ran before it was put to sleep is gone.
///
/// Whatever else is on the list comes by the way: the kernel returns from an interrupt, switches to another task,
/// empties its TLB, looks a feature up.
const INTENDED: SyncEventSet = SyncEventSet::EMPTY
    .with(events::IRET_TO_SELF)
    .with(events::SERIALIZE)
    .with(events::MOV_CR0)
    .with(events::MOV_CR3)
    .with(events::MOV_CR3_NOFLUSH)
    .with(events::MOV_CR3_PTI)
    .with(events::RESET)
    .with(events::RESTORED);

/// The function whose writes to CR3 are intended.
const TEXT_POKE: &str = "__text_poke";

/// All profiles. Names are stable.
pub const PROFILES: &[Profile] = &[
    LINUX,
    Profile {
        name: "sdm-strict",
        note: "Intel's list and no exemptions: the letter of the SDM",
        exemptions: &[],
        ..LINUX
    },
    Profile {
        name: "fred",
        note: "linux-x86 without returns from interrupts and exceptions; IRET-to-self stays",
        serializing: LINUX.serializing.without(events::IRET),
        ..LINUX
    },
    Profile {
        name: "amd-apm",
        note: "AMD's list; INT3 and stores inside a naturally aligned quadword are exempt",
        serializing: called_serializing(AMD),
        exemptions: &[INT3, QUADWORD],
        ..LINUX
    },
    Profile {
        name: "pti-blind",
        note: "linux-x86 without the CR3 writes of page-table isolation: what they hide",
        serializing: LINUX.serializing.without(events::MOV_CR3_PTI),
        ..LINUX
    },
    Profile {
        name: "no-luck",
        note: "for the kernel's own text: only what it does in order to serialize",
        serializing: INTENDED,
        only_at: &[
            OnlyAt { event: events::MOV_CR3, function: TEXT_POKE },
            OnlyAt { event: events::MOV_CR3_NOFLUSH, function: TEXT_POKE },
            OnlyAt { event: events::MOV_CR3_PTI, function: TEXT_POKE },
        ],
        text: Text::Kernel,
        ..LINUX
    },
    Profile { name: "coherent", note: "linux-x86 with every store snooped at once: the control", snoop: true, ..LINUX },
];
