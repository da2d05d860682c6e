//! Where a store that QEMU trapped has been made.
//!
//! Generated code calls a helper for every store that its own way does not do: to what is not in the TLB, to devices,
//! and to pages with code. C code calls another one. All of them are hooked, and after the original has returned it is
//! asked whether the store was announced ([`super::stale_translations`]): two loads for nearly all of them.
//!
//! - `helper_stX_mmu(env, address, value, oi, return address)` and `cpu_stX_mmu`, with the same arguments, for X in b,
//!   w, l, q and 16. QEMU 10.0 has `cpu_stX_data`, `_data_ra` and `_mmuidx_ra` besides.
//! - `helper_atomic_X(env, address, …, oi)` finds its place in generated code by its own return address. So it is not
//!   called in a frame of ours: in its place stands what reads that address and calls one of ours, which calls
//!   `cpu_atomic_X_mmu(…, oi, return address)`. That is what the helper itself does.
//! - Other helpers (FXSAVE, DC ZVA) check a page first and store to it later, past all of these, unless the instruction
//!   has a callback of the plugin API's. What they announce is looked at when the vCPU announces the next store,
//!   translates, synchronizes, or comes to a callback of ICSAN's.
//!
//! No lock of QEMU's is held where they return.

use super::stale_translations::{Made, made, settle};
use super::{HookError, exported, to_ours};
use crate::qemu::host::detour::{Detour, Function, Pair, Shape, To};
use libc::c_void;
use std::ffi::{CStr, CString};
use std::sync::atomic::{AtomicUsize, Ordering};

type Store = unsafe extern "C" fn(*mut c_void, u64, u64, u32, usize);
type CpuStore = unsafe extern "C" fn(*mut c_void, u64, u64, u64, usize);
type Store16 = unsafe extern "C" fn(*mut c_void, u64, u128, u32, usize);

/// Widths that fit a register.
const WIDTHS: usize = 4;
static HELPERS: [AtomicUsize; WIDTHS] = [const { AtomicUsize::new(0) }; WIDTHS];
static CPU: [AtomicUsize; CPU_STORES.len()] = [const { AtomicUsize::new(0) }; CPU_STORES.len()];
static HELPER_16: AtomicUsize = AtomicUsize::new(0);
static CPU_16: AtomicUsize = AtomicUsize::new(0);

/// What other helpers announced before is looked at first: then what is announced is this store's.
///
/// A narrower value comes in the lower part of its register, whose other bits are nothing, and is passed on so.
unsafe extern "C" fn helper<const WIDTH: usize>(env: *mut c_void, address: u64, value: u64, oi: u32, back: usize) {
    settle();
    // SAFETY: what the detour left there is the function of this type, moved; QEMU's own arguments. It may leave by
    // longjmp: nothing is held here.
    unsafe {
        std::mem::transmute::<usize, Store>(HELPERS[WIDTH].load(Ordering::Relaxed))(env, address, value, oi, back);
    }
    made(Made { linear: address, value: Some(value.into()), len: Some(1 << WIDTH), back });
}

/// Some of these take fewer arguments, and others in their places: all are passed on as they came.
unsafe extern "C" fn cpu<const WHICH: usize>(env: *mut c_void, address: u64, value: u64, third: u64, back: usize) {
    settle();
    // SAFETY: as above.
    unsafe {
        std::mem::transmute::<usize, CpuStore>(CPU[WHICH].load(Ordering::Relaxed))(env, address, value, third, back);
    }
    let (_, _, width, place) = CPU_STORES[WHICH];
    let back = match place {
        Back::Fifth => back,
        Back::Fourth => third as usize,
        Back::None => 0,
    };
    made(Made { linear: address, value: Some(value.into()), len: Some(1 << width), back });
}

/// Which of its arguments is the return address.
#[derive(Clone, Copy, Debug)]
enum Back {
    Fifth,
    Fourth,
    None,
}

unsafe extern "C" fn helper_16(env: *mut c_void, address: u64, value: u128, oi: u32, back: usize) {
    settle();
    // SAFETY: as above.
    unsafe {
        std::mem::transmute::<usize, Store16>(HELPER_16.load(Ordering::Relaxed))(env, address, value, oi, back);
    }
    made(Made { linear: address, value: Some(value), len: Some(16), back });
}

unsafe extern "C" fn cpu_16(env: *mut c_void, address: u64, value: u128, oi: u32, back: usize) {
    settle();
    // SAFETY: as above.
    unsafe {
        std::mem::transmute::<usize, Store16>(CPU_16.load(Ordering::Relaxed))(env, address, value, oi, back);
    }
    made(Made { linear: address, value: Some(value), len: Some(16), back });
}

