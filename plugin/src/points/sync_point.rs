//! Instructions that serialize, or may.

use super::point_word::PointWord;
use super::sink::{Sink, sink};
use crate::config::Config;
use crate::qemu::cpu::{CurrentCpu, CurrentVcpu};
use crate::qemu::divert::{Divert, MayDivertWord};
use crate::qemu::translation::{Instruction, WordPayload};
use crate::x86::carry_out::prepare;
use crate::x86::page_table;
use crate::x86::registers::Registers;
use icsan_model::addr::Linear;
use icsan_model::arch::sync_event::SyncEventId;
use icsan_model::arch::x86::classify::{Class, classify};
use icsan_model::arch::x86::{events, resolve};
use icsan_model::detector::sync_log::SyncAt;
use icsan_model::detector::sync_origin::SyncOrigin;

/// The MSR that holds the address of the kernel's system-call entry (SDM vol. 4, IA32_LSTAR), and Linux's name for what
/// is there.
const LSTAR: u32 = 0xc000_0082;
const LSTAR_SYMBOL: &str = "entry_SYSCALL_64";

/// Other MSRs that hold addresses of the kernel's entries, and Linux's names for what may be there (CSTAR,
/// SYSENTER_EIP). LSTAR alone proves nothing: its target is 0x80 behind a whole 2 MiB in every Debian kernel, and so it
/// fits the symbols of any of them.
const MORE_ENTRIES: [(u32, &[&str]); 2] = [
    (0xc000_0083, &["entry_SYSCALL_compat", "entry_SYSCALL32_ignore", "ignore_sysret"]),
    (0x176, &["entry_SYSENTER_compat"]),
];

/// An instruction whose event is known from its bytes: the tag of its word.
#[derive(Debug)]
struct FixedPoint;

impl WordPayload for FixedPoint {
    fn fire(word: u64, vcpu: &CurrentVcpu, _cpu: &CurrentCpu) {
        let PointWord { at, tag } = PointWord::from_bits(word);
        if let Some(sink) = sink() {
            sink.synchronizes(vcpu, SyncAt { event: SyncEventId(tag), pc: at, origin: None });
        }
    }
}

/// An instruction whose event depends on registers or memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct ResolvedPoint {
    pc: Linear,
    /// What matters of it: its length where it may be an IRET-to-self.
    form: Form,
}

/// The instructions that are told apart when they run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    /// With the length of the instruction, in bytes.
    Iret64 {
        len: u8,
    },
    IretOlder,
    Wrmsr,
    MovCr3 {
        register: u8,
    },
}

impl Form {
    fn of(class: Class, len: usize) -> Option<Self> {
        match class {
            Class::Fixed(_) => None,
            Class::Iret { operand_bytes: 8 } => Some(Self::Iret64 { len: len as u8 & 15 }),
            Class::Iret { .. } => Some(Self::IretOlder),
            Class::Wrmsr => Some(Self::Wrmsr),
            Class::MovCr3 { register } => Some(Self::MovCr3 { register: register & 15 }),
        }
    }

    fn tag(self) -> u8 {
        match self {
            Self::Iret64 { len } => len,
            Self::MovCr3 { register } => 16 + register,
            Self::Wrmsr => 32,
            Self::IretOlder => 33,
        }
    }

    fn from_tag(tag: u8) -> Self {
        match tag {
            len @ ..16 => Self::Iret64 { len },
            register @ 16..32 => Self::MovCr3 { register: register - 16 },
            32 => Self::Wrmsr,
            _ => Self::IretOlder,
        }
    }
}

impl WordPayload for ResolvedPoint {
    fn fire(word: u64, vcpu: &CurrentVcpu, cpu: &CurrentCpu) {
        let Some(sink) = sink() else { return };
        let PointWord { at, tag } = PointWord::from_bits(word);
        let point = Self { pc: at, form: Form::from_tag(tag) };
        let mut to_user = false;
        let (event, origin) = match point.form {
            Form::Iret64 { len } => {
                let (event, origin, user) = point.iret(vcpu, cpu, sink, len);
                to_user = user;
                (event, origin)
            }
            // Only the 64-bit form is told apart: its frame lies at RSP, while older modes add a segment base that QEMU
            // does not show.
            Form::IretOlder => (events::IRET, None),
            Form::Wrmsr => (wrmsr(cpu, sink), None),
            Form::MovCr3 { register } => {
                let new = Registers::get().general(cpu, register);
                let origin = new.and_then(|new| {
                    let from = Registers::get().cr3(cpu).map(page_table::of_cr3);
                    sink.enters_space(vcpu.id(), from, page_table::of_cr3(new))
                });
                (mov_cr3(cpu, register), origin)
            }
        };
        sink.synchronizes(vcpu, SyncAt { event, pc: point.pc, origin });
        // Its own serialization is not one that a protocol intends.
        if to_user {
            sink.goes_to_user_mode(vcpu.id(), cpu);
        }
    }
}

/// A SERIALIZE that TCG does not know: what comes before #UD is carried out, so that it does not come
/// (`serialize=emulate`). The word is its linear address.
#[derive(Debug)]
struct EmulatedPoint;

