//! `module/`: a kernel module changes its own text, well and badly. It does so itself; here it is only loaded and told.

use crate::kernel_modules::load;
use crate::outcome::{Attempt, Outcome};
use crate::pace;
use crate::say::say;
use crate::sys::{cpus, pin};
use icsan_guest_tests::patcher::{NAME, describe_text};
use icsan_guest_tests::table::{MODULES_FOLDER, WRITER, executor};
use std::fs;
use std::io;
use std::path::Path;

/// The module's parameters; writing to this one plays a role, and reading it says what came of it.
const ROLE: &str = "/sys/module/icsan_patcher/parameters/role";
const TEXT: &str = "/sys/module/icsan_patcher/sections/.text";

/// A role with a writer and an executor.
pub fn across(role: &str) -> Attempt {
    play(role, WRITER)
}

/// A role whose writer executes.
pub fn alone(role: &str) -> Attempt {
    play(role, executor(cpus()))
}

/// Loads the module, if it is not loaded. Answers if there is none.
pub fn prepare() -> io::Result<Option<Outcome>> {
    if !Path::new(&format!("{MODULES_FOLDER}/{NAME}.ko")).exists() {
        return Ok(Some(Outcome::Skipped(format!(
            "no {NAME}.ko in the initramfs: the runner needs --patcher for this kernel"
        ))));
    }
    if !Path::new(ROLE).exists() {
        load(NAME)?;
    }
    Ok(None)
}

/// Plays a role, with this thread, on that CPU, as the writer. The module stays loaded: its addresses hold for the
/// whole boot.
fn play(role: &str, writer: usize) -> Attempt {
    if let Some(lack) = prepare()? {
        return Ok(lack);
    }
    let text = fs::read_to_string(TEXT)?;
    match u64::from_str_radix(text.trim().trim_start_matches("0x"), 16) {
        Ok(address) if address != 0 => say(&format!("# {}", describe_text(address))),
        _ => return Ok(Outcome::Failed(format!("{TEXT}: {text}"))),
    }
    pin(writer)?;
    match fs::write(ROLE, format!("{role} {}", executor(cpus()))) {
        Ok(()) => Ok(outcome(&fs::read_to_string(ROLE)?, pace::injected())),
        // One CPU waited for the other for seconds, which spins with interrupts on or off: the host is busy with
        // something else.
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Ok(Outcome::Spoiled(format!("{role}: {error}"))),
        Err(error) => Err(io::Error::other(format!("{ROLE} <- {role}: {error}"))),
    }
}

/// Reads what the module says of a role: changes made, changes seen, and changes that were not seen in time.
fn outcome(text: &str, injected: bool) -> Outcome {
    let numbers: Vec<u32> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    match numbers[..] {
        [patches, _, outdated] if outdated > 0 && !injected => {
            Outcome::Spoiled(format!("old code ran after {outdated} of {patches} synchronized changes"))
        }
        [patches, seen, outdated] if patches > 0 => {
            let wrong = (outdated > 0).then(|| format!("{outdated} synchronized changes were not seen"));
            Outcome::Done { patches, seen, tight: seen, wrong }
        }
        _ => Outcome::Failed(format!("{ROLE}: {text}")),
    }
}

#[cfg(test)]
mod tests {
    use super::{Outcome, outcome};

    #[test]
    fn outcomes() {
        assert_eq!(outcome("40 39 0\n", false), Outcome::Done { patches: 40, seen: 39, tight: 39, wrong: None });
        assert!(matches!(outcome("40 39 1\n", false), Outcome::Spoiled(_)));
        assert!(matches!(outcome("40 39 1\n", true), Outcome::Done { seen: 39, wrong: Some(_), .. }));
        assert!(matches!(outcome("0 0 0\n", false), Outcome::Failed(_)));
        assert!(matches!(outcome("", true), Outcome::Failed(_)));
    }
}
