//! The profiles of AArch64, the default first. They differ in what maintenance they ask for, and in whether the
//! instructions that may be changed under a running CPU are exempt; what synchronizes is the same.

use super::cmodx::CMODX;
use super::events::EVENTS;
use crate::arch::exemption::Exemption;
use crate::arch::maintenance::{CacheType, Caches, Needs};
use crate::arch::profile::{Buffers, Profile, Text};
use crate::arch::sync_event::{SyncEventId, SyncEventSet, Word};

/// The context synchronization events.
const fn synchronizing() -> SyncEventSet {
    let mut set = SyncEventSet::EMPTY;
    let mut row = 0;
    while row < EVENTS.len() {
        if matches!(EVENTS[row].claims[0].word, Word::Yes) {
            set = set.with(SyncEventId(row as u8));
        }
        row += 1;
    }
    set
}

const LISTED: &[Exemption] = &[Exemption::Listed(CMODX)];

const fn needs(needs: Needs) -> Caches {
    Caches::Maintained(CacheType::of(needs))
}

const LINUX: Profile = Profile {
    name: "linux-arm64",
    note: "context synchronization events; maintenance as the guest's CTR_EL0 asks for; the instructions of B2.2.5 are exempt while their patch runs",
    serializing: synchronizing(),
    exemptions: LISTED,
    // No branch makes an own store visible.
    buffers: Buffers { own_store_at_branch: false, ..Buffers::DEFAULT },
    snoop: false,
    caches: needs(Needs::Guest),
    only_at: &[],
    text: Text::All,
};

/// All profiles. Names are stable.
pub const PROFILES: &[Profile] = &[
    LINUX,
    Profile { name: "arm64-strict", note: "linux-arm64 without the exempt instructions", exemptions: &[], ..LINUX },
    Profile {
        name: "arm64-base",
        note: "linux-arm64 on hardware that needs everything: clean, invalidate, barriers (IDC=0, DIC=0)",
        caches: needs(Needs::CleanAndInvalidate),
        ..LINUX
    },
    Profile {
        name: "arm64-idc",
        note: "linux-arm64 on hardware that needs no clean (IDC=1, DIC=0)",
        caches: needs(Needs::Invalidate),
        ..LINUX
    },
    Profile {
        name: "arm64-idc-dic",
        note: "linux-arm64 on hardware that needs no maintenance (IDC=1, DIC=1): context synchronization alone",
        caches: needs(Needs::Nothing),
        ..LINUX
    },
    Profile {
        name: "coherent",
        note: "linux-arm64 with every store snooped at once: the control",
        caches: needs(Needs::Nothing),
        snoop: true,
        ..LINUX
    },
];
