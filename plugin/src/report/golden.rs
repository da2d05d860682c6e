//! Golden reports: the whole text and the whole JSON of each kind and each note, in `golden/`.
//! `UPDATE_EXPECT=1 cargo test -p icsan-plugin --lib golden` writes them.

use super::evidence::{Evidence, Origin, Shown, Unsynced};
use super::findings::Findings;
use super::fixture::{JMP, NOP, Run, at, evidence, memcpy_patches_itself, memory, older, patcher, phys, unwatched};
use super::json::Object;
use super::{Counts, injections, text};
use crate::coverage::{Class, CoverageTable, Row};
use crate::exposure::{Deferrals, Ended, ExposureId, Piece, Way};
use crate::gaps::Gap;
use crate::injection::{Injected, Injections, Trail};
use crate::patching::{Asker, Context, Covering, Missing, Step};
use crate::qemu::accelerator::Accelerator;
use crate::repair::RepairCounts;
use crate::stores::code_store::StoreCounts;
use expect_test::expect_file;
use icsan_model::addr::{Epoch, Linear, Seq, Vcpu};
use icsan_model::arch::x86::events;
use icsan_model::detector::sync_log::SyncAt;
use icsan_model::detector::sync_origin::SyncOrigin;
use icsan_model::verdict::hazard::Write;
use icsan_model::verdict::kind::Kind;
use icsan_model::verdict::last_sync::LastSync;
use std::time::Duration;

