//! The trace buffer: decoded instructions of one vCPU, kept as runs, found by linear address.
//!
//! A run is what was executed from a branch target on, instruction after instruction, until the next taken branch. Runs
//! survive branches; that is their point. The buffer holds at most so many runs and drops the one that was begun first.
//! Coming back to a run's first instruction walks the run that is there; it does not begin another.
//!
//! Deviation 2 (see the crate's first page): hardware keeps whole decoded instructions and knows where each begins.
//! This buffer keeps the *chunks* that the run's instructions touch, so an old run also answers for an address in the
//! middle of it, and for the neighbours of its instructions within a chunk. That can only add candidates.

use crate::addr::{Linear, Seq};
use std::collections::{BTreeMap, VecDeque};

/// Chunks of the instructions of one run, each with the moment from which on its bytes may stem.
type Run = BTreeMap<Linear, Seq>;

/// The trace buffer of one vCPU.
#[derive(Clone, Debug)]
pub struct TraceBuffer {
    capacity: Option<u32>,
    /// By the address of the first instruction.
    runs: BTreeMap<Linear, Run>,
    /// The runs in the order of their beginnings.
    order: VecDeque<Linear>,
    /// The earliest moment of each chunk over all runs.
    since: BTreeMap<Linear, Seq>,
    /// The run that is being executed, and where it goes on.
    current: Option<(Linear, Linear)>,
}

impl TraceBuffer {
    /// An empty buffer that holds `capacity` runs.
    #[must_use]
    pub fn new(capacity: Option<u32>) -> Self {
        Self { capacity, runs: BTreeMap::new(), order: VecDeque::new(), since: BTreeMap::new(), current: None }
    }

    /// The moment from which on the held bytes of `chunk` may stem; `None` if no run holds it.
    #[must_use]
    pub fn since(&self, chunk: Linear) -> Option<Seq> {
        self.since.get(&chunk).copied()
    }

    /// An instruction was executed; `chunks` are those that it touches, with the moments from which on their bytes may
    /// stem.
    pub fn execute(&mut self, linear: Linear, len: u8, chunks: &[(Linear, Seq)]) {
        let start = match self.current {
            Some((start, next)) if next == linear => start,
            _ => linear,
        };
        self.current = Some((start, linear.offset(u64::from(len))));
        if !self.runs.contains_key(&start) {
            self.order.push_back(start);
        }
        let run = self.runs.entry(start).or_default();
        for (chunk, since) in chunks {
            run.entry(*chunk).or_insert(*since);
            self.since.entry(*chunk).and_modify(|held| *held = (*held).min(*since)).or_insert(*since);
        }
        while self.capacity.is_some_and(|capacity| self.order.len() > capacity as usize) {
            if let Some(first) = self.order.pop_front() {
                self.drop_run(first);
            }
        }
    }

    /// A taken branch: the next instruction begins a run, or walks one again.
    pub fn branch(&mut self) {
        self.current = None;
    }

    /// Drops one chunk from every run: a snooped store hit it.
    pub fn drop_chunk(&mut self, chunk: Linear) {
        if self.since.remove(&chunk).is_some() {
            for run in self.runs.values_mut() {
                run.remove(&chunk);
            }
        }
    }

    /// Drops everything: a serializing event.
    pub fn empty(&mut self) {
        let Self { capacity: _, runs, order, since, current } = self;
        runs.clear();
        order.clear();
        since.clear();
        *current = None;
    }

    /// The held chunks with their moments, by address.
    pub fn iter(&self) -> impl Iterator<Item = (Linear, Seq)> {
        self.since.iter().map(|(chunk, since)| (*chunk, *since))
    }

    fn drop_run(&mut self, start: Linear) {
        for chunk in self.runs.remove(&start).unwrap_or_default().into_keys() {
            match self.runs.values().filter_map(|run| run.get(&chunk)).min() {
                Some(since) => self.since.insert(chunk, *since),
                None => self.since.remove(&chunk),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(chunk: u64, since: u64) -> (Linear, Seq) {
        (Linear(chunk), Seq(since))
    }

    #[test]
    fn the_run_that_was_begun_first_goes_first() {
        let mut buffer = TraceBuffer::new(Some(2));
        buffer.execute(Linear(0), 4, &[at(0, 1)]);
        buffer.execute(Linear(4), 4, &[at(0, 2)]);
        buffer.branch();
        buffer.execute(Linear(8), 4, &[at(0, 3)]);
        buffer.branch();
        buffer.execute(Linear(0), 4, &[at(0, 4)]);
        assert_eq!(buffer.since(Linear(0)), Some(Seq(1)), "walking a run again begins none");
        buffer.branch();
        buffer.execute(Linear(64), 4, &[at(64, 5)]);
        assert_eq!(
            buffer.iter().collect::<Vec<_>>(),
            [at(0, 3), at(64, 5)],
            "the run at 8 still holds the chunk, from 3 on"
        );
    }

    #[test]
    fn an_instruction_out_of_line_begins_a_run() {
        let mut buffer = TraceBuffer::new(Some(1));
        buffer.execute(Linear(0), 4, &[at(0, 1)]);
        buffer.execute(Linear(64), 4, &[at(64, 2)]);
        assert_eq!(buffer.iter().collect::<Vec<_>>(), [at(64, 2)]);
        assert_eq!(TraceBuffer::new(Some(0)).runs.len(), 0);
    }
}
