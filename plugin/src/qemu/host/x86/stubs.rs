//! Stubs that stand in place of a helper: they pass its arguments on, with its return address and a function behind
//! them, by the System V calling convention.

use crate::qemu::host::detour::{Pair, Shape};

/// The code of one. It does not depend on where it is.
pub(super) fn stub(shape: Shape, pair: &Pair) -> Vec<u8> {
    match shape {
        Shape::One => one(pair),
        // A value of 16 bytes takes two registers: the same as two values.
        Shape::Two | Shape::Wide => two(pair),
        Shape::TwoWide => two_wide(pair),
    }
}

/// Five of six registers are taken; the return address is the fifth, their function the sixth.
fn one(pair: &Pair) -> Vec<u8> {
    [
        &[0x4c, 0x8b, 0x04, 0x24][..], // mov r8, [rsp]
        &[0x49, 0xb9],                 // mov r9, theirs
        &pair.theirs.to_le_bytes(),
        &[0x48, 0xb8], // mov rax, ours
        &pair.ours.to_le_bytes(),
        &[0x3e, 0xff, 0xe0], // notrack jmp rax
    ]
    .concat()
}

/// The return address is the sixth; their function goes onto the stack, which is aligned again by it.
fn two(pair: &Pair) -> Vec<u8> {
    [
        &[0x4c, 0x8b, 0x0c, 0x24][..], // mov r9, [rsp]
        &[0x49, 0xbb],                 // mov r11, theirs
        &pair.theirs.to_le_bytes(),
        &[0x41, 0x53], // push r11
        &[0x48, 0xb8], // mov rax, ours
        &pair.ours.to_le_bytes(),
        &[0x3e, 0xff, 0xd0],       // notrack call rax
        &[0x48, 0x83, 0xc4, 0x08], // add rsp, 8
        &[0xc3],                   // ret
    ]
    .concat()
}

/// Six registers are taken, and `oi` is on the stack. It, the return address and their function go there again.
fn two_wide(pair: &Pair) -> Vec<u8> {
    [
        &[0x48, 0x8b, 0x04, 0x24][..],   // mov rax, [rsp]
        &[0x44, 0x8b, 0x54, 0x24, 0x08], // mov r10d, [rsp + 8]
        &[0x49, 0xbb],                   // mov r11, theirs
        &pair.theirs.to_le_bytes(),
        &[0x41, 0x53], // push r11
        &[0x50],       // push rax
        &[0x41, 0x52], // push r10
        &[0x48, 0xb8], // mov rax, ours
        &pair.ours.to_le_bytes(),
        &[0x3e, 0xff, 0xd0],       // notrack call rax
        &[0x48, 0x83, 0xc4, 0x18], // add rsp, 24
        &[0xc3],                   // ret
    ]
    .concat()
}
