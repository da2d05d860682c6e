//! Nothing unwinds into QEMU: every entry runs in [`guard`]. Only what nearly every call needs comes before it
//! (`passes`, of [`Payload`](super::translation::Payload) and [`StoreWatch`](super::stores::StoreWatch)): it cannot
//! panic, since what it indexes by is in range by construction, and nothing that it computes can overflow.
//!
//! A panic is a bug of ICSAN, not of the guest: it turns ICSAN off for the rest of the run, is said once on stderr, and
//! makes the report incomplete.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

static GUARD: Guard = Guard::new();

/// Runs `body` unless ICSAN is off. A panic in it turns ICSAN off.
pub fn guard(body: impl FnOnce()) {
    GUARD.run(body);
}

/// Runs `body` even if ICSAN is off: for the report.
pub fn guard_always(body: impl FnOnce()) {
    GUARD.run_always(body);
}

/// The message of the panic that turned ICSAN off, if one did.
#[must_use]
pub fn fault() -> Option<&'static str> {
    GUARD.fault()
}

/// The switch that a panic turns off.
#[derive(Debug)]
struct Guard {
    off: AtomicBool,
    fault: OnceLock<String>,
}

impl Guard {
    const fn new() -> Self {
        Self { off: AtomicBool::new(false), fault: OnceLock::new() }
    }

    fn run(&self, body: impl FnOnce()) {
        if !self.off.load(Ordering::Relaxed) {
            self.run_always(body);
        }
    }

    fn run_always(&self, body: impl FnOnce()) {
        // State that a panic left half changed is never looked at again, but for the report, which then says that it is
        // incomplete.
        if let Err(payload) = catch_unwind(AssertUnwindSafe(body)) {
            self.turn_off(payload.as_ref());
        }
    }

    fn turn_off(&self, payload: &(dyn Any + Send)) {
        self.off.store(true, Ordering::Relaxed);
        let text = payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "unknown".to_owned());
        if self.fault.set(text).is_ok() {
            super::process::say(
                "internal error: ICSAN turned itself off and leaves the guest running; the report will say complete: false",
            );
        }
    }

    fn fault(&self) -> Option<&str> {
        self.fault.get().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::Guard;

    #[test]
    fn a_panic_goes_no_further_and_turns_everything_off_but_the_report() {
        let guard = Guard::new();
        let mut ran = 0;
        guard.run(|| ran += 1);
        assert_eq!((ran, guard.fault()), (1, None));
        guard.run(|| panic!("first {}", 1));
        assert_eq!(guard.fault(), Some("first 1"));
        guard.run(|| ran += 1);
        assert_eq!(ran, 1, "off");
        guard.run_always(|| ran += 1);
        assert_eq!(ran, 2, "the report is still made");
        guard.run_always(|| panic!("second"));
        assert_eq!(guard.fault(), Some("first 1"), "the first cause counts");
    }
}
