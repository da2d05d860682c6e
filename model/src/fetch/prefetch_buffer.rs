//! The prefetch buffer: raw bytes that one vCPU read ahead of executing them, a chunk at a time.
//!
//! It is filled by executing (the chunks that the instruction touches, and a look-ahead), holds at most so many bytes,
//! drops what came in first, and is restarted by a taken branch: a queue of bytes in line is of no use after the line
//! was left. For each chunk it remembers the moment from which on its bytes may stem.
//!
//! Where instruction caches do not see stores, what is read at that moment may be older still
//! ([`crate::arch::maintenance`]).

use crate::addr::{Linear, Seq};
use std::collections::{BTreeMap, VecDeque};

/// The largest look-ahead, in bytes. No prefetcher runs further ahead than a page, and every execution walks it.
pub const MAX_LOOKAHEAD: u32 = 4096;

/// The prefetch buffer of one vCPU.
#[derive(Clone, Debug)]
pub struct PrefetchBuffer {
    chunk: u64,
    capacity: Option<u32>,
    /// From which moment on the bytes of a chunk may stem.
    since: BTreeMap<Linear, Seq>,
    /// The chunks in the order of filling. Only kept under a capacity.
    order: VecDeque<Linear>,
}

impl PrefetchBuffer {
    /// An empty buffer of chunks of `chunk` bytes that holds `capacity` bytes.
    #[must_use]
    pub fn new(chunk: u32, capacity: Option<u32>) -> Self {
        Self { chunk: u64::from(chunk), capacity, since: BTreeMap::new(), order: VecDeque::new() }
    }

    /// The moment from which on the held bytes of `chunk` may stem; `None` if it is not held.
    #[must_use]
    pub fn since(&self, chunk: Linear) -> Option<Seq> {
        self.since.get(&chunk).copied()
    }

    /// Brings a chunk in at `now`. One that is held stays as it is.
    pub fn fill(&mut self, chunk: Linear, now: Seq) {
        if self.since.contains_key(&chunk) {
            return;
        }
        self.since.insert(chunk, now);
        let Some(capacity) = self.capacity else { return };
        self.order.push_back(chunk);
        while self.order.len() as u64 * self.chunk > u64::from(capacity) {
            if let Some(first) = self.order.pop_front() {
                self.since.remove(&first);
            }
        }
    }

    /// Drops one chunk: a snooped store hit it.
    pub fn drop_chunk(&mut self, chunk: Linear) {
        if self.since.remove(&chunk).is_some() {
            self.order.retain(|held| *held != chunk);
        }
    }

    /// Drops everything: a taken branch, or a serializing event.
    pub fn empty(&mut self) {
        self.since.clear();
        self.order.clear();
    }

    /// The held chunks with their moments, by address.
    pub fn iter(&self) -> impl Iterator<Item = (Linear, Seq)> {
        self.since.iter().map(|(chunk, since)| (*chunk, *since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_filled_goes_first() {
        let mut buffer = PrefetchBuffer::new(16, Some(40));
        buffer.fill(Linear(32), Seq(1));
        buffer.fill(Linear(0), Seq(2));
        buffer.fill(Linear(32), Seq(3));
        assert_eq!(buffer.since(Linear(32)), Some(Seq(1)), "a held chunk stays");
        buffer.fill(Linear(16), Seq(4));
        assert_eq!(buffer.iter().collect::<Vec<_>>(), [(Linear(0), Seq(2)), (Linear(16), Seq(4))]);
        buffer.drop_chunk(Linear(0));
        buffer.fill(Linear(48), Seq(5));
        assert_eq!(buffer.iter().collect::<Vec<_>>(), [(Linear(16), Seq(4)), (Linear(48), Seq(5))]);
    }

    #[test]
    fn a_capacity_below_one_chunk_holds_nothing() {
        let mut buffer = PrefetchBuffer::new(16, Some(15));
        buffer.fill(Linear(0), Seq(1));
        assert_eq!(buffer.since(Linear(0)), None);
    }
}
