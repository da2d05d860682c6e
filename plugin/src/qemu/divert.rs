//! How a vCPU executes something else than the instruction at which it is (`inject`, `serialize=emulate`).
//!
//! A callback that may change the program counter (API 6 and later) runs before the instruction. It carries out the
//! other one, with the functions of the plugin API for registers and memory, and goes on behind it by
//! `qemu_plugin_set_pc`. Three things the API does not give, and they are taken from QEMU itself, where it exports them
//! (it does if it was built with modules, as Debian's is):
//! - **where the vCPU is.** In the middle of a block QEMU's own idea of the program counter, and of what it computes
//!   lazily, is that of some moment before. `qemu_plugin_set_pc` leaves the block without bringing it up to date
//!   (docs/upstream/qemu-plugin-set-pc.md), so that `cpu_restore_state` has to;
//! - what the registers that the API reads and writes do not show, and how exceptions are raised: that is the guest's
//!   architecture's, and in a folder of its name here.
//!
//! Leaving a block is a `longjmp` over the callback's frames. So [`fire`] holds nothing that needs to be dropped when
//! it calls [`leave`]: everything else happened inside of [`guard`], where no function of QEMU leaves, and came out as
//! a plain [`Leave`].

use super::api::{Generation, api, find};
use super::cpu::{CurrentCpu, CurrentVcpu, Register};
use super::current;
use super::guard::guard;
use super::host::{self, Returning};
use super::locks::none_is_held;
use super::scoreboard::Slots;
use super::translation::{Instruction, Translation};
use icsan_model::addr::Linear;
use icsan_model::detector::flags::{DONE, SlotId};
use libc::{c_uint, c_void};
use qemu_plugin_sys as sys;
use std::collections::BTreeSet;
use std::ffi::CStr;
use std::marker::PhantomData;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// `QEMU_PLUGIN_CB_RW_REGS_PC`, since API 6: the callback may change the program counter.
const RW_REGS_PC: c_uint = 3;

type Callback = unsafe extern "C" fn(c_uint, *mut c_void);
type RegisterCond = unsafe extern "C" fn(
    *mut sys::qemu_plugin_insn,
    Callback,
    c_uint,
    sys::qemu_plugin_cond,
    sys::qemu_plugin_u64,
    u64,
    *mut c_void,
);
type RegisterAlways = unsafe extern "C" fn(*mut sys::qemu_plugin_insn, Callback, c_uint, *mut c_void);
type RegisterBlockCond = unsafe extern "C" fn(
    *mut sys::qemu_plugin_tb,
    Callback,
    c_uint,
    sys::qemu_plugin_cond,
    sys::qemu_plugin_u64,
    u64,
    *mut c_void,
);

/// What is needed beyond the table of [`super::api`].
#[derive(Clone, Copy, Debug)]
struct Functions {
    instruction_cond: RegisterCond,
    instruction: RegisterAlways,
    block_cond: RegisterBlockCond,
    write_register: unsafe extern "C" fn(*mut sys::qemu_plugin_register, *mut sys::GByteArray) -> bool,
    write_memory: unsafe extern "C" fn(u64, *mut sys::GByteArray) -> bool,
    set_pc: unsafe extern "C" fn(u64),
    restore_state: unsafe extern "C" fn(*mut c_void, usize) -> bool,
}

static FUNCTIONS: OnceLock<Functions> = OnceLock::new();

/// A function that only a QEMU with modules exports.
///
/// # Errors
/// What to do, as the rest of a line.
pub(super) fn exported(name: &'static CStr) -> Result<*mut c_void, String> {
    find(name).map_err(|why| format!("{why}; use Debian's QEMU, or one built with --enable-modules"))
}

