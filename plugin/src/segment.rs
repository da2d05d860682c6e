//! A segment: the instructions of a translated block that are fetched together, and that therefore get one callback.
//!
//! A block is cut after every instruction that may serialize, since what follows is fetched in a new epoch; and where its bytes are known to have changed
//! before, after every instruction, so that a block that faults half-way is not blamed for what it did not execute.

use crate::qemu::cpu::CurrentCpu;
use crate::qemu::host_code::HostCode;
use crate::qemu::scoreboard::SlotId;
use crate::qemu::translation::Payload;
use crate::sanitizer::Sanitizer;
use icsan_model::addr::{Linear, Vcpu};
use icsan_model::light::CodeRun;
use std::collections::HashMap;
use std::sync::Arc;

/// A run of code at one linear and one physical place. Segments live for ever: QEMU's generated code points at them.
#[derive(Debug)]
pub struct Segment {
    /// Linear address, bytes, instruction lengths.
    pub run: Arc<CodeRun>,
    /// Where memory holds it.
    pub host: HostCode,
    /// The slot that says, for each vCPU, whether it executed the segment in its current epoch.
    pub slot: SlotId,
    /// Whom to tell.
    pub sanitizer: &'static Sanitizer,
}

impl Payload for Segment {
    const READS_REGISTERS: bool = false;

    fn fire(&'static self, vcpu: Vcpu, cpu: &CurrentCpu) {
        self.sanitizer.executes(self, vcpu, cpu);
    }
}

/// What translations have seen in one 16-byte piece of code.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    bytes: [u8; PIECE],
    known: u16,
    changed: bool,
}

const PIECE: usize = 16;

/// All segments, and which code is known to have changed.
#[derive(Debug, Default)]
pub struct CodeTable {
    segments: HashMap<(Arc<CodeRun>, HostCode), &'static Segment>,
    /// By linear address and host identity of the piece: a remap is no change of the code at either place.
    seen: HashMap<(u64, usize), Seen>,
    limit: u32,
    dropped: u64,
}

impl CodeTable {
    /// A table for at most `limit` segments, one slot for each.
    #[must_use]
    pub fn new(limit: u32) -> Self {
        Self { limit, ..Self::default() }
    }

    /// How many segments could not be watched because the table was full.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Notes what a translation read at `linear`, and tells whether any of these bytes were different in an earlier translation of the same place.
    pub fn observe(&mut self, linear: Linear, bytes: &[u8], host: Option<usize>) -> bool {
        let mut changed = false;
        for (index, byte) in bytes.iter().enumerate() {
            let at = linear.offset(index as u64);
            let position = (at.0 % PIECE as u64) as usize;
            let identity = host.map_or(0, |host| (host + index).wrapping_sub(position));
            if self.seen.len() >= 4 * self.limit as usize && !self.seen.contains_key(&(at.0 - position as u64, identity)) {
                // Full: treat what is new as unchanged. It costs exactness within a block that faults half-way, no finding.
                continue;
            }
            let seen = self.seen.entry((at.0 - position as u64, identity)).or_default();
            if seen.known >> position & 1 != 0 && seen.bytes[position] != *byte {
                seen.changed = true;
            }
            seen.bytes[position] = *byte;
            seen.known |= 1 << position;
            changed |= seen.changed;
        }
        changed
    }

    /// The segment of this run, made if it is new. `None` if the table is full.
    pub fn intern(&mut self, run: CodeRun, host: HostCode, sanitizer: &'static Sanitizer) -> Option<&'static Segment> {
        let key = (Arc::new(run), host);
        if let Some(known) = self.segments.get(&key) {
            return Some(known);
        }
        let slot = SlotId(self.segments.len() as u32);
        if slot.0 >= self.limit {
            self.dropped += 1;
            return None;
        }
        let segment: &'static Segment = Box::leak(Box::new(Segment { run: key.0.clone(), host: key.1.clone(), slot, sanitizer }));
        self.segments.insert(key, segment);
        Some(segment)
    }
}
