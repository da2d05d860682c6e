//! Where a report goes: text to stderr at once, JSON Lines to a file.
//!
//! The file gets each hazard when it is first seen, so that a QEMU that is killed leaves what was found; at exit it is
//! written again with the final counts and the summary. A file that cannot be written twice (a pipe) gets its first
//! line at once, and the rest at exit.

use super::findings::{Findings, Hazard};
use super::json::Object;
use super::{Counts, Report, injections, text, unsynced};
use crate::injection::{Injections, Record};
use crate::output_file::{OutputError, OutputFile};
use crate::qemu::process::say;
use icsan_model::addr::{Linear, Vcpu};
use icsan_model::verdict::kind::Kind;
use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Marker lines that are kept. A guest that marks more often loses the later ones, which is said.
const MAX_MARKERS: usize = 100_000;

/// Short lines about QEMU's own staleness; the summary counts the rest.
const MAX_EMULATOR_LINES: u32 = 3;

/// The report file cannot be made.
#[derive(Debug, Error)]
#[error("report={path}: {source}", path = path.display())]
pub struct SinkError {
    path: PathBuf,
    source: OutputError,
}

/// The open report.
#[derive(Debug, Default)]
pub struct Sink {
    file: Option<Output>,
    markers: Vec<String>,
    emulator_lines: u32,
    /// Where something else was executed, as far as the text tells: each place once.
    injected_sites: BTreeSet<Linear>,
    symbol_error: bool,
}

#[derive(Debug)]
struct Output {
    path: PathBuf,
    file: OutputFile,
    failed: bool,
}

impl Output {
    fn write(&mut self, lines: &str) {
        if self.failed {
            return;
        }
        if let Err(error) = self.file.write_all(lines.as_bytes()) {
            self.failed = true;
            say(&format!("report={}: {error}; the report file is not complete", self.path.display()));
        }
    }

    fn restart(&mut self) {
        if let Err(error) = self.file.begin() {
            self.failed = true;
            say(&format!("report={}: {error}; the report file is not complete", self.path.display()));
        }
    }
}

impl Sink {
    /// Opens the report file, if one is wanted.
    ///
    /// # Errors
    /// It cannot be created or written.
    pub fn open(path: Option<&Path>) -> Result<Self, SinkError> {
        let Some(path) = path else { return Ok(Self::default()) };
        let file = OutputFile::open(path).map_err(|source| SinkError { path: path.to_owned(), source })?;
        Ok(Self { file: Some(Output { path: path.to_owned(), file, failed: false }), ..Self::default() })
    }

    /// Writes the first line, in place of what stood in the file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn start(&mut self, report: &Report<'_>) -> Result<(), SinkError> {
        let Some(output) = &mut self.file else { return Ok(()) };
        let written = output.file.begin().and_then(|()| output.file.write_all(line(&Object::start(report)).as_bytes()));
        written.map_err(|source| SinkError { path: output.path.clone(), source: source.into() })
    }

    /// The guest executed a marker.
    pub fn marker(&mut self, vcpu: Vcpu, value: u64) {
        if self.file.is_none() {
            return;
        }
        if self.markers.len() == MAX_MARKERS {
            say("more markers than the report keeps: later ones are left out");
        }
        if self.markers.len() > MAX_MARKERS {
            return;
        }
        let line = line(&Object::marker(vcpu, value));
        self.early(&line);
        self.markers.push(line);
    }

    /// A new hazard.
    pub fn hazard(&mut self, report: &Report<'_>, hazard: &Hazard) {
        self.emulator_lines += u32::from(hazard.kind == Kind::Emulator);
        if hazard.kind != Kind::Emulator || self.emulator_lines <= MAX_EMULATOR_LINES {
            told(report, hazard).iter().for_each(|text| to_stderr(text));
        }
        self.early(&line(&Object::hazard(report, hazard)));
    }

    /// What has become of a vCPU that was left out, as a hazard said.
    pub fn exposure_ended(&mut self, report: &Report<'_>, hazard: &Hazard) {
        if hazard.leads {
            unsynced::follows(report, hazard).iter().for_each(|text| to_stderr(text));
        }
    }

    /// An injected execution, whose trail ended.
    pub fn injection(&mut self, report: &Report<'_>, record: &Record) {
        let new = self.injected_sites.len() < injections::SHOWN && self.injected_sites.insert(record.first.linear);
        if new {
            to_stderr(&injections::text(report, record));
        }
        self.early(&line(&Object::injection(report, record)));
    }

    /// True once: the caller may complain about the symbols.
    pub fn first_symbol_error(&mut self) -> bool {
        !std::mem::replace(&mut self.symbol_error, true)
    }

    /// Writes everything with its final counts. Answers whether the file, if one is wanted, has all of it.
    pub fn finish(
        &mut self,
        report: &Report<'_>,
        findings: &Findings,
        injections: Option<&Injections>,
        counts: &Counts,
        fault: Option<&str>,
    ) -> bool {
        to_stderr(&text::summary(report, findings, injections, counts, fault));
        let Some(output) = &mut self.file else { return true };
        let mut lines = String::new();
        if output.file.is_regular() {
            output.restart();
            lines = line(&Object::start(report));
        }
        lines.extend(self.markers.iter().map(String::as_str));
        lines.extend(findings.hazards().iter().map(|hazard| line(&Object::hazard(report, hazard))));
        let records = injections.map_or(&[][..], Injections::records);
        lines.extend(records.iter().map(|record| line(&Object::injection(report, record))));
        lines.push_str(&line(&Object::summary(report, findings, injections, counts, fault)));
        output.write(&lines);
        !output.failed
    }

    /// Writes a line that [`Sink::finish`] will write again.
    fn early(&mut self, line: &str) {
        if let Some(output) = &mut self.file
            && output.file.is_regular()
        {
            output.write(line);
        }
    }
}

/// What people are told of a new hazard, if anything.
pub(super) fn told(report: &Report<'_>, hazard: &Hazard) -> Option<String> {
    if hazard.kind == Kind::Emulator {
        return hazard.counts.then(|| text::emulator(report, hazard));
    }
    let known = hazard.known.filter(|_| !hazard.counts).map(|known| text::known(report, hazard, known));
    known.or_else(|| hazard.leads.then(|| text::hazard(report, hazard)))
}

pub(super) fn line(object: &Object<'_>) -> String {
    // The objects are plain data with string keys: serde_json has nothing to refuse.
    let mut line =
        serde_json::to_string(object).unwrap_or_else(|error| format!("{{\"type\":\"error\",\"text\":\"{error}\"}}"));
    line.push('\n');
    line
}

fn to_stderr(text: &str) {
    // As in `say`: a stderr that is gone is no reason to disturb the guest.
    let _ = std::io::stderr().write_all(text.as_bytes());
}
