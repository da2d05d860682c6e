//! The event table of x86-64, the run-time distinctions, and the document that is made from the table.

use icsan_model::addr::Linear;
use icsan_model::arch::exemption::Exemption;
use icsan_model::arch::sync_event::{Claim, Sure, SyncEventId, SyncEventSet, Word};
use icsan_model::arch::x86::events::{self, EVENTS, Seen, seen, worth_watching};
use icsan_model::arch::x86::msr::{Edition, NONSERIALIZING, is_nonserializing};
use icsan_model::arch::x86::profiles::{AMD, INTEL, called_serializing};
use icsan_model::arch::x86::{X86_64, resolve};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

#[test]
fn rows_are_well_formed() {
    assert!(EVENTS.len() <= SyncEventSet::CAPACITY);
    let mut names = BTreeSet::new();
    for (index, row) in EVENTS.iter().enumerate() {
        assert!(names.insert(row.name), "{} twice", row.name);
        let letters = |word: &str| {
            !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        };
        assert!(row.name.split('-').all(letters), "{}", row.name);
        assert_eq!(row.claims.len(), X86_64.vendors.len(), "{}", row.name);
        assert!(row.claims.iter().all(|claim| !claim.source.is_empty()), "{}", row.name);
        let id = SyncEventId(index as u8);
        assert_eq!(X86_64.event_by_name(row.name), Some(id));
        let no_instruction = matches!(seen(id), Seen::Callback | Seen::Never);
        assert_eq!(row.encoding.starts_with("no instruction"), no_instruction, "{}", row.name);
        assert_eq!(row.encoding.contains('`'), !no_instruction, "{}", row.name);
        assert!(!row.encoding.contains('|') && !row.note.contains('|'), "{}: a bar breaks the document", row.name);
    }
}

#[test]
fn ids_and_names_belong_together() {
    for (id, name) in [
        (events::CPUID, "cpuid"),
        (events::IRET, "iret"),
        (events::IRET_TO_SELF, "iret-to-self"),
        (events::SERIALIZE, "serialize"),
        (events::MOV_CR3, "mov-cr3"),
        (events::MOV_CR3_NOFLUSH, "mov-cr3-noflush"),
        (events::MOV_CR3_PTI, "mov-cr3-pti"),
        (events::MOV_CR8, "mov-cr8"),
        (events::WRMSR, "wrmsr"),
        (events::WRMSR_NONSERIALIZING, "wrmsr-nonserializing"),
        (events::INTERRUPT_DELIVERY, "interrupt-delivery"),
        (events::RESET, "reset"),
        (events::TASK_SWITCH, "task-switch"),
    ] {
        assert_eq!(X86_64.event_name(id), name);
    }
    assert_eq!(X86_64.event_name(SyncEventId(EVENTS.len() as u8)), "?");
    assert_eq!(seen(SyncEventId(EVENTS.len() as u8)), Seen::Never);
    assert_eq!(seen(SyncEventId(u8::MAX)), Seen::Never);
}

#[test]
fn every_event_of_the_specification_has_a_row() {
    for name in "iret iret-to-self wrmsr wrmsr-nonserializing mov-cr0 mov-cr2 mov-cr3 mov-cr3-noflush mov-cr3-pti mov-cr4 mov-cr8 mov-dr lmsw \
        clts mov-from-cr rsm serialize cpuid invd wbinvd wbnoinvd invlpg invpcid invept invvpid invlpga invlpgb tlbsync lgdt lidt lldt ltr \
        xsetbv lfence mfence sfence lock-prefixed in-out syscall sysenter sysret sysexit eretu erets uiret swapgs wrfsbase wrgsbase wrpkru \
        wrmsrns wrmsrlist int interrupt-delivery smi far-branch near-branch hlt mwait monitor pause vmlaunch vmresume vmrun vm-exit task-switch \
        reset"
        .split_whitespace()
    {
        assert!(X86_64.event_by_name(name).is_some(), "{name}");
    }
}

#[test]
fn hot_and_unseen_events_are_not_worth_watching() {
    for (id, worth) in [
        (events::LOCK_PREFIXED, false),
        (events::IN_OUT, false),
        (events::PAUSE, false),
        (events::NEAR_BRANCH, false),
        (events::SMI, false),
        (events::VM_EXIT, false),
        (events::IRET, true),
        (events::MFENCE, true),
        (events::INTERRUPT_DELIVERY, true),
        (events::RESET, true),
    ] {
        assert_eq!(worth_watching(id), worth, "{}", X86_64.event_name(id));
    }
}

