//! `icsan-replay`: an event recording, judged by the plain model.

use clap::Parser;
use icsan_recording::{Reader, RecordingError};
use icsan_replay::report;
use icsan_replay::session::{self, End};
use icsan_replay::settings::Settings;
use indicatif::{ProgressBar, ProgressStyle};
use std::fs::File;
use std::io::{BufReader, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

/// Replays a recording of ICSAN (record=PATH) on the plain model: its hazards, what other rules would make of the same
/// run, and whether the recorder's verdicts were right.
///
/// Exit code: 0; 1 if --check found a difference, or could not look at everything; 2 if the recording is damaged or
/// cannot be replayed as wanted. A recording that was cut off is replayed as far as it goes.
#[derive(Parser, Debug)]
#[command(version)]
struct Arguments {
    /// The recording.
    file: PathBuf,
    /// Judge by this profile instead of the recording's (whose with= and without= do not count then).
    #[arg(long, value_name = "NAME", conflicts_with = "check")]
    profile: Option<String>,
    /// Events that serialize as well, joined by +.
    #[arg(long, value_name = "EVENT+EVENT", value_delimiter = '+', conflicts_with = "check")]
    with: Vec<String>,
    /// Events that do not serialize, joined by +.
    #[arg(long, value_name = "EVENT+EVENT", value_delimiter = '+', conflicts_with = "check")]
    without: Vec<String>,
    /// The aligned block that one fetch brings in, in bytes.
    #[arg(long, value_name = "BYTES", conflicts_with = "check")]
    chunk: Option<u32>,
    /// How far the prefetcher reads ahead, in bytes.
    #[arg(long, value_name = "BYTES", conflicts_with = "check")]
    lookahead: Option<u32>,
    /// Capacity of the prefetch buffer in bytes, or `unbounded`.
    #[arg(long, value_name = "BYTES", value_parser = bound, conflicts_with = "check")]
    prefetch: Option<Bound>,
    /// Capacity of the trace buffer in runs, or `unbounded`.
    #[arg(long, value_name = "RUNS", value_parser = bound, conflicts_with = "check")]
    trace: Option<Bound>,
    /// May a vCPU have brought in any mapped byte at any time? `--speculation=off` turns a recording's own off.
    #[arg(long, value_name = "on|off", value_parser = switch, num_args = 0..=1, require_equals = true, default_missing_value = "on", conflicts_with = "check")]
    speculation: Option<bool>,
    /// Compare the recorded verdicts with the model's, strictly.
    #[arg(long)]
    check: bool,
    /// JSON Lines instead of text.
    #[arg(long)]
    json: bool,
    /// Print so many hazards, differences and refused events at most; 0: all.
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
}

/// A capacity; `None`: unbounded.
type Bound = (Option<u32>,);

fn bound(value: &str) -> Result<Bound, String> {
    match value {
        "unbounded" => Ok((None,)),
        number => {
            number.parse().map(|number| (Some(number),)).map_err(|_| "a number or `unbounded` is expected".to_owned())
        }
    }
}

fn switch(value: &str) -> Result<bool, String> {
    match value {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("on or off is expected".to_owned()),
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(code) => ExitCode::from(code),
        Err(message) => {
            eprintln!("icsan-replay: {message}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: Arguments) -> Result<u8, String> {
    let Arguments { file, profile, with, without, chunk, lookahead, prefetch, trace, speculation, check, json, limit } =
        arguments;
    let limit = if limit == 0 { usize::MAX } else { limit };
    let (prefetch, trace) = (prefetch.map(|(bound,)| bound), trace.map(|(bound,)| bound));
    let settings = Settings { profile, with, without, chunk, lookahead, prefetch, trace, speculation };
    let in_file = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());

    let progress = progress(&file);
    let input = File::open(&file).map_err(|error| in_file(&error))?;
    let input = BufReader::with_capacity(1 << 18, progress.wrap_read(input));
    let reader = Reader::new(input).map_err(|error| in_file(&error))?;
    let begun = Instant::now();
    let outcome = session::run(reader, &settings, check, limit).map_err(|error| in_file(&error))?;
    progress.finish_and_clear();

    let seconds = begun.elapsed().as_secs_f64();
    eprintln!("icsan-replay: {} events in {seconds:.1} s", outcome.last);
    let mut output = BufWriter::new(std::io::stdout().lock());
    match report::print(&mut output, &outcome, limit, json).and_then(|()| output.flush()) {
        // The reader of the pipe has read enough.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => return Err(format!("cannot write the report: {error}")),
        _ => {}
    }
    Ok(match (&outcome.end, outcome.proven()) {
        (End::Early(error), _) if !matches!(error, RecordingError::CutOff { .. }) => 2,
        (_, Some(false)) => 1,
        _ => 0,
    })
}

/// A bar on stderr if that is a terminal, else nothing.
fn progress(file: &Path) -> ProgressBar {
    let bar = ProgressBar::new(file.metadata().map_or(0, |metadata| metadata.len()));
    let style = ProgressStyle::with_template("{bar:40} {percent}% of {total_bytes}, {eta} left");
    style.map(|style| bar.clone().with_style(style)).unwrap_or(bar)
}
