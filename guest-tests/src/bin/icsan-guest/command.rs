//! A foreign program, which the initramfs brings along: run once, with its output on the console.

use crate::say::say;
use icsan_guest_tests::console::{COMMAND, DONE};
use std::path::Path;
use std::process::{Command, Stdio};

/// Does the initramfs have one?
pub fn is_there() -> bool {
    Path::new(COMMAND).exists()
}

/// Runs it, and says how it ended.
pub fn run() {
    let ended = std::fs::read_to_string(COMMAND).and_then(|text| {
        let mut words = text.lines();
        let program = words.next().unwrap_or_default();
        Command::new(program).args(words).current_dir("/tmp").stdin(Stdio::null()).status()
    });
    match ended {
        Ok(status) if status.success() => say(DONE),
        Ok(status) => say(&format!("# {COMMAND}: {status}")),
        Err(error) => say(&format!("# {COMMAND}: {error}")),
    }
}
