//! A panic inside the plugin turns it off and goes no further. No QEMU is needed; the state is the process's, so this
//! is one test in a program of its own.

use icsan::qemu::guard::{fault, guard, guard_always};
use std::cell::Cell;

#[test]
fn a_panic_turns_icsan_off_and_is_remembered() {
    let calls = Cell::new(0);
    let count = || calls.set(calls.get() + 1);
    guard(count);
    assert_eq!((calls.get(), fault()), (1, None));

    guard(|| panic!("a bug of {}", "ICSAN"));
    assert_eq!(fault(), Some("a bug of ICSAN"));

    guard(count);
    assert_eq!(calls.get(), 1, "ICSAN is off: callbacks do nothing");
    guard_always(count);
    assert_eq!(calls.get(), 2, "but the report is still made");

    guard_always(|| panic!("another"));
    assert_eq!(fault(), Some("a bug of ICSAN"), "the first fault is the one to report");
}
