//! How a vCPU executes something else than the instruction at which it is (`inject`, `serialize=emulate`).
//!
//! A callback that may change the program counter (API 6 and later) runs before the instruction. It carries out the
//! other one, with the functions of the plugin API for registers and memory, and goes on behind it by
//! `qemu_plugin_set_pc`. Three things the API does not give, and they are taken from QEMU itself, where it exports them
//! (it does if it was built with modules, as Debian's is):
//! - **where the vCPU is.** In the middle of a block QEMU's own idea of RIP and of the lazily computed flags is that of
//!   some moment before. `qemu_plugin_set_pc` leaves the block without bringing it up to date
//!   (docs/upstream/qemu-plugin-set-pc.md), so that `cpu_restore_state` has to;
//! - **the arithmetic flags**, which are not in the register `eflags` that the API reads and writes:
//!   `helper_read_eflags`, `helper_write_eflags`;
//! - **exceptions**: #BP of an older INT3, #UD of what is no instruction: `raise_interrupt`, `raise_exception`.
//!
//! The last three want the address of the x86 part of QEMU's vCPU, which is found by the register file that lies in it,
//! and compared with it at every use.
//!
//! Leaving a block is a `longjmp` over the callback's frames. So [`fire`] holds nothing that needs to be dropped when
//! it calls [`leave`]: everything else happened inside of [`guard`], where no function of QEMU leaves, and came out as
//! a plain [`Leave`].

use super::api::{Generation, api, find};
use super::cpu::{CurrentCpu, CurrentVcpu, Register};
use super::guard::guard;
use super::locks::none_is_held;
use super::scoreboard::Slots;
use super::translation::{Instruction, Translation};
use icsan_model::addr::Linear;
use icsan_model::arch::x86::interpret::{Effects, Next, Plan, Registers};
use icsan_model::detector::flags::{DONE, SlotId};
use libc::{c_int, c_uint, c_void};
use qemu_plugin_sys as sys;
use std::marker::PhantomData;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// `QEMU_PLUGIN_CB_RW_REGS_PC`, since API 6: the callback may change the program counter.
const RW_REGS_PC: c_uint = 3;

/// Flags that QEMU never computes lazily, by which its answers are checked: IF, IOPL, NT, AC, ID.
const PLAIN: u64 = 0x24_7200;

/// Vectors of the exceptions (SDM vol. 3, table 7-1).
const UD: c_int = 6;
const BP: c_int = 3;

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
    read_flags: unsafe extern "C" fn(*mut c_void) -> u64,
    write_flags: unsafe extern "C" fn(*mut c_void, u64, u32),
    raise_interrupt: unsafe extern "C" fn(*mut c_void, c_int, c_int),
    raise_exception: unsafe extern "C" fn(*mut c_void, c_int),
}

static FUNCTIONS: OnceLock<Functions> = OnceLock::new();

/// Finds out whether this QEMU can be made to execute something else. To be called at installation.
///
/// # Errors
/// Why it cannot, as the rest of a line.
pub fn prepare(generation: Generation) -> Result<(), String> {
    if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        return Err("it was tried on x86-64 Linux hosts only".to_owned());
    }
    if generation < Generation::V7 {
        return Err(format!("QEMU {} lets no plugin change the program counter; use QEMU 11.1", generation.qemu()));
    }
    let exported =
        |name| find(name).map_err(|why| format!("{why}; use Debian's QEMU, or one built with --enable-modules"));
    // SAFETY: each pointer is the function of that name, with the type that it has in the plugin API's header of
    // version 7, or in QEMU 11.1's own headers (target/i386/tcg: the same since before 10.0). A C enum is passed as an
    // int. `raise_*` do not return.
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
            read_flags: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut c_void) -> u64>(exported(
                c"helper_read_eflags",
            )?),
            write_flags: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut c_void, u64, u32)>(exported(
                c"helper_write_eflags",
            )?),
            raise_interrupt: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut c_void, c_int, c_int)>(
                exported(c"raise_interrupt")?,
            ),
            raise_exception: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut c_void, c_int)>(exported(
                c"raise_exception",
            )?),
        }
    };
    exported(CURRENT_CPU)?;
    let _ = FUNCTIONS.set(functions);
    Ok(())
}

