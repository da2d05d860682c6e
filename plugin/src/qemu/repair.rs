//! How a vCPU leaves a block and has QEMU translate it again (`emulator=repair`).
//!
//! Two ways, neither of which stores to guest memory:
//! - **API 7**: QEMU is asked to write the guest's own memory over itself. It calls `memmove(p, p, 1024)`, which stores
//!   nothing (tried at installation, see [`memmove_stores_nothing`]), and drops every block there; then
//!   `qemu_plugin_set_pc` to the block's start.
//! - **API 4** has no such function. Debian's QEMU 10.0 exports its own symbols, and with them the one block is dropped
//!   and left. Used in that version only.
//!
//! Both leave by a `longjmp` over the callback's frames. So [`fire`] and [`fire_v4`] hold nothing that needs to be
//! dropped when they call [`leave`] or [`leave_v4`]: the decision is made inside of [`guard`] and comes out as plain
//! numbers. `catch_unwind` keeps no state in its thread while nothing panics, and has returned by then.

use super::api::{Generation, api, find, find_internal};
use super::cpu::{CurrentCpu, CurrentVcpu, NamedRegister};
use super::current;
use super::guard::guard;
use super::host::{self, Returning};
use super::locks::none_is_held;
use super::process::qemu_version;
use super::translation::{Instruction, Translation};
use icsan_model::addr::{Linear, Phys};
use libc::{c_int, c_uint, c_void};
use qemu_plugin_sys as sys;
use std::marker::PhantomData;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// QEMU is asked to rewrite so many aligned bytes: more than glibc moves through registers (8 vectors), less than it
/// moves by `rep movsb`.
pub const REWRITTEN: usize = 1024;

/// `QEMU_PLUGIN_CB_RW_REGS`: on API 4 it only means that the guest's registers are in memory when the callback runs.
const RW_REGS: c_uint = 2;
/// `QEMU_PLUGIN_CB_RW_REGS_PC`, since API 6: the callback may change the program counter.
const RW_REGS_PC: c_uint = 3;

type Callback = unsafe extern "C" fn(c_uint, *mut c_void);
type RegisterCond = unsafe extern "C" fn(
    *mut sys::qemu_plugin_tb,
    Callback,
    c_uint,
    sys::qemu_plugin_cond,
    sys::qemu_plugin_u64,
    u64,
    *mut c_void,
);
type RegisterBlock = unsafe extern "C" fn(*mut sys::qemu_plugin_tb, Callback, c_uint, *mut c_void);
type RegisterInstruction = unsafe extern "C" fn(*mut sys::qemu_plugin_insn, Callback, c_uint, *mut c_void);

/// What both ways need.
#[derive(Clone, Copy, Debug)]
struct Registrations {
    block_cond: RegisterCond,
    block: RegisterBlock,
    instruction: RegisterInstruction,
    flags: c_uint,
}

/// API 7.
#[derive(Clone, Copy, Debug)]
struct Rewrite {
    write: unsafe extern "C" fn(u64, *mut sys::GByteArray) -> c_int,
    set_pc: unsafe extern "C" fn(u64),
}

/// QEMU 10.0's own functions.
#[derive(Clone, Copy, Debug)]
struct Internal {
    get_cpu: unsafe extern "C" fn(c_int) -> *mut c_void,
    /// `tb_check_watchpoint`: brings the CPU's state up to date and drops the block that holds a return address.
    drop_block: unsafe extern "C" fn(*mut c_void, usize),
    exit: unsafe extern "C" fn(*mut c_void),
    restore_and_exit: unsafe extern "C" fn(*mut c_void, usize),
}

#[derive(Clone, Copy, Debug)]
enum Way {
    Rewrite(Rewrite),
    Internal(Internal),
}

static WAY: OnceLock<(Registrations, Way)> = OnceLock::new();

/// What to do with the block that is running.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Leave {
    /// At the block's first instruction: drop it, and look it up again. With the physical place and the host address of
    /// [`REWRITTEN`] aligned bytes that its first byte is among, which must be the same memory; where [`needs_source`]
    /// says so.
    Again(Option<(Phys, usize)>),
    /// In the middle of a block, at this linear address, behind an instruction after which QEMU's own state is exact:
    /// go on there in another block.
    Next {
        /// Where.
        at: Linear,
        /// The length of the instruction before it.
        behind: u8,
    },
}

