//! What ended the exposures of vCPUs at last, and what they ran before.

use super::hex::hex;
use super::words::{asker_name, missing, name};
use super::{Counts, Report, origin_name};
use crate::exposure::{EndRow, EndTally, Ended, Piece, Way};
use icsan_model::addr::Linear;
use icsan_model::detector::sync_log::SyncAt;
use icsan_symbols::Names;
use serde::Serialize;
use std::fmt::Write;
use std::time::Duration;

/// Functions of a way that the text names.
const SHOWN: usize = 24;

/// Rows of the table that the text has.
const ROWS_SHOWN: usize = 12;

/// How an exposure ended, in JSON.
#[derive(Serialize, Debug)]
#[allow(missing_docs)]
pub struct EndedObject {
    pub event: &'static str,
    pub pc: String,
    pub symbol: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// Time of the host since the protocol went on.
    pub microseconds: u64,
    /// What the vCPU executed before, although the patch had changed it.
    pub met: Option<String>,
    /// The first address that was changed in a function, or page, that it ran.
    pub near: Option<String>,
    pub ran: Vec<PieceObject>,
}

/// A piece of code that was run.
#[derive(Serialize, Debug)]
#[allow(missing_docs)]
pub struct PieceObject {
    /// A function's name, or the address of a page that has none.
    pub code: String,
    /// Was some of it run for the first time after the last store? Else it was run before, and perhaps again.
    pub after: bool,
}

/// A row of the table, in JSON.
#[derive(Serialize, Debug)]
#[allow(missing_docs)]
pub struct DeferralObject {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot: Option<usize>,
    pub function: String,
    pub missing: String,
    pub count: u64,
    /// In how many of them something changed had been executed.
    pub met_changed: u64,
    /// Is the event one of `defer=`?
    pub meant: bool,
    /// The event, the longest time, and all that was run; `met` is not told here.
    #[serde(flatten)]
    pub ended: EndedObject,
}

fn event(report: &Report<'_>, symbols: Names<'_>, by: SyncAt) -> String {
    let origin = by.origin.map(|origin| format!(" of {}", origin_name(symbols, origin))).unwrap_or_default();
    format!("{}{origin} in {}", report.arch.event_name(by.event), name(symbols, by.pc.0))
}

fn piece(symbols: Names<'_>, piece: Piece) -> String {
    match piece {
        Piece::Function(entry) => symbols.resolve(entry.0).map_or_else(|| hex(entry.0), |found| found.name.to_owned()),
        Piece::Page(page) => hex(page.0),
    }
}

fn object(
    report: &Report<'_>,
    symbols: Names<'_>,
    by: SyncAt,
    after: Duration,
    (met, near): (Option<Linear>, Option<Linear>),
    way: &Way,
) -> EndedObject {
    let symbol = |at: Linear| symbols.resolve(at.0).map(|found| found.to_string());
    EndedObject {
        event: report.arch.event_name(by.event),
        pc: hex(by.pc.0),
        symbol: symbol(by.pc),
        origin: by.origin.map(|origin| origin_name(symbols, origin)),
        microseconds: after.as_micros() as u64,
        met: met.map(|at| name(symbols, at.0)),
        near: near.map(|at| name(symbols, at.0)),
        ran: way.pieces().map(|(code, after)| PieceObject { code: piece(symbols, code), after }).collect(),
    }
}

/// How the exposure that a hazard told of ended, if it did.
pub(super) fn ended(report: &Report<'_>, symbols: Names<'_>, ended: &Ended) -> EndedObject {
    let Ended { by, after, met, near, way } = ended;
    object(report, symbols, *by, *after, (*met, *near), way)
}

/// The same in words, without what it ran.
pub(super) fn words(report: &Report<'_>, symbols: Names<'_>, ended: &Ended) -> String {
    let met = match ended.met {
        Some(at) => format!("before that it executed what was changed, at {}", name(symbols, at.0)),
        None => "until then it executed nothing that was changed".to_owned(),
    };
    format!("{} µs later it serialized: {}; {met}", ended.after.as_micros(), event(report, symbols, ended.by))
}

