//! Instructions that serialize, or may: what is known of them from their bytes, and what is told when they run.

use super::page_table::of_cr3;
use super::registers::{CR3, CS, RAX, RCX, RDX, RSP, general};
use crate::arch::platform::{Does, Resolved, Synchronizing};
use crate::qemu::cpu::CurrentCpu;
use icsan_model::addr::Linear;
use icsan_model::arch::profile::Profile;
use icsan_model::arch::sync_event::{SyncEventId, SyncEventSet};
use icsan_model::arch::x86::classify::{Class, classify};
use icsan_model::arch::x86::{events, resolve};
use icsan_symbols::linux::x86::LINUX;

/// What empties the TLB, or changes what it is filled from.
pub const CHANGES_MAPPING: SyncEventSet = SyncEventSet::EMPTY
    .with(events::MOV_CR0)
    .with(events::MOV_CR3)
    .with(events::MOV_CR3_NOFLUSH)
    .with(events::MOV_CR3_PTI)
    .with(events::MOV_CR4)
    .with(events::LMSW)
    .with(events::INVLPG)
    .with(events::INVPCID)
    .with(events::INVEPT)
    .with(events::INVVPID)
    .with(events::INVLPGA)
    .with(events::INVLPGB)
    .with(events::TLBSYNC)
    .with(events::WRMSR)
    .with(events::WRMSR_NONSERIALIZING)
    .with(events::WRMSRNS)
    .with(events::RSM)
    .with(events::VMLAUNCH)
    .with(events::VMRESUME)
    .with(events::VMRUN);

/// Returns from an interrupt, a fault or the like.
pub const RETURNS: SyncEventSet = SyncEventSet::EMPTY.with(events::IRET).with(events::RSM);

/// The events by which a patching function leaves the mapping that it stored through (alternative.c, `__text_poke`:
/// `switch_mm_irqs_off`, `unuse_temporary_mm`).
pub const SWITCHES_MAPPING: SyncEventSet =
    SyncEventSet::EMPTY.with(events::MOV_CR3).with(events::MOV_CR3_NOFLUSH).with(events::MOV_CR3_PTI);

/// The instructions that do nothing but serialize (`sync_core()`, arch/x86/include/asm/sync_core.h).
pub const EXPLICIT_SYNCS: SyncEventSet =
    SyncEventSet::EMPTY.with(events::IRET_TO_SELF).with(events::SERIALIZE).with(events::CPUID);

/// SERIALIZE's length: encodings that QEMU decodes more loosely are not emulated.
const SERIALIZE_LEN: usize = 3;

/// What is carried out in place of SERIALIZE, which only does what the sync point was told of: a NOP of the same
/// length.
pub const NOP: [u8; SERIALIZE_LEN] = [0x0f, 0x1f, 0x00];

/// See [`Platform::synchronizing`](crate::arch::platform::Platform::synchronizing).
#[must_use]
pub fn synchronizing(bytes: &[u8]) -> Option<Synchronizing> {
    let class = classify(bytes)?;
    Some(match Form::of(class, bytes.len()) {
        Ok(form) => Synchronizing::AtRunTime { tag: form.tag(), always: class == Class::Wrmsr },
        Err(event) => Synchronizing::Fixed(event),
    })
}

/// See [`Platform::may_synchronize`](crate::arch::platform::Platform::may_synchronize).
#[must_use]
pub fn may_synchronize(bytes: &[u8], profile: &Profile) -> bool {
    match classify(bytes) {
        None => false,
        Some(Class::Fixed(event)) => profile.serializes(event),
        Some(Class::Iret { .. }) => profile.serializes(events::IRET) || profile.serializes(events::IRET_TO_SELF),
        Some(Class::Wrmsr) => profile.serializes(events::WRMSR) || profile.serializes(events::WRMSR_NONSERIALIZING),
        Some(Class::MovCr3 { .. }) => SWITCHES_MAPPING.iter().any(|event| profile.serializes(event)),
    }
}

/// See [`Platform::concerns_stores`](crate::arch::platform::Platform::concerns_stores).
#[must_use]
pub fn concerns_stores(bytes: &[u8]) -> bool {
    match classify(bytes) {
        None => false,
        Some(Class::Fixed(event)) => CHANGES_MAPPING.contains(event) || RETURNS.contains(event),
        Some(Class::MovCr3 { .. } | Class::Wrmsr | Class::Iret { .. }) => true,
    }
}

/// SYSRET and SYSEXIT.
#[must_use]
pub fn goes_to_user_mode(bytes: &[u8]) -> bool {
    matches!(classify(bytes), Some(Class::Fixed(events::SYSRET | events::SYSEXIT)))
}

/// SERIALIZE, which TCG does not know.
#[must_use]
pub fn is_serialize(bytes: &[u8]) -> bool {
    classify(bytes) == Some(Class::Fixed(events::SERIALIZE)) && bytes.len() == SERIALIZE_LEN
}

