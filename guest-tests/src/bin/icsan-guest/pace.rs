//! How many changes a round makes.
//!
//! A timer interrupt, 250 times a second, serializes the executor and rightly hides a change that it falls into. So only a change that was
//! made and seen well within a tick counts as tight, and a round goes on until it had enough of those; or until its time is over, on a host
//! that gives its CPUs to others for longer than that.

use crate::outcome::Outcome;
use std::time::{Duration, Instant};

/// A change that takes no longer, from before the executor runs the old version until it was seen to run the new one, is tight.
const TIGHT: Duration = Duration::from_micros(800);

/// How many tight changes make a round.
const ENOUGH: u32 = 16;

/// With fewer than this, a round of a bad scenario says nothing.
const TOO_FEW: u32 = 4;

/// When a round of a bad scenario ends, whatever it had. (Versions repeat after 255 changes, but neighbours never are equal.)
const CHANGES: u32 = 1000;

/// The same for a good one.
const FEWER_CHANGES: u32 = 60;

/// How long a round of a bad scenario may go on.
const PATIENT: Duration = Duration::from_secs(12);

/// How long a round of a good scenario may go on: what did not happen needs less waiting for.
const BRIEF: Duration = Duration::from_millis(1200);

/// Counts the changes of a round.
#[derive(Debug)]
pub struct Pace {
    limit: Duration,
    most: u32,
    start: Instant,
    change: Instant,
    changes: u32,
    tight: u32,
    seen: u32,
}

impl Pace {
    /// For a scenario that is bad, whatever the profile.
    pub fn of_bad() -> Self {
        Self::new(PATIENT, CHANGES)
    }

    /// For a scenario that is good.
    pub fn of_good() -> Self {
        Self::new(BRIEF, FEWER_CHANGES)
    }

    fn new(limit: Duration, most: u32) -> Self {
        let now = Instant::now();
        Self { limit, most, start: now, change: now, changes: 0, tight: 0, seen: 0 }
    }

    /// The number of the next change, from 1, before the executor runs the old version; none if the round is over.
    pub fn next(&mut self) -> Option<u32> {
        let now = Instant::now();
        if self.tight >= ENOUGH || self.changes >= self.most || now - self.start > self.limit {
            return None;
        }
        self.change = now;
        self.changes += 1;
        Some(self.changes)
    }

    /// The change is over: did the executor run the new version?
    pub fn seen(&mut self, seen: bool) {
        self.seen += u32::from(seen);
        self.tight += u32::from(seen && self.change.elapsed() < TIGHT);
    }

    /// The end of the round.
    pub fn outcome(&self) -> Outcome {
        if self.limit == PATIENT && self.tight < TOO_FEW {
            return Outcome::Spoiled(format!("the host is too busy: {} of {} changes well within a tick", self.tight, self.changes));
        }
        Outcome::Done { patches: self.changes, seen: self.seen, tight: self.tight }
    }
}
