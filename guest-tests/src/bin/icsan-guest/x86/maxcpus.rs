//! `kernel/maxcpus`: the second CPU is started after the boot.

use crate::executor::Spinner;
use crate::kernel_cpus::{online, online_file};
use crate::kernel_patching::{all_ran, lacks, user_mode};
use crate::kernel_text::{KCORE, Text};
use crate::outcome::{Attempt, Outcome};
use crate::sys::{cpus, pin};
use icsan_guest_tests::table::WRITER;

/// The kernel booted with one CPU, and took the LOCK prefixes out of its text. They come back with the second CPU, once
/// a boot.
pub fn maxcpus() -> Attempt {
    if let Some(lack) = lacks(&online_file(1)).or_else(|| lacks(KCORE)) {
        return Ok(lack);
    }
    if cpus() > 1 {
        return Ok(Outcome::Failed("the second CPU was started already".into()));
    }
    pin(WRITER)?;
    let text = Text::open()?;
    let before = text.read()?;
    let bystander = Spinner::start(WRITER, || (0..10_000).fold(0u64, |sum, n| std::hint::black_box(sum ^ n)))?;
    online(1, true)?;
    bystander.ran(2);
    all_ran(&user_mode()?)?;
    let places = text.places(&before)?;
    Ok(match places {
        0 => Outcome::Skipped("CPU 1 was started, but no kernel text changed".into()),
        _ => Outcome::Proven(format!("{places} places of the kernel's text changed")),
    })
}