#[test]
fn sets_come_from_the_words() {
    for (vendor, _) in X86_64.vendors.iter().enumerate() {
        for (index, row) in EVENTS.iter().enumerate() {
            let yes = row.claims[vendor].word == Word::Yes;
            assert_eq!(called_serializing(vendor).contains(SyncEventId(index as u8)), yes, "{}", row.name);
        }
    }
    // What only Intel's list rests on was read, except for the three inferences.
    for (index, row) in EVENTS.iter().enumerate().filter(|(_, row)| row.claims[INTEL].word == Word::Yes) {
        let inferred = [events::MOV_CR3_NOFLUSH, events::RESET, events::RESTORED].contains(&SyncEventId(index as u8));
        assert_eq!(row.claims[INTEL].sure, if inferred { Sure::Inferred } else { Sure::Confirmed }, "{}", row.name);
    }
    assert!(EVENTS[usize::from(events::MFENCE.0)].claims[AMD].word != Word::Yes);
}

/// The footnoted registers by hand.
fn footnoted(msr: u32) -> bool {
    matches!(msr, 0x48 | 0x49 | 0x122 | 0x6e0 | 0x6e1 | 0x774) || (0x802..=0x83f).contains(&msr)
}

#[test]
fn wrmsr_at_every_boundary() {
    let boundaries = NONSERIALIZING.iter().flat_map(|range| [range.first - 1, range.first, range.last, range.last + 1]);
    let others = [0, 0x10, 0x1b, 0x800, 0x801, 0x840, 0xbff, 0x7fff_ffff, 0x8000_0000, u32::MAX];
    // EFER, STAR, FS_BASE, GS_BASE, KERNEL_GS_BASE and the numbers whose low 16 bits are a footnoted one.
    let high = [0xc000_0080, 0xc000_0081, 0xc000_0100, 0xc000_0101, 0xc000_0102, 0x1_0048, 0xc000_06e0, 0x8000_0802];
    for msr in boundaries.chain(others).chain(high).chain(0..0x4000) {
        let expected = if footnoted(msr) { events::WRMSR_NONSERIALIZING } else { events::WRMSR };
        assert_eq!(resolve::wrmsr(msr), expected, "{msr:#x}");
    }
}

#[test]
fn msr_ranges_ascend_and_older_editions_name_two() {
    assert!(NONSERIALIZING.iter().all(|range| range.first <= range.last));
    assert!(NONSERIALIZING.windows(2).all(|pair| pair[0].last < pair[1].first));
    let older: Vec<_> = NONSERIALIZING
        .iter()
        .filter(|range| range.since == Edition::Older)
        .map(|range| (range.first, range.last))
        .collect();
    assert_eq!(older, [(0x6e0, 0x6e0), (0x802, 0x83f)]);
}

#[test]
fn iret_to_self_is_the_next_address_at_the_same_level() {
    let pc = Linear(0xffff_ffff_8100_1000);
    assert_eq!(resolve::iret(pc, 2, pc.0 + 2, true), events::IRET_TO_SELF);
    assert_eq!(resolve::iret(pc, 2, pc.0 + 2, false), events::IRET);
    assert_eq!(resolve::iret(pc, 2, pc.0, true), events::IRET);
    assert_eq!(resolve::iret(pc, 2, pc.0 + 1, true), events::IRET);
    assert_eq!(resolve::iret(pc, 2, pc.0 + 3, true), events::IRET);
    assert_eq!(resolve::iret(pc, 1, pc.0 + 1, true), events::IRET_TO_SELF);
    assert_eq!(resolve::iret(Linear(u64::MAX - 1), 2, 0, true), events::IRET_TO_SELF);
    assert_eq!(resolve::iret(Linear(u64::MAX), 2, u64::MAX, true), events::IRET);
}

