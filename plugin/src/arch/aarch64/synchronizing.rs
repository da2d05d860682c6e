//! Instructions that synchronize, or tell the plugin something: what is known of them from their bytes, and what is
//! told when they run.

use super::privilege::{level, returns_to, returns_to_aarch32};
use super::registers::{SP, TTBR0, general};
use super::translation_table::of_ttbr;
use crate::arch::platform::{Does, Resolved, Synchronizing};
use crate::qemu::cpu::CurrentCpu;
use icsan_model::arch::aarch64::classify::classify;
use icsan_model::arch::aarch64::events;
use icsan_model::arch::profile::Profile;
use icsan_model::arch::sync_event::{SyncEventId, SyncEventSet};
use icsan_symbols::linux::aarch64::LINUX;

/// What empties the TLB, or changes what it is filled from.
pub const CHANGES_MAPPING: SyncEventSet =
    SyncEventSet::EMPTY.with(events::TLBI).with(events::MSR_TTBR).with(events::MSR_TCR).with(events::MSR_SCTLR);

/// TLBI reaches all PEs of its domain, complete with the next DSB (DDI0487 D8.17).
pub const CHANGES_MAPPING_OF_ALL: SyncEventSet = SyncEventSet::EMPTY.with(events::TLBI);

/// Returns from an interrupt, a fault or the like.
pub const RETURNS: SyncEventSet = SyncEventSet::EMPTY.with(events::EXCEPTION_RETURN);

/// The instructions that do nothing but synchronize.
pub const EXPLICIT_SYNCS: SyncEventSet = SyncEventSet::EMPTY.with(events::ISB);

/// SCTLR_ELx.C: loads and stores go through the data caches.
const SCTLR_C: u64 = 1 << 2;

/// MSR of the EL1 register, but for Rt.
const MSR_TTBR0_EL1: u32 = 0xd518_2000;
const MSR_VBAR_EL1: u32 = 0xd518_c000;
const RT: u32 = 0x1f;

/// The word that an instruction is.
#[must_use]
pub fn word(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

/// See [`Platform::synchronizing`](crate::arch::platform::Platform::synchronizing).
#[must_use]
pub fn synchronizing(bytes: &[u8]) -> Option<Synchronizing> {
    let word = word(bytes)?;
    let event = classify(word).event?;
    Some(match Form::of(word, event) {
        Some(form) => {
            Synchronizing::AtRunTime { tag: form.tag(), always: matches!(form, Form::SetsVectors { .. } | Form::Eret) }
        }
        None => Synchronizing::Fixed(event),
    })
}

/// See [`Platform::may_synchronize`](crate::arch::platform::Platform::may_synchronize).
#[must_use]
pub fn may_synchronize(bytes: &[u8], profile: &Profile) -> bool {
    event(bytes).is_some_and(|event| profile.serializes(event))
}

/// See [`Platform::concerns_stores`](crate::arch::platform::Platform::concerns_stores).
#[must_use]
pub fn concerns_stores(bytes: &[u8]) -> bool {
    event(bytes).is_some_and(|event| CHANGES_MAPPING.contains(event) || RETURNS.contains(event))
}

fn event(bytes: &[u8]) -> Option<SyncEventId> {
    classify(word(bytes)?).event
}

/// The instructions of which more is told when they run, with the register that they write from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    Eret,
    SetsTable { rt: u8 },
    SetsVectors { rt: u8 },
    SetsControl { rt: u8 },
}

impl Form {
    /// `None`: its bytes tell everything.
    fn of(word: u32, event: SyncEventId) -> Option<Self> {
        let rt = (word & RT) as u8;
        match event {
            events::EXCEPTION_RETURN => Some(Self::Eret),
            events::MSR_TTBR if word & !RT == MSR_TTBR0_EL1 => Some(Self::SetsTable { rt }),
            events::MSR_VBAR if word & !RT == MSR_VBAR_EL1 => Some(Self::SetsVectors { rt }),
            events::MSR_SCTLR => Some(Self::SetsControl { rt }),
            _ => None,
        }
    }

    fn tag(self) -> u8 {
        match self {
            Self::Eret => 0,
            Self::SetsTable { rt } => 32 + rt,
            Self::SetsVectors { rt } => 64 + rt,
            Self::SetsControl { rt } => 96 + rt,
        }
    }

    fn from_tag(tag: u8) -> Self {
        match tag {
            ..32 => Self::Eret,
            rt @ 32..64 => Self::SetsTable { rt: rt - 32 },
            rt @ 64..96 => Self::SetsVectors { rt: rt - 64 },
            rt => Self::SetsControl { rt: rt - 96 },
        }
    }
}

