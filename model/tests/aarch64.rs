//! The tables of AArch64: what instructions are, which events count, what a profile asks for.

use icsan_model::arch::aarch64::classify::{Class, ENCODINGS, Effect, Operation, UnseenStore, classify};
use icsan_model::arch::aarch64::events::{self, EVENTS, Seen};
use icsan_model::arch::aarch64::{AARCH64, cmodx::CMODX};
use icsan_model::arch::exemption::Exemption;
use icsan_model::arch::maintenance::{Accesses, CacheType, Caches, Domain, Needs};
use icsan_model::arch::profile::Profile;
use icsan_model::arch::sync_event::{SyncEventId, Word};

/// Words as an assembler makes them (LLVM's), and what they are.
#[test]
fn instructions_are_told_by_their_words() {
    let event = |event| Class { event: Some(event), effect: None };
    let maintain = |operation, rt| Some(Effect::Maintain { operation, rt });
    let ic = |operation, rt| Class { event: Some(events::IC), effect: maintain(operation, rt) };
    let dc = |rt| Class { event: None, effect: maintain(Operation::Clean, rt) };
    let dsb = |domain, accesses| Class { event: Some(events::DSB), effect: Some(Effect::Barrier { domain, accesses }) };
    let unseen = |store| Class { event: None, effect: Some(Effect::Unseen(store)) };
    let cases = [
        (0xd503_3fdf, event(events::ISB)),
        (0xd503_30df, event(events::ISB)),
        (0xd69f_03e0, event(events::EXCEPTION_RETURN)),
        (0xd69f_0bff, event(events::EXCEPTION_RETURN)),
        (0xd400_0022, event(events::HVC)),
        (0xd400_0003, event(events::SMC)),
        (0xd508_711f, ic(Operation::InvalidateAll, 31)),
        (0xd508_751f, ic(Operation::InvalidateOwn, 31)),
        (0xd508_7503, ic(Operation::InvalidateOwn, 3)),
        (0xd50b_7525, ic(Operation::Invalidate, 5)),
        (0xd50b_7b27, dc(7)),
        (0xd50b_7a20, dc(0)),
        (0xd50b_7e21, dc(1)),
        (0xd50b_7c22, dc(2)),
        (0xd50b_7d22, dc(2)),
        (0xd503_3f9f, dsb(Domain::System, Accesses::All)),
        (0xd503_3b9f, dsb(Domain::Inner, Accesses::All)),
        (0xd503_3a9f, dsb(Domain::Inner, Accesses::Stores)),
        (0xd503_399f, dsb(Domain::Inner, Accesses::Loads)),
        (0xd503_379f, dsb(Domain::Own, Accesses::All)),
        (0xd503_319f, dsb(Domain::Outer, Accesses::Loads)),
        (0xd503_339f, dsb(Domain::Outer, Accesses::All)),
        (0xd503_389f, dsb(Domain::System, Accesses::All)),
        (0xd503_3e3f, dsb(Domain::System, Accesses::All)),
        (0xd503_3a3f, dsb(Domain::Inner, Accesses::All)),
        (0xd503_363f, dsb(Domain::Own, Accesses::All)),
        (0xd503_3bbf, event(events::DMB)),
        (0xd503_30ff, event(events::SB)),
        (0xd503_205f, event(events::WFE)),
        (0xd503_207f, event(events::WFI)),
        (0xd50b_7423, unseen(UnseenStore::ZeroBlock)),
        (0xd50b_7483, unseen(UnseenStore::ZeroBlock)),
        (0xd920_0041, unseen(UnseenStore::ZeroBlock)),
        (0xd960_1441, unseen(UnseenStore::ZeroGranule)),
        (0xd9e0_1841, unseen(UnseenStore::ZeroGranule)),
        (0xd97f_ec41, unseen(UnseenStore::ZeroGranule)),
        (0x1d01_0440, unseen(UnseenStore::CopyOrSet)),
        (0x1901_0440, unseen(UnseenStore::CopyOrSet)),
        (0x19c2_0420, unseen(UnseenStore::CopyOrSet)),
        (0x1dc2_4420, unseen(UnseenStore::CopyOrSet)),
        (0xd518_2000, event(events::MSR_TTBR)),
        (0xd518_2023, event(events::MSR_TTBR)),
        (0xd518_1000, event(events::MSR_SCTLR)),
        (0xd51c_c001, event(events::MSR_VBAR)),
        (0xd518_2040, event(events::MSR_TCR)),
        (0xd518_d023, event(events::MSR_CONTEXTIDR)),
        (0xd508_831f, event(events::TLBI)),
        (0xd508_8321, event(events::TLBI)),
        (0xd65f_03c0, event(events::BR)),
        (0xd61f_0200, event(events::BR)),
    ];
    for (word, class) in cases {
        assert_eq!(classify(word), class, "{word:#x}");
    }
    // ssbb, pssbb, nop, yield, stg, ldg, b, bl, svc, brk, drps, dc ivac, dc isw, mrs ctr_el0, str, movz, mov (x9, x30).
    for word in [
        0xd503_309f,
        0xd503_349f,
        0xd503_201f,
        0xd503_203f,
        0xd920_0841,
        0xd960_0041,
        0x1400_0000,
        0x9400_0000,
        0xd400_0001,
        0xd420_0000,
        0xd6bf_03e0,
        0xd508_7620,
        0xd508_7640,
        0xd53b_0020,
        0xf900_0000,
        0xd280_0020,
        0xaa1e_03e9,
    ] {
        assert_eq!(classify(word), Class::default(), "{word:#x}");
    }
}

