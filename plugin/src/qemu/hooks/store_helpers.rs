//! Where a store that QEMU trapped has been made.
//!
//! Generated code calls a helper for every store that its own way does not do: to what is not in the TLB, to devices,
//! and to pages with code. C code calls another one. All of them are hooked, and after the original has returned it is
//! asked whether the store was announced ([`super::stale_translations`]): two loads for nearly all of them.
//!
//! - `helper_stX_mmu(env, address, value, oi, return address)` and `cpu_stX_mmu`, with the same arguments, for X in b,
//!   w, l, q and 16.
//! - `helper_atomic_X(env, address, …, oi)` finds its place in generated code by its own return address. So it is not
//!   called in a frame of ours: in its place stands what reads that address and calls one of ours, which calls
//!   `cpu_atomic_X_mmu(…, oi, return address)`. That is what the helper itself does.
//! - Other helpers (FXSAVE, pushes of interrupts) check a page first and store to it later. What they announce is looked
//!   at when the vCPU announces the next store, translates, synchronizes, or comes to a callback of ICSAN's.
//!
//! No lock of QEMU's is held where they return.

use super::detour::{Detour, Made, To};
use super::function::Function;
use super::stale_translations::settle;
use super::{HookError, exported, to_ours};
use libc::c_void;
use std::ffi::CString;
use std::sync::atomic::{AtomicUsize, Ordering};

type Store = unsafe extern "C" fn(*mut c_void, u64, u64, u32, usize);
type Store16 = unsafe extern "C" fn(*mut c_void, u64, u128, u32, usize);

/// Widths that fit a register.
const WIDTHS: usize = 4;
static HELPERS: [AtomicUsize; WIDTHS] = [const { AtomicUsize::new(0) }; WIDTHS];
static CPU: [AtomicUsize; WIDTHS] = [const { AtomicUsize::new(0) }; WIDTHS];
static HELPER_16: AtomicUsize = AtomicUsize::new(0);
static CPU_16: AtomicUsize = AtomicUsize::new(0);

/// A narrower value comes in the lower part of its register, whose other bits are nothing, and is passed on so.
unsafe extern "C" fn helper<const WIDTH: usize>(env: *mut c_void, address: u64, value: u64, oi: u32, back: usize) {
    // SAFETY: what the detour left there is the function of this type, moved; QEMU's own arguments. It may leave by
    // longjmp: nothing is held here.
    unsafe {
        std::mem::transmute::<usize, Store>(HELPERS[WIDTH].load(Ordering::Relaxed))(env, address, value, oi, back);
    }
    settle();
}

unsafe extern "C" fn cpu<const WIDTH: usize>(env: *mut c_void, address: u64, value: u64, oi: u32, back: usize) {
    // SAFETY: as above.
    unsafe {
        std::mem::transmute::<usize, Store>(CPU[WIDTH].load(Ordering::Relaxed))(env, address, value, oi, back);
    }
    settle();
}

unsafe extern "C" fn helper_16(env: *mut c_void, address: u64, value: u128, oi: u32, back: usize) {
    // SAFETY: as above.
    unsafe {
        std::mem::transmute::<usize, Store16>(HELPER_16.load(Ordering::Relaxed))(env, address, value, oi, back);
    }
    settle();
}

unsafe extern "C" fn cpu_16(env: *mut c_void, address: u64, value: u128, oi: u32, back: usize) {
    // SAFETY: as above.
    unsafe {
        std::mem::transmute::<usize, Store16>(CPU_16.load(Ordering::Relaxed))(env, address, value, oi, back);
    }
    settle();
}