/// Compares with the two files of that name. JSON is spread over lines; that it is one line in a report, with the type
/// first, is checked here.
fn same(name: &str, text: &str, objects: &[Object<'_>]) {
    let pretty = objects.iter().map(|object| {
        let line = super::sink::line(object);
        assert!(line.starts_with("{\"type\":\"") && line.trim_end().lines().count() == 1, "{line}");
        serde_json::to_string_pretty(object).unwrap() + "\n"
    });
    expect_file![format!("golden/{name}.json")].assert_eq(&pretty.collect::<String>());
    expect_file![format!("golden/{name}.txt")].assert_eq(text);
}

/// One hazard, as the user hears of it at once.
fn hazard(name: &str, run: &Run, kind: Kind, evidence: Evidence) {
    let mut findings = Findings::default();
    let hazard = findings.add(kind, evidence, &run.report()).unwrap();
    let report = run.report();
    same(name, &super::sink::told(&report, hazard).unwrap_or_default(), &[Object::hazard(&report, hazard)]);
}

/// A whole report's last words.
fn summary(name: &str, run: &Run, findings: &Findings, counts: &Counts, fault: Option<&str>) {
    let report = run.report();
    same(
        name,
        &text::summary(&report, findings, None, counts, fault),
        &[Object::summary(&report, findings, None, counts, fault)],
    );
}

/// A run that saw something.
fn counts() -> Counts {
    let serializing = [(events::IRET, 30), (events::MOV_CR3, 12)];
    let mut met = vec![0; 64];
    serializing.iter().for_each(|(event, count)| met[usize::from(event.0)] = *count);
    Counts {
        blocks: 90_000,
        epochs: 42,
        serializing: met,
        exempt: 3,
        stores: Some(StoreCounts { stores: 1200, unseen: 4, retired: 2 }),
        ledger: Some(vec![(1, icsan_model::detector::ledger::Ledger::default())]),
        commits: Some((5, 17)),
        ..Counts::default()
    }
}

#[test]
fn kinds() {
    let run = Run::new(&[], "");
    let torn = Shown {
        bytes: vec![0x0f, 0x1f, 0x44, 0x00, 0x00],
        origin: Origin::Versions {
            versions: [640, 640, 640, 812, 812].map(Seq).to_vec(),
            before: Some(Seq(812)),
            kind: Kind::Torn,
            exempt: false,
        },
    };
    let breakpoint = Shown {
        bytes: vec![0xcc],
        origin: Origin::Versions { versions: vec![Seq(811)], before: Some(Seq(812)), kind: Kind::Stale, exempt: true },
    };
    let candidates = vec![memory(JMP), torn, older(NOP, Kind::Unserialized)];
    hazard("torn", &run, Kind::Torn, Evidence { candidates, ..evidence(Kind::Torn) });
    let candidates = vec![memory(JMP), older(NOP, Kind::Stale), breakpoint];
    hazard("stale", &run, Kind::Stale, Evidence { candidates, ..evidence(Kind::Stale) });
    let own = |kind| Evidence { vcpu: Vcpu(0), ..evidence(kind) };
    hazard("alias", &run, Kind::Alias, own(Kind::Alias));
    hazard("smc", &run, Kind::Smc, own(Kind::Smc));
    hazard("unserialized", &run, Kind::Unserialized, evidence(Kind::Unserialized));
    hazard("speculative", &Run::new(&["speculation=on"], ""), Kind::Speculative, evidence(Kind::Speculative));
    hazard("emulator", &run, Kind::Emulator, unwatched(evidence(Kind::Emulator)));
}

/// A protocol that did not make a vCPU serialize.
fn unsynced(missing: Missing, luck: Option<SyncAt>) -> Evidence {
    let unsynced = Unsynced {
        asker: Asker::Function(at("text_poke_bp_batch", 0)),
        covering: Covering::TextPoke,
        missing,
        vcpu: Vcpu(0),
        patcher: Vcpu(0),
        luck,
        exposure: luck.is_none().then_some(ExposureId(1)),
        ended: None,
        sleeps: luck.is_some(),
        user_mode: Some(luck.is_none()),
        held: if luck.is_none() { 2 } else { 0 },
        changed: 3,
        stores: 5,
        chain: patcher().chain,
        context: patcher().context,
    };
    Evidence {
        candidates: Vec::new(),
        context: Context::default(),
        chain: Vec::new(),
        unsynced: Some(Box::new(unsynced)),
        ..evidence(Kind::Unsynced)
    }
}

/// Exposures that an event ended.
fn deferred() {
    let run = Run::new(&["defer=mov-cr3@entry_SYSCALL_64"], "");
    let by = SyncAt { event: events::MOV_CR3, pc: at("entry_SYSCALL_64", 0x17), origin: None };
    let ended = |met| {
        let mut way = Way::default();
        way.add(Piece::Page(Linear(0x5555_5555_4000)), true);
        way.add(Piece::Function(at("entry_SYSCALL_64", 0)), true);
        way.add(Piece::Function(at("patched", 0)), false);
        Ended { by, after: Duration::from_micros(312), met, near: Some(at("patched", 0x10)), way }
    };
    let mut evidence = unsynced(Missing::AtTheEnd, None);
    evidence.unsynced.as_mut().unwrap().ended = Some(Box::new(ended(Some(at("patched", 0x10)))));
    hazard("unsynced-met", &run, Kind::Unsynced, evidence);
    let row = Row { boot: 1, asker: Asker::Function(at("text_poke_bp_batch", 0)), missing: Missing::AtTheEnd };
    let (mut deferrals, mut table) = (Deferrals::default(), CoverageTable::default());
    table.add(row, true, [Class::Synced, Class::Exposed].into_iter());
    table.add(row, true, [Class::Synced, Class::Exposed].into_iter());
    (0..3).for_each(|_| {
        deferrals.begin();
    });
    deferrals.end(row, &ended(None), true);
    table.defer(row);
    deferrals.end(row, &ended(Some(at("patched", 0x10))), true);
    let counts = Counts { coverage: Some(table), deferrals: Some(deferrals), ..counts() };
    summary("deferrals", &run, &Findings::default(), &counts, None);
    // Without the key it is told at once, and what became of it is a line of its own.
    let run = Run::new(&[], "");
    let mut findings = Findings::default();
    findings.add(Kind::Unsynced, unsynced(Missing::AtTheEnd, None), &run.report());
    assert!(findings.exposure_ended(ExposureId(2), ended(None)).is_none(), "another one");
    let told = findings.exposure_ended(ExposureId(1), ended(None)).unwrap();
    let text = super::unsynced::follows(&run.report(), told).unwrap();
    same("unsynced-ended", &text, &[Object::hazard(&run.report(), told)]);
}

#[test]
fn protocols_that_leave_a_vcpu_out() {
    let run = Run::new(&[], "");
    let between = Missing::Between(Step::Breakpoint, Step::Tail);
    let by_chance = Some(SyncAt { event: events::IRET, pc: at("asm_sysvec_reschedule_ipi", 0x1a), origin: None });
    hazard("unsynced-exposed", &run, Kind::Unsynced, unsynced(Missing::AtTheEnd, None));
    hazard("unsynced-lucky", &run, Kind::Unsynced, unsynced(between, by_chance));
    let system_call =
        Some(SyncAt { event: events::IRET, pc: at("entry_SYSCALL_64", 0x40), origin: Some(SyncOrigin::SystemCall) });
    hazard("unsynced-lucky-system-call", &run, Kind::Unsynced, unsynced(Missing::AtTheEnd, system_call));
    hazard("unsynced-noted", &Run::new(&["luck=note"], ""), Kind::Unsynced, unsynced(between, by_chance));
    hazard("unsynced-patcher", &run, Kind::Unsynced, Evidence { vcpu: Vcpu(0), ..unsynced(Missing::AtTheEnd, None) });
    // The task that waits for its patch goes on elsewhere than where the last store was made.
    let mut elsewhere = unsynced(Missing::AtTheEnd, None);
    elsewhere.unsynced.as_mut().unwrap().vcpu = Vcpu(1);
    hazard("unsynced-elsewhere", &run, Kind::Unsynced, elsewhere);
    let mut membarrier = unsynced(Missing::AtTheEnd, None);
    if let Some(unsynced) = membarrier.unsynced.as_deref_mut() {
        (unsynced.asker, unsynced.covering) = (Asker::Membarrier, Covering::Membarrier { space: 0x2a_1000 });
        unsynced.chain = [].into();
    }
    hazard("unsynced-membarrier", &run, Kind::Unsynced, membarrier);
    deferred();
    let mut findings = Findings::default();
    for offset in 0..7 {
        findings.add(
            Kind::Unsynced,
            Evidence { linear: at("patched", offset), ..unsynced(Missing::AtTheEnd, None) },
            &run.report(),
        );
    }
    assert!(findings.add(Kind::Unsynced, unsynced(between, by_chance), &run.report()).unwrap().leads, "another place");
    assert!(
        findings.add(Kind::Unsynced, unsynced(Missing::AtTheEnd, by_chance), &run.report()).unwrap().leads,
        "another class"
    );
    let mut table = CoverageTable::default();
    let row = |missing| Row { boot: 1, asker: Asker::Function(at("text_poke_bp_batch", 0)), missing };
    let lucky = by_chance.map_or(Class::Exposed, Class::Lucky);
    table.add(row(Missing::AtTheEnd), true, [Class::Synced, Class::Exposed, lucky].into_iter());
    table.add(row(between), true, [Class::OwnSwitch, Class::Synced].into_iter());
    summary("coverage", &run, &findings, &Counts { coverage: Some(table), ..counts() }, None);
}

/// What is said of a hazard where something is not known, or not as usual.
#[test]
fn notes_of_hazards() {
    let run = Run::new(&[], "");
    let unserialized = || evidence(Kind::Unserialized);
    hazard("light-mode", &Run::new(&["writers=off"], ""), Kind::Unserialized, unwatched(unserialized()));
    hazard("unknown-place", &run, Kind::Unserialized, Evidence { physical: None, ..unwatched(unserialized()) });
    let unseen = Write {
        seq: Seq(812),
        vcpu: None,
        pc: None,
        linear: None,
        phys: phys(at("patched", 0x10)),
        old: None,
        new: JMP.to_vec(),
    };
    let writes = Some(vec![unseen]);
    hazard("unseen-writer", &run, Kind::Unserialized, Evidence { writes, writers: vec![None], ..unserialized() });
    let from_elsewhere = |shown: Shown| match shown.origin {
        Origin::Versions { versions, kind, exempt, .. } => {
            Shown { origin: Origin::Versions { versions, before: None, kind, exempt }, ..shown }
        }
        _ => shown,
    };
    let moved = |moved| Evidence {
        writes: Some(Vec::new()),
        writers: Vec::new(),
        candidates: unserialized().candidates.into_iter().map(from_elsewhere).collect(),
        moved,
        ..unserialized()
    };
    hazard("moved-page", &run, Kind::Unserialized, moved(true));
    hazard("forgotten-store", &run, Kind::Unserialized, moved(false));
    hazard("not-all-candidates", &run, Kind::Unserialized, Evidence { all_candidates: false, ..unserialized() });
    hazard("never-serialized", &run, Kind::Unserialized, Evidence { last_sync: None, ..unserialized() });
    let iret = LastSync { event: Some(events::IRET), pc: Some(at("entry_SYSCALL_64", 0x40)), seq: Seq(700) };
    let after = Evidence { last_sync: Some(iret), last_origin: Some(SyncOrigin::SystemCall), ..unserialized() };
    hazard("after-a-system-call", &run, Kind::Unserialized, after);
    hazard("suppressed", &Run::new(&[], "symbol:patched my own\n"), Kind::Stale, evidence(Kind::Stale));
    hazard("known", &run, Kind::Smc, memcpy_patches_itself());
    hazard("known-light", &Run::new(&["writers=off"], ""), Kind::Unserialized, unwatched(memcpy_patches_itself()));
    hazard("known-reported", &Run::new(&["known=report"], ""), Kind::Smc, memcpy_patches_itself());
}

#[test]
fn one_cause_at_many_sites() {
    let run = Run::new(&[], "");
    let mut findings = Findings::default();
    for offset in 0..8 {
        let linear = at("patched", 0x10 + 8 * offset);
        let evidence = || Evidence { linear, physical: Some(phys(linear)), ..evidence(Kind::Stale) };
        findings.add(Kind::Stale, evidence(), &run.report()).unwrap();
        assert!(findings.add(Kind::Stale, evidence(), &run.report()).is_none(), "the same again");
    }
    let report = run.report();
    let told: Vec<_> = findings.hazards().iter().filter_map(|hazard| super::sink::told(&report, hazard)).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    let one_more = &findings.hazards()[1];
    same("group-one-more-site", "", &[Object::hazard(&report, one_more)]);
    summary("group", &run, &findings, &counts(), None);
}

#[test]
fn injected() {
    let run = Run::new(&[], "");
    hazard("injected", &run, Kind::Stale, Evidence { injected: Some(NOP.to_vec()), ..evidence(Kind::Stale) });
    let mut known = Injections::default();
    let first = Injected {
        vcpu: Vcpu(1),
        linear: at("patched", 0x10),
        memory: JMP.to_vec(),
        chosen: NOP.to_vec(),
        kind: Some(Kind::Stale),
        epoch: Epoch(41),
        marker: 0,
        boot: 1,
    };
    let record = known.add(first).unwrap();
    let mut trail = Trail::default();
    trail.push(at("patched", 0x10));
    trail.push(at("target", 0));
    trail.end = Some(SyncAt { event: events::IRET, pc: at("asm_sysvec_reschedule_ipi", 0x1a), origin: None });
    let report = run.report();
    let record = known.trail(record, trail).unwrap().clone();
    same("injection", &injections::text(&report, &record), &[Object::injection(&report, &record)]);
    known.refuse(&[0x0f, 0x0b], "it is no instruction of the list".to_owned());
    let (findings, counts) = (Findings::default(), counts());
    let (text, object) = (
        text::summary(&report, &findings, Some(&known), &counts, None),
        Object::summary(&report, &findings, Some(&known), &counts, None),
    );
    same("injected-summary", &text, &[object]);
}

#[test]
fn beginning() {
    let run = Run::new(&["profile=fred", "with=lfence", "without=cpuid", "chunk=32"], "");
    let report = run.report();
    same("start", "", &[Object::start(&report), Object::marker(Vcpu(1), 0x1_0000)]);
}

/// What a summary says of the report as a whole.
#[test]
fn notes_of_summaries() {
    let (run, nothing) = (Run::new(&[], ""), Findings::default());
    summary("clean", &run, &nothing, &counts(), None);
    let mut known = Findings::default();
    known.add(Kind::Smc, memcpy_patches_itself(), &run.report());
    summary("known-summary", &run, &known, &counts(), None);
    let emulator = Some(RepairCounts { suspect: 9, repaired: 9, gave_up: 0 });
    summary("repaired", &run, &nothing, &Counts { emulator, ..counts() }, None);
    summary("no-commits", &run, &nothing, &Counts { commits: Some((0, 0)), ..counts() }, None);
    summary("panicked", &run, &nothing, &Counts { panicked: Some(Vcpu(1)), ..counts() }, None);
    let light = Counts { stores: None, ledger: None, commits: None, ..counts() };
    summary("light-mode-summary", &Run::new(&["writers=off"], ""), &nothing, &light, None);
}

/// The same of reports that prove nothing.
#[test]
fn incomplete() {
    let (run, nothing) = (Run::new(&[], ""), Findings::default());
    let mut lost = counts();
    lost.drop(&[("segments", 12), ("hazards", 0), ("ledger", 3)]);
    summary("incomplete", &run, &nothing, &Counts { complete: false, ..lost }, None);
    let mut gap = counts();
    gap.drop(&[(Gap::UnknownPlace.name(), 7)]);
    summary("gap", &run, &nothing, &Counts { complete: false, ..gap }, None);
    summary("fault", &run, &nothing, &Counts { complete: false, ..counts() }, Some("index out of bounds"));
    for (name, accelerator) in [
        ("nothing-watched", Accelerator::Tcg),
        ("nothing-watched-kvm", Accelerator::Kvm),
        ("nothing-watched-other", Accelerator::Other),
        ("nothing-watched-unknown", Accelerator::Unknown),
    ] {
        let mut counts = Counts::default();
        counts.note_nothing_watched(accelerator);
        assert!(!counts.complete);
        summary(name, &run, &nothing, &counts, None);
    }
    let mut counts = counts();
    counts.note_never_started("patched");
    summary("never-started", &run, &nothing, &counts, None);
}

/// Another hazard at the same place is not taken for the known one.
#[test]
fn a_known_finding_is_known_by_all_that_is_said_of_it() {
    let run = Run::new(&[], "");
    let counts = |kind, evidence: Evidence| {
        let mut findings = Findings::default();
        findings.add(kind, evidence, &run.report()).is_some_and(|hazard| hazard.counts && hazard.known.is_none())
    };
    let known = memcpy_patches_itself;
    assert!(!counts(Kind::Smc, known()) && !counts(Kind::Unserialized, unwatched(known())));
    assert!(
        counts(Kind::Torn, known()) && counts(Kind::Unserialized, known()) && counts(Kind::Smc, unwatched(known()))
    );
    assert!(counts(Kind::Smc, Evidence { linear: at("patched", 0xf3), ..known() }), "another function");
    assert!(counts(Kind::Smc, Evidence { vcpu: Vcpu(1), ..known() }), "another CPU's stores");
    assert!(counts(Kind::Smc, Evidence { memory: vec![0x90], ..known() }), "another instruction");
    let mut mitigated = known();
    let thunk = at("its_return_thunk", 0).0.wrapping_sub(mitigated.linear.0 + 5) as u32;
    mitigated.memory = [0xe9].into_iter().chain(thunk.to_le_bytes()).collect();
    mitigated.candidates[0] = memory(&mitigated.memory);
    assert!(!counts(Kind::Smc, mitigated), "a return of a CPU that needs a thunk");
    let to_another = vec![memory(&[0xc3]), older(JMP, Kind::Smc)];
    assert!(counts(Kind::Smc, Evidence { candidates: to_another, ..known() }), "a jump to somewhere else");
    let one_more = known().candidates.into_iter().chain([older(&[0xcc], Kind::Smc)]).collect();
    assert!(counts(Kind::Smc, Evidence { candidates: one_more, ..known() }), "one more candidate");
    let mut writes = known().writes.unwrap();
    writes[1].pc = Some(at("__text_poke", 4));
    assert!(counts(Kind::Smc, Evidence { writes: Some(writes), ..known() }), "one store from elsewhere");
    assert!(
        counts(Kind::Smc, Evidence { writers: vec![Some(patcher()); 2], ..known() }),
        "on behalf of another function"
    );
    assert!(counts(Kind::Smc, Evidence { writers: vec![None; 2], ..known() }), "on nobody's behalf");
    let mut unnamed = known();
    unnamed.linear = Linear(unnamed.linear.0 ^ 1 << 46);
    assert!(counts(Kind::Smc, unnamed), "no name");
}

/// Each part of a cause tells groups apart, and what does not count leads none.
#[test]
fn groups_have_one_cause() {
    let run = Run::new(&[], "kind:alias mine\n");
    let base = || evidence(Kind::Stale);
    let linear = at("patched", 0x20);
    let near = || Evidence { linear, physical: Some(phys(linear)), ..base() };
    let far = at("patched", 0x1010);
    let mut writes = base().writes.unwrap();
    writes[0].pc = Some(at("memcpy_orig", 4));
    let others = [
        (Kind::Torn, near()),
        (Kind::Stale, Evidence { linear: far, physical: Some(phys(far)), ..base() }),
        (Kind::Stale, Evidence { writes: Some(writes), ..near() }),
        (Kind::Stale, Evidence { writers: vec![None], ..near() }),
        (Kind::Stale, Evidence { marker: 1, ..near() }),
        (Kind::Stale, unwatched(near())),
    ];
    for (kind, other) in others {
        let mut findings = Findings::default();
        findings.add(Kind::Stale, base(), &run.report());
        assert!(findings.add(kind, other, &run.report()).unwrap().leads, "{kind}");
        assert_eq!(findings.groups().count(), 2);
    }
    let mut findings = Findings::default();
    findings.add(Kind::Stale, unwatched(base()), &run.report());
    assert!(findings.add(Kind::Stale, unwatched(near()), &run.report()).unwrap().is_one_more(), "one function");
    let linear = at("target", 0);
    let elsewhere = Evidence { linear, physical: Some(phys(linear)), ..unwatched(base()) };
    assert!(
        findings.add(Kind::Stale, elsewhere, &run.report()).unwrap().leads,
        "another one, in the same page, and nobody knows who wrote"
    );
    let mut findings = Findings::default();
    findings.add(Kind::Alias, base(), &run.report());
    findings.add(Kind::Emulator, base(), &run.report());
    assert!(findings.add(Kind::Stale, base(), &run.report()).unwrap().leads, "the suppressed one does not");
    let mut from_elsewhere_in_it = near();
    from_elsewhere_in_it.writes.as_mut().unwrap()[0].pc = Some(at("__text_poke", 0x60));
    assert!(findings.add(Kind::Stale, from_elsewhere_in_it, &run.report()).unwrap().is_one_more());
    assert_eq!((findings.groups().count(), findings.to_blame()), (1, 2));
}