/// The rows of the table; `None` in the light mode.
pub(super) fn rows(report: &Report<'_>, counts: &Counts) -> Option<Vec<DeferralObject>> {
    let row = |(EndRow { row, by }, tally): (&EndRow, &EndTally)| {
        let symbols = report.config.symbols.names_of(row.boot);
        DeferralObject {
            boot: (report.config.symbols.boot() > 1).then_some(row.boot),
            function: asker_name(symbols, row.asker),
            missing: missing(row.missing),
            count: tally.count,
            met_changed: tally.met,
            meant: tally.meant,
            ended: object(report, symbols, *by, tally.longest, (None, tally.near), &tally.way),
        }
    };
    counts.deferrals.as_ref().map(|table| table.rows().map(row).collect())
}

/// Which boot that was, if there were several.
fn in_boot(report: &Report<'_>, words: String, boot: usize) -> String {
    if report.config.symbols.boot() > 1 { format!("{words}, boot {boot}") } else { words }
}

/// What was run, in words.
fn way(symbols: Names<'_>, way: &Way) -> String {
    let (mut functions, mut pages) = (Vec::new(), 0);
    for (code, _) in way.pieces() {
        match code {
            Piece::Function(_) => functions.push(piece(symbols, code)),
            Piece::Page(_) => pages += 1,
        }
    }
    let rest = functions.len().saturating_sub(SHOWN);
    functions.truncate(SHOWN);
    let mut words = functions.join(", ");
    if rest > 0 {
        let _ = write!(words, ", and {rest} more functions");
    }
    match (words.is_empty(), pages) {
        (true, 0) => "nothing".to_owned(),
        (false, 0) => words,
        (true, pages) => format!("{pages} pages of code without a name"),
        (false, pages) => format!("{words}; and {pages} pages of code without a name"),
    }
}

/// The table for people; nothing if no vCPU was exposed.
pub(super) fn table(report: &Report<'_>, counts: &Counts) -> String {
    let Some(table) = &counts.deferrals else { return String::new() };
    let mut text = String::new();
    let rows: Vec<_> = table.rows().collect();
    if !rows.is_empty() {
        text.push_str(
            "icsan: deferred: what made the exposed CPUs serialize at last, and what they had run since they \
             serialized before\n",
        );
    }
    for (EndRow { row, by }, tally) in rows.iter().take(ROWS_SHOWN) {
        let symbols = report.config.symbols.names_of(row.boot);
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "icsan: {:>8}  {}, {}: {}{}; {} µs at most; {}",
            tally.count,
            asker_name(symbols, row.asker),
            in_boot(report, missing(row.missing), row.boot),
            event(report, symbols, *by),
            if tally.meant { ", as defer= means it" } else { "" },
            tally.longest.as_micros(),
            match tally.met {
                0 => "nothing that was changed had been executed before".to_owned(),
                1 => "once something that was changed had been executed before".to_owned(),
                met => format!("{met} times something that was changed had been executed before"),
            }
        );
        let near = match tally.near {
            Some(at) => format!("; changed there: {}", name(symbols, at.0)),
            None => "; nothing was changed there".to_owned(),
        };
        let _ = writeln!(text, "icsan:           ran: {}{near}", way(symbols, &tally.way));
    }
    if let Some(more) = rows.len().checked_sub(ROWS_SHOWN).filter(|more| *more > 0) {
        let _ = writeln!(text, "icsan: and {more} more rows: they are in report=");
    }
    if table.open() > 0 {
        let _ = writeln!(
            text,
            "icsan: note: exposures that had not ended when the guest did: {}{}",
            table.open(),
            if report.config.defer.is_empty() {
                ""
            } else {
                "; if anything that was changed was executed there, it is reported"
            }
        );
    }
    text
}
