//! A replay from the first record to the last, and everything that came out.

use crate::check::{Agreement, Check, Difference};
use crate::replay::{Refused, Replay};
use crate::settings::{Settings, SettingsError};
use crate::sites::Sites;
use icsan_model::addr::Seq;
use icsan_model::arch::architecture::Architecture;
use icsan_model::arch::profile::Profile;
use icsan_model::machine::stats::Stats;
use icsan_recording::{Header, Reader, Record, RecordingError, Totals};
use std::io::Read;

/// How the recording ended.
#[derive(Debug)]
pub enum End {
    /// As it should, with these totals.
    Whole(Totals),
    /// Cut off, or damaged, or unreadable: what follows is not known.
    Early(RecordingError),
}

/// The first few of something, and how many there were.
#[derive(Debug)]
pub struct Kept<T> {
    /// The first ones.
    pub list: Vec<T>,
    /// How many there were.
    pub total: u64,
    limit: usize,
}

impl<T> Kept<T> {
    fn new(limit: usize) -> Self {
        Self { list: Vec::new(), total: 0, limit }
    }

    fn add(&mut self, item: T) {
        self.total += 1;
        if self.list.len() < self.limit {
            self.list.push(item);
        }
    }
}

/// What a replay found.
#[derive(Debug)]
pub struct Outcome {
    /// The recording's header.
    pub header: Header,
    /// The architecture.
    pub arch: &'static Architecture,
    /// The profile that judged.
    pub profile: Profile,
    /// The model's counters.
    pub stats: Stats,
    /// The place of the last event.
    pub last: Seq,
    /// Records and recorded verdicts that were read.
    pub read: Totals,
    /// The hazards.
    pub sites: Sites,
    /// Events that the model did not take, with the number of their record.
    pub refused: Kept<(u64, Refused)>,
    /// The comparison with the recorded verdicts, if it was asked for.
    pub agreement: Option<Agreement>,
    /// What that found.
    pub differences: Kept<Difference>,
    /// The end.
    pub end: End,
}

impl Outcome {
    /// Was the whole recording looked at, and every execution in it in full?
    #[must_use]
    pub fn complete(&self) -> bool {
        let whole = matches!(self.end, End::Whole(totals) if totals.dropped == 0);
        whole && self.stats.complete() && self.refused.total == 0 && self.sites.beyond() == 0
    }

    /// Are the recorded verdicts, all of them, those of the model? `None` if that was not asked for.
    #[must_use]
    pub fn proven(&self) -> Option<bool> {
        let whole = matches!(self.end, End::Whole(_));
        self.agreement.map(|agreement| whole && agreement.differences() == 0 && self.refused.total == 0)
    }
}

/// Replays a recording. `keep` bounds the lists of differences and of refused events.
///
/// # Errors
/// The recording cannot be judged in this way. That it is damaged is no error, but an [`End`].
pub fn run<R: Read>(
    mut reader: Reader<R>,
    settings: &Settings,
    check: bool,
    keep: usize,
) -> Result<Outcome, SettingsError> {
    let header = reader.header().clone();
    let (arch, model) = settings.model(&header)?;
    let mut replay = Replay::new(model, arch, &header);
    let mut check = check.then(Check::default);
    let (mut sites, mut refused, mut differences) = (Sites::default(), Kept::new(keep), Kept::new(keep));
    let (mut number, mut failed) = (0, None);
    for record in &mut reader {
        number += 1;
        match record {
            Ok(verdict @ Record::Verdict { .. }) => {
                if let Some(check) = &mut check {
                    check.recorded(&verdict, &mut |difference| differences.add(difference));
                }
            }
            Ok(record) => {
                if let Some(check) = &mut check {
                    check.record(number, &mut |difference| differences.add(difference));
                }
                let executed = |executed: crate::replay::Executed<'_>| {
                    let verdict = executed.verdict;
                    if let Some(hazard) = &verdict.hazard {
                        sites.add(verdict.seq, hazard);
                    }
                    if let Some(check) = &mut check {
                        check.executed(verdict.seq, verdict.hazard.as_deref().map(Record::verdict));
                    }
                };
                replay.feed(&record, executed, |event| refused.add((number, event)));
            }
            Err(error) => failed = Some(error),
        }
    }
    let end = match (failed, reader.totals()) {
        (None, Some(totals)) => End::Whole(totals),
        (None, None) => End::Early(RecordingError::CutOff { records: number }),
        (Some(error), _) => End::Early(error),
    };
    let whole = matches!(end, End::Whole(_));
    let agreement = check.as_mut().map(|check| check.finish(whole, &mut |difference| differences.add(difference)));
    let model = replay.model();
    let (profile, stats, last) = (*model.profile(), model.stats().clone(), model.last());
    Ok(Outcome { header, arch, profile, stats, last, read: reader.read(), sites, refused, agreement, differences, end })
}