/// Finds out whether this QEMU can be made to execute something else; `of_guest`: whether it has what that takes for
/// the guest's architecture. To be called at installation.
///
/// # Errors
/// Why it cannot, as the rest of a line.
pub fn prepare(generation: Generation, of_guest: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    host::is_tried()?;
    if generation < Generation::V7 {
        return Err(format!("QEMU {} lets no plugin change the program counter; use QEMU 11.1", generation.qemu()));
    }
    // SAFETY: each pointer is the function of that name, with the type that it has in the plugin API's header of
    // version 7, or in QEMU 11.1's own headers. A C enum is passed as an int.
    let functions = unsafe {
        Functions {
            instruction_cond: std::mem::transmute::<*mut c_void, RegisterCond>(find(
                c"qemu_plugin_register_vcpu_insn_exec_cond_cb",
            )?),
            instruction: std::mem::transmute::<*mut c_void, RegisterAlways>(find(
                c"qemu_plugin_register_vcpu_insn_exec_cb",
            )?),
            block_cond: std::mem::transmute::<*mut c_void, RegisterBlockCond>(find(
                c"qemu_plugin_register_vcpu_tb_exec_cond_cb",
            )?),
            write_register: std::mem::transmute::<
                *mut c_void,
                unsafe extern "C" fn(*mut sys::qemu_plugin_register, *mut sys::GByteArray) -> bool,
            >(find(c"qemu_plugin_write_register")?),
            write_memory: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(u64, *mut sys::GByteArray) -> bool>(
                find(c"qemu_plugin_write_memory_vaddr")?,
            ),
            set_pc: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(u64)>(find(c"qemu_plugin_set_pc")?),
            restore_state: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut c_void, usize) -> bool>(
                exported(c"cpu_restore_state")?,
            ),
        }
    };
    of_guest()?;
    exported(current::CURRENT_CPU)?;
    let _ = FUNCTIONS.set(functions);
    Ok(())
}

/// QEMU's own structure of the vCPU whose thread this is, as so many words. `None`: it is no vCPU's thread.
fn current_object() -> Option<(*mut c_void, usize)> {
    let whole = current::object()?;
    // SAFETY: the vCPU is an object of QEMU's own heap, made by glib's or libc's malloc, so that it has so many usable
    // bytes.
    Some((whole, unsafe { libc::malloc_usable_size(whole) } / size_of::<u64>()))
}

/// How many of the general registers must differ from each other and from 0 before the register file is looked for by
/// them.
const TELLING: usize = 6;

/// QEMU's structure of the vCPU of this thread, and the register file in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct RegisterFile {
    /// The whole.
    pub whole: *mut c_void,
    /// Where the general registers begin, in the order of their numbers.
    pub registers: *mut c_void,
}

impl RegisterFile {
    /// `general`: what the registers hold, by which the file is found; `place`: where in the whole it was found before,
    /// in bytes, or 0: the same for all vCPUs of a machine. `None`: not found, or not where it was.
    pub fn find(general: &[u64], place: &AtomicUsize) -> Option<Self> {
        let (whole, words) = current_object()?;
        // No other thread writes it: this is the vCPU's own.
        let holds = |word: usize| {
            word + general.len() <= words
                // SAFETY: within the object, which is aligned for u64.
                && (0..general.len()).all(|i| unsafe { whole.cast::<u64>().add(word + i).read() } == general[i])
        };
        let known = place.load(Ordering::Relaxed) / size_of::<u64>();
        let word = if known != 0 {
            holds(known).then_some(known)?
        } else {
            let telling: BTreeSet<u64> = general.iter().copied().filter(|value| *value != 0).collect();
            if telling.len() < TELLING {
                return None;
            }
            let mut found = (1..words).filter(|word| holds(*word));
            let word = found.next()?;
            if found.next().is_some() {
                return None;
            }
            place.store(word * size_of::<u64>(), Ordering::Relaxed);
            word
        };
        // SAFETY: within the object.
        Some(Self { whole, registers: unsafe { whole.cast::<u64>().add(word).cast() } })
    }
}

/// What shall be executed in place of the instruction at which the vCPU is.
pub type Divert = Box<dyn CarriesOut>;

/// An instruction of the guest's architecture, ready to be carried out.
pub trait CarriesOut: std::fmt::Debug {
    /// Carries it out, all but the leaving. An error means that nothing has happened.
    ///
    /// # Errors
    /// Why it cannot be.
    fn carry_out(&self, cpu: &CurrentCpu, block: &mut RunningBlock<'_>) -> Result<(), &'static str>;
}

/// The block whose callback runs, and how that is going to be left. Only such a callback has one.
#[derive(Debug)]
pub struct RunningBlock<'a> {
    functions: &'static Functions,
    back: usize,
    leaving: &'a mut Leave,
}

