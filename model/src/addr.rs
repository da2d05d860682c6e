//! Newtypes for the quantities that must not be mixed up.
//!
//! Addresses are in bytes. A [`Linear`] address is what the instruction pointer holds (after segmentation, before
//! paging); a [`Phys`] address is what the page tables make of it. Hardware matches prefetched instructions by linear
//! address and caches by physical address, and that difference is what half of this tool is about.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty), $format:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[repr(transparent)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, $format, self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "(", $format, ")"), self.0)
            }
        }
    };
}

number! {
    /// A linear (virtual) address, in bytes.
    Linear(u64), "{:#x}"
}
number! {
    /// A guest-physical address, in bytes.
    Phys(u64), "{:#x}"
}
number! {
    /// A virtual CPU, counted from 0 as QEMU does.
    Vcpu(u16), "{}"
}
number! {
    /// How many serializing events a vCPU has met: the number of the epoch that it is in.
    Epoch(u64), "{}"
}
number! {
    /// A place in the global order of everything that the model was told, counted from 1. 0 is "before all history".
    Seq(u64), "{}"
}

impl Linear {
    /// The address `bytes` further on, wrapping as the address space does.
    #[must_use]
    pub const fn offset(self, bytes: u64) -> Self {
        Self(self.0.wrapping_add(bytes))
    }

    /// The start of the aligned block of `size` bytes (a power of two) that holds this address.
    #[must_use]
    pub const fn align_down(self, size: u64) -> Self {
        Self(self.0 & !(size - 1))
    }
}

impl Phys {
    /// The address `bytes` further on.
    #[must_use]
    pub const fn offset(self, bytes: u64) -> Self {
        Self(self.0.wrapping_add(bytes))
    }

    /// The start of the aligned block of `size` bytes (a power of two) that holds this address.
    #[must_use]
    pub const fn align_down(self, size: u64) -> Self {
        Self(self.0 & !(size - 1))
    }
}

impl Seq {
    /// The next place in the order.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Epoch {
    /// The epoch after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}
