//! What the guest program says it saw.

use anyhow::{Context, Result, bail};
use icsan_guest_tests::console::{DONE, PREFIX};
use icsan_guest_tests::litmus::outcome::{Counts, parse_line};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// By test.
pub type Seen = BTreeMap<String, Counts>;

/// Reads a console.
///
/// # Errors
/// The program did not come to its end, or a line of it cannot be read.
pub fn read(console: &str) -> Result<Seen> {
    let mut seen = Seen::new();
    let mut done = false;
    for line in console.lines().filter_map(|line| line.split_once(PREFIX)).map(|(_, line)| line.trim()) {
        if line == DONE {
            done = true;
        } else if line.starts_with("litmus ") {
            let (name, counts) = parse_line(line).with_context(|| format!("cannot read `{line}`"))?;
            add(&mut seen, name, &counts);
        }
    }
    if !done {
        let last: Vec<&str> = console.lines().rev().filter(|line| !line.trim().is_empty()).take(3).collect();
        bail!("the guest did not come to its end: {}", last.into_iter().rev().collect::<Vec<_>>().join(" / "));
    }
    Ok(seen)
}

/// Adds the counts of another run.
pub fn add(seen: &mut Seen, name: &str, counts: &Counts) {
    let all = seen.entry(name.to_owned()).or_default();
    counts.iter().for_each(|(outcome, count)| *all.entry(outcome.clone()).or_default() += count);
}

/// Runs the guest program on this CPU.
///
/// # Errors
/// It cannot be run, or did not come to its end.
pub fn natively(guest: &Path, asked: &str) -> Result<Seen> {
    let output = Command::new(guest)
        .args(["litmus", asked])
        .output()
        .with_context(|| format!("cannot run {}", guest.display()))?;
    if !output.status.success() {
        bail!("natively: {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    read(&String::from_utf8_lossy(&output.stdout)).context("natively")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_several_runs_add_up() {
        let text =
            format!("[ 1.0] boot\n{PREFIX}litmus a 3 0x1,trap@0x1=2 0x2=1\n{PREFIX}litmus a 1 0x2=1\n{PREFIX}{DONE}\n");
        let seen = read(&text).unwrap();
        assert_eq!(seen["a"].values().copied().collect::<Vec<_>>(), [2, 2]);
        assert!(read(&text.replace(DONE, "")).is_err());
        assert!(read(&text.replace("=2", "=3")).is_err(), "cut off");
    }
}