/// # Errors
/// A function is missing.
pub(super) fn detours() -> Result<Vec<Detour>, HookError> {
    let mut detours = vec![
        to_ours(c"helper_stb_mmu", helper::<0> as *const () as usize, &HELPERS[0])?,
        to_ours(c"helper_stw_mmu", helper::<1> as *const () as usize, &HELPERS[1])?,
        to_ours(c"helper_stl_mmu", helper::<2> as *const () as usize, &HELPERS[2])?,
        to_ours(c"helper_stq_mmu", helper::<3> as *const () as usize, &HELPERS[3])?,
        to_ours(c"helper_st16_mmu", helper_16 as *const () as usize, &HELPER_16)?,
        to_ours(c"cpu_stb_mmu", cpu::<0> as *const () as usize, &CPU[0])?,
        to_ours(c"cpu_stw_mmu", cpu::<1> as *const () as usize, &CPU[1])?,
        to_ours(c"cpu_stl_mmu", cpu::<2> as *const () as usize, &CPU[2])?,
        to_ours(c"cpu_stq_mmu", cpu::<3> as *const () as usize, &CPU[3])?,
        to_ours(c"cpu_st16_mmu", cpu_16 as *const () as usize, &CPU_16)?,
    ];
    for (name, shape) in atomics() {
        detours.extend(atomic(&name, shape)?);
    }
    Ok(detours)
}

/// What an atomic helper takes between the address and `oi`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Shape {
    /// A value of up to 8 bytes.
    One,
    /// A value to compare with, and one to store.
    Two,
    /// A value of 16 bytes.
    Wide,
    /// Two of them.
    TwoWide,
}

/// All atomic operations of QEMU's, by the part of their name behind `helper_atomic_`.
fn atomics() -> impl Iterator<Item = (String, Shape)> {
    const VALUES: [&str; 8] = ["add", "and", "or", "xor", "smin", "smax", "umin", "umax"];
    const SIZES: [&str; 7] = ["b", "w_le", "w_be", "l_le", "l_be", "q_le", "q_be"];
    const WIDE: [&str; 2] = ["o_le", "o_be"];
    let fetches = VALUES.iter().flat_map(|value| [format!("fetch_{value}"), format!("{value}_fetch")]);
    let one = fetches.chain(["xchg".to_owned()]).flat_map(|operation| {
        let narrow = SIZES.iter().map(|size| (*size, Shape::One));
        let wide = WIDE.iter().map(|size| (*size, Shape::Wide));
        narrow.chain(wide).map(move |(size, shape)| (format!("{operation}{size}"), shape)).collect::<Vec<_>>()
    });
    let narrow = SIZES.iter().map(|size| (format!("cmpxchg{size}"), Shape::Two));
    let wide = WIDE.iter().map(|size| (format!("cmpxchg{size}"), Shape::TwoWide));
    one.chain(narrow).chain(wide)
}

/// # Errors
/// Half of the pair is missing. A version of QEMU that has neither does not have the operation.
fn atomic(name: &str, shape: Shape) -> Result<Option<Detour>, HookError> {
    let helper = CString::new(format!("helper_atomic_{name}")).unwrap_or_default();
    let (Ok(_), Ok(theirs)) =
        (exported(&helper), exported(&CString::new(format!("cpu_atomic_{name}_mmu")).unwrap_or_default()))
    else {
        return if may_lack(shape) { Ok(None) } else { Err(HookError::Missing(format!("this QEMU has no `{name}`"))) };
    };
    let (make, ours): (fn(&Made) -> Vec<u8>, usize) = match shape {
        Shape::One => (one_stub, one as *const () as usize),
        Shape::Two => (two_stub, two as *const () as usize),
        Shape::Wide => (wide_stub, wide as *const () as usize),
        Shape::TwoWide => (two_wide_stub, two_wide as *const () as usize),
    };
    Ok(Some(Detour { function: Function::find(&helper)?, to: To::Made(make, Made { theirs, ours }) }))
}

/// Operations on 16 bytes other than the comparison came with QEMU 11.
fn may_lack(shape: Shape) -> bool {
    shape == Shape::Wide
}