impl RunningBlock<'_> {
    /// QEMU's idea of the state of `whole`, the vCPU of this thread, becomes that of the instruction: from here on the
    /// block must be left, whatever happens, and goes on at `pc`.
    ///
    /// # Errors
    /// QEMU does not know the block; nothing has happened.
    ///
    /// # Safety
    /// `whole` is [`RegisterFile::find`]'s.
    pub(super) unsafe fn restore(&mut self, whole: *mut c_void, pc: u64) -> Result<(), &'static str> {
        // SAFETY: the caller's promise; `back` is where the block goes on after this callback.
        if !unsafe { (self.functions.restore_state)(whole, self.back) } {
            return Err("QEMU does not know the block that it runs");
        }
        self.leave(Leave::At(pc));
        Ok(())
    }

    /// Stores to the guest's memory.
    pub(super) fn store(&self, linear: u64, bytes: &mut [u8]) {
        // SAFETY: in a callback of the vCPU; QEMU reads the array's data only.
        let stored = with_array(bytes, |array| unsafe { (self.functions.write_memory)(linear, array) });
        assert!(stored, "a store that was looked at cannot be made");
    }

    /// Sets a register.
    pub(super) fn set(&self, register: Register, value: u64) {
        let written = with_array(&mut value.to_le_bytes(), |array| {
            // SAFETY: in a callback that was registered as one that writes registers; the handle is QEMU's own.
            unsafe { (self.functions.write_register)(register.handle(), array) }
        });
        assert!(written, "a register cannot be written");
    }

    /// How the block is left.
    pub(super) fn leave(&mut self, leave: Leave) {
        *self.leaving = leave;
    }
}

/// A callback that may execute something else.
pub trait MayDivert: Sync + 'static {
    /// `vcpu` is about to execute an instruction. An answer must be possible: what it loads and stores was looked at.
    fn decide(&'static self, vcpu: &CurrentVcpu, cpu: &CurrentCpu) -> Option<Divert>;
    /// It was carried out, or could not be, and then memory's instruction is executed.
    fn decided(&'static self, vcpu: &CurrentVcpu, carried_out: Result<(), &'static str>);
}

/// The same, carrying a word instead of a payload, so that nothing is kept for it.
pub trait MayDivertWord: 'static {
    /// See [`MayDivert::decide`].
    fn decide(word: u64, vcpu: &CurrentVcpu, cpu: &CurrentCpu) -> Option<Divert>;
}

/// What a callback's user data is, and who is asked about it.
trait Carried {
    /// # Safety
    /// `userdata` was given with the registration of this type's [`host::entry`].
    unsafe fn decide(userdata: *mut c_void, vcpu: &CurrentVcpu, cpu: &CurrentCpu) -> Option<Divert>;
    /// # Safety
    /// The same.
    unsafe fn decided(userdata: *mut c_void, vcpu: &CurrentVcpu, carried_out: Result<(), &'static str>);
}

/// A `&'static P`.
struct Payload<P>(PhantomData<P>);

impl<P: MayDivert> Carried for Payload<P> {
    unsafe fn decide(userdata: *mut c_void, vcpu: &CurrentVcpu, cpu: &CurrentCpu) -> Option<Divert> {
        // SAFETY: the caller's promise; it lives for ever.
        unsafe { &*userdata.cast_const().cast::<P>() }.decide(vcpu, cpu)
    }

    unsafe fn decided(userdata: *mut c_void, vcpu: &CurrentVcpu, carried_out: Result<(), &'static str>) {
        // SAFETY: as above.
        unsafe { &*userdata.cast_const().cast::<P>() }.decided(vcpu, carried_out);
    }
}

/// A number, never followed.
struct Word<P>(PhantomData<P>);

impl<P: MayDivertWord> Carried for Word<P> {
    unsafe fn decide(userdata: *mut c_void, vcpu: &CurrentVcpu, cpu: &CurrentCpu) -> Option<Divert> {
        P::decide(userdata as u64, vcpu, cpu)
    }