/// What is carried out in place of SERIALIZE, which only does what the sync point was told of: a NOP of the same
/// length.
const INSTEAD_OF_SERIALIZE: [u8; 3] = [0x0f, 0x1f, 0x00];

impl MayDivertWord for EmulatedPoint {
    /// What cannot be carried out ends in #UD, as it does without us.
    fn decide(word: u64, _vcpu: &CurrentVcpu, cpu: &CurrentCpu) -> Option<Divert> {
        prepare(cpu, &INSTEAD_OF_SERIALIZE, Linear(word)).ok()
    }
}

impl ResolvedPoint {
    /// What it is, what it returns from, and whether it goes from the kernel to user mode.
    fn iret(
        self,
        vcpu: &CurrentVcpu,
        cpu: &CurrentCpu,
        sink: &dyn Sink,
        len: u8,
    ) -> (SyncEventId, Option<SyncOrigin>, bool) {
        let registers = Registers::get();
        let frame = || {
            let rsp = registers.rsp(cpu)?;
            let frame = u128::from_le_bytes(cpu.bytes(rsp)?);
            Some((rsp, frame as u64, (frame >> 64) as u64, registers.cs(cpu)?))
        };
        // Not readable: the IRET will fault. `iret` is what the stricter profiles do not count.
        let Some((rsp, target, new_cs, cs)) = frame() else { return (events::IRET, None, false) };
        let event = resolve::iret(self.pc, len, target, (new_cs ^ cs) & 3 == 0);
        let origin = match (event == events::IRET && cs & 3 == 0, new_cs & 3 == 0) {
            (false, _) => None,
            (true, true) => sink.origins().returns_to_kernel(rsp),
            (true, false) => sink.origins().returns_to_user(vcpu.id()),
        };
        (event, origin, cs & 3 == 0 && new_cs & 3 != 0)
    }
}

fn wrmsr(cpu: &CurrentCpu, sink: &dyn Sink) -> SyncEventId {
    let registers = Registers::get();
    let Some(msr) = registers.rcx(cpu).map(|rcx| rcx as u32) else { return events::WRMSR_NONSERIALIZING };
    let value = || Some(registers.rdx(cpu)? << 32 | registers.rax(cpu)? & 0xffff_ffff);
    if msr == LSTAR {
        value().into_iter().for_each(|value| sink.kernel_symbol_at(LSTAR_SYMBOL, value));
    } else if let Some((_, symbols)) = MORE_ENTRIES.iter().find(|(entry, _)| *entry == msr) {
        value().into_iter().for_each(|value| sink.kernel_symbol_among(symbols, value));
    }
    resolve::wrmsr(msr)
}

fn mov_cr3(cpu: &CurrentCpu, register: u8) -> SyncEventId {
    let registers = Registers::get();
    match (registers.cr3(cpu), registers.general(cpu, register)) {
        (Some(old), Some(new)) => resolve::mov_cr3(old, new),
        _ => events::MOV_CR3,
    }
}

/// Puts a callback on the instruction if it `may_synchronize`, or tells where the kernel is.
pub fn instrument(instruction: &Instruction<'_>, config: &Config, may_synchronize: bool) {
    let at = instruction.linear;
    let class = classify(instruction.bytes());
    match class {
        Some(Class::Fixed(event)) if may_synchronize => {
            if let Some(word) = (PointWord { at, tag: event.0 }).bits() {
                instruction.on_execute_word::<FixedPoint>(word, false);
            }
        }
        None | Some(Class::Fixed(_)) => {}
        Some(class) if may_synchronize || class == Class::Wrmsr => {
            let form = Form::of(class, instruction.bytes().len());
            if let Some(word) = form.and_then(|form| PointWord { at, tag: form.tag() }.bits()) {
                instruction.on_execute_word::<ResolvedPoint>(word, true);
            }
        }
        Some(_) => {}
    }
    // After the callback that ends the epoch: this one does not come back.
    let serialize =
        class == Some(Class::Fixed(events::SERIALIZE)) && instruction.bytes().len() == INSTEAD_OF_SERIALIZE.len();
    if serialize && config.serialize {
        instruction.may_divert_word::<EmulatedPoint>(at.0);
    }
}

#[cfg(test)]
mod tests {
    use super::{Class, Form};
    use crate::points::point_word::TAGS;

    #[test]
    fn every_form_has_a_tag_of_its_own() {
        let iret = |operand_bytes, len| Form::of(Class::Iret { operand_bytes }, len);
        let forms =
            (1..16).map(|len| iret(8, len)).chain((0..16).map(|register| Form::of(Class::MovCr3 { register }, 3)));
        let forms: Vec<Form> = forms.chain([iret(4, 1), Form::of(Class::Wrmsr, 2)]).flatten().collect();
        assert_eq!(forms.len(), 33);
        for form in forms {
            assert!(form.tag() < TAGS);
            assert_eq!(Form::from_tag(form.tag()), form);
        }
        assert_eq!(iret(4, 1), iret(2, 2));
    }
}
