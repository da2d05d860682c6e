//! A block that QEMU is translating: its instructions, and the callbacks that shall fire when it runs.

use super::api::{VcpuCallback, api};
use super::cpu::CurrentCpu;
use super::guard::guard;
use super::host_code::HostCode;
use super::scoreboard::{SlotId, Slots};
use icsan_model::addr::{Linear, Vcpu};
use libc::{c_uint, c_void};
use qemu_plugin_sys as sys;
use std::marker::PhantomData;
use std::ops::Range;

/// What a callback carries: it lives for ever, and knows what to do when its instruction is about to execute.
pub trait Payload: Sync {
    /// Does [`Payload::fire`] read registers? Saying no keeps the guest's registers in the host's.
    const READS_REGISTERS: bool;

    /// The instruction is about to execute on `vcpu` (and may still fault).
    fn fire(&'static self, vcpu: Vcpu, cpu: &CurrentCpu);
}

unsafe extern "C" fn fire<P: Payload + 'static>(vcpu: c_uint, userdata: *mut c_void) {
    guard(|| {
        // SAFETY: `userdata` is the `&'static P` that was given at the registration of this very instance of the function.
        let payload: &'static P = unsafe { &*userdata.cast_const().cast::<P>() };
        payload.fire(Vcpu(vcpu as u16), &CurrentCpu::new(P::READS_REGISTERS));
    });
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
    /// Its bytes, read again by QEMU now: under multi-threaded TCG they may be newer than what was decoded.
    pub bytes: Vec<u8>,
    host: usize,
    _callback: PhantomData<&'a ()>,
}

impl Translation<'_> {
    /// # Safety
    /// `tb` is the handle that QEMU gave to the translation callback that is running, and outlives this value.
    pub(super) unsafe fn new(tb: *mut sys::qemu_plugin_tb) -> Self {
        Self { tb, _callback: PhantomData }
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
                    let mut bytes = vec![0; (api.qemu_plugin_insn_size)(insn)];
                    let read = (api.qemu_plugin_insn_data)(insn, bytes.as_mut_ptr().cast(), bytes.len());
                    bytes.truncate(read);
                    Instruction {
                        insn,
                        linear: Linear((api.qemu_plugin_insn_vaddr)(insn)),
                        bytes,
                        host: (api.qemu_plugin_insn_haddr)(insn) as usize,
                        _callback: PhantomData,
                    }
                })
                .collect()
        }
    }
}

impl Instruction<'_> {
    /// Calls `payload` before every execution of this instruction on which `slot` of the executing vCPU is 0.
    pub fn on_execute_while_clear<P: Payload>(&self, slots: &Slots, slot: SlotId, payload: &'static P) {
        let Some(api) = api() else { return };
        // SAFETY: the instruction handle is live within the translation callback; the payload lives for ever; the slot is in the table.
        unsafe {
            (api.qemu_plugin_register_vcpu_insn_exec_cond_cb)(
                self.insn,
                fire::<P> as VcpuCallback,
                flags::<P>(),
                sys::qemu_plugin_cond::QEMU_PLUGIN_COND_EQ,
                slots.entry(slot),
                0,
                std::ptr::from_ref(payload).cast_mut().cast(),
            );
        }
    }

    /// Calls `payload` before every execution of this instruction.
    pub fn on_execute<P: Payload>(&self, payload: &'static P) {
        let Some(api) = api() else { return };
        // SAFETY: as above.
        unsafe {
            (api.qemu_plugin_register_vcpu_insn_exec_cb)(
                self.insn,
                fire::<P> as VcpuCallback,
                flags::<P>(),
                std::ptr::from_ref(payload).cast_mut().cast(),
            );
        }
    }
}

fn flags<P: Payload>() -> sys::qemu_plugin_cb_flags {
    if P::READS_REGISTERS { sys::qemu_plugin_cb_flags::QEMU_PLUGIN_CB_R_REGS } else { sys::qemu_plugin_cb_flags::QEMU_PLUGIN_CB_NO_REGS }
}

/// Where the bytes of these instructions lie in the host's memory, as one run that starts with the first of them.
///
/// `page` is the guest's page size in bytes. Empty if QEMU has no pointer (the code does not lie in RAM).
#[must_use]
pub fn host_code(instructions: &[Instruction<'_>], page: u64) -> HostCode {
    let mut code = HostCode::default();
    let mut offset = 0;
    for instruction in instructions {
        let len = instruction.bytes.len();
        if instruction.host != 0 {
            // The pointer holds up to the end of the guest page of the first byte.
            let to_page_end = (page - instruction.linear.0 % page) as usize;
            code.push(instruction.host, offset, len.min(to_page_end));
        }
        offset += len;
    }
    code
}

/// The bytes and lengths of a range of instructions.
#[must_use]
pub fn bytes_of(instructions: &[Instruction<'_>], range: Range<usize>) -> (Vec<u8>, Vec<u8>) {
    let part = &instructions[range];
    (
        part.iter().flat_map(|instruction| instruction.bytes.iter().copied()).collect(),
        part.iter().map(|instruction| instruction.bytes.len() as u8).collect(),
    )
}
