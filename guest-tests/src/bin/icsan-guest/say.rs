//! One line for the runner, in one write behind the prefix that tells it from kernel messages.

use icsan_guest_tests::console::PREFIX;
use std::io::Write;

/// Prints one line for the runner.
pub fn say(line: &str) {
    // On the console a line feed first: a kernel message may stand there unfinished.
    let console = [std::process::id(), std::os::unix::process::parent_id()].contains(&1);
    let start = if console { "\n" } else { "" };
    let text = format!("{start}{PREFIX}{line}\n");
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}
