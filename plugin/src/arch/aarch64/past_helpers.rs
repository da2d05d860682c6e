//! Which instructions store past the functions by which all others do: QEMU checks their pages first, and then stores
//! through the host's memory (target/arm/tcg/sve_helper.c, sme_helper.c: 10.0 and 11.1), unless the instruction has a
//! callback for its stores. What stores without any access is told by other means
//! ([`Platform::unseen_store`](crate::arch::platform::Platform::unseen_store)).

/// All of SVE and SME (DDI0487 C4.1: bits 28 to 25 are 0010, or 0000).
pub(super) fn past_helpers(bytes: &[u8]) -> bool {
    bytes.first_chunk().is_none_or(|word| matches!(u32::from_le_bytes(*word) >> 25 & 0b1111, 0b0010 | 0b0000))
}

#[cfg(test)]
mod tests {
    use super::past_helpers;

    #[test]
    fn sve_and_sme_and_no_loads_and_stores() {
        // st1b {z0.b}, p0, [x0]; st1b {za0h.b[w12, 0]}, p0, [x0].
        for word in [0xe400_e000_u32, 0xe020_0000] {
            assert!(past_helpers(&word.to_le_bytes()), "{word:#x}");
        }
        // str x0, [x1]; stp x0, x1, [x2]; dc zva, x0; ldadd x0, x1, [x2]; st1 {v0.16b}, [x0].
        for word in [0xf900_0020_u32, 0xa900_0440, 0xd50b_7420, 0xf820_0041, 0x4c00_7000] {
            assert!(!past_helpers(&word.to_le_bytes()), "{word:#x}");
        }
    }
}
