//! The proof: are the recorded verdicts those of the plain model?
//!
//! A recorded verdict stands behind the record that it judges, so the verdicts of both are compared record by record.
//! Each of the model's must be matched by exactly one recorded verdict on the same instruction and equal in everything
//! that is recorded: kind, memory, candidates that are not exempt, stores. An execution of which both say nothing
//! agrees, too.
//!
//! Verdicts of the kind `emulator` on executions of which the model says nothing are no differences: they are about
//! QEMU, and the model cannot know. They are counted.

use icsan_model::addr::{Linear, Seq, Vcpu};
use icsan_model::verdict::kind::Kind;
use icsan_recording::Record;

/// How a verdict differs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum What {
    /// The model has a verdict that was not recorded.
    Missing {
        /// The model's.
        model: Record,
    },
    /// A verdict was recorded on what is no hazard to the model, or no execution of the record before at all.
    Extra {
        /// The recorded one.
        recorded: Record,
    },
    /// Both have one, but another.
    Other {
        /// The model's.
        model: Record,
        /// The recorded one.
        recorded: Record,
    },
}

/// A verdict that is not the same in both.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Difference {
    /// The record that is judged, counted from 1; 0: there is none.
    pub record: u64,
    /// The place of the execution in the order; of the last one, if the model has no verdict to compare with.
    pub seq: Seq,
    /// How it differs.
    pub what: What,
}

/// Counts of a comparison.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Agreement {
    /// Verdicts that are the same in both.
    pub agreed: u64,
    /// Executions.
    pub executions: u64,
    /// Differences by kind: the model's that were not recorded, recorded ones that the model does not have, those that
    /// are not equal.
    pub missing: u64,
    /// See `missing`.
    pub extra: u64,
    /// See `missing`.
    pub other: u64,
    /// Recorded verdicts on the emulator, which the model cannot judge.
    pub emulator: u64,
    /// Verdicts of the model that could not be compared, since the recording was cut off behind their record.
    pub not_compared: u64,
}

impl Agreement {
    /// All differences.
    #[must_use]
    pub const fn differences(&self) -> u64 {
        self.missing + self.extra + self.other
    }

    /// Executions of which both say nothing.
    #[must_use]
    pub const fn silent(&self) -> u64 {
        self.executions.saturating_sub(self.agreed + self.differences() + self.not_compared)
    }
}

/// The comparison as it goes.
#[derive(Default, Debug)]
pub struct Check {
    counts: Agreement,
    /// The model's verdicts on the last record that have not been matched.
    open: Vec<(Seq, Record)>,
    record: u64,
    last: Seq,
}

impl Check {
    /// A record that is no verdict begins: nothing can follow any more for the one before.
    pub fn record(&mut self, number: u64, report: &mut impl FnMut(Difference)) {
        for (seq, model) in self.open.drain(..) {
            self.counts.missing += 1;
            report(Difference { record: self.record, seq, what: What::Missing { model } });
        }
        self.record = number;
    }

    /// An execution of this record, and the model's verdict on it if it is a hazard.
    pub fn executed(&mut self, seq: Seq, hazard: Option<Record>) {
        self.counts.executions += 1;
        self.last = seq;
        self.open.extend(hazard.map(|hazard| (seq, hazard)));
    }

    /// A recorded verdict.
    pub fn recorded(&mut self, recorded: &Record, report: &mut impl FnMut(Difference)) {
        let Some((vcpu, linear, kind)) = judged(recorded) else { return };
        let same = |(_, model): &(Seq, Record)| judged(model).is_some_and(|(a, b, _)| (a, b) == (vcpu, linear));
        // The same instruction may be there twice, if a run wraps around the address space: an equal one first.
        let found =
            self.open.iter().position(|(_, model)| model == recorded).or_else(|| self.open.iter().position(same));
        let (seq, what) = match found.map(|index| self.open.remove(index)) {
            Some((_, model)) if model == *recorded => {
                self.counts.agreed += 1;
                return;
            }
            Some((seq, model)) => {
                self.counts.other += 1;
                (seq, What::Other { model, recorded: recorded.clone() })
            }
            None if kind == Kind::Emulator => {
                self.counts.emulator += 1;
                return;
            }
            None => {
                self.counts.extra += 1;
                (self.last, What::Extra { recorded: recorded.clone() })
            }
        };
        report(Difference { record: self.record, seq, what });
    }

    /// The recording is over. If it was cut off, verdicts on its last record may have been lost with the rest.
    pub fn finish(&mut self, whole: bool, report: &mut impl FnMut(Difference)) -> Agreement {
        if !whole {
            self.counts.not_compared += self.open.len() as u64;
            self.open.clear();
        }
        self.record(0, report);
        self.counts
    }
}

/// What a verdict judges, and how.
fn judged(record: &Record) -> Option<(Vcpu, Linear, Kind)> {
    match record {
        Record::Verdict { vcpu, linear, kind, .. } => Some((*vcpu, *linear, *kind)),
        _ => None,
    }
}