#[test]
fn cr3_writes_are_told_apart() {
    const KERNEL: u64 = 0x1234_6000;
    const USER: u64 = 0x1234_7000;
    const PCID: u64 = 1 << 11;
    const NOFLUSH: u64 = 1 << 63;
    for (old, new, expected) in [
        (KERNEL, USER, events::MOV_CR3_PTI),
        (USER, KERNEL, events::MOV_CR3_PTI),
        (KERNEL | 5, USER | 5 | PCID, events::MOV_CR3_PTI),
        (KERNEL | 5, USER | 5 | PCID | NOFLUSH, events::MOV_CR3_PTI),
        (USER | 5 | PCID, KERNEL | 5 | NOFLUSH, events::MOV_CR3_PTI),
        // The same table, or only another PCID: no switch of tables.
        (KERNEL, KERNEL, events::MOV_CR3),
        (KERNEL, KERNEL | PCID, events::MOV_CR3),
        (KERNEL, KERNEL | NOFLUSH, events::MOV_CR3_NOFLUSH),
        // Any other bit makes it a switch of address spaces.
        (KERNEL | 5, USER | 6, events::MOV_CR3),
        (KERNEL, USER ^ 1 << 13, events::MOV_CR3),
        (KERNEL, 0x9999_9000, events::MOV_CR3),
        (KERNEL, 0x9999_9000 | NOFLUSH, events::MOV_CR3_NOFLUSH),
        (KERNEL, USER ^ 1 << 62, events::MOV_CR3),
        (0, 0, events::MOV_CR3),
    ] {
        assert_eq!(resolve::mov_cr3(old, new), expected, "{old:#x} -> {new:#x}");
    }
    for bit in 0..64 {
        let expected = match bit {
            12 => events::MOV_CR3_PTI,
            63 => events::MOV_CR3_NOFLUSH,
            _ => events::MOV_CR3,
        };
        assert_eq!(resolve::mov_cr3(KERNEL, KERNEL ^ 1 << bit), expected, "bit {bit}");
        let with_12 = if matches!(bit, 11 | 63) { events::MOV_CR3_PTI } else { events::MOV_CR3 };
        if bit != 12 {
            assert_eq!(resolve::mov_cr3(KERNEL, KERNEL ^ 1 << 12 ^ 1 << bit), with_12, "bits 12 and {bit}");
        }
    }
}

proptest! {
    #[test]
    fn any_msr(msr: u32) {
        prop_assert_eq!(is_nonserializing(msr), footnoted(msr));
    }

    #[test]
    fn any_cr3(old: u64, flipped in prop_oneof![any::<u64>(), prop::sample::subsequence(vec![3, 11, 12, 13, 63], 0..=5)
        .prop_map(|bits| bits.into_iter().map(|bit: u32| 1u64 << bit).sum())]) {
        let new = old ^ flipped;
        let pti = [0, 1 << 11, 1 << 63, 1 << 11 | 1 << 63].contains(&(old ^ new ^ 1 << 12));
        let expected = if pti {
            events::MOV_CR3_PTI
        } else if new >> 63 == 1 {
            events::MOV_CR3_NOFLUSH
        } else {
            events::MOV_CR3
        };
        prop_assert_eq!(resolve::mov_cr3(old, new), expected);
    }
}

fn word(claim: &Claim) -> &'static str {
    match claim.word {
        Word::Yes => "yes",
        Word::No => "no",
        Word::Unstated => "–",
    }
}

fn sure(claim: &Claim) -> &'static str {
    match (claim.word, claim.sure) {
        (Word::Unstated, _) => "–",
        (_, Sure::Confirmed) => "confirmed",
        (_, Sure::Secondary) => "secondary",
        (_, Sure::Memory) => "memory",
        (_, Sure::Inferred) => "inferred",
    }
}

fn seen_word(id: SyncEventId) -> &'static str {
    match seen(id) {
        Seen::Instruction => "instruction",
        Seen::Resolved => "run time",
        Seen::Hot => "hot",
        Seen::Callback => "callback",
        Seen::Never => "never",
    }
}

fn joined(claims: &[Claim], of: impl Fn(&Claim) -> String) -> String {
    claims.iter().map(of).collect::<Vec<_>>().join("; ")
}

fn exemption(exemption: &Exemption) -> String {
    match exemption {
        Exemption::Breakpoint(bytes) => {
            format!("breakpoint {}", bytes.iter().map(|byte| format!("`{byte:02X}`")).collect::<Vec<_>>().join(" "))
        }
        Exemption::Listed(_) => unreachable!("no profile of x86 has a list"),
        Exemption::AlignedStore(bytes) => format!("stores inside one aligned block of {bytes} bytes"),
    }
}

