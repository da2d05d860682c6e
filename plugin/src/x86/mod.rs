//! What the plugin knows of x86-64 beyond the model: which instructions to watch, and what must be looked up when they run.

mod marker;
mod registers;
mod sync_point;
pub mod text;
mod watch_gate;

use crate::qemu::translation::Instruction;
use crate::sanitizer::Sanitizer;
use icsan_model::profile::Profile;
use icsan_model::sync_event::SyncEventId;
use icsan_model::x86::classify::{Class, classify};
use icsan_model::x86::events::{self, Seen};

/// The guest's page size, in bytes.
pub const PAGE: u64 = 4096;

/// The callbacks on single instructions that exist so far.
#[derive(Debug, Default)]
pub struct Points {
    sync: sync_point::SyncPoints,
    marker: marker::MarkerPoint,
    gates: watch_gate::Gates,
}

/// Does the plugin learn of the event at all? It watches instructions; resets, interrupt delivery and system management mode show in none.
#[must_use]
pub fn can_see(event: SyncEventId) -> bool {
    matches!(events::seen(event), Seen::Instruction | Seen::Resolved | Seen::Hot)
}

/// May this instruction serialize under that profile? Cheap: it is asked for every translated instruction.
#[must_use]
pub fn may_synchronize(bytes: &[u8], profile: &Profile) -> bool {
    match classify(bytes) {
        None => false,
        Some(Class::Fixed(event)) => profile.serializes(event),
        Some(Class::Iret { .. }) => profile.serializes(events::IRET) || profile.serializes(events::IRET_TO_SELF),
        Some(Class::Wrmsr) => profile.serializes(events::WRMSR) || profile.serializes(events::WRMSR_NONSERIALIZING),
        Some(Class::MovCr3 { .. }) => {
            [events::MOV_CR3, events::MOV_CR3_NOFLUSH, events::MOV_CR3_PTI].iter().any(|event| profile.serializes(*event))
        }
    }
}

impl Points {
    /// Puts the callbacks on an instruction that it needs besides its segment's.
    pub fn instrument(&self, instruction: &Instruction<'_>, sanitizer: &'static Sanitizer) {
        self.sync.instrument(instruction, sanitizer, may_synchronize(instruction.bytes(), &sanitizer.config().profile));
        self.marker.instrument(instruction, sanitizer);
        self.gates.instrument(instruction, sanitizer);
    }
}
