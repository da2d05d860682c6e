//! Does ICSAN's memory stay bounded? A guest that flips a static key at full rate, and the resident size of its QEMU as
//! it goes.
//!
//! QEMU's own staleness kills kernels under this load (docs/emulator.md). A boot that dies of it is told as such, and
//! another one goes on.

use crate::process::Guest;
use anyhow::{Context, Result, bail};
use icsan_guest_tests::console::PREFIX;
use std::fs::{self, File};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How often the size is looked at, and how often it is told.
const LOOK: Duration = Duration::from_secs(2);
const TELL: Duration = Duration::from_secs(60);

/// The share of the time that counts as warm-up: the first of so many parts.
const WARM_UP: u32 = 10;

/// Size of QEMU's buffer for generated code, in MiB.
const CODE_BUFFER: u32 = 48;

/// How often another boot goes on where one died of QEMU's own fault.
const TRIES: usize = 20;

/// One look.
#[derive(Clone, Copy, Debug)]
struct Sample {
    after: Duration,
    mib: f64,
    flips: u64,
}

/// Runs for `seconds` in all and prints what it sees.
///
/// # Errors
/// QEMU or the guest fails in any other way than by QEMU's own staleness.
pub fn run(guest: &Guest<'_>, plugin: &str, seconds: u64) -> Result<()> {
    println!("seconds  resident MiB  flips");
    let wanted = Duration::from_secs(seconds);
    for _ in 0..TRIES {
        let (samples, died) = boot(guest, plugin, wanted)?;
        let Some(last) = samples.last() else { bail!("the guest ended at once") };
        if died {
            println!(
                "the kernel died of an outdated {} after {:.0} s and {} flips (QEMU's fault); again",
                guest.architecture.breakpoint,
                last.after.as_secs_f64(),
                last.flips
            );
            continue;
        }
        let warm = samples.iter().find(|sample| sample.after >= wanted / WARM_UP).unwrap_or(last);
        let most = samples.iter().map(|sample| sample.mib).fold(0.0, f64::max);
        println!(
            "{:.1} MiB after {:.0} s, {:.1} MiB at the end ({:.0} s, {} flips), {most:.1} MiB at most",
            warm.mib,
            warm.after.as_secs_f64(),
            last.mib,
            last.after.as_secs_f64(),
            last.flips
        );
        return Ok(());
    }
    bail!("the kernel died of an outdated {} {TRIES} times", guest.architecture.breakpoint);
}

/// One boot: what was seen, and whether the kernel died of QEMU's own staleness.
fn boot(guest: &Guest<'_>, plugin: &str, wanted: Duration) -> Result<(Vec<Sample>, bool)> {
    let (console, stderr) = (guest.folder.join("console"), guest.folder.join("stderr"));
    // QEMU keeps generated code until its buffer is full; a small one is full early, so that what grows after that is
    // ours.
    let mut command = guest.command(Some(plugin), &format!(",tb-size={CODE_BUFFER}"));
    // glibc gives each thread an arena of its own, and keeps in each what it once needed there. With one for all, what
    // is resident is what is in use.
    command.env("MALLOC_ARENA_MAX", "1");
    command.stdin(Stdio::null()).stdout(File::create(&console)?).stderr(File::create(&stderr)?);
    let mut child = command.spawn().with_context(|| format!("cannot start {}", guest.qemu.display()))?;
    let start = Instant::now();
    let mut samples: Vec<Sample> = Vec::new();
    let mut told = None;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if start.elapsed() > wanted + guest.timeout {
            child.kill()?;
            child.wait()?;
            bail!("the guest did not end in time");
        }
        if let Some(mib) = resident(&child) {
            let sample =
                Sample { after: start.elapsed(), mib, flips: flips(&fs::read_to_string(&console).unwrap_or_default()) };
            samples.push(sample);
            if told.is_none_or(|told: Instant| told.elapsed() >= TELL) {
                told = Some(Instant::now());
                println!("{:7.0}  {mib:12.1}  {}", sample.after.as_secs_f64(), sample.flips);
            }
        }
        thread::sleep(LOOK);
    };
    let text = String::from_utf8_lossy(&fs::read(&console)?).into_owned();
    if text.contains(guest.architecture.death_of_breakpoint) {
        return Ok((samples, true));
    }
    if !status.success() || !text.contains(&format!("{PREFIX}done toggle")) {
        bail!(
            "the guest did not finish: {}",
            text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing")
        );
    }
    let said = fs::read_to_string(&stderr)?;
    // What it says of itself, less the ledger's rows.
    said.lines()
        .filter(|line| line.starts_with("icsan: ") && !line.starts_with("icsan:  "))
        .for_each(|line| println!("{line}"));
    Ok((samples, false))
}

/// Resident size in MiB, while the process lives.
fn resident(child: &Child) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<f64>().ok()? / 1024.0)
}

/// What the guest said last of how often it has flipped the key.
fn flips(console: &str) -> u64 {
    let told = |line: &str| line.split_once("toggle: ")?.1.split_once("s, ")?.1.split_once(' ')?.0.parse().ok();
    console.lines().rev().find_map(told).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_last_count_is_found() {
        let console = format!("x\r\n{0}toggle: 10 s, 5 flips\r\n{0}toggle: 20 s, 9 flips\r\n[ 1.0] y", super::PREFIX);
        assert_eq!((super::flips(&console), super::flips("")), (9, 0));
    }
}
