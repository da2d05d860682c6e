//! Hooks in QEMU's own code (`hooks=auto`): what no plugin API tells, or tells at a price that is not needed.
//!
//! A QEMU that is built with loadable modules exports all its global functions, as Debian's are. Some of them are left
//! for functions of ours by a jump at their beginning. Which, what each relies on, and what is lost
//! without: [`stale_translations`], [`trapped_stores`], [`value_note`].
//!
//! - They are taken only on an x86-64 host, and for the versions of QEMU whose source was read: 10.0 and 11.1.
//! - All functions must be there, be as long as what is written over them, and begin with instructions that may be
//!   moved; or none is touched, and ICSAN works through the plugin API alone.
//! - What they are called with is compared with what the API tells, while the guest runs, at every translation. A call
//!   that does not fit is told of, makes the report incomplete, and turns the hooks off: they pass everything on.
//! - They hold nothing that must be dropped while a function of QEMU's runs, since that may leave by `longjmp`.

mod locked_pages;
pub mod stale_translations;
mod store_helpers;
pub mod trapped_stores;
pub mod value_note;

use super::api::{Generation, find_internal};
use super::host;
pub use super::host::detour::HookError;
use super::host::detour::{Detour, Function, To};
use super::process::qemu_version;
use crate::gaps::Gap;
use std::ffi::CStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// What the user wants.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Wish {
    /// Nothing but the plugin API.
    Off,
    /// Hooks where they are possible.
    #[default]
    Auto,
    /// Hooks, or a refusal.
    On,
}

/// Whether hooks were placed. Not set: they are not wanted.
static PLACED: OnceLock<Result<(), HookError>> = OnceLock::new();
/// A call did not fit what is known by the API.
static BROKEN: AtomicBool = AtomicBool::new(false);

/// Are hooks placed, and as they should be?
#[inline]
#[must_use]
pub fn are_on() -> bool {
    matches!(PLACED.get(), Some(Ok(()))) && !BROKEN.load(Ordering::Relaxed)
}

/// Are QEMU's own functions hooked?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hooked {
    /// They are not wanted.
    Off,
    /// They are.
    On,
    /// They are wanted, and it is not possible.
    Refused,
}

impl Hooked {
    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::On => "on",
            Self::Refused => "refused",
        }
    }
}

/// Were hooks placed?
#[must_use]
pub fn state() -> Hooked {
    match PLACED.get() {
        None => Hooked::Off,
        Some(Ok(())) => Hooked::On,
        Some(Err(_)) => Hooked::Refused,
    }
}

/// The numbers of the summary.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HookCounts {
    /// Stores after which blocks were dropped once more.
    pub dropped_again: u64,
    /// Instructions that were translated without notes of their accesses' values.
    pub without_notes: u64,
}

/// What the hooks did. `None`: there are none.
#[must_use]
pub fn counts() -> Option<HookCounts> {
    (state() == Hooked::On).then(|| HookCounts {
        dropped_again: stale_translations::dropped_again(),
        without_notes: value_note::left_out(),
    })
}

/// Places them. To be called at installation, before QEMU has a vCPU thread; `light`: stores are not watched.
///
/// # Errors
/// Why they are not possible.
pub fn install(generation: Generation, light: bool) -> Result<(), HookError> {
    PLACED.get_or_init(|| place(generation, light)).clone()
}

fn place(generation: Generation, light: bool) -> Result<(), HookError> {
    host::is_tried().map_err(HookError::Host)?;
    match (generation, qemu_version()) {
        (Generation::V4, Ok((10, 0))) | (Generation::V7, Ok((11, 1))) => {}
        (_, Ok((major, minor))) => return Err(HookError::Version(format!("{major}.{minor}"))),
        (_, Err(why)) => return Err(HookError::Version(why)),
    }
    let mut detours = stale_translations::detours(generation)?;
    detours.extend(store_helpers::detours()?);
    if !light {
        detours.extend(trapped_stores::detours()?);
    }
    detours.extend(value_note::detours()?);
    host::place(&detours)
}

/// A call does not fit: what is hooked is not what it was taken for.
#[cold]
fn break_down() {
    BROKEN.store(true, Ordering::Relaxed);
    Gap::Hooks.note();
}

/// The address of a function that QEMU exports.
///
/// # Errors
/// It exports none of that name.
fn exported(name: &CStr) -> Result<usize, HookError> {
    find_internal(name).map(|found| found as usize).map_err(HookError::Missing)
}

/// A detour of the function of that name to one of ours.
///
/// # Errors
/// It is not exported, or its length is not known.
fn to_ours(name: &CStr, ours: usize, original: &'static std::sync::atomic::AtomicUsize) -> Result<Detour, HookError> {
    Ok(Detour { function: Function::find(name)?, to: To::Ours(ours, original) })
}
