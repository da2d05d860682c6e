//! A block that QEMU is translating: its instructions, and the callbacks that shall fire when it runs.

use super::api::{VcpuCallback, api};
use super::cpu::{CurrentCpu, CurrentVcpu};
use super::guard::guard;
use super::hooks::stale_translations::settle;
use super::host_code::{HostCode, HostPage};
use super::scoreboard::Slots;
use icsan_model::addr::Linear;
use icsan_model::detector::flags::{DONE, SlotId};
use icsan_model::detector::light::CodeRun;
use libc::{c_uint, c_void};
use qemu_plugin_sys as sys;
use std::marker::PhantomData;

/// No instruction of any architecture is longer, in bytes.
const MAX_LEN: usize = 16;

/// What a callback carries: it lives for ever, and knows what to do when its instruction is about to execute.
pub trait Payload: Sync + 'static {
    /// Asked first: is there nothing more to do? It must not panic, and is best without a call.
    fn passes(&'static self, _vcpu: &CurrentVcpu) -> bool {
        false
    }

    /// The instruction is about to execute on `vcpu` (and may still fault).
    fn fire(&'static self, vcpu: &CurrentVcpu, cpu: &CurrentCpu);
}

unsafe extern "C" fn fire<P: Payload + 'static, const REGISTERS: bool>(vcpu: c_uint, userdata: *mut c_void) {
    // SAFETY: `userdata` is the `&'static P` that was given at the registration of this very instance of the function.
    let payload: &'static P = unsafe { &*userdata.cast_const().cast::<P>() };
    // SAFETY: QEMU calls, on the thread of this vCPU; the one value of this callback.
    let vcpu = unsafe { CurrentVcpu::new(vcpu) };
    if !payload.passes(&vcpu) {
        fire_guarded::<P, REGISTERS>(payload, vcpu);
    }
}

/// Apart, and never unwinding, so that what passes has a short way.
#[inline(never)]
extern "C" fn fire_guarded<P: Payload, const REGISTERS: bool>(payload: &'static P, vcpu: CurrentVcpu) {
    settle();
    // SAFETY: in the callback, which was registered with R_REGS if REGISTERS says so.
    guard(|| payload.fire(&vcpu, &unsafe { CurrentCpu::new(REGISTERS) }));
}

/// What a callback does that carries a word, so that nothing is kept for it.
pub trait WordPayload: 'static {
    /// Asked first: is there nothing more to do? It must not panic.
    #[inline]
    fn passes(_word: u64) -> bool {
        false
    }

    /// The instruction that the word was given for is about to execute on `vcpu` (and may still fault).
    fn fire(word: u64, vcpu: &CurrentVcpu, cpu: &CurrentCpu);
}

unsafe extern "C" fn fire_word<P: WordPayload, const REGISTERS: bool>(vcpu: c_uint, userdata: *mut c_void) {
    // The user data is a number and never followed.
    let word = userdata as u64;
    if !P::passes(word) {
        settle();
        guard(|| {
            // SAFETY: QEMU calls, on the thread of this vCPU, and the callback was registered with R_REGS if REGISTERS
            // says so; the one value of each in it.
            let (vcpu, cpu) = unsafe { (CurrentVcpu::new(vcpu), CurrentCpu::new(REGISTERS)) };
            P::fire(word, &vcpu, &cpu);
        });
    }
}

/// A block under translation. Exists only within the translation callback.
#[derive(Debug)]
pub struct Translation<'a> {
    tb: *mut sys::qemu_plugin_tb,
    _callback: PhantomData<&'a ()>,
}

/// One instruction of it.
#[derive(Clone, Debug)]
pub struct Instruction<'a> {
    insn: *mut sys::qemu_plugin_insn,
    /// Its linear address.
    pub linear: Linear,
    buffer: [u8; MAX_LEN],
    len: u8,
    host: usize,
    _callback: PhantomData<&'a ()>,
}

impl Translation<'_> {
    /// # Safety
    /// `tb` is the handle that QEMU gave to the translation callback that is running, and outlives this value.
    pub(super) unsafe fn new(tb: *mut sys::qemu_plugin_tb) -> Self {
        Self { tb, _callback: PhantomData }
    }

    /// QEMU's handle of it.
    pub(super) fn handle(&self) -> *mut sys::qemu_plugin_tb {
        self.tb
    }

    /// The vCPU that translates. Its program counter is where its last block began.
    #[must_use]
    pub fn cpu(&self) -> CurrentCpu {
        // SAFETY: a block under translation exists only within the translation callback of a vCPU; no block of its is
        // running, so all registers are where QEMU looks for them.
        unsafe { CurrentCpu::new(true) }
    }

    /// The block's instructions in order.
    #[must_use]
    pub fn instructions(&self) -> Vec<Instruction<'_>> {
        let Some(api) = api() else { return Vec::new() };
        // SAFETY: `tb` is live (see `new`), indexes are in range, and the instruction handles live as long as it.
        unsafe {
            (0..(api.qemu_plugin_tb_n_insns)(self.tb))
                .map(|index| {
                    let insn = (api.qemu_plugin_tb_get_insn)(self.tb, index);
                    let mut buffer = [0; MAX_LEN];
                    let wanted = (api.qemu_plugin_insn_size)(insn).min(MAX_LEN);
                    let len = (api.qemu_plugin_insn_data)(insn, buffer.as_mut_ptr().cast(), wanted).min(MAX_LEN) as u8;
                    Instruction {
                        insn,
                        linear: Linear((api.qemu_plugin_insn_vaddr)(insn)),
                        buffer,
                        len,
                        host: (api.qemu_plugin_insn_haddr)(insn) as usize,
                        _callback: PhantomData,
                    }
                })
                .collect()
        }
    }
}

