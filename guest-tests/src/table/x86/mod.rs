//! The rows of x86-64.
//!
//! Unless a row says otherwise, the changed bytes of an own-code or hand-over scenario straddle two aligned quadwords,
//! so that AMD's exemption of aligned quadwords does not touch it; only the `cross/` rows are about that exemption.

mod coverage;
mod kernel;
mod module;
mod programs;
mod stores;

use crate::table::{Scenario, count, joined};
use crate::verdict::Kind::{Torn, Unserialized};
use crate::verdict::Verdict::{Reported, Silent, Unchecked};
use crate::verdict::x86::{AMD_APM, FRED};
use crate::verdict::{COHERENT, Verdicts};

/// The word on the kernel's command line of boots on a CPU that is open to Meltdown, so that the kernel isolates its
/// page tables, as it does without it.
pub const ISOLATED: &str = "pti=auto";

const UNSERIALIZED: Verdicts = Verdicts::reported(Unserialized);
/// One store inside an aligned quadword.
const QUADWORD: Verdicts = UNSERIALIZED.but(AMD_APM, Silent);
const TORN: Verdicts = Verdicts::all(Reported(Torn))
    .but(COHERENT, Unchecked("the two chunks are fetched one after the other, and a store can fall between"));
/// Torn, but no CPU runs the code while it is being changed.
const TORN_LATER: Verdicts = Verdicts::reported(Torn);

/// A finding about Linux, which `idle=poll` on the kernel's command line makes certain.
const MIGRATION: Verdicts = Verdicts::all(Unchecked(
    "the IPI that wakes the idle CPU ends in IRET, but a CPU that polls or has not gone idle yet needs none, and nothing serializes",
))
.but(FRED, Reported(Unserialized))
.but(COHERENT, Silent);

const NO_MIXES: &str = "no mixes of versions without the store side";
const NO_COMMIT: &str = "no versions that were never executed, and no commits, without the store side";
const NO_WRITER: &str = "only the store side knows that the writer is the executor itself";

const ALL: &[&[Scenario]] = &[programs::ROWS, stores::ROWS, kernel::SHARED, kernel::ROWS, module::ROWS, coverage::ROWS];

/// Every scenario.
pub const TABLE: &[Scenario] = &joined::<{ count(ALL) }>(ALL);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{Selection, by_name, without};
    use crate::verdict::Mode;
    use crate::verdict::x86::{LINUX_X86, NO_LUCK, PROFILES};

    #[test]
    fn heavy_rows_and_rows_with_a_boot_of_their_own_are_asked_for() {
        let quick = Selection { filter: "", heavy: false, without: "" };
        assert!(TABLE.iter().any(|row| row.heavy && !quick.includes(row)));
        assert_eq!(quick.boots(TABLE), [""]);
        let long = Selection { filter: "kernel/*", heavy: true, without: "" };
        assert_eq!(long.boots(TABLE), ["", "maxcpus=1"]);
        assert_eq!(Selection { filter: "kernel/maxcpus", heavy: true, without: "" }.boots(TABLE), ["maxcpus=1"]);
        assert_eq!(Selection { filter: "coverage/*", heavy: true, without: "" }.boots(TABLE), ["", ISOLATED]);
        assert!(Selection { filter: "kernel/maxcpus", heavy: false, without: "" }.boots(TABLE).is_empty());
        // One word, which the guest finds again on its command line.
        assert!(TABLE.iter().all(|row| !row.append.contains(char::is_whitespace)));
    }

    #[test]
    fn rows_that_do_not_apply_are_left_out_by_their_identity() {
        let [first, second] = [&TABLE[0], &TABLE[1]];
        let list = without([second, &TABLE[10]]);
        let selection = Selection { filter: "", heavy: true, without: &list };
        assert_eq!(list, "2,11");
        assert!(selection.includes(first) && !selection.includes(second) && !selection.includes(&TABLE[10]));
        assert!(
            selection.includes(&TABLE[11]) && !Selection { without: "", filter: "!*", ..selection }.includes(first)
        );
    }

    #[test]
    fn programs_are_silent_where_they_are_not_judged() {
        let verdict = |name: &str, profile| by_name(TABLE, name).map(|row| row.verdict(Mode::Full, profile));
        assert_eq!(verdict("cross/imm32-split", NO_LUCK), Some(Silent));
        assert_eq!(verdict("module/no-ipi", NO_LUCK), Some(Reported(Unserialized)));
        assert_eq!(verdict("module/ipi-no-sync", NO_LUCK), Some(Reported(Unserialized)));
        assert_eq!(verdict("module/ipi-no-sync", LINUX_X86), Some(Silent));
    }

    #[test]
    fn light_reports_only_what_it_can_name() {
        for row in TABLE {
            for profile in PROFILES {
                let name = profile.name();
                let verdict = row.verdict(Mode::Light, profile);
                assert!(matches!(verdict, Silent | Unchecked(_) | Reported(Unserialized)), "{} under {name}", row.name);
            }
        }
    }
}
