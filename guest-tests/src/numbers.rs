//! Numbers that look random and are the same for the same seed.

/// SplitMix64: small, and good enough to fill a table with, or code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Numbers(pub u64);

impl Numbers {
    /// The next one.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// One below `limit`, which is not 0.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::Numbers;

    #[test]
    fn the_seed_decides() {
        let draw = |seed| {
            std::array::from_fn::<u64, 8, _>(|_| 0).map({
                let mut numbers = Numbers(seed);
                move |_| numbers.next()
            })
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        let mut numbers = Numbers(3);
        assert!((0..1000).all(|_| numbers.below(7) < 7));
    }
}
