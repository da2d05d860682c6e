//! What stands at the beginning and at the end of a recording.

use icsan_model::arch::architecture::Architecture;
use icsan_model::arch::maintenance::CacheType;
use icsan_model::arch::profile::Buffers;
use serde::{Deserialize, Serialize};

/// The sizes of the buffers, as far as keys set them; the rest is the profile's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct BufferKeys {
    pub chunk: u32,
    pub lookahead: u32,
    pub prefetch: Option<u32>,
    pub trace: Option<u32>,
    pub speculation: bool,
}

impl BufferKeys {
    /// The profile's buffers with these sizes.
    #[must_use]
    pub const fn apply(self, profile: Buffers) -> Buffers {
        let Self { chunk, lookahead, prefetch, trace, speculation } = self;
        Buffers { chunk, lookahead, prefetch, trace, speculation, ..profile }
    }
}

impl From<Buffers> for BufferKeys {
    fn from(buffers: Buffers) -> Self {
        let Buffers { chunk, lookahead, prefetch, trace, speculation, own_store_at_branch: _ } = buffers;
        Self { chunk, lookahead, prefetch, trace, speculation }
    }
}

/// What was recorded, and how it was judged.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Header {
    /// The architecture's name.
    pub architecture: String,
    /// The names of the architecture's events. [`icsan_model::arch::sync_event::SyncEventId`]s in the recording are
    /// places in this list: another build's table may be longer.
    pub events: Vec<String>,
    /// The recorder's version.
    pub plugin: String,
    /// The profile's name.
    pub profile: String,
    /// The events that were added to the profile.
    pub with: Vec<String>,
    /// The events that were taken from it.
    pub without: Vec<String>,
    /// The buffers.
    pub buffers: BufferKeys,
    /// How many vCPUs the guest has.
    pub vcpus: u16,
    /// What the guest's cache type register says, if it was looked up.
    pub caches: Option<CacheType>,
}

/// What a header was before it had the guest's caches: the same fields without the last.
#[derive(Deserialize)]
pub(crate) struct WithoutCaches {
    architecture: String,
    events: Vec<String>,
    plugin: String,
    profile: String,
    with: Vec<String>,
    without: Vec<String>,
    buffers: BufferKeys,
    vcpus: u16,
}

impl From<WithoutCaches> for Header {
    fn from(header: WithoutCaches) -> Self {
        let WithoutCaches { architecture, events, plugin, profile, with, without, buffers, vcpus } = header;
        Self { architecture, events, plugin, profile, with, without, buffers, vcpus, caches: None }
    }
}

impl Header {
    /// The header of a recording under the architecture's default profile. The caller fills in what is different.
    #[must_use]
    pub fn new(architecture: &Architecture, plugin: &str, vcpus: u16) -> Self {
        let profile = architecture.default_profile();
        Self {
            architecture: architecture.name.to_owned(),
            events: architecture.events.iter().map(|row| row.name.to_owned()).collect(),
            plugin: plugin.to_owned(),
            profile: profile.name.to_owned(),
            with: Vec::new(),
            without: Vec::new(),
            buffers: profile.buffers.into(),
            vcpus,
            caches: None,
        }
    }
}

/// What stands in the end block.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Totals {
    /// Records, verdicts included.
    pub records: u64,
    /// Verdicts.
    pub hazards: u64,
    /// What the recorder had to leave out ([`crate::Writer::dropped`]): if it is not 0, a replay knows less than the
    /// run did.
    pub dropped: u64,
}
