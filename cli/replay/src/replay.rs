//! Feeding records to the model.

use icsan_model::addr::{Linear, Seq, Vcpu};
use icsan_model::architecture::Architecture;
use icsan_model::error::ModelError;
use icsan_model::event::Event;
use icsan_model::hazard::Verdict;
use icsan_model::model::Model;
use icsan_model::sync_event::SyncEventId;
use icsan_recording::{Header, Record};
use thiserror::Error;

/// After so many events the model is made to forget, at the earliest: forgetting costs as much as the model remembers,
/// so the more that is, the more rarely it is done.
const FORGET: u64 = 1 << 20;

/// An event that the model did not take. Its place in the order is kept free, so that what follows keeps its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    /// The place that it would have had.
    pub seq: Seq,
    /// Why.
    pub why: RefusedBecause,
}

/// Why an event was not taken.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum RefusedBecause {
    /// The model does not allow it.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The recorder knew an event that this build does not know.
    #[error("event {} is not in this build's table{}", event.0, name.as_ref().map(|name| format!(" (`{name}`)")).unwrap_or_default())]
    ForeignEvent {
        /// Its number in the recording.
        event: SyncEventId,
        /// Its name, if the recording's header has one.
        name: Option<String>,
    },
}

/// One execution, and what the model says of it.
#[derive(Debug)]
pub struct Executed<'a> {
    /// Who.
    pub vcpu: Vcpu,
    /// The instruction.
    pub linear: Linear,
    /// The model's word.
    pub verdict: &'a Verdict,
}

/// A model, and how the recording's events become its events.
#[derive(Debug)]
pub struct Replay {
    model: Model,
    /// The recording's event table, and this build's events by place in it. `None`: it is this build's table.
    table: Option<Vec<(String, Option<SyncEventId>)>>,
    /// How many events this build's table has.
    known: usize,
    /// The model is made to forget after so many events, at the earliest.
    every: u64,
    /// Events until it is.
    until_forget: u64,
}

impl Replay {
    /// A replay of a recording with that header.
    #[must_use]
    pub fn new(model: Model, arch: &Architecture, header: &Header) -> Self {
        let same = header.events.iter().map(String::as_str).eq(arch.events.iter().map(|row| row.name));
        let table = || header.events.iter().map(|name| (name.clone(), arch.event_by_name(name))).collect();
        Self { model, table: (!same).then(table), known: arch.events.len(), every: FORGET, until_forget: FORGET }
    }

    /// The same, but the model is made to forget after so many events: no verdict depends on it.
    #[must_use]
    pub fn forget_every(self, events: u64) -> Self {
        Self { every: events, until_forget: events, ..self }
    }

    /// Feeds one record. `executed` is called for each execution, `refused` for each event that the model does not
    /// take. A verdict is no event: it changes nothing.
    pub fn feed(&mut self, record: &Record, mut executed: impl FnMut(Executed<'_>), mut refused: impl FnMut(Refused)) {
        match record {
            Record::Event(event) => self.event(event, &mut executed, &mut refused),
            Record::Run { vcpu, linear, lengths } => {
                let (vcpu, mut linear) = (*vcpu, *linear);
                for len in lengths {
                    self.event(&Event::Fetch { vcpu, linear, len: *len }, &mut executed, &mut refused);
                    linear = linear.offset(u64::from(*len));
                }
            }
            Record::Verdict { .. } => {}
        }
        let places = record.places();
        self.until_forget = self.until_forget.saturating_sub(places);
        if self.until_forget == 0 {
            self.model.forget();
            self.until_forget = self.every.max(self.model.memory().versions() as u64 / 4);
        }
    }

    /// The model in the state after the last record.
    #[must_use]
    pub const fn model(&self) -> &Model {
        &self.model
    }

    fn event(&mut self, event: &Event, executed: &mut impl FnMut(Executed<'_>), refused: &mut impl FnMut(Refused)) {
        match self.apply(event) {
            Ok(verdict) => {
                if let Event::Fetch { vcpu, linear, .. } = event {
                    executed(Executed { vcpu: *vcpu, linear: *linear, verdict: &verdict });
                }
            }
            Err(why) => {
                refused(Refused { seq: self.model.last().next(), why });
                // A commit of nothing: the model always takes it, and it does nothing but take a place.
                let _ = self.model.apply(&Event::Commit { stores: Vec::new() });
            }
        }
    }

    fn apply(&mut self, event: &Event) -> Result<Verdict, RefusedBecause> {
        match (event, &self.table) {
            (Event::Sync { vcpu, event, pc }, table) => {
                let known = match table {
                    Some(table) => table.get(usize::from(event.0)).and_then(|(_, id)| *id),
                    None => Some(*event).filter(|event| usize::from(event.0) < self.known),
                };
                let name = || table.as_ref()?.get(usize::from(event.0)).map(|(name, _)| name.clone());
                let known = known.ok_or_else(|| RefusedBecause::ForeignEvent { event: *event, name: name() })?;
                Ok(self.model.apply(&Event::Sync { vcpu: *vcpu, event: known, pc: *pc })?)
            }
            _ => Ok(self.model.apply(event)?),
        }
    }
}
