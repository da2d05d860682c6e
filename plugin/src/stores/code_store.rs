//! A store to code, and what it means.

use crate::code::segment::Segment;
use icsan_model::addr::{Linear, Phys, Vcpu};

/// A store to code, as it was told of.
#[derive(Clone, Copy, Debug)]
pub struct CodeStore<'a> {
    /// Who.
    pub vcpu: Vcpu,
    /// The instruction.
    pub pc: Linear,
    /// Through which address.
    pub linear: Linear,
    /// To which.
    pub phys: Phys,
    /// What; it changes at once, and lies in one page.
    pub bytes: &'a [u8],
}

/// What a change of code means for the segments that it may concern.
pub type Touched = icsan_model::detector::changes::Touched<&'static Segment>;

/// The numbers of the store side.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct StoreCounts {
    /// Stores that changed code, or what lies in a page with code.
    pub stores: u64,
    /// Changes that nobody was seen to make.
    pub unseen: u64,
    /// Pages that held code, and then only data.
    pub retired: u64,
}