impl Instruction<'_> {
    /// Its bytes, read again by QEMU now: under multi-threaded TCG they may be newer than what was decoded.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[..usize::from(self.len)]
    }

    /// Up to `len` bytes right before it in memory: fewer if they lie in another page (of `page` bytes), none if it is
    /// not in RAM.
    #[must_use]
    pub fn bytes_before(&self, len: usize, page: u64) -> Vec<u8> {
        let offset = (self.linear.0 % page) as usize;
        let len = len.min(offset);
        self.host_page(page).map_or_else(Vec::new, |host| host.read(offset - len, len))
    }

    /// The page of its first byte in the host's memory, if it lies in RAM; `page` is the guest's page size in bytes.
    #[must_use]
    pub fn host_page(&self, page: u64) -> Option<HostPage> {
        self.host().map(|host| HostPage::new(host, self.linear.0, page))
    }

    /// Host address of its first byte, if it lies in RAM.
    #[must_use]
    pub fn host(&self) -> Option<usize> {
        (self.host != 0).then_some(self.host)
    }

    /// QEMU's handle of it.
    pub(super) fn handle(&self) -> *mut sys::qemu_plugin_insn {
        self.insn
    }

    /// Calls `payload` before every execution of this instruction on which the flag of `slot` of the executing vCPU is
    /// below [`DONE`].
    ///
    /// `registers`: it reads registers. If not, the guest's registers may stay in the host's.
    pub fn on_execute_unless_done<P: Payload>(
        &self,
        slots: &Slots,
        slot: SlotId,
        payload: &'static P,
        registers: bool,
    ) {
        let (Some(api), Some(flag)) = (api(), slots.entry(slot)) else { return };
        let (callback, flags) = callback::<P>(registers);
        // SAFETY: the instruction handle is live within the translation callback; the payload lives for ever; the flag
        // is in a scoreboard.
        unsafe {
            (api.qemu_plugin_register_vcpu_insn_exec_cond_cb)(
                self.insn,
                callback,
                flags,
                sys::qemu_plugin_cond::QEMU_PLUGIN_COND_LT,
                flag,
                DONE,
                std::ptr::from_ref(payload).cast_mut().cast(),
            );
        }
    }

    /// Calls `payload` before every execution of this instruction; `registers` as above.
    pub fn on_execute<P: Payload>(&self, payload: &'static P, registers: bool) {
        let Some(api) = api() else { return };
        let (callback, flags) = callback::<P>(registers);
        // SAFETY: as above.
        unsafe {
            (api.qemu_plugin_register_vcpu_insn_exec_cb)(
                self.insn,
                callback,
                flags,
                std::ptr::from_ref(payload).cast_mut().cast(),
            )
        }
    }
}

impl Instruction<'_> {
    /// Calls `P` with `word` before every execution of this instruction; `registers` as above.
    pub fn on_execute_word<P: WordPayload>(&self, word: u64, registers: bool) {
        let Some(api) = api() else { return };
        let (callback, flags): (VcpuCallback, _) = if registers {
            (fire_word::<P, true>, sys::qemu_plugin_cb_flags::QEMU_PLUGIN_CB_R_REGS)
        } else {
            (fire_word::<P, false>, sys::qemu_plugin_cb_flags::QEMU_PLUGIN_CB_NO_REGS)
        };
        // SAFETY: the instruction handle is live within the translation callback, and the callback takes its user data
        // for a number.
        unsafe { (api.qemu_plugin_register_vcpu_insn_exec_cb)(self.insn, callback, flags, word as *mut c_void) }
    }
}

fn callback<P: Payload>(registers: bool) -> (VcpuCallback, sys::qemu_plugin_cb_flags) {
    if registers {
        (fire::<P, true>, sys::qemu_plugin_cb_flags::QEMU_PLUGIN_CB_R_REGS)
    } else {
        (fire::<P, false>, sys::qemu_plugin_cb_flags::QEMU_PLUGIN_CB_NO_REGS)
    }
}

/// Where the bytes of these instructions, whose run is `run`, lie in the host's memory.
///
/// `page` is the guest's page size in bytes.
#[must_use]
pub fn host_code(instructions: &[Instruction<'_>], run: &CodeRun, page: u64) -> HostCode {
    let mut offset = 0;
    let pieces = instructions.iter().map(|instruction| {
        // The pointer holds up to the end of the guest page of the first byte.
        let to_page_end = (page - instruction.linear.0 % page) as usize;
        let start = offset;
        offset += instruction.bytes().len();
        (instruction.host, start, instruction.bytes().len().min(to_page_end))
    });
    HostCode::new(run.bytes(), pieces)
}

/// The instructions as one run.
#[must_use]
pub fn code_run(instructions: &[Instruction<'_>]) -> CodeRun {
    let first = instructions.first().map_or(Linear(0), |instruction| instruction.linear);
    CodeRun::of(first, instructions.iter().map(Instruction::bytes))
}
