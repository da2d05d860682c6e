//! What a guest's caches need, by its cache type register.
//!
//! CTR_EL0: IDC is bit 28, DIC bit 29, DminLine bits 19 to 16, IminLine bits 3 to 0; lines are powers of two of words.
//! CLIDR_EL1: LoUU is bits 29 to 27, LoC 26 to 24, LoUIS 23 to 21. Where no data cache lies above the point of
//! unification nothing has to be cleaned, whatever IDC says.

use crate::arch::maintenance::{CacheType, Needs};
use crate::memory::PAGE;

/// What the registers say. DIC alone is taken for DIC and IDC: no text was found that says what it would mean.
#[must_use]
pub fn cache_type(ctr_el0: u64, clidr_el1: Option<u64>) -> CacheType {
    let field = |register: u64, low: u32, bits: u32| register >> low & ((1 << bits) - 1);
    let no_level = |clidr: u64| field(clidr, 24, 3) == 0 || field(clidr, 21, 3) == 0 && field(clidr, 27, 3) == 0;
    let needs = if field(ctr_el0, 29, 1) != 0 {
        Needs::Nothing
    } else if field(ctr_el0, 28, 1) != 0 || clidr_el1.is_some_and(no_level) {
        Needs::Invalidate
    } else {
        Needs::CleanAndInvalidate
    };
    let line = |low| (4u64 << field(ctr_el0, low, 4)).min(PAGE);
    CacheType { needs, data_line: line(16), instruction_line: line(0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_are_read() {
        let lines = |needs, data_line, instruction_line| CacheType { needs, data_line, instruction_line };
        // cortex-a72 and max, as QEMU has them.
        assert_eq!(cache_type(0x8444_c004, None), lines(Needs::CleanAndInvalidate, 64, 64));
        assert_eq!(cache_type(0xb444_c004, None), lines(Needs::Nothing, 64, 64));
        assert_eq!(cache_type(0x9443_c005, None), lines(Needs::Invalidate, 32, 128));
        assert_eq!(cache_type(0xa444_c004, None).needs, Needs::Nothing, "DIC alone");
        let by_clidr = |clidr| cache_type(0x8444_c004, Some(clidr)).needs;
        assert_eq!(by_clidr(0x0a20_0023), Needs::CleanAndInvalidate);
        assert_eq!(by_clidr(0x0820_0023), Needs::Invalidate, "no level of coherency");
        assert_eq!(by_clidr(0x0200_0023), Needs::Invalidate, "no level of unification");
        assert_eq!(by_clidr(0x0220_0023), Needs::CleanAndInvalidate, "one for the inner shareable domain");
        assert_eq!(
            cache_type(0x800f_000f, None),
            lines(Needs::CleanAndInvalidate, PAGE, PAGE),
            "no larger than a page"
        );
    }
}
