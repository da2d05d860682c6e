//! The rows of AArch64.
//!
//! Unless a row says otherwise, the thread that stores also publishes: all maintenance is done, and what a bad row
//! lacks is that the executor synchronizes. The rows `publish/` are the other way round: the executor synchronizes, and
//! the writer leaves a step out. What that breaks depends on what the hardware asks for, so on the profile, or on the
//! CPU.

mod kernel;
mod module;
mod programs;
mod publish;

use crate::table::{Scenario, count, joined};
use crate::verdict::Kind::{self, Unsynchronized};
use crate::verdict::Verdict::{Reported, Silent};
use crate::verdict::aarch64::{ARM64_IDC, ARM64_IDC_DIC, ARM64_STRICT, ARM64_STRICT_COHERENT, LINUX_ARM64_COHERENT};
use crate::verdict::{Verdict, Verdicts};

/// All maintenance is done; the executor does not synchronize.
const UNSYNCHRONIZED: Verdicts = Verdicts::reported(Unsynchronized);

/// The same, of instructions that may be changed under a running CPU: only the letter without that list minds.
const LISTED: Verdicts =
    Verdicts::SILENT.but(ARM64_STRICT, Reported(Unsynchronized)).but(ARM64_STRICT_COHERENT, Reported(Unsynchronized));

/// What is left out, where every step is needed, where no clean is, and where none is.
const fn left_out(base: Kind, without_clean: Verdict, without_any: Verdict) -> Verdicts {
    Verdicts::reported(base)
        .but(ARM64_IDC, without_clean)
        .but(ARM64_IDC_DIC, without_any)
        .but(LINUX_ARM64_COHERENT, without_any)
        .but(ARM64_STRICT_COHERENT, without_any)
}

/// A step is left out, and the executor synchronizes: nobody minds where nothing is needed.
const fn step(base: Kind, without_clean: Verdict) -> Verdicts {
    left_out(base, without_clean, Silent)
}

const NO_MAINTENANCE: &str = "without the store side no maintenance is missed";
const NO_COMMIT: &str = "no commits without the store side";

const ALL: &[&[Scenario]] = &[publish::ROWS, programs::ROWS, kernel::SHARED, kernel::ROWS, module::ROWS];

/// Every scenario.
pub const TABLE: &[Scenario] = &joined::<{ count(ALL) }>(ALL);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::by_name;
    use crate::verdict::COHERENT;
    use crate::verdict::Kind::Unclean;
    use crate::verdict::aarch64::{ARM64_BASE, LINUX_ARM64};

    #[test]
    fn a_clean_that_is_left_out_is_missed_where_the_hardware_needs_it() {
        let row = by_name(TABLE, "publish/no-clean").unwrap();
        for profile in [LINUX_ARM64, ARM64_STRICT, ARM64_BASE] {
            assert_eq!(row.full.under(profile), Reported(Unclean), "{}", profile.name());
        }
        for profile in [ARM64_IDC, ARM64_IDC_DIC, LINUX_ARM64_COHERENT, ARM64_STRICT_COHERENT, COHERENT] {
            assert_eq!(row.full.under(profile), Silent, "{}", profile.name());
        }
    }
}
