//! `store/`: the same change of code, by instructions that store in ways of their own. Each publishes it.

use crate::aarch64::shape::Kind;
use crate::shape::Shape;
use std::arch::asm;
use std::io;

/// STRH, twice.
pub fn halves(shape: &Shape, n: u32) -> io::Result<()> {
    let [a, b, c, d] = shape.bytes(n);
    shape.page().store16(shape.site(), u16::from_le_bytes([a, b]));
    shape.page().store16(shape.site() + 2, u16::from_le_bytes([c, d]));
    shape.publish();
    Ok(())
}

/// LDXR and STXR, until it succeeds.
pub fn exclusive(shape: &Shape, n: u32) -> io::Result<()> {
    let at = shape.page().target(shape.site(), 4);
    let value = u32::from_le_bytes(shape.bytes(n));
    // SAFETY: an aligned word of a writable mapping.
    unsafe {
        asm!(
            "2:",
            "ldxr {old:w}, [{at}]",
            "stxr {failed:w}, {value:w}, [{at}]",
            "cbnz {failed:w}, 2b",
            old = out(reg) _,
            failed = out(reg) _,
            value = in(reg) value,
            at = in(reg) at,
            options(nostack, preserves_flags),
        );
    }
    shape.publish();
    Ok(())
}

/// STLR.
pub fn release(shape: &Shape, n: u32) -> io::Result<()> {
    let at = shape.page().target(shape.site(), 4);
    let value = u32::from_le_bytes(shape.bytes(n));
    // SAFETY: an aligned word of a writable mapping.
    unsafe { asm!("stlr {:w}, [{}]", in(reg) value, in(reg) at, options(nostack, preserves_flags)) };
    shape.publish();
    Ok(())
}

/// STP of two words.
pub fn pair(shape: &Shape, n: u32) -> io::Result<()> {
    let at = shape.page().target(shape.site(), 8);
    let [first, second] = Kind::words(n);
    // SAFETY: an aligned quadword of a writable mapping.
    unsafe {
        asm!(
            "stp {:w}, {:w}, [{}]",
            in(reg) first,
            in(reg) second,
            in(reg) at,
            options(nostack, preserves_flags)
        );
    }
    shape.publish();
    Ok(())
}