    unsafe fn decided(_userdata: *mut c_void, _vcpu: &CurrentVcpu, _carried_out: Result<(), &'static str>) {}
}

/// How the callback ends.
#[derive(Clone, Copy, Debug)]
pub(super) enum Leave {
    /// With the instruction in memory.
    Stay,
    /// Somewhere else.
    At(u64),
    /// With an exception.
    Raise(Raise),
}

/// What raises an exception.
#[derive(Clone, Copy, Debug)]
pub(super) struct Raise {
    /// Does not return; it is given the other two.
    pub raise: unsafe fn(*mut c_void, u32),
    /// The architecture's part of QEMU's vCPU.
    pub vcpu: *mut c_void,
    /// What it must know besides.
    pub code: u32,
}

impl Instruction<'_> {
    /// Asks `payload` before every execution of this instruction on which the flag of `slot` of the executing vCPU is
    /// below [`DONE`].
    pub fn may_divert_unless_done<P: MayDivert>(&self, slots: &Slots, slot: SlotId, payload: &'static P) {
        let (Some(functions), Some(flag)) = (FUNCTIONS.get(), slots.entry(slot)) else { return };
        // SAFETY: the instruction handle is live within the translation callback; the payload lives for ever and is of
        // the callback's type; the flag is in a scoreboard.
        unsafe {
            (functions.instruction_cond)(
                self.handle(),
                host::entry::<Payload<P>>,
                RW_REGS_PC,
                sys::qemu_plugin_cond::QEMU_PLUGIN_COND_LT,
                flag,
                DONE,
                std::ptr::from_ref(payload).cast_mut().cast(),
            );
        }
    }

    /// Asks `payload` before every execution of this instruction.
    pub fn may_divert<P: MayDivert>(&self, payload: &'static P) {
        let Some(functions) = FUNCTIONS.get() else { return };
        // SAFETY: as above.
        unsafe {
            (functions.instruction)(
                self.handle(),
                host::entry::<Payload<P>>,
                RW_REGS_PC,
                std::ptr::from_ref(payload).cast_mut().cast(),
            );
        }
    }

