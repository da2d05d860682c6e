//! `icsan-tally LOG...`: adds up the steps of a test run, each of which is a log whose file name is its name. The last
//! line is the sum; exit code 1 if anything failed, or was skipped that may not be (see [`icsan_guest_tests::tally`]).

use icsan_guest_tests::skips::ExpectedSkips;
use icsan_guest_tests::tally::Tally;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    match run(std::env::args().skip(1)) {
        Ok(tally) => {
            println!("{tally}");
            if tally.good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(why) => {
            eprintln!("icsan-tally: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(logs: impl Iterator<Item = String>) -> Result<Tally, String> {
    let expected = ExpectedSkips::committed()?;
    let mut sum = Tally::default();
    for path in logs {
        // Guests may print anything.
        let log = std::fs::read(&path).map_err(|error| format!("{path}: {error}"))?;
        let name = Path::new(&path).file_name().unwrap_or_default().to_string_lossy();
        sum.add(Tally::of_step(&name, &String::from_utf8_lossy(&log), &expected));
    }
    sum.close();
    Ok(sum)
}