/// QEMU's thread-local pointer to the vCPU whose thread it is.
const CURRENT_CPU: &std::ffi::CStr = c"current_cpu";

/// Where in QEMU's vCPU its x86 part lies, in bytes; 0: not found yet. The same for all vCPUs of a machine.
static X86_PART: AtomicUsize = AtomicUsize::new(0);

/// How many of the general registers must differ from each other and from 0 before the register file is looked for by
/// them.
const TELLING: usize = 6;

/// The vCPU of this thread, and its x86 part.
#[derive(Clone, Copy, Debug)]
struct Cpu {
    whole: *mut c_void,
    x86: *mut c_void,
}

impl Cpu {
    /// `general`: what its registers hold, by which it is found. `None`: not found, or not where it was.
    fn find(general: &[u64; 16]) -> Option<Self> {
        let current = find(CURRENT_CPU).ok()?;
        // SAFETY: dlsym gives this thread's instance of a thread-local variable; it is a pointer, null outside of a
        // vCPU's thread.
        let whole = unsafe { current.cast::<*mut c_void>().read() };
        if whole.is_null() {
            return None;
        }
        // SAFETY: the vCPU is an object of QEMU's own heap, made by glib's or libc's malloc, so that it has so many
        // usable bytes.
        let size = unsafe { libc::malloc_usable_size(whole) };
        let words = size / size_of::<u64>();
        // The register file is the beginning of the x86 part, in the order of the registers' numbers. Nobody else
        // writes it: this is the vCPU's own thread.
        let holds = |word: usize| {
            word + general.len() <= words
                // SAFETY: within the object, which is aligned for u64.
                && (0..general.len()).all(|i| unsafe { whole.cast::<u64>().add(word + i).read() } == general[i])
        };
        let known = X86_PART.load(Ordering::Relaxed) / size_of::<u64>();
        let word = if known != 0 {
            holds(known).then_some(known)?
        } else {
            let telling: std::collections::BTreeSet<u64> =
                general.iter().copied().filter(|value| *value != 0).collect();
            if telling.len() < TELLING {
                return None;
            }
            let mut found = (1..words).filter(|word| holds(*word));
            let word = found.next()?;
            if found.next().is_some() {
                return None;
            }
            X86_PART.store(word * size_of::<u64>(), Ordering::Relaxed);
            word
        };
        // SAFETY: within the object.
        Some(Self { whole, x86: unsafe { whole.cast::<u64>().add(word).cast() } })
    }
}

/// What shall be executed in place of the instruction at which the vCPU is.
#[derive(Clone, Copy, Debug)]
pub struct Divert {
    /// The instruction, decoded for these registers.
    pub plan: Plan,
    /// The registers. Their arithmetic flags are not known yet.
    pub registers: Registers,
    /// QEMU's handles of the general registers, by number.
    pub general: [Register; 16],
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
    /// `userdata` was given with the registration of this type's [`entry`].
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
enum Leave {
    /// With the instruction in memory.
    Stay,
    /// Somewhere else.
    At(u64),
    /// With #BP, whose return address is so many bytes on.
    Breakpoint(Cpu, u8),
    /// With #UD.
    Undefined(Cpu),
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
                entry::<Payload<P>>,
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
                entry::<Payload<P>>,
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
        unsafe { (functions.instruction)(self.handle(), entry::<Word<P>>, RW_REGS_PC, word as *mut c_void) }
    }
}

/// Passes on where QEMU's generated code goes on after the callback, which tells the instruction.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
unsafe extern "C" fn entry<P: Carried>(vcpu: c_uint, userdata: *mut c_void) {
    core::arch::naked_asm!("mov rdx, qword ptr [rsp]", "jmp {fire}", fire = sym fire::<P>)
}

#[cfg(not(target_arch = "x86_64"))]
unsafe extern "C" fn entry<P: Carried>(_vcpu: c_uint, _userdata: *mut c_void) {}