    /// Asks `P` about `word` before every execution of this instruction.
    pub fn may_divert_word<P: MayDivertWord>(&self, word: u64) {
        let Some(functions) = FUNCTIONS.get() else { return };
        // SAFETY: the instruction handle is live within the translation callback, and the callback takes its user data
        // for a number.
        unsafe { (functions.instruction)(self.handle(), host::entry::<Word<P>>, RW_REGS_PC, word as *mut c_void) }
    }
}

impl<C: Carried> Returning for C {
    unsafe extern "C" fn fire(vcpu: c_uint, userdata: *mut c_void, back: usize) {
        // SAFETY: the caller's promise.
        unsafe { fire::<C>(vcpu, userdata, back) }
    }
}

/// # Safety
/// See [`Returning::fire`].
unsafe fn fire<P: Carried>(vcpu: c_uint, userdata: *mut c_void, back: usize) {
    let mut leaving = Leave::Stay;
    guard(|| {
        // SAFETY: QEMU calls, on the thread of this vCPU, and the callback was registered as one that reads registers;
        // the one value of each in it.
        let (vcpu, cpu) = unsafe { (CurrentVcpu::new(vcpu), CurrentCpu::new(true)) };
        // SAFETY: `userdata` was given at the registration of this very instance of the function.
        let decision = unsafe { P::decide(userdata, &vcpu, &cpu) };
        let (Some(divert), Some(functions)) = (decision, FUNCTIONS.get()) else { return };
        let carried_out = divert.carry_out(&cpu, &mut RunningBlock { functions, back, leaving: &mut leaving });
        // SAFETY: as above.
        unsafe { P::decided(userdata, &vcpu, carried_out) }
    });
    if let Some(functions) = FUNCTIONS.get() {
        // SAFETY: in a callback that was registered as one that changes the program counter. This frame holds plain
        // values.
        unsafe { leave(functions, leaving) }
    }
}

/// Runs `body` on these bytes as a glib array that QEMU only reads.
fn with_array(bytes: &mut [u8], body: impl FnOnce(*mut sys::GByteArray) -> bool) -> bool {
    let mut array = sys::GByteArray { data: bytes.as_mut_ptr(), len: bytes.len() as c_uint };
    body(&raw mut array)
}

/// # Safety
/// In a callback that was registered with `RW_REGS_PC`, with nothing to drop in any frame up to QEMU's generated code,
/// after [`CarriesOut::carry_out`].
unsafe fn leave(functions: &Functions, leaving: Leave) {
    if !matches!(leaving, Leave::Stay) {
        none_is_held();
    }
    // SAFETY: the caller's promise. None of the functions returns.
    unsafe {
        match leaving {
            Leave::Stay => {}
            Leave::At(pc) => (functions.set_pc)(pc),
            Leave::Raise(Raise { raise, vcpu, code }) => raise(vcpu, code),
        }
    }
}

/// For each vCPU whether it follows a trail: a flag that QEMU's generated code tests at the beginning of each block.
#[derive(Debug)]
pub struct Trailing(*mut sys::qemu_plugin_scoreboard);

// SAFETY: the pointer is QEMU's handle, valid for the life of the process (never freed here). QEMU takes its own lock
// to change the table, and stops all vCPUs to move it.
unsafe impl Send for Trailing {}
// SAFETY: as above. Each vCPU's flag is only touched from that vCPU's thread.
unsafe impl Sync for Trailing {}

/// Is told of the blocks that a vCPU runs while it follows a trail.
pub trait FollowsTrail: Sync + 'static {
    /// The one of this process, if there is one.
    fn get() -> Option<&'static Self>;
    /// `vcpu` runs a block.
    fn runs_block(&'static self, vcpu: &CurrentVcpu, block: Linear);
}

impl Trailing {
    /// Makes the flags. To be called at installation only, as [`Slots::new`]. `None` outside of QEMU.
    #[must_use]
    pub fn new() -> Option<Self> {
        // SAFETY: any size is valid.
        let score = unsafe { (api()?.qemu_plugin_scoreboard_new)(size_of::<u64>()) };
        (!score.is_null()).then_some(Self(score))
    }

    /// The vCPU follows a trail from now on, or no longer.
    pub fn set(&self, current: &CurrentVcpu, follows: bool) {
        let Some(api) = api() else { return };
        // SAFETY: the scoreboard is live, and the vCPU exists and is in a callback; its part is one aligned u64, which
        // only its own thread touches.
        unsafe {
            let flag: *mut u64 = (api.qemu_plugin_scoreboard_find)(self.0, u32::from(current.id().0)).cast();
            if !flag.is_null() {
                flag.write(u64::from(follows));
            }
        }
    }
}

impl Translation<'_> {
    /// Tells `F` of every execution of this block, which begins at `linear`, by a vCPU that follows a trail.
    pub fn follow<F: FollowsTrail>(&self, trailing: &Trailing, linear: Linear) {
        let Some(functions) = FUNCTIONS.get() else { return };
        // SAFETY: the block's handle is live within the translation callback. The user data is a number, and is taken
        // for one.
        unsafe {
            (functions.block_cond)(
                self.handle(),
                step::<F>,
                sys::qemu_plugin_cb_flags::QEMU_PLUGIN_CB_NO_REGS as c_uint,
                sys::qemu_plugin_cond::QEMU_PLUGIN_COND_NE,
                sys::qemu_plugin_u64 { score: trailing.0, offset: 0 },
                0,
                linear.0 as *mut c_void,
            );
        }
    }
}

unsafe extern "C" fn step<F: FollowsTrail>(vcpu: c_uint, linear: *mut c_void) {
    guard(|| {
        if let Some(follower) = F::get() {
            // SAFETY: QEMU calls, on the thread of this vCPU; the one value of this callback.
            follower.runs_block(&unsafe { CurrentVcpu::new(vcpu) }, Linear(linear as u64));
        }
    });
}