type One = unsafe extern "C" fn(*mut c_void, u64, u64, u32, usize) -> u64;
type Two = unsafe extern "C" fn(*mut c_void, u64, u64, u64, u32, usize) -> u64;
type Wide = unsafe extern "C" fn(*mut c_void, u64, u128, u32, usize) -> u128;
type TwoWide = unsafe extern "C" fn(*mut c_void, u64, u128, u128, u32, usize) -> u128;

unsafe extern "C" fn one(env: *mut c_void, address: u64, value: u64, oi: u32, back: usize, theirs: One) -> u64 {
    // SAFETY: the stub passes the function of this type, and QEMU's own arguments on. It may leave by longjmp: nothing
    // is held here.
    let old = unsafe { theirs(env, address, value, oi, back) };
    settle();
    old
}

unsafe extern "C" fn two(
    env: *mut c_void,
    address: u64,
    expected: u64,
    value: u64,
    oi: u32,
    back: usize,
    theirs: Two,
) -> u64 {
    // SAFETY: as above.
    let old = unsafe { theirs(env, address, expected, value, oi, back) };
    settle();
    old
}

unsafe extern "C" fn wide(env: *mut c_void, address: u64, value: u128, oi: u32, back: usize, theirs: Wide) -> u128 {
    // SAFETY: as above.
    let old = unsafe { theirs(env, address, value, oi, back) };
    settle();
    old
}

unsafe extern "C" fn two_wide(
    env: *mut c_void,
    address: u64,
    expected: u128,
    value: u128,
    oi: u32,
    back: usize,
    theirs: TwoWide,
) -> u128 {
    // SAFETY: as above.
    let old = unsafe { theirs(env, address, expected, value, oi, back) };
    settle();
    old
}

/// The instructions of a stub: parts, with the two functions where they are named.
fn stub(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

/// Five of six registers are taken; the return address is the fifth, their function the sixth.
fn one_stub(made: &Made) -> Vec<u8> {
    stub(&[
        &[0x4c, 0x8b, 0x04, 0x24], // mov r8, [rsp]
        &[0x49, 0xb9],             // mov r9, theirs
        &made.theirs.to_le_bytes(),
        &[0x48, 0xb8], // mov rax, ours
        &made.ours.to_le_bytes(),
        &[0x3e, 0xff, 0xe0], // notrack jmp rax
    ])
}

/// The return address is the sixth; their function goes onto the stack, which is aligned again by it.
fn two_stub(made: &Made) -> Vec<u8> {
    stub(&[
        &[0x4c, 0x8b, 0x0c, 0x24], // mov r9, [rsp]
        &[0x49, 0xbb],             // mov r11, theirs
        &made.theirs.to_le_bytes(),
        &[0x41, 0x53], // push r11
        &[0x48, 0xb8], // mov rax, ours
        &made.ours.to_le_bytes(),
        &[0x3e, 0xff, 0xd0],       // notrack call rax
        &[0x48, 0x83, 0xc4, 0x08], // add rsp, 8
        &[0xc3],                   // ret
    ])
}

/// A value of 16 bytes takes two registers: the same as two values.
fn wide_stub(made: &Made) -> Vec<u8> {
    two_stub(made)
}

/// Six registers are taken, and `oi` is on the stack. It, the return address and their function go there again.
fn two_wide_stub(made: &Made) -> Vec<u8> {
    stub(&[
        &[0x48, 0x8b, 0x04, 0x24],       // mov rax, [rsp]
        &[0x44, 0x8b, 0x54, 0x24, 0x08], // mov r10d, [rsp + 8]
        &[0x49, 0xbb],                   // mov r11, theirs
        &made.theirs.to_le_bytes(),
        &[0x41, 0x53], // push r11
        &[0x50],       // push rax
        &[0x41, 0x52], // push r10
        &[0x48, 0xb8], // mov rax, ours
        &made.ours.to_le_bytes(),
        &[0x3e, 0xff, 0xd0],       // notrack call rax
        &[0x48, 0x83, 0xc4, 0x18], // add rsp, 24
        &[0xc3],                   // ret
    ])
}