/// What C code stores by, what stands for each, the logarithm of how many bytes, and where the return address is: first
/// one for each width, then those into which QEMU 10.0's compiler has put their text, with fewer arguments.
const CPU_STORES: [(&CStr, CpuStore, u32, Back); 25] = [
    (c"cpu_stb_mmu", cpu::<0>, 0, Back::Fifth),
    (c"cpu_stw_mmu", cpu::<1>, 1, Back::Fifth),
    (c"cpu_stl_mmu", cpu::<2>, 2, Back::Fifth),
    (c"cpu_stq_mmu", cpu::<3>, 3, Back::Fifth),
    (c"cpu_stb_data", cpu::<4>, 0, Back::None),
    (c"cpu_stw_le_data", cpu::<5>, 1, Back::None),
    (c"cpu_stw_be_data", cpu::<6>, 1, Back::None),
    (c"cpu_stl_le_data", cpu::<7>, 2, Back::None),
    (c"cpu_stl_be_data", cpu::<8>, 2, Back::None),
    (c"cpu_stq_le_data", cpu::<9>, 3, Back::None),
    (c"cpu_stq_be_data", cpu::<10>, 3, Back::None),
    (c"cpu_stb_data_ra", cpu::<11>, 0, Back::Fourth),
    (c"cpu_stw_le_data_ra", cpu::<12>, 1, Back::Fourth),
    (c"cpu_stw_be_data_ra", cpu::<13>, 1, Back::Fourth),
    (c"cpu_stl_le_data_ra", cpu::<14>, 2, Back::Fourth),
    (c"cpu_stl_be_data_ra", cpu::<15>, 2, Back::Fourth),
    (c"cpu_stq_le_data_ra", cpu::<16>, 3, Back::Fourth),
    (c"cpu_stq_be_data_ra", cpu::<17>, 3, Back::Fourth),
    (c"cpu_stb_mmuidx_ra", cpu::<18>, 0, Back::Fifth),
    (c"cpu_stw_le_mmuidx_ra", cpu::<19>, 1, Back::Fifth),
    (c"cpu_stw_be_mmuidx_ra", cpu::<20>, 1, Back::Fifth),
    (c"cpu_stl_le_mmuidx_ra", cpu::<21>, 2, Back::Fifth),
    (c"cpu_stl_be_mmuidx_ra", cpu::<22>, 2, Back::Fifth),
    (c"cpu_stq_le_mmuidx_ra", cpu::<23>, 3, Back::Fifth),
    (c"cpu_stq_be_mmuidx_ra", cpu::<24>, 3, Back::Fifth),
];

/// # Errors
/// A function is missing.
pub(super) fn detours() -> Result<Vec<Detour>, HookError> {
    let mut detours = vec![
        to_ours(c"helper_stb_mmu", helper::<0> as *const () as usize, &HELPERS[0])?,
        to_ours(c"helper_stw_mmu", helper::<1> as *const () as usize, &HELPERS[1])?,
        to_ours(c"helper_stl_mmu", helper::<2> as *const () as usize, &HELPERS[2])?,
        to_ours(c"helper_stq_mmu", helper::<3> as *const () as usize, &HELPERS[3])?,
        to_ours(c"helper_st16_mmu", helper_16 as *const () as usize, &HELPER_16)?,
        to_ours(c"cpu_st16_mmu", cpu_16 as *const () as usize, &CPU_16)?,
    ];
    for (index, (name, ours, ..)) in CPU_STORES.iter().enumerate() {
        // QEMU 11 has no functions of its own for these; what they do is in their callers.
        if index >= WIDTHS && exported(name).is_err() {
            continue;
        }
        detours.push(to_ours(name, *ours as *const () as usize, &CPU[index])?);
    }
    for (name, shape) in atomics() {
        detours.extend(atomic(&name, shape)?);
    }
    Ok(detours)
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
    let ours = match shape {
        Shape::One => one as *const () as usize,
        Shape::Two => two as *const () as usize,
        Shape::Wide => wide as *const () as usize,
        Shape::TwoWide => two_wide as *const () as usize,
    };
    Ok(Some(Detour { function: Function::find(&helper)?, to: To::Stub(shape, Pair { theirs, ours }) }))
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
    settle();
    // SAFETY: the stub passes the function of this type, and QEMU's own arguments on. It may leave by longjmp: nothing
    // is held here.
    let old = unsafe { theirs(env, address, value, oi, back) };
    made(Made { linear: address, value: None, len: None, back });
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
    settle();
    // SAFETY: as above.
    let old = unsafe { theirs(env, address, expected, value, oi, back) };
    made(Made { linear: address, value: None, len: None, back });
    old
}

unsafe extern "C" fn wide(env: *mut c_void, address: u64, value: u128, oi: u32, back: usize, theirs: Wide) -> u128 {
    settle();
    // SAFETY: as above.
    let old = unsafe { theirs(env, address, value, oi, back) };
    made(Made { linear: address, value: None, len: None, back });
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
    settle();
    // SAFETY: as above.
    let old = unsafe { theirs(env, address, expected, value, oi, back) };
    made(Made { linear: address, value: None, len: None, back });
    old
}
