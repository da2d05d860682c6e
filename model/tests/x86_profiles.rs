//! The profiles of x86-64 against what the specification says of them, by name.

use icsan_model::arch::exemption::Exemption;
use icsan_model::arch::profile::{Buffers, Profile, ProfileError, Text};
use icsan_model::arch::x86::{X86_64, events};
use std::collections::BTreeSet;

fn profile(name: &str) -> &'static Profile {
    X86_64.profile(name).unwrap_or_else(|| panic!("no profile {name}"))
}

fn names(profile: &Profile) -> BTreeSet<&'static str> {
    profile.serializing.iter().map(|event| X86_64.event_name(event)).collect()
}

/// Intel's list, written out, and what comes before any list (a restored state): what the derived set must come to.
const INTEL: [&str; 24] = [
    "cpuid",
    "invd",
    "invept",
    "invlpg",
    "invvpid",
    "iret",
    "iret-to-self",
    "lgdt",
    "lidt",
    "lldt",
    "ltr",
    "mov-cr0",
    "mov-cr2",
    "mov-cr3",
    "mov-cr3-noflush",
    "mov-cr3-pti",
    "mov-cr4",
    "mov-dr",
    "reset",
    "restored",
    "rsm",
    "serialize",
    "wbinvd",
    "wrmsr",
];

fn intel() -> BTreeSet<&'static str> {
    INTEL.into_iter().collect()
}

#[test]
fn names_and_default() {
    let found: Vec<_> = X86_64.profiles.iter().map(|profile| profile.name).collect();
    assert_eq!(found, ["linux-x86", "sdm-strict", "fred", "amd-apm", "pti-blind", "no-luck", "coherent"]);
    assert_eq!(X86_64.default_profile().name, "linux-x86");
    assert_eq!(Profile::select(&X86_64, None, &[], &[]), Ok(*profile("linux-x86")));
    assert!(X86_64.profiles.iter().all(|profile| !profile.note.is_empty()));
}

#[test]
fn intels_list() {
    assert_eq!(names(profile("linux-x86")), intel());
    assert_eq!(names(profile("sdm-strict")), intel());
    assert_eq!(names(profile("coherent")), intel());
}

#[test]
fn fred_loses_the_interrupt_return_only() {
    let mut expected = intel();
    assert!(expected.remove("iret"));
    assert_eq!(names(profile("fred")), expected);
    assert!(profile("fred").serializes(events::IRET_TO_SELF));
    assert!(!profile("fred").serializes(events::ERETU) && !profile("fred").serializes(events::ERETS));
}

#[test]
fn no_luck_has_what_is_meant_to_serialize_and_nothing_else() {
    let intended =
        ["iret-to-self", "serialize", "mov-cr0", "mov-cr3", "mov-cr3-noflush", "mov-cr3-pti", "reset", "restored"];
    let profile = profile("no-luck");
    assert_eq!(names(profile), intended.into());
    assert!(names(profile).is_subset(&intel()));
    // The CR3 writes of a switch to another task are no step of a patch; and programs are not judged by what the kernel
    // means.
    let limited: BTreeSet<_> = profile.only_at.iter().map(|only| X86_64.event_name(only.event)).collect();
    assert_eq!(limited, ["mov-cr3", "mov-cr3-noflush", "mov-cr3-pti"].into());
    assert_eq!(profile.text, Text::Kernel);
    assert!(
        !profile.is_plain()
            && X86_64.profiles.iter().filter(|profile| profile.is_plain()).count() == X86_64.profiles.len() - 1
    );
}

#[test]
fn pti_blind_loses_the_pti_switch_only() {
    let mut expected = intel();
    assert!(expected.remove("mov-cr3-pti"));
    assert_eq!(names(profile("pti-blind")), expected);
}

#[test]
fn amds_list() {
    let mut expected = intel();
    for not_amds in ["serialize", "invept", "invvpid"] {
        assert!(expected.remove(not_amds));
    }
    expected.extend(["invlpga", "invpcid", "tlbsync", "wbnoinvd"]);
    assert_eq!(names(profile("amd-apm")), expected);
    // Texts in conflict do not count.
    assert!(!profile("amd-apm").serializes(events::MFENCE) && !profile("amd-apm").serializes(events::MOV_CR8));
}

