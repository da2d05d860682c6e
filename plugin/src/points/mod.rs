//! Points: callbacks on single instructions that tell of more than an execution: a serializing event, the entry or
//! return of a protocol function, a system call, a marker. They tell a [`sink::Sink`], and know nothing of what it
//! makes of it.

mod cache_point;
mod death_point;
mod entry_point;
mod marker;
mod point_word;
mod protocol_point;
mod reset_point;
pub mod sink;
mod sync_point;
mod user_mode_point;
mod vector_point;
mod watch_gate;

use crate::qemu::cpu::CurrentCpu;
use crate::qemu::translation::Instruction;
pub use point_word::TAGS;
pub use protocol_point::await_returns;
use sink::Sink;

/// The callbacks on single instructions that exist so far.
#[derive(Debug, Default)]
pub struct Points {
    protocol: protocol_point::ProtocolPoints,
    deaths: death_point::DeathPoints,
    entries: entry_point::EntryPoints,
}

impl Points {
    /// What found no room, by table.
    #[must_use]
    pub fn dropped(&self) -> [(&'static str, u64); 1] {
        [("returns", self.protocol.dropped())]
    }

    /// Puts the callbacks on an instruction that it needs besides its segment's.
    ///
    /// `before`: the bytes right before it in memory, if it is the first of its block. `cpu`: the vCPU that translates.
    pub fn instrument(&self, instruction: &Instruction<'_>, before: Option<&[u8]>, sink: &dyn Sink, cpu: &CurrentCpu) {
        let bytes = instruction.bytes();
        let (config, platform) = (sink.config(), sink.platform());
        vector_point::instrument(instruction, sink, cpu);
        // Before what looks at a return: an entry may be nothing else.
        if config.writers {
            cache_point::instrument(instruction, sink);
            self.entries.instrument(instruction, sink);
            user_mode_point::instrument(instruction, sink);
        }
        let may_synchronize =
            platform.may_synchronize(bytes, &config.profile) || config.writers && platform.concerns_stores(bytes);
        sync_point::instrument(instruction, sink, may_synchronize);
        marker::instrument(instruction, sink);
        watch_gate::instrument(instruction, config);
        self.deaths.instrument(instruction, &config.symbols);
        reset_point::instrument(instruction, sink);
        if config.writers {
            self.protocol.instrument(instruction, before, sink);
        }
    }
}