/// A callback that may leave its block.
pub trait MayLeave: 'static {
    /// `vcpu` is about to execute a block's first instruction, or one at which QEMU's state is exact, with which `word`
    /// was registered.
    /// When it leaves, nothing else of this callback happens.
    fn decide(word: u64, vcpu: &CurrentVcpu) -> Option<Leave>;
}

/// Does [`Leave::Again`] need the place in memory?
#[must_use]
pub fn needs_source() -> bool {
    matches!(WAY.get(), Some((_, Way::Rewrite(_))))
}

/// Finds out how this QEMU can be made to translate a block again; `counter`: the guest's program counter. To be called
/// at installation.
///
/// # Errors
/// Why it cannot, as the rest of a line.
pub fn prepare(generation: Generation, counter: &'static NamedRegister) -> Result<(), String> {
    host::is_tried()?;
    let way = match generation {
        Generation::V4 => Way::Internal(internal()?),
        Generation::V5 => {
            return Err(format!("it was not tried on QEMU {}; use QEMU 11.1, or Debian's 10.0", generation.qemu()));
        }
        Generation::V7 => Way::Rewrite(rewrite()?),
    };
    register_membarrier()?;
    // SAFETY: the pointers are the functions of these names, whose types are the same from API 4 to 7 (a C enum is
    // passed as an int).
    let registrations = unsafe {
        Registrations {
            block_cond: std::mem::transmute::<*mut c_void, RegisterCond>(find(
                c"qemu_plugin_register_vcpu_tb_exec_cond_cb",
            )?),
            block: std::mem::transmute::<*mut c_void, RegisterBlock>(find(c"qemu_plugin_register_vcpu_tb_exec_cb")?),
            instruction: std::mem::transmute::<*mut c_void, RegisterInstruction>(find(
                c"qemu_plugin_register_vcpu_insn_exec_cb",
            )?),
            flags: if matches!(way, Way::Rewrite(_)) { RW_REGS_PC } else { RW_REGS },
        }
    };
    let _ = COUNTER.set(counter);
    let _ = WAY.set((registrations, way));
    Ok(())
}

fn rewrite() -> Result<Rewrite, String> {
    // SAFETY: the functions of these names, with the types of API 7's header.
    let way = unsafe {
        Rewrite {
            write: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(u64, *mut sys::GByteArray) -> c_int>(find(
                c"qemu_plugin_write_memory_hwaddr",
            )?),
            set_pc: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(u64)>(find(c"qemu_plugin_set_pc")?),
        }
    };
    if memmove_stores_nothing() {
        Ok(way)
    } else {
        Err("this host's memmove stores even where source and destination are the same, which could undo a store of the guest".to_owned())
    }
}

/// Debian builds QEMU with loadable modules, for which it exports all its symbols.
fn internal() -> Result<Internal, String> {
    let elsewhere = |why: String| format!("{why}; use Debian's QEMU 10.0, or 11.1");
    // SAFETY: the functions of these names, with the types of QEMU 10.0's headers; nothing is called before the version
    // is known to be that.
    let way = unsafe {
        Internal {
            get_cpu: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(c_int) -> *mut c_void>(
                find_internal(c"qemu_get_cpu").map_err(elsewhere)?,
            ),
            drop_block: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut c_void, usize)>(
                find_internal(c"tb_check_watchpoint").map_err(elsewhere)?,
            ),
            exit: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut c_void)>(
                find_internal(c"cpu_loop_exit_noexc").map_err(elsewhere)?,
            ),
            restore_and_exit: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut c_void, usize)>(
                find_internal(c"cpu_loop_exit_restore").map_err(elsewhere)?,
            ),
        }
    };
    find_internal(current::CURRENT_CPU).map_err(elsewhere)?;
    match qemu_version().map_err(elsewhere)? {
        (10, 0) => Ok(way),
        (major, minor) => {
            Err(elsewhere(format!("with plugin API 4 it was tried on QEMU 10.0 only, and this is {major}.{minor}")))
        }
    }
}

