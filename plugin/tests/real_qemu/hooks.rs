//! Hooks in QEMU's own functions: where they are not possible ICSAN says so and works through the plugin API alone, or
//! refuses, if they are demanded.

use crate::boot_sector::{BootSector, Ending};
use crate::lab::{Lab, Qemu};
use crate::machine::{Guest, Machine, SOON};

fn boot(lab: &Lab, qemu: &Qemu, keys: &str, setup: &'static str) -> Guest {
    let machine = Machine::pc(lab, qemu).sector(&BootSector::new(Ending::PowerOff)).report().keys(keys);
    machine.after_shell(setup).launch()
}

/// The same verdicts with hooks, without them, and where there cannot be any.
#[test]
fn verdicts_are_the_same_without() {
    let lab = Lab::open();
    for qemu in &lab.qemus {
        for mode in ["", ",writers=off"] {
            let mut sites = Vec::new();
            for (keys, setup, state) in [
                ("hooks=on", ":", "on"),
                ("hooks=auto", ":", "on"),
                ("hooks=off", ":", "off"),
                ("hooks=auto", WITHOUT_EXPORTS, "refused"),
            ] {
                let mut guest = boot(&lab, qemu, &format!("{keys}{mode}"), setup);
                let context = format!("QEMU {}, {keys}{mode}, {setup}", qemu.version);
                assert_eq!(guest.exit_code(SOON), 0, "{context}\n{}", guest.outputs());
                let report = guest.report();
                assert_eq!(report.start["hooks"], state, "{context}\n{}", guest.outputs());
                assert_eq!(report.summary()["hooks"].is_null(), state != "on", "{context}\n{}", guest.outputs());
                let said = guest.stderr().contains("icsan: hooks=auto: none in QEMU's own functions");
                assert_eq!(said, state == "refused", "{context}\n{}", guest.outputs());
                let notes = report.summary()["hooks"]["without_notes"].as_u64().unwrap_or(0);
                // On 10.0 what proves places has them: stores to pages that are mapped elsewhere, of which there are
                // none.
                let left_out = state == "on" && (qemu.physical || !mode.is_empty());
                assert_eq!(notes > 0, left_out, "{context}");
                // QEMU 10.0 without its exports does not tell places either, so that writers are not known.
                if setup == ":" || !mode.is_empty() || qemu.physical {
                    let found: Vec<String> = report.sites().into_iter().map(str::to_owned).collect();
                    sites.push((context, found));
                }
            }
            for pair in sites.windows(2) {
                assert_eq!(pair[0].1, pair[1].1, "{} and {}", pair[0].0, pair[1].0);
            }
        }
    }
}

/// See `find_internal` in the plugin.
const WITHOUT_EXPORTS: &str = "export ICSAN_WITHOUT_EXPORTS=1";

#[test]
fn hooks_that_are_demanded_and_not_possible_are_refused() {
    let lab = Lab::open();
    for qemu in &lab.qemus {
        let mut guest = boot(&lab, qemu, "hooks=on", WITHOUT_EXPORTS);
        assert_ne!(guest.exit_code(SOON), 0, "{}", guest.outputs());
        let line = guest.stderr().lines().find(|line| line.starts_with("icsan: ")).map(str::to_owned);
        let line = line.unwrap_or_default();
        assert!(line.starts_with("icsan: hooks=on is not possible here: "), "{line}\n{}", guest.outputs());
        assert!(line.contains("use Debian's QEMU"), "{line}");
    }
}
