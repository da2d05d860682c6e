//! Scenarios of instruction coherence: what a Linux guest does to code, and what ICSAN must say about it.
//!
//! Two programs share this library. `icsan-guest` runs inside the guest, as `/init`, and carries the scenarios out.
//! `icsan-runner` runs on the host: it boots guests, reads what they print and what ICSAN reports, and compares both
//! with the [`table`].
//!
//! # How they talk
//! - The guest prints [KTAP](https://docs.kernel.org/dev-tools/ktap.html) on its serial console, each line behind
//!   [`console::PREFIX`].
//! - Before a scenario and after it the guest executes a [`marker`]: the plugin writes its value into the report and
//!   into each hazard that first occurs after it.
//!
//! # Which way the verdicts err
//! A good scenario must be silent, in every round. A bad one must be reported in every round; it patches some dozens of
//! times a round, since a timer interrupt between the patch and its execution serializes the executor and rightly hides
//! that one patch. What a scenario *observes* (old or new code) never makes a verdict of ICSAN: multi-threaded TCG runs
//! outdated blocks of its own accord, so a wrong observation in a correct scenario only spoils the attempt, which is
//! then repeated.
//!
//! Under `inject=`, where the plugin has old instructions executed and QEMU's own outdated blocks repaired, what a
//! scenario observes is judged, too: a bad one must fail visibly ([`table::Visible`]), a good one must not.

pub mod arch;
pub mod code;
pub mod console;
pub mod glob;
#[cfg(feature = "runner")]
pub mod host;
pub mod kexec;
pub mod litmus;
pub mod marker;
pub mod numbers;
pub mod observed;
pub mod patcher;
pub mod skips;
pub mod table;
pub mod tally;
pub mod verdict;
pub mod zoo;