static PROBED: AtomicUsize = AtomicUsize::new(0);
static STORED: AtomicBool = AtomicBool::new(false);
const HOST_PAGE: usize = 4096;

extern "C" fn on_store_to_probe(_signal: c_int, info: *mut libc::siginfo_t, _context: *mut c_void) {
    let page = PROBED.load(Ordering::SeqCst);
    // SAFETY: the kernel's siginfo of a SIGSEGV has an address. mprotect is a system call, and the page is ours.
    unsafe {
        let address = (*info).si_addr() as usize;
        if address.wrapping_sub(page) < HOST_PAGE {
            STORED.store(true, Ordering::SeqCst);
            libc::mprotect(page as *mut c_void, HOST_PAGE, libc::PROT_READ | libc::PROT_WRITE);
        } else {
            // Not ours: it happens again, as if there had been no handler.
            libc::signal(libc::SIGSEGV, libc::SIG_DFL);
        }
    }
}

/// Does `memmove(p, p, 1024)`, the one that QEMU calls, store nothing? Tried on a page that cannot be written. To be
/// called while QEMU starts.
#[must_use]
pub fn memmove_stores_nothing() -> bool {
    type Move = unsafe extern "C" fn(*mut c_void, *const c_void, usize) -> *mut c_void;
    let Ok(function) = find(c"memmove") else { return false };
    // SAFETY: the function is C's memmove. The page is ours and readable; a store to it is caught by the handler, which
    // makes it writable. The old handler is put back.
    unsafe {
        let memmove = std::mem::transmute::<*mut c_void, Move>(function);
        let page = libc::mmap(
            std::ptr::null_mut(),
            HOST_PAGE,
            libc::PROT_READ,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        if page == libc::MAP_FAILED {
            return false;
        }
        PROBED.store(page as usize, Ordering::SeqCst);
        STORED.store(false, Ordering::SeqCst);
        let mut action: libc::sigaction = std::mem::zeroed();
        let mut old: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_store_to_probe as extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) as usize;
        action.sa_flags = libc::SA_SIGINFO;
        let caught = libc::sigaction(libc::SIGSEGV, &raw const action, &raw mut old) == 0;
        if caught {
            for offset in (0..HOST_PAGE).step_by(REWRITTEN) {
                let at = page.byte_add(offset);
                std::hint::black_box(memmove(std::hint::black_box(at), at, REWRITTEN));
            }
            libc::sigaction(libc::SIGSEGV, &raw const old, std::ptr::null_mut());
        }
        libc::munmap(page, HOST_PAGE);
        caught && !STORED.load(Ordering::SeqCst)
    }
}

const MEMBARRIER_PRIVATE_EXPEDITED: c_int = 1 << 3;
const MEMBARRIER_REGISTER_PRIVATE_EXPEDITED: c_int = 1 << 4;

fn register_membarrier() -> Result<(), String> {
    // SAFETY: the system call takes three integers and touches no memory of ours.
    match unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_REGISTER_PRIVATE_EXPEDITED, 0, 0) } {
        0 => Ok(()),
        _ => Err("this host's kernel has no membarrier(2)".to_owned()),
    }
}

/// Every thread of this process passes a memory barrier.
pub fn barrier_of_all_threads() {
    // SAFETY: as above.
    unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_PRIVATE_EXPEDITED, 0, 0) };
}

/// For each block a word for each vCPU: the version of the block that it checked in its epoch. Behind them the list of
/// words that are not 0.
#[derive(Debug)]
pub struct Checked {
    score: *mut sys::qemu_plugin_scoreboard,
    len: u32,
}

// SAFETY: the pointer is QEMU's handle, valid for the life of the process (never freed here). QEMU takes its own lock
// to change the table, and stops all vCPUs to move it. Each vCPU's part is only touched from that vCPU's thread.
unsafe impl Send for Checked {}
// SAFETY: as above.
unsafe impl Sync for Checked {}

