//! The values of the marker instruction ([`code::MARKER`]): how the guest tells the plugin which scenario runs.

use crate::code;
use std::fmt;

/// What a marker's register says: which try of which scenario begins. All zero is the world outside of scenarios.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Marker {
    /// Place in the table, from 1; 0 outside of scenarios.
    pub scenario: u16,
    /// Which repetition, from 1.
    pub round: u16,
    /// Which attempt at this round, from 1: the ones before were spoiled by the emulator.
    pub attempt: u32,
}

impl Marker {
    /// Outside of scenarios.
    pub const OUTSIDE: Self = Self { scenario: 0, round: 0, attempt: 0 };

    /// The value for the register.
    #[must_use]
    pub const fn value(self) -> u64 {
        (self.attempt as u64) << 32 | (self.round as u64) << 16 | self.scenario as u64
    }

    /// Reads a value back.
    #[must_use]
    pub const fn from_value(value: u64) -> Self {
        Self { scenario: value as u16, round: (value >> 16) as u16, attempt: (value >> 32) as u32 }
    }
}

/// Tells the plugin which scenario runs from here on.
pub fn mark(marker: Marker) {
    code::mark(marker.value());
}

impl fmt::Display for Marker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.value())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_read_back() {
        for marker in [
            Marker::OUTSIDE,
            Marker { scenario: 7, round: 20, attempt: 3 },
            Marker { scenario: 65535, round: 65535, attempt: u32::MAX },
        ] {
            assert_eq!(Marker::from_value(marker.value()), marker);
        }
        assert_eq!(Marker { scenario: 7, round: 20, attempt: 3 }.value(), 0x0003_0014_0007);
    }
}
