//! Nothing unwinds into QEMU: every entry runs in [`guard`].
//!
//! A panic is a bug of ICSAN, not of the guest: it turns ICSAN off for the rest of the run, is said once on stderr, and makes the report incomplete.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

static OFF: AtomicBool = AtomicBool::new(false);
static FAULT: OnceLock<String> = OnceLock::new();

/// Runs `body` unless ICSAN is off. A panic in it turns ICSAN off.
pub fn guard(body: impl FnOnce()) {
    if OFF.load(Ordering::Relaxed) {
        return;
    }
    // State that a panic left half changed is never looked at again, but for the report, which then says that it is incomplete.
    if let Err(payload) = catch_unwind(AssertUnwindSafe(body)) {
        turn_off(&payload);
    }
}

/// Runs `body` even if ICSAN is off: for the report.
pub fn guard_always(body: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(body)) {
        turn_off(&payload);
    }
}

fn turn_off(payload: &(dyn std::any::Any + Send)) {
    OFF.store(true, Ordering::Relaxed);
    let text = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "unknown".to_owned());
    if FAULT.set(text).is_ok() {
        super::process::say("internal error: ICSAN turned itself off and leaves the guest running; the report will say complete: false");
    }
}

/// The message of the panic that turned ICSAN off, if one did.
#[must_use]
pub fn fault() -> Option<&'static str> {
    FAULT.get().map(String::as_str)
}