impl Checked {
    /// Makes the table. To be called at installation only, as [`Slots::new`](super::scoreboard::Slots::new). `None`
    /// outside of QEMU.
    #[must_use]
    pub fn new(len: u32) -> Option<Self> {
        let words = len as usize + 1 + (len as usize).div_ceil(2);
        // SAFETY: any size is valid.
        let score = unsafe { (api()?.qemu_plugin_scoreboard_new)(words * size_of::<u64>()) };
        (!score.is_null()).then_some(Self { score, len })
    }

    fn part(&self, current: &CurrentVcpu) -> Option<*mut AtomicU64> {
        // SAFETY: `score` is a live scoreboard, and the vCPU exists.
        let part = unsafe { (api()?.qemu_plugin_scoreboard_find)(self.score, u32::from(current.id().0)) };
        (!part.is_null()).then_some(part.cast())
    }

    /// The vCPU checked this version of a block.
    pub fn set(&self, current: &CurrentVcpu, slot: u32, version: u64) {
        let Some(part) = self.part(current).filter(|_| slot < self.len) else { return };
        // SAFETY: the part has `len` words, then the length of the list, then room for `len` numbers of 32 bits. A
        // number comes into the list only when its word was 0, so once at most. Only this vCPU's thread is here: it has
        // the token.
        unsafe {
            let word = &*part.add(slot as usize);
            if word.load(Ordering::Relaxed) == 0 {
                let length: *mut u64 = part.add(self.len as usize).cast();
                let list: *mut u32 = length.add(1).cast();
                list.add(length.read() as usize).write(slot);
                length.write(length.read() + 1);
            }
            word.store(version, Ordering::Relaxed);
        }
    }

    /// The vCPU begins an epoch.
    pub fn clear(&self, current: &CurrentVcpu) {
        let Some(part) = self.part(current) else { return };
        // SAFETY: as above; what is in the list is below `len`.
        unsafe {
            let length: *mut u64 = part.add(self.len as usize).cast();
            let list: *const u32 = length.add(1).cast();
            for index in 0..length.read() as usize {
                (*part.add(list.add(index).read() as usize)).store(0, Ordering::Relaxed);
            }
            length.write(0);
        }
    }
}

impl Translation<'_> {
    /// Calls `P` with `word` before every execution of this block on which the executing vCPU's word of `slot` is not
    /// `version`; without a slot before every execution.
    pub fn may_leave<P: MayLeave>(&self, checked: &Checked, slot: Option<u32>, version: u64, word: u64) {
        let Some((registrations, way)) = WAY.get() else { return };
        let userdata = word as usize as *mut c_void;
        // SAFETY: the block's handle is live within the translation callback; the word is passed on and never followed;
        // the slot is in the table.
        unsafe {
            match slot.filter(|slot| *slot < checked.len) {
                Some(slot) => (registrations.block_cond)(
                    self.handle(),
                    callback::<P>(way),
                    registrations.flags,
                    sys::qemu_plugin_cond::QEMU_PLUGIN_COND_NE,
                    sys::qemu_plugin_u64 { score: checked.score, offset: slot as usize * size_of::<u64>() },
                    version,
                    userdata,
                ),
                None => (registrations.block)(self.handle(), callback::<P>(way), registrations.flags, userdata),
            }
        }
    }
}

impl Instruction<'_> {
    /// Calls `P` with `word` before every execution of this instruction, at which QEMU's own state is exact.
    pub fn may_leave<P: MayLeave>(&self, word: u64) {
        let Some((registrations, way)) = WAY.get() else { return };
        // SAFETY: as above.
        unsafe {
            (registrations.instruction)(
                self.handle(),
                callback::<P>(way),
                registrations.flags,
                word as usize as *mut c_void,
            );
        }
    }
}

fn callback<P: MayLeave>(way: &Way) -> Callback {
    match way {
        Way::Rewrite(_) => fire::<P>,
        Way::Internal(_) => host::entry::<Left<P>>,
    }
}

/// The guest's program counter.
static COUNTER: OnceLock<&'static NamedRegister> = OnceLock::new();