#[test]
fn no_word_is_two_things() {
    for (place, row) in ENCODINGS.iter().enumerate() {
        assert_eq!(row.value & !row.mask, 0);
        for other in &ENCODINGS[..place] {
            let both = row.mask & other.mask;
            assert_ne!(row.value & both, other.value & both, "{:#x} and {:#x}", row.value, other.value);
        }
    }
    // Every event that an instruction is has an encoding.
    for (id, row) in (0..).map(SyncEventId).zip(EVENTS) {
        let encoded =
            ENCODINGS.iter().any(|encoding| classify(encoding.value | 0x1f & !encoding.mask).event == Some(id));
        let dsb = id == events::DSB && classify(0xd503_3f9f).event == Some(id);
        assert_eq!(encoded || dsb, events::seen(id) != Some(Seen::Callback), "{}", row.name);
        assert_eq!(row.claims.len(), AARCH64.vendors.len());
        assert_eq!(EVENTS.iter().filter(|other| other.name == row.name).count(), 1);
    }
    assert_eq!(events::seen(SyncEventId(EVENTS.len() as u8)), None);
}

fn profile(name: &str) -> Profile {
    *AARCH64.profile(name).unwrap_or_else(|| panic!("no {name}"))
}

#[test]
fn context_synchronization_events_count_and_nothing_else() {
    let counted = ["isb", "exception-entry", "exception-return", "hvc", "smc", "reset", "restored"];
    for profile in AARCH64.profiles {
        let names: Vec<_> = profile.serializing.iter().map(|event| AARCH64.event_name(event)).collect();
        assert_eq!(names, counted, "{}", profile.name);
        assert!(!profile.buffers.own_store_at_branch && profile.is_plain());
        assert!(profile.serializing.iter().all(|event| events::seen(event) != Some(Seen::Hot)));
    }
    assert_eq!(EVENTS[usize::from(events::DSB.0)].claims[0].word, Word::No);
    let changed = Profile::select(&AARCH64, None, &["dsb".to_owned()], &["exception-entry".to_owned()]).unwrap();
    assert!(changed.serializes(events::DSB) && !changed.serializes(events::EXCEPTION_ENTRY));
}

#[test]
fn profiles_ask_for_maintenance_as_they_say() {
    let names: Vec<_> = AARCH64.profiles.iter().map(|profile| profile.name).collect();
    assert_eq!(names, ["linux-arm64", "arm64-strict", "arm64-base", "arm64-idc", "arm64-idc-dic", "coherent"]);
    let guest = CacheType { needs: Needs::Invalidate, data_line: 32, instruction_line: 128 };
    let needs = |name, guest: Option<CacheType>| {
        let profile = guest.map_or(profile(name), |guest| profile(name).on(guest));
        profile.caches.incoherent()
    };
    for name in ["linux-arm64", "arm64-strict"] {
        assert_eq!(needs(name, Some(guest)), Some(guest));
        assert_eq!(needs(name, Some(CacheType { needs: Needs::Nothing, ..guest })), None);
        assert!(needs(name, None).is_some(), "everything, where nobody knows");
    }
    let fixed = |needs| Some(CacheType { needs, ..guest });
    assert_eq!(needs("arm64-base", Some(guest)), fixed(Needs::CleanAndInvalidate));
    assert_eq!(needs("arm64-idc", Some(CacheType { needs: Needs::Nothing, ..guest })), fixed(Needs::Invalidate));
    assert_eq!((needs("arm64-idc-dic", Some(guest)), needs("coherent", Some(guest))), (None, None));
    assert!(profile("coherent").snoop && profile("arm64-strict").exemptions.is_empty());
    assert_eq!(profile("arm64-base").exemptions, [Exemption::Listed(CMODX)]);
    assert_eq!(Caches::Coherent.of_guest(guest), Caches::Coherent);
}

#[test]
fn every_instruction_is_a_word() {
    let decoder = AARCH64.decoder.expect("it needs no other crate");
    assert_eq!((decoder.len(&[0; 3]), decoder.len(&[0; 9]), decoder.max_len()), (None, Some(4), 4));
}