#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code))]
unsafe extern "C" fn fire<P: Carried>(vcpu: c_uint, userdata: *mut c_void, back: usize) {
    let mut leaving = Leave::Stay;
    guard(|| {
        // SAFETY: QEMU calls, on the thread of this vCPU, and the callback was registered as one that reads registers;
        // the one value of each in it.
        let (vcpu, cpu) = unsafe { (CurrentVcpu::new(vcpu), CurrentCpu::new(true)) };
        // SAFETY: `userdata` was given at the registration of this very instance of the function.
        let decision = unsafe { P::decide(userdata, &vcpu, &cpu) };
        let (Some(divert), Some(functions)) = (decision, FUNCTIONS.get()) else { return };
        let carried_out = carry_out(functions, &divert, &cpu, back, &mut leaving);
        // SAFETY: as above.
        unsafe { P::decided(userdata, &vcpu, carried_out) }
    });
    if let Some(functions) = FUNCTIONS.get() {
        // SAFETY: in a callback that was registered as one that changes the program counter. This frame holds plain
        // values.
        unsafe { leave(functions, leaving) }
    }
}

/// Carries it out, all but the leaving. An error means that nothing has happened.
fn carry_out(
    functions: &Functions,
    divert: &Divert,
    cpu: &CurrentCpu,
    back: usize,
    leaving: &mut Leave,
) -> Result<(), &'static str> {
    let Divert { plan, mut registers, general: handles } = *divert;
    let found = Cpu::find(&registers.general).ok_or("QEMU's register file was not found")?;
    let loaded = match plan.load {
        None => 0,
        Some(access) => {
            let bytes = cpu.memory(access.linear, access.len.into()).ok_or("what it loads cannot be read")?;
            bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
        }
    };
    // SAFETY: the pointers are those of this thread's vCPU, whose callback runs, and `back` is where the block goes on
    // after it.
    if !unsafe { (functions.restore_state)(found.whole, back) } {
        return Err("QEMU does not know the block that it runs");
    }
    // From here on the vCPU's state is that of the instruction and no longer that of the block: the block must be left,
    // whatever happens.
    *leaving = Leave::At(registers.rip);
    // SAFETY: as above; the state is up to date.
    let flags = unsafe { (functions.read_flags)(found.x86) };
    assert_eq!((flags ^ registers.flags) & PLAIN, 0, "QEMU's flags are not where they were looked for");
    registers.flags = flags;
    let Effects { store, general, flags, next } = plan.carry_out(&registers, loaded);
    if let Some((access, value)) = store {
        let stored = with_array(&mut value.to_le_bytes()[..usize::from(access.len)], |array| {
            // SAFETY: in a callback of the vCPU; QEMU reads the array's data only.
            unsafe { (functions.write_memory)(access.linear, array) }
        });
        assert!(stored, "a store that was looked at cannot be made");
    }
    for (number, value) in general.into_iter().flatten() {
        let register = handles[usize::from(number)];
        let written = with_array(&mut value.to_le_bytes(), |array| {
            // SAFETY: in a callback that was registered as one that writes registers; the handle is QEMU's own.
            unsafe { (functions.write_register)(register.handle(), array) }
        });
        assert!(written, "a register cannot be written");
    }
    if let Some(flags) = flags {
        // SAFETY: as above. It always takes the arithmetic flags and DF, to keep them apart from the register; the mask
        // says which of the others to write to the register: none.
        unsafe { (functions.write_flags)(found.x86, flags, 0) }
    }
    *leaving = match next {
        Next::At(linear) => Leave::At(linear),
        Next::Breakpoint { len } => Leave::Breakpoint(found, len),
        Next::Undefined => Leave::Undefined(found),
    };
    Ok(())
}

/// Runs `body` on these bytes as a glib array that QEMU only reads.
fn with_array(bytes: &mut [u8], body: impl FnOnce(*mut sys::GByteArray) -> bool) -> bool {
    let mut array = sys::GByteArray { data: bytes.as_mut_ptr(), len: bytes.len() as c_uint };
    body(&raw mut array)
}

/// # Safety
/// In a callback that was registered with `RW_REGS_PC`, with nothing to drop in any frame up to QEMU's generated code,
/// after [`carry_out`].
unsafe fn leave(functions: &Functions, leaving: Leave) {
    if !matches!(leaving, Leave::Stay) {
        none_is_held();
    }
    // SAFETY: the caller's promise. None of the functions returns.
    unsafe {
        match leaving {
            Leave::Stay => {}
            Leave::At(pc) => (functions.set_pc)(pc),
            Leave::Breakpoint(cpu, len) => (functions.raise_interrupt)(cpu.x86, BP, len.into()),
            Leave::Undefined(cpu) => (functions.raise_exception)(cpu.x86, UD),
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