unsafe extern "C" fn fire<P: MayLeave>(vcpu: c_uint, userdata: *mut c_void) {
    let mut decision: Option<(Leave, u64)> = None;
    guard(|| {
        // SAFETY: QEMU calls, on the thread of this vCPU, and the callback was registered as one that reads registers;
        // the one value of each in it.
        let (vcpu, cpu) = unsafe { (CurrentVcpu::new(vcpu), CurrentCpu::new(true)) };
        if let Some(leave) = P::decide(userdata as usize as u64, &vcpu) {
            // Not the linear address: QEMU wants what the register holds. That is exact at a block's start, and where
            // a block may be left in the middle; there it is still the instruction's before.
            decision = COUNTER.get().and_then(|counter| counter.read(&cpu)).map(|pc| (leave, pc));
        }
    });
    if let (Some((decision, pc)), Some((_, Way::Rewrite(way)))) = (decision, WAY.get()) {
        none_is_held();
        // SAFETY: in a callback that was registered as one that changes the program counter. This frame holds numbers
        // and a reference to a static.
        unsafe { leave(way, decision, pc) }
    }
}

/// # Safety
/// In a callback that was registered with `RW_REGS_PC`, at a place that the decision names, with nothing to drop in any
/// frame up to QEMU's generated code.
unsafe fn leave(way: &Rewrite, decision: Leave, pc: u64) {
    // SAFETY: the caller's promise. QEMU reads the array's data only; source and destination are the same memory (see
    // `Leave::Again`), so that nothing is stored.
    unsafe {
        match decision {
            Leave::Again(Some((phys, host))) => {
                let mut source = sys::GByteArray { data: host as *mut u8, len: REWRITTEN as c_uint };
                (way.write)(phys.0, &raw mut source);
                (way.set_pc)(pc);
            }
            Leave::Again(None) => {}
            // Where the register is no linear address, or if something else was decoded there, the vCPU stays in the
            // block.
            Leave::Next { at, behind } if pc.wrapping_add(behind.into()) == at.0 => (way.set_pc)(at.0),
            Leave::Next { .. } => {}
        }
    }
}

/// A callback of which QEMU 10.0's own functions want the return address, which tells them the block and the
/// instruction.
struct Left<P>(PhantomData<P>);

impl<P: MayLeave> Returning for Left<P> {
    unsafe extern "C" fn fire(vcpu: c_uint, userdata: *mut c_void, back: usize) {
        fire_v4::<P>(vcpu, userdata, back);
    }
}

fn fire_v4<P: MayLeave>(vcpu: c_uint, userdata: *mut c_void, back: usize) {
    let mut decision: Option<Leave> = None;
    guard(|| {
        // SAFETY: QEMU calls, on the thread of this vCPU; the one value of this callback.
        decision = P::decide(userdata as usize as u64, &unsafe { CurrentVcpu::new(vcpu) });
    });
    if let (Some(decision), Some((_, Way::Internal(way)))) = (decision, WAY.get()) {
        none_is_held();
        // SAFETY: `back` is where generated code goes on after this callback. This frame holds numbers and a reference
        // to a static.
        unsafe { leave_v4(way, decision, vcpu, back) }
    }
}

/// # Safety
/// `back` is the return address of the callback into the block that runs, with nothing to drop in any frame up to
/// there.
unsafe fn leave_v4(way: &Internal, decision: Leave, vcpu: c_uint, back: usize) {
    // SAFETY: the caller's promise; the functions are those of QEMU 10.0 (`internal`), and `cpu` is the vCPU of this
    // thread. No page lock is held in an execution callback.
    unsafe {
        let cpu = (way.get_cpu)(vcpu as c_int);
        if current::object() != Some(cpu) {
            return;
        }
        match decision {
            Leave::Again(_) => {
                (way.drop_block)(cpu, back);
                (way.exit)(cpu);
            }
            Leave::Next { .. } => (way.restore_and_exit)(cpu, back),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::memmove_stores_nothing;

    #[test]
    fn memmove_to_itself_stores_nothing_here() {
        assert!(memmove_stores_nothing());
    }
}