#[test]
fn exemptions_buffers_and_snooping() {
    const INT3: Exemption = Exemption::Breakpoint(&[0xcc]);
    for profile in X86_64.profiles {
        let expected: &[Exemption] = match profile.name {
            "sdm-strict" => &[],
            "amd-apm" => &[INT3, Exemption::AlignedStore(8)],
            _ => &[INT3],
        };
        assert_eq!(profile.exemptions, expected, "{}", profile.name);
        assert_eq!(profile.buffers, Buffers::DEFAULT, "{}", profile.name);
        assert_eq!(profile.snoop, profile.name == "coherent", "{}", profile.name);
    }
}

#[test]
fn built_in_profiles_count_only_what_can_be_watched() {
    for profile in X86_64.profiles {
        for event in profile.serializing.iter() {
            assert!(events::worth_watching(event), "{}: {}", profile.name, X86_64.event_name(event));
        }
    }
}

#[test]
fn no_profile_counts_what_does_not_serialize() {
    for profile in X86_64.profiles {
        for event in [
            events::WRMSR_NONSERIALIZING,
            events::WRMSRNS,
            events::MOV_CR8,
            events::MOV_FROM_CR,
            events::LFENCE,
            events::MFENCE,
            events::SFENCE,
            events::LOCK_PREFIXED,
            events::SYSCALL,
            events::SYSRET,
            events::ERETU,
            events::ERETS,
            events::SWAPGS,
            events::INTERRUPT_DELIVERY,
            events::INT,
            events::NEAR_BRANCH,
            events::FAR_BRANCH,
            events::HLT,
        ] {
            assert!(!profile.serializes(event), "{}: {}", profile.name, X86_64.event_name(event));
        }
        assert!(profile.serializes(events::RESET) && profile.serializes(events::IRET_TO_SELF));
        assert_eq!(
            profile.serializes(events::CPUID),
            profile.name != "no-luck",
            "nobody executes it in order to serialize"
        );
    }
}

fn words(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn with_and_without() {
    let changed =
        Profile::select(&X86_64, Some("fred"), &words(&["interrupt-delivery", "mfence"]), &words(&["cpuid", "mfence"]))
            .unwrap();
    let mut expected = names(profile("fred"));
    expected.insert("interrupt-delivery");
    expected.remove("cpuid");
    assert_eq!(names(&changed), expected);
    assert_eq!((changed.name, changed.exemptions), ("fred", profile("fred").exemptions));

    // What is there already, or is not there, changes nothing.
    let same = Profile::select(&X86_64, Some("sdm-strict"), &words(&["iret"]), &words(&["pause"])).unwrap();
    assert_eq!(same, *profile("sdm-strict"));

    // The FRED profile is `linux-x86` with `without=iret`, but for its name and note.
    let by_hand = Profile::select(&X86_64, Some("linux-x86"), &[], &words(&["iret"])).unwrap();
    assert_eq!(by_hand.serializing, profile("fred").serializing);
}

#[test]
fn every_event_can_be_added_and_taken_away() {
    for row in X86_64.events {
        let id = X86_64.event_by_name(row.name).unwrap();
        let with = Profile::select(&X86_64, None, &words(&[row.name]), &[]).unwrap();
        assert!(with.serializes(id), "{}", row.name);
        let without = Profile::select(&X86_64, None, &[], &words(&[row.name])).unwrap();
        assert!(!without.serializes(id), "{}", row.name);
        assert_eq!(with.serializing.without(id), without.serializing, "{}", row.name);
    }
}

#[test]
fn unknown_names() {
    let error =
        |with: &[&str], without: &[&str]| Profile::select(&X86_64, None, &words(with), &words(without)).unwrap_err();
    assert_eq!(error(&["cpuld"], &[]), ProfileError::UnknownEvent { name: "cpuld".to_owned(), near: Some("cpuid") });
    assert_eq!(error(&[], &["iretq"]).to_string(), "unknown event `iretq`; did you mean `iret`?");
    assert_eq!(
        error(&[], &["mov-cr9"]).to_string().split('`').nth(3).map(|near| near.starts_with("mov-cr")),
        Some(true)
    );
    assert_eq!(error(&["something-else-entirely"], &[]).to_string(), "unknown event `something-else-entirely`");
    assert_eq!(error(&["CPUID"], &[]).to_string(), "unknown event `CPUID`");
    let unknown = Profile::select(&X86_64, Some("linux"), &[], &[]).unwrap_err().to_string();
    assert_eq!(
        unknown,
        "unknown profile `linux`; known are: linux-x86, sdm-strict, fred, amd-apm, pti-blind, no-luck, coherent"
    );
}