/// See [`Platform::resolve`](crate::arch::platform::Platform::resolve).
#[must_use]
pub fn resolve(tag: u8, cpu: &CurrentCpu) -> Resolved {
    let or_nothing = |does: Option<Does>| does.unwrap_or(Does::Nothing);
    match Form::from_tag(tag) {
        Form::Eret => Resolved { event: events::EXCEPTION_RETURN, does: or_nothing(eret(cpu)) },
        Form::SetsTable { rt } => {
            let enters = |to| Does::EntersSpace { from: TTBR0.read(cpu).map(of_ttbr), to: of_ttbr(to) };
            Resolved { event: events::MSR_TTBR, does: or_nothing(general(cpu, rt).map(enters)) }
        }
        Form::SetsVectors { rt } => {
            let place = || {
                let evidence = LINUX.evidence_of(u64::from(MSR_VBAR_EL1))?;
                Some(Does::TellsPlace { evidence, runtime: general(cpu, rt)? })
            };
            Resolved { event: events::MSR_VBAR, does: or_nothing(place()) }
        }
        Form::SetsControl { rt } => {
            let caches = |control| Does::Caches { on: control & SCTLR_C != 0 };
            Resolved { event: events::MSR_SCTLR, does: or_nothing(general(cpu, rt).map(caches)) }
        }
    }
}

/// The kernel leaves its stack pointer where it was before the entry made room ([`super::privilege::made_room`]).
fn eret(cpu: &CurrentCpu) -> Option<Does> {
    match (level(cpu)?, returns_to(cpu)?) {
        (0, _) => None,
        (_, 0) if returns_to_aarch32(cpu) => Some(Does::ReturnsToForeign),
        (_, 0) => Some(Does::ReturnsToUser),
        _ => Some(Does::ReturnsToKernel { frame: SP.read(cpu)? }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::points::TAGS;
    use icsan_model::arch::aarch64::AARCH64;

    fn of(word: u32) -> Option<Synchronizing> {
        synchronizing(&word.to_le_bytes())
    }

    #[test]
    fn every_form_has_a_tag_of_its_own() {
        let registers = 0..32u8;
        let forms = registers.clone().map(|rt| Form::SetsTable { rt });
        let forms = forms.chain(registers.clone().map(|rt| Form::SetsVectors { rt }));
        let forms = forms.chain(registers.map(|rt| Form::SetsControl { rt })).chain([Form::Eret]);
        for form in forms {
            assert!(form.tag() < TAGS);
            assert_eq!(Form::from_tag(form.tag()), form);
        }
    }

    #[test]
    fn what_is_told_at_run_time_and_what_is_not() {
        // isb, hvc #0, msr ttbr1_el1, msr vbar_el2, dsb ish, tlbi vmalle1is.
        for (word, event) in [
            (0xd503_3fdf, events::ISB),
            (0xd400_0002, events::HVC),
            (0xd518_2020, events::MSR_TTBR),
            (0xd51c_c000, events::MSR_VBAR),
            (0xd503_3b9f, events::DSB),
            (0xd508_831f, events::TLBI),
        ] {
            assert_eq!(of(word), Some(Synchronizing::Fixed(event)), "{word:#x}");
        }
        // eret, msr ttbr0_el1, msr vbar_el1, msr sctlr_el1, msr sctlr_el2.
        for (word, always) in
            [(0xd69f_03e0, true), (0xd518_2005, false), (0xd518_c008, true), (0xd518_1003, false), (0xd51c_1000, false)]
        {
            let Some(Synchronizing::AtRunTime { always: told, .. }) = of(word) else { panic!("{word:#x}") };
            assert_eq!(told, always, "{word:#x}");
        }
        // nop, movz, and what is no whole instruction.
        assert_eq!((of(0xd503_201f), of(0xd280_0020), synchronizing(&[0xdf, 0x3f, 0x03])), (None, None, None));
    }

    #[test]
    fn what_the_store_side_must_know_of_does_not_depend_on_the_profile() {
        let all: Vec<String> = events::EVENTS.iter().map(|event| event.name.to_owned()).collect();
        let profile = Profile::select(&AARCH64, None, &[], &all).unwrap();
        // eret, msr ttbr0, msr ttbr1, msr tcr, msr sctlr, tlbi vae1is.
        for word in [0xd69f_03e0u32, 0xd518_2000, 0xd518_2020, 0xd518_2040, 0xd518_1000, 0xd508_8320] {
            let bytes = word.to_le_bytes();
            assert!(concerns_stores(&bytes) && !may_synchronize(&bytes, &profile), "{word:#x}");
        }
        for word in [0xd503_3fdfu32, 0xd503_201f, 0xd400_0001] {
            assert!(!concerns_stores(&word.to_le_bytes()), "{word:#x}");
        }
    }
}
