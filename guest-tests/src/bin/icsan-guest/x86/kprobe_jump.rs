//! `kernel/kprobe-inside`: a kprobe that the kernel turns into a jump.

use super::{JUMP, SYSTEM_CALL};
use crate::kernel_patching::{Times, lacks, toggle};
use crate::kernel_text::{KCORE, Text};
use crate::kernel_tracing::{KPROBE, TRACING, remove_kprobe, tracing};
use crate::outcome::Attempt;
use std::cell::Cell;
use std::fs;
use std::io;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A kprobe inside of that system call, behind the tracer's own call, which the kernel replaces by a jump after a
/// while, and takes back before it is removed: breakpoint and instruction, then breakpoint and jump, and the other way
/// round.
pub fn kprobe_inside() -> Attempt {
    const LIST: &str = "/sys/kernel/debug/kprobes/list";
    /// How far into the function a place is looked for.
    const INSIDE: u32 = 0x40;
    /// How long it may take: the kernel waits for a grace period of all tasks first.
    const BECOMES_JUMP: Duration = Duration::from_secs(8);
    for needed in [LIST, KCORE, "/proc/sys/debug/kprobes-optimization"] {
        if let Some(lack) = lacks(needed) {
            return Ok(lack);
        }
    }
    let text = Text::open()?;
    // The kernel refuses a place where no instruction starts, and only some of the others can become a jump. It says at
    // once which, and does it later.
    let first = Cell::new(1);
    let on = || {
        for offset in first.get()..INSIDE {
            if tracing("kprobe_events", &format!("p:icsan {SYSTEM_CALL}getppid+{offset}")).is_err() {
                continue;
            }
            tracing(KPROBE, "1")?;
            let list = fs::read_to_string(LIST)?;
            let Some(line) = list.lines().find(|line| line.contains("[OPTIMIZED]")) else {
                remove_kprobe()?;
                continue;
            };
            first.set(offset);
            let address = line.split(' ').next().and_then(|word| u64::from_str_radix(word, 16).ok());
            let address = address.ok_or_else(|| io::Error::other(format!("{LIST}: {line}")))?;
            let start = Instant::now();
            let mut first_byte = [0];
            loop {
                text.read_at(&mut first_byte, address)?;
                if first_byte == [JUMP] {
                    return Ok(());
                }
                if start.elapsed() > BECOMES_JUMP {
                    return Err(io::Error::other(format!("the kprobe did not become a jump: {line}")));
                }
                sleep(Duration::from_millis(50));
            }
        }
        Err(io::Error::other(format!("no kprobe inside of {SYSTEM_CALL}getppid can become a jump")))
    };
    toggle(&format!("{TRACING}/kprobe_events"), Times::Once, on, remove_kprobe)
}
