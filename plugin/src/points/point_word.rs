//! What a callback on an instruction carries in one word: where the instruction is, and a small number. So nothing is
//! kept for each address that code ever ran at: a guest can have more of those than memory.

use icsan_model::addr::Linear;

/// Bits of a linear address that say something: the last one is repeated in all above it on every architecture that
/// QEMU has (x86 with five-level paging: SDM vol. 3, "Canonical Addressing"); QEMU faults before it translates anything
/// elsewhere.
const ADDRESS_BITS: u32 = 57;

/// Tags are below this.
pub const TAGS: u8 = 1 << (u64::BITS - ADDRESS_BITS);

/// A linear address and a tag.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PointWord {
    /// Where the instruction is.
    pub at: Linear,
    /// Below [`TAGS`].
    pub tag: u8,
}

impl PointWord {
    /// As it is registered. `None`: the tag is too large, or the address is not canonical.
    #[must_use]
    pub fn bits(self) -> Option<u64> {
        let bits = u64::from(self.tag) << ADDRESS_BITS | self.at.0 & ((1 << ADDRESS_BITS) - 1);
        (self.tag < TAGS && Self::from_bits(bits) == self).then_some(bits)
    }

    /// As it was registered.
    #[must_use]
    pub fn from_bits(bits: u64) -> Self {
        let spare = u64::BITS - ADDRESS_BITS;
        Self { at: Linear(((bits << spare) as i64 >> spare) as u64), tag: (bits >> ADDRESS_BITS) as u8 }
    }
}

#[cfg(test)]
mod tests {
    use super::{PointWord, TAGS};
    use icsan_model::addr::Linear;

    #[test]
    fn canonical_addresses_and_tags_come_back() {
        for at in
            [0, 0x7c00, 0x7fff_ffff_f000, 0x00ff_ffff_ffff_ffff, 0xff00_0000_0000_0000, 0xffff_ffff_8100_0000, u64::MAX]
                .map(Linear)
        {
            for tag in [0, 1, TAGS - 1] {
                let word = PointWord { at, tag };
                assert_eq!(word.bits().map(PointWord::from_bits), Some(word));
            }
        }
        assert_eq!(PointWord { at: Linear(0), tag: TAGS }.bits(), None);
        assert_eq!(PointWord { at: Linear(0x0100_0000_0000_0000), tag: 0 }.bits(), None, "not canonical");
    }
}
