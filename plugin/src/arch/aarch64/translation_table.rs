//! Which page table a value of TTBR0_EL1 names.

/// The part of it that is an address: the rest is the ASID, and CnP in the lowest bit (DDI0487, TTBR0_EL1.BADDR). With
/// 52-bit addresses bits 5 to 2 hold the upper part of the address; those are part of it here, too.
const ADDRESS: u64 = 0x0000_ffff_ffff_fffe;

/// The table that TTBR0_EL1 names. Without 52-bit addresses, its physical address.
#[must_use]
pub const fn of_ttbr(ttbr: u64) -> u64 {
    ttbr & ADDRESS
}

#[cfg(test)]
mod tests {
    use super::of_ttbr;

    #[test]
    fn the_asid_and_the_flag_are_no_part_of_the_table() {
        assert_eq!(of_ttbr(0x0042_0000_41f2_9001), 0x41f2_9000);
    }
}
