//! Random numbers that a seed repeats.

/// Xorshift with 64 bits of state.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// Seeds may be small and alike.
    pub fn new(seed: u64) -> Self {
        let mut random = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for _ in 0..8 {
            random.next();
        }
        random
    }

    /// 64 random bits.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 16) % bound
    }

    /// Does what happens once in so many cases happen now?
    pub fn once_in(&mut self, cases: u64) -> bool {
        self.below(cases) == 0
    }

    /// One of them.
    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    /// An operand: anything, or one of those on which carries, signs and zeros turn.
    pub fn operand(&mut self) -> u64 {
        let value = match self.below(4) {
            0 => self.one_of(&[
                0,
                1,
                0x7f,
                0x80,
                0xff,
                0x7fff,
                0x8000,
                0xffff,
                0x7fff_ffff,
                0x8000_0000,
                0xffff_ffff,
                i64::MAX as u64,
                1 << 63,
            ]),
            1 => self.below(0x200).wrapping_sub(0x100),
            _ => return self.next(),
        };
        // At the lowest bits something else may stand above.
        if self.once_in(3) { self.next() << 32 | value & 0xffff_ffff } else { value }
    }
}