/// The instructions that are told apart when they run, with what matters of them.
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
    /// Or the event, where the bytes tell it.
    fn of(class: Class, len: usize) -> Result<Self, SyncEventId> {
        match class {
            Class::Fixed(event) => Err(event),
            Class::Iret { operand_bytes: 8 } => Ok(Self::Iret64 { len: len as u8 & 15 }),
            Class::Iret { .. } => Ok(Self::IretOlder),
            Class::Wrmsr => Ok(Self::Wrmsr),
            Class::MovCr3 { register } => Ok(Self::MovCr3 { register: register & 15 }),
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

/// See [`Platform::resolve`](crate::arch::platform::Platform::resolve).
#[must_use]
pub fn resolve(tag: u8, at: Linear, cpu: &CurrentCpu) -> Resolved {
    match Form::from_tag(tag) {
        Form::Iret64 { len } => iret(at, len, cpu),
        // Only the 64-bit form is told apart: its frame lies at RSP, while older modes add a segment base that QEMU
        // does not show.
        Form::IretOlder => Resolved { event: events::IRET, does: Does::Nothing },
        Form::Wrmsr => wrmsr(cpu),
        Form::MovCr3 { register } => mov_cr3(cpu, register),
    }
}

fn iret(at: Linear, len: u8, cpu: &CurrentCpu) -> Resolved {
    let frame = || {
        let rsp = RSP.read(cpu)?;
        let frame = u128::from_le_bytes(cpu.bytes(rsp)?);
        Some((rsp, frame as u64, (frame >> 64) as u64, CS.read(cpu)?))
    };
    // Not readable: the IRET will fault. `iret` is what the stricter profiles do not count.
    let Some((rsp, target, new_cs, cs)) = frame() else {
        return Resolved { event: events::IRET, does: Does::Nothing };
    };
    let event = resolve::iret(at, len, target, (new_cs ^ cs) & 3 == 0);
    let does = match (event == events::IRET && cs & 3 == 0, new_cs & 3 == 0) {
        (false, _) => Does::Nothing,
        (true, true) => Does::ReturnsToKernel { frame: rsp },
        (true, false) => Does::ReturnsToUser,
    };
    Resolved { event, does }
}

fn wrmsr(cpu: &CurrentCpu) -> Resolved {
    let Some(msr) = RCX.read(cpu).map(|rcx| rcx as u32) else {
        return Resolved { event: events::WRMSR_NONSERIALIZING, does: Does::Nothing };
    };
    let place = || {
        let evidence = LINUX.evidence_of(msr.into())?;
        let runtime = RDX.read(cpu)? << 32 | RAX.read(cpu)? & 0xffff_ffff;
        Some(Does::TellsPlace { evidence, runtime })
    };
    Resolved { event: resolve::wrmsr(msr), does: place().unwrap_or(Does::Nothing) }
}

fn mov_cr3(cpu: &CurrentCpu, register: u8) -> Resolved {
    let (old, new) = (CR3.read(cpu), general(cpu, register));
    let event = match (old, new) {
        (Some(old), Some(new)) => resolve::mov_cr3(old, new),
        _ => events::MOV_CR3,
    };
    let does = new.map_or(Does::Nothing, |new| Does::EntersSpace { from: old.map(of_cr3), to: of_cr3(new) });
    Resolved { event, does }
}

#[cfg(test)]
mod tests {
    use super::*;
    use icsan_model::arch::x86::X86_64;

    #[test]
    fn every_form_has_a_tag_of_its_own() {
        let iret = |operand_bytes, len| Form::of(Class::Iret { operand_bytes }, len);
        let forms =
            (1..16).map(|len| iret(8, len)).chain((0..16).map(|register| Form::of(Class::MovCr3 { register }, 3)));
        let forms: Vec<Form> = forms.chain([iret(4, 1), Form::of(Class::Wrmsr, 2)]).flatten().collect();
        assert_eq!(forms.len(), 33);
        for form in forms {
            assert_eq!(Form::from_tag(form.tag()), form);
        }
        assert_eq!(iret(4, 1), iret(2, 2));
    }

    /// `without=` of all that the table knows.
    fn nothing_serializes() -> Profile {
        let all: Vec<String> = events::EVENTS.iter().map(|event| event.name.to_owned()).collect();
        Profile::select(&X86_64, None, &[], &all).unwrap()
    }

    #[test]
    fn what_the_store_side_must_know_of_does_not_depend_on_the_profile() {
        let profile = nothing_serializes();
        let watched: [&[u8]; 9] = [
            &[0xcf],
            &[0x48, 0xcf],
            &[0x0f, 0xaa],
            &[0x0f, 0x22, 0xd8],
            &[0x0f, 0x22, 0xc0],
            &[0x0f, 0x22, 0xe0],
            &[0x0f, 0x30],
            &[0x0f, 0x01, 0x38],
            &[0x0f, 0x01, 0xdf],
        ];
        for bytes in watched {
            assert!(concerns_stores(bytes) && !may_synchronize(bytes, &profile), "{bytes:x?}");
        }
        for bytes in [&[0x0f, 0xa2][..], &[0x90], &[0x0f, 0x01, 0xe8], &[0xc3]] {
            assert!(!concerns_stores(bytes), "{bytes:x?}");
        }
    }

    #[test]
    fn serialize_is_told_from_the_others() {
        assert!(is_serialize(&[0x0f, 0x01, 0xe8]));
        for bytes in [&[0x0f, 0xa2][..], &[0x0f, 0x01, 0xe9], &NOP] {
            assert!(!is_serialize(bytes), "{bytes:x?}");
        }
        assert!(goes_to_user_mode(&[0x48, 0x0f, 0x07]) && !goes_to_user_mode(&[0x48, 0xcf]));
    }
}