/// The whole of `docs/events.md`.
fn document() -> String {
    let mut text = String::from(
        "# Events and profiles of x86-64\n\n\
        Made from the table in `model/src/arch/x86/events.rs` by the test `docs_events_md_is_current`; to renew it:\n\
        `ICSAN_BLESS=1 cargo test -p icsan-model --test x86_events`.\n\n\
        An event *serializes* if, after it, a vCPU's prefetch and trace buffers hold nothing older. Which events do is the choice of a profile;\n\
        the table says what the manuals say. `with=EVENT+EVENT` and `without=EVENT+EVENT` change a profile.\n\n\
        **How sure** we are that Intel; AMD says so: *confirmed*: the primary text was read; *secondary*: a paraphrase of it; *memory*: not\n\
        checked; *inferred*: our own conclusion. `–` is \"no statement found\". Where texts conflict the event does not count, which errs towards reporting.\n\n\
        **Seen**: *instruction*: from the bytes; *run time*: from the bytes and register values; *hot*: from the bytes, but so frequent that\n\
        counting it slows the guest; *callback*: the emulator tells; *never*: nobody tells, so counting it has no effect.\n\n\
        ## Profiles\n\n| profile | what it is | events | exemptions | snoops |\n| --- | --- | --- | --- | --- |\n",
    );
    for profile in X86_64.profiles {
        let default = if profile.name == X86_64.default_profile().name { " (default)" } else { "" };
        let exemptions = profile.exemptions.iter().map(exemption).collect::<Vec<_>>().join("; ");
        let exemptions = if exemptions.is_empty() { "none" } else { &exemptions };
        let (count, snoop) = (profile.serializing.iter().count(), if profile.snoop { "yes" } else { "no" });
        writeln!(text, "| `{}`{default} | {} | {count} | {exemptions} | {snoop} |", profile.name, profile.note)
            .unwrap();
    }
    text.push_str("\n## Events\n\n| event | encoding | Intel | AMD | how sure | source | seen |");
    for profile in X86_64.profiles {
        write!(text, " {} |", profile.name).unwrap();
    }
    text.push_str(" note |\n|");
    text.push_str(&" --- |".repeat(8 + X86_64.profiles.len()));
    text.push('\n');
    for (index, row) in EVENTS.iter().enumerate() {
        let id = SyncEventId(index as u8);
        let sources = joined(row.claims, |claim| claim.source.to_owned());
        let sures = joined(row.claims, |claim| sure(claim).to_owned());
        let (intel, amd) = (word(&row.claims[INTEL]), word(&row.claims[AMD]));
        write!(
            text,
            "| `{}` | {} | {intel} | {amd} | {sures} | {sources} | {} |",
            row.name,
            row.encoding,
            seen_word(id)
        )
        .unwrap();
        for profile in X86_64.profiles {
            text.push_str(if profile.serializes(id) { " counted |" } else { " |" });
        }
        if row.note.is_empty() {
            text.push_str(" |\n");
        } else {
            writeln!(text, " {} |", row.note).unwrap();
        }
    }
    text.push_str(
        "\n## MSRs whose writes are `wrmsr-nonserializing`\n\n| number | name | in Intel's footnote since |\n| --- | --- | --- |\n",
    );
    for range in NONSERIALIZING {
        let number = if range.first == range.last {
            format!("`{:X}H`", range.first)
        } else {
            format!("`{:X}H` to `{:X}H`", range.first, range.last)
        };
        let since = match range.since {
            Edition::Older => "the older editions",
            Edition::Newer => "about 2024",
        };
        writeln!(text, "| {number} | {} | {since} |", range.name).unwrap();
    }
    text
}

#[test]
fn docs_events_md_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/events.md");
    let document = document();
    if std::env::var_os("ICSAN_BLESS").is_some_and(|value| value == "1") {
        std::fs::write(&path, &document).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    if let Some((line, (found, wanted))) =
        found.lines().zip(document.lines()).enumerate().find(|(_, (found, wanted))| found != wanted)
    {
        panic!("docs/events.md:{}: is\n{found}\nbut should be\n{wanted}\nRun with ICSAN_BLESS=1.", line + 1);
    }
    assert_eq!(found.len(), document.len(), "docs/events.md ends too early or too late; run with ICSAN_BLESS=1");
}
