//! Litmus tests of one modified word, as fixed orders of steps: what Arm's published tests for instruction fetches
//! allow is a candidate, and what they forbid is none; each test stands beside the twin that has the missing step.
//!
//! Names are those of herd's catalogue and of Simner et al. (ESOP 2020) where they have one. There a test asks whether
//! an outcome can be reached in any order. Here its stores, maintenance and fetches come in the one order in which the
//! outcome is closest, and the question is whether the old word may still be executed at the last fetch. Steps are
//! instructions as words, told by [`classify`]: what the plugin does.
//!
//! Not here, since the order of events is the order of memory: what needs a store that is still in its PE's buffer
//! (SM.B+isb, SB.RF).

use icsan_model::addr::{Linear, Phys, Vcpu};
use icsan_model::arch::aarch64::AARCH64;
use icsan_model::arch::aarch64::classify::{Effect, classify};
use icsan_model::arch::aarch64::events;
use icsan_model::arch::maintenance::{CacheType, Caches, Maintenance, Needs};
use icsan_model::arch::profile::Profile;
use icsan_model::event::{Event, Store};
use icsan_model::machine::model::Model;
use icsan_model::verdict::kind::Kind;

/// Where the word is, and an alias of it.
const CODE: u64 = 0x4000_0040;
const ALIAS: u64 = 0x7000_0040;

const MOVZ_1: u32 = 0xd280_0020;
const MOVZ_2: u32 = 0xd280_0040;
const B: u32 = 0x1400_0002;
const NOP: u32 = 0xd503_201f;

/// One step of a PE.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// It executes the word.
    Fetch,
    /// It stores the new one, through another address than it is executed by.
    Store,
    /// It executes this instruction, with the word's address as its operand.
    Run(u32),
    /// The same with the address of the next line.
    Next(u32),
    /// It takes an exception: an SVC, an interrupt.
    Exception,
    /// Its SCTLR.C is that from now on.
    Caches(bool),
}

use Step::{Exception, Fetch, Next, Run};

const STORE: Step = Step::Store;
const ISB: Step = Run(0xd503_3fdf);
const ERET: Step = Run(0xd69f_03e0);
const DC: Step = Run(0xd50b_7b20);
const CIVAC: Step = Run(0xd50b_7e20);
const IC: Step = Run(0xd50b_7520);
const IALLUIS: Step = Run(0xd508_711f);
const IALLU: Step = Run(0xd508_751f);
const DSB: Step = Run(0xd503_3b9f);
const DSB_SY: Step = Run(0xd503_3f9f);
const DSB_OSH: Step = Run(0xd503_339f);
const DSB_NSH: Step = Run(0xd503_379f);
const DSB_LD: Step = Run(0xd503_399f);
const DSB_ST: Step = Run(0xd503_3a9f);
const DMB: Step = Run(0xd503_3bbf);
const BR: Step = Run(0xd61f_0000);
const TTBR: Step = Run(0xd518_2000);
const SB: Step = Run(0xd503_30ff);

/// The executor, and the one that stores where that is another one; a third.
const P0: u16 = 0;
const P1: u16 = 1;
const P2: u16 = 2;

/// What a test allows: the kind of hazard that the old word is, or nothing.
type Allows = Option<Kind>;
const FORBIDDEN: Allows = None;
const UNCLEAN: Allows = Some(Kind::Unclean);
const UNINVALIDATED: Allows = Some(Kind::Uninvalidated);
const INCOMPLETE: Allows = Some(Kind::Incomplete);
const UNSYNCHRONIZED: Allows = Some(Kind::Unsynchronized);

struct Machine(Model);

impl Machine {
    fn new(profile: Profile, old: u32) -> Self {
        let decoder = AARCH64.decoder.expect("it needs no other crate");
        let mut machine = Self(Model::new(profile, decoder, 3).expect("a sound profile"));
        let page = |linear: u64| Linear(linear & !0xfff);
        machine.apply(&Event::Contents { phys: Phys(CODE), bytes: old.to_le_bytes().to_vec() });
        machine.apply(&Event::Contents { phys: Phys(CODE + 64), bytes: old.to_le_bytes().to_vec() });
        for vcpu in (0..3).map(Vcpu) {
            for linear in [CODE, ALIAS] {
                let phys = Some(Phys(CODE & !0xfff));
                machine.apply(&Event::Remap { vcpu, linear: page(linear), phys });
            }
        }
        machine
    }

    fn apply(&mut self, event: &Event) -> Allows {
        self.0.apply(event).expect("possible").hazard.map(|hazard| hazard.kind)
    }

    fn step(&mut self, cpu: u16, step: Step, new: u32) -> Allows {
        let (vcpu, pc) = (Vcpu(cpu), Linear(0x9000));
        let run = |word: u32, phys: u64| {
            let class = classify(word);
            let effect = class.effect.map(|effect| match effect {
                Effect::Maintain { operation, .. } => Event::Maintain { vcpu, operation: operation.of(Phys(phys)) },
                Effect::Barrier { domain, accesses } => Event::Barrier { vcpu, domain, accesses },
                Effect::Unseen(store) => panic!("{store:?}: no test has one"),
            });
            let event = class.event.map(|event| Event::Sync { vcpu, event, pc });
            assert!(event.is_some() || effect.is_some(), "{word:#x} does nothing");
            [event, effect].into_iter().flatten().collect::<Vec<_>>()
        };
        let events = match step {
            Step::Fetch => vec![Event::Fetch { vcpu, linear: Linear(CODE), len: 4 }],
            Step::Store => vec![Event::Store(Store {
                vcpu: Some(vcpu),
                pc: Some(pc),
                linear: Some(Linear(ALIAS)),
                phys: Phys(CODE),
                bytes: new.to_le_bytes().to_vec(),
            })],
            Step::Run(word) => run(word, CODE + 8),
            Step::Next(word) => run(word, CODE + 64),
            Step::Exception => vec![Event::Sync { vcpu, event: events::EXCEPTION_ENTRY, pc }],
            Step::Caches(on) => vec![Event::Caches { vcpu, on }],
        };
        events.iter().map(|event| self.apply(event)).last().flatten()
    }
}

/// What may be executed at the last fetch.
fn verdict(profile: Profile, (old, new): (u32, u32), steps: &[(u16, Step)]) -> Allows {
    let mut machine = Machine::new(profile, old);
    let (last, before) = steps.split_last().expect("steps");
    assert!(matches!(last.1, Fetch), "a test ends with a fetch");
    for (cpu, step) in before {
        machine.step(*cpu, *step, new);
    }
    machine.step(last.0, last.1, new)
}

fn profile(name: &str) -> Profile {
    *AARCH64.profile(name).expect("it is there")
}

/// A test: its name, its steps, what it allows on base hardware, with IDC, and with IDC and DIC.
type Row = (&'static str, &'static [(u16, Step)], [Allows; 3]);

const TESTS: &[Row] = &[
    // Self-modifying: one PE.
    ("SM", &[(P0, Fetch), (P0, STORE), (P0, Fetch)], [UNCLEAN, INCOMPLETE, UNSYNCHRONIZED]),
    ("SM+isb", &[(P0, Fetch), (P0, STORE), (P0, ISB), (P0, Fetch)], [UNCLEAN, INCOMPLETE, FORBIDDEN]),
    (
        "SM+cachesync",
        &[(P0, Fetch), (P0, STORE), (P0, DC), (P0, DSB), (P0, IC), (P0, DSB), (P0, Fetch)],
        [UNSYNCHRONIZED; 3],
    ),
    (
        "SM+cachesync-isb",
        &[(P0, Fetch), (P0, STORE), (P0, DC), (P0, DSB), (P0, IC), (P0, DSB), (P0, ISB), (P0, Fetch)],
        [FORBIDDEN; 3],
    ),
    (
        "SM+dc-dmb-ic-dmb-isb",
        &[(P0, Fetch), (P0, STORE), (P0, DC), (P0, DMB), (P0, IC), (P0, DMB), (P0, ISB), (P0, Fetch)],
        [INCOMPLETE, INCOMPLETE, FORBIDDEN],
    ),
    (
        "SM+dc-dsb-iallu-dsb-isb",
        &[(P0, STORE), (P0, DC), (P0, DSB), (P0, IALLU), (P0, DSB), (P0, ISB), (P0, Fetch)],
        [FORBIDDEN; 3],
    ),
    (
        "SM+dc-dsb-ic-dsbnsh-isb",
        &[(P0, STORE), (P0, DC), (P0, DSB), (P0, IC), (P0, DSB_NSH), (P0, ISB), (P0, Fetch)],
        [FORBIDDEN; 3],
    ),
    // The writer is another PE, and leaves out one step after the other.
    (
        "MP.RF+cachesync+ctrl-isb",
        &[(P0, Fetch), (P1, STORE), (P1, DC), (P1, DSB), (P1, IC), (P1, DSB), (P0, ISB), (P0, Fetch)],
        [FORBIDDEN; 3],
    ),
    (
        "MP.RF+cachesync+ctrl",
        &[(P0, Fetch), (P1, STORE), (P1, DC), (P1, DSB), (P1, IC), (P1, DSB), (P0, Fetch)],
        [UNSYNCHRONIZED; 3],
    ),
    (
        "miniJit01, MP.RF+dc-dsb-ic-dsb+addr: not even an indirect branch",
        &[(P0, Fetch), (P1, STORE), (P1, DC), (P1, DSB), (P1, IC), (P1, DSB), (P0, BR), (P0, Fetch)],
        [UNSYNCHRONIZED; 3],
    ),
    (
        "MP.RF+dmb+ctrl-isb, CoRF+ctrl-isb",
        &[(P1, STORE), (P1, DMB), (P0, ISB), (P0, Fetch)],
        [UNCLEAN, INCOMPLETE, FORBIDDEN],
    ),
    (
        "MP.RF+dc+ctrl-isb-isb",
        &[(P1, STORE), (P1, DC), (P0, ISB), (P0, ISB), (P0, Fetch)],
        [INCOMPLETE, INCOMPLETE, FORBIDDEN],
    ),
    (
        "dc only",
        &[(P1, STORE), (P1, DC), (P1, DSB), (P1, DSB), (P0, ISB), (P0, Fetch)],
        [UNINVALIDATED, UNINVALIDATED, FORBIDDEN],
    ),
    (
        "ic only, SM.F+ic",
        &[(P1, STORE), (P1, DSB), (P1, IC), (P1, DSB), (P0, ISB), (P0, Fetch)],
        [UNCLEAN, FORBIDDEN, FORBIDDEN],
    ),
    (
        "no DSB between",
        &[(P1, STORE), (P1, DC), (P1, IC), (P1, DSB), (P0, ISB), (P0, Fetch)],
        [INCOMPLETE, INCOMPLETE, FORBIDDEN],
    ),
    (
        "no DSB behind",
        &[(P1, STORE), (P1, DC), (P1, DSB), (P1, IC), (P0, ISB), (P0, Fetch)],
        [INCOMPLETE, INCOMPLETE, FORBIDDEN],
    ),
    (
        "IC before DC",
        &[(P1, STORE), (P1, IC), (P1, DSB), (P1, DC), (P1, DSB), (P0, ISB), (P0, Fetch)],
        // With IDC the store was not complete when the line was invalidated.
        [UNINVALIDATED, INCOMPLETE, FORBIDDEN],
    ),
    (
        "DC before the store",
        &[(P1, DC), (P1, STORE), (P1, DSB), (P1, IC), (P1, DSB), (P0, ISB), (P0, Fetch)],
        [UNCLEAN, FORBIDDEN, FORBIDDEN],
    ),
    // Domains and types of DSB.
    (
        "MP.RF+dc-dsb-ic-dsbnsh+ctrl-isb",
        &[(P1, STORE), (P1, DC), (P1, DSB), (P1, IC), (P1, DSB_NSH), (P0, ISB), (P0, Fetch)],
        [INCOMPLETE, INCOMPLETE, FORBIDDEN],
    ),
    (
        "a wide one after it",
        &[(P1, STORE), (P1, DC), (P1, DSB), (P1, IC), (P1, DSB_NSH), (P1, DSB), (P0, ISB), (P0, Fetch)],
        [FORBIDDEN; 3],
    ),
    (
        "MP.RF+dc-dsbnsh-ic-dsb+ctrl-isb",
        &[(P1, STORE), (P1, DC), (P1, DSB_NSH), (P1, IC), (P1, DSB), (P0, ISB), (P0, Fetch)],
        [INCOMPLETE, INCOMPLETE, FORBIDDEN],
    ),
    (
        "DSB LD behind",
        &[(P1, STORE), (P1, DC), (P1, DSB), (P1, IC), (P1, DSB_LD), (P0, ISB), (P0, Fetch)],
        [INCOMPLETE, INCOMPLETE, FORBIDDEN],
    ),
    (
        "DSB ST behind",
        &[(P1, STORE), (P1, DC), (P1, DSB), (P1, IC), (P1, DSB_ST), (P0, ISB), (P0, Fetch)],
        [INCOMPLETE, INCOMPLETE, FORBIDDEN],
    ),
    (
        "DSB ST between completes the store, and no clean",
        &[(P1, STORE), (P1, DC), (P1, DSB_ST), (P1, IC), (P1, DSB), (P0, ISB), (P0, Fetch)],
        [INCOMPLETE, FORBIDDEN, FORBIDDEN],
    ),
    (
        "DSB LD between completes nothing",
        &[(P1, STORE), (P1, DC), (P1, DSB_LD), (P1, IC), (P1, DSB), (P0, ISB), (P0, Fetch)],
        [INCOMPLETE, INCOMPLETE, FORBIDDEN],
    ),
    (
        "DSB OSH and SY",
        &[(P1, STORE), (P1, DC), (P1, DSB_OSH), (P1, IC), (P1, DSB_SY), (P0, ISB), (P0, Fetch)],
        [FORBIDDEN; 3],
    ),
    (
        "another PE's DSB",
        &[(P1, STORE), (P1, DC), (P1, DSB), (P1, IC), (P2, DSB), (P0, ISB), (P0, Fetch)],
        [INCOMPLETE, INCOMPLETE, FORBIDDEN],
    ),
    // Other instructions.
    (
        "CIVAC cleans as well",
        &[(P1, STORE), (P1, CIVAC), (P1, DSB), (P1, IC), (P1, DSB), (P0, ISB), (P0, Fetch)],
        [FORBIDDEN; 3],
    ),
    ("IALLUIS", &[(P1, STORE), (P1, DC), (P1, DSB), (P1, IALLUIS), (P1, DSB), (P0, ISB), (P0, Fetch)], [FORBIDDEN; 3]),
    (
        "SB-bnop-cachesyncs3 with a local IALLU: of no use to another PE",
        &[(P1, STORE), (P1, DC), (P1, DSB), (P1, IALLU), (P1, DSB), (P0, ISB), (P0, Fetch)],
        [UNINVALIDATED, UNINVALIDATED, FORBIDDEN],
    ),
    (
        "the executor's own IALLU",
        &[(P1, STORE), (P1, DC), (P1, DSB), (P0, IALLU), (P0, DSB_NSH), (P0, ISB), (P0, Fetch)],
        [FORBIDDEN; 3],
    ),
    (
        "and without a DSB",
        &[(P1, STORE), (P1, DC), (P1, DSB), (P0, IALLU), (P0, ISB), (P0, Fetch)],
        [INCOMPLETE, INCOMPLETE, FORBIDDEN],
    ),
    (
        "DC of the next line",
        &[(P1, STORE), (P1, Next(0xd50b_7b20)), (P1, DSB), (P1, IC), (P1, DSB), (P0, ISB), (P0, Fetch)],
        [UNCLEAN, FORBIDDEN, FORBIDDEN],
    ),
    (
        "IC of the next line",
        &[(P1, STORE), (P1, DC), (P1, DSB), (P1, Next(0xd50b_7520)), (P1, DSB), (P0, ISB), (P0, Fetch)],
        [UNINVALIDATED, UNINVALIDATED, FORBIDDEN],
    ),
    // The steps of several PEs.
    (
        "DC by one PE, IC by another, each with its DSB",
        &[(P1, STORE), (P1, DC), (P1, DSB), (P2, IC), (P2, DSB), (P0, ISB), (P0, Fetch)],
        [FORBIDDEN; 3],
    ),
    (
        "the executor does it itself",
        &[(P0, Fetch), (P1, STORE), (P1, DSB), (P0, DC), (P0, DSB), (P0, IC), (P0, DSB), (P0, ISB), (P0, Fetch)],
        [FORBIDDEN; 3],
    ),
    (
        "WRC.F.RF+po+ctrl-isb: a third PE has executed the new word",
        &[(P1, STORE), (P2, Fetch), (P0, ISB), (P0, Fetch)],
        [UNCLEAN, INCOMPLETE, FORBIDDEN],
    ),
    (
        "CoFF: having executed the new word ends nothing",
        &[(P0, Fetch), (P1, STORE), (P0, Fetch), (P0, Fetch)],
        [UNCLEAN, INCOMPLETE, UNSYNCHRONIZED],
    ),
    ("CoFF-isb", &[(P0, Fetch), (P1, STORE), (P0, Fetch), (P0, ISB), (P0, Fetch)], [UNCLEAN, INCOMPLETE, FORBIDDEN]),
    // What synchronizes, and what does not.
    (
        "SVC-ifetch+eis1",
        &[(P0, Fetch), (P1, STORE), (P1, DC), (P1, DSB), (P1, IC), (P1, DSB), (P0, Exception), (P0, Fetch)],
        [FORBIDDEN; 3],
    ),
    (
        "exception return",
        &[(P0, Fetch), (P1, STORE), (P1, DC), (P1, DSB), (P1, IC), (P1, DSB), (P0, ERET), (P0, Fetch)],
        [FORBIDDEN; 3],
    ),
    (
        "MSR TTBR0_EL1, SB, DSB SY",
        &[
            (P0, Fetch),
            (P1, STORE),
            (P1, DC),
            (P1, DSB),
            (P1, IC),
            (P1, DSB),
            (P0, TTBR),
            (P0, SB),
            (P0, DSB_SY),
            (P0, Fetch),
        ],
        [UNSYNCHRONIZED; 3],
    ),
    (
        "the ISB comes before the last DSB",
        &[(P0, Fetch), (P1, STORE), (P1, DC), (P1, DSB), (P1, IC), (P0, ISB), (P0, Fetch), (P1, DSB), (P0, Fetch)],
        [UNSYNCHRONIZED, UNSYNCHRONIZED, FORBIDDEN],
    ),
    // Caches off.
    (
        "caches off need no clean",
        &[(P1, Step::Caches(false)), (P1, STORE), (P1, DSB), (P1, IC), (P1, DSB), (P0, ISB), (P0, Fetch)],
        [FORBIDDEN; 3],
    ),
    (
        "but they need the rest",
        &[(P1, Step::Caches(false)), (P1, STORE), (P1, DSB), (P0, ISB), (P0, Fetch)],
        [UNINVALIDATED, UNINVALIDATED, FORBIDDEN],
    ),
    (
        "caches on again",
        &[
            (P1, Step::Caches(false)),
            (P1, Step::Caches(true)),
            (P1, STORE),
            (P1, DSB),
            (P1, IC),
            (P1, DSB),
            (P0, ISB),
            (P0, Fetch),
        ],
        [UNCLEAN, FORBIDDEN, FORBIDDEN],
    ),
];

#[test]
fn what_is_allowed_is_a_candidate_and_what_is_forbidden_is_none() {
    for (name, steps, allows) in TESTS {
        for (profile_name, allows) in ["arm64-base", "arm64-idc", "arm64-idc-dic"].into_iter().zip(allows) {
            let found = verdict(profile(profile_name), (MOVZ_1, MOVZ_2), steps);
            assert_eq!(found, *allows, "{name}, {profile_name}");
            // The default goes by the guest's registers.
            let needs = profile(profile_name).caches.incoherent().map_or(Needs::Nothing, |caches| caches.needs);
            let linux = profile("linux-arm64").on(CacheType::of(needs));
            assert_eq!(verdict(linux, (MOVZ_1, MOVZ_2), steps), *allows, "{name}, linux-arm64 with {needs:?}");
        }
        assert_eq!(verdict(profile("coherent"), (MOVZ_1, MOVZ_2), steps), FORBIDDEN, "{name}, coherent");
    }
}

/// Where nobody has told what the guest needs, it is everything.
#[test]
fn an_unknown_guest_needs_everything() {
    for (name, steps, allows) in TESTS {
        assert_eq!(verdict(profile("linux-arm64"), (MOVZ_1, MOVZ_2), steps), allows[0], "{name}");
    }
}

#[test]
fn eis0_and_eos0_leave_the_old_word() {
    let steps = |step| [(P0, Fetch), (P1, STORE), (P1, DC), (P1, DSB), (P1, IC), (P1, DSB), (P0, step), (P0, Fetch)];
    for (event, step) in [("exception-entry", Exception), ("exception-return", ERET), ("isb", ISB)] {
        let without = Profile::select(&AARCH64, Some("arm64-base"), &[], &[event.to_owned()]).unwrap();
        assert_eq!(verdict(without, (MOVZ_1, MOVZ_2), &steps(step)), UNSYNCHRONIZED, "{event}");
        assert_eq!(verdict(profile("arm64-base"), (MOVZ_1, MOVZ_2), &steps(step)), FORBIDDEN, "{event}");
    }
}

/// Both words in the list of B2.2.5: old or new, as the executor likes, until the patch is done.
#[test]
fn listed_instructions_are_exempt_unless_the_profile_is_strict() {
    let steps = &[(P0, Fetch), (P1, STORE), (P0, Fetch)];
    for (old, new) in [(B, NOP), (NOP, 0x9400_0010), (NOP, 0xd420_0000), (0x5400_0020, 0x5400_0041)] {
        for (name, allows) in [("linux-arm64", FORBIDDEN), ("arm64-base", FORBIDDEN), ("arm64-strict", UNCLEAN)] {
            assert_eq!(verdict(profile(name), (old, new), steps), allows, "{old:#x} to {new:#x}, {name}");
        }
    }
    for (old, new) in [(NOP, MOVZ_1), (MOVZ_1, NOP), (NOP, 0xaa1e_03e9), (B, 0x5400_0030)] {
        assert_eq!(verdict(profile("linux-arm64"), (old, new), steps), UNCLEAN, "{old:#x} to {new:#x}");
    }
}

#[test]
fn the_exemption_ends_with_the_commit() {
    let mut machine = Machine::new(profile("linux-arm64"), B);
    machine.step(P0, Fetch, NOP);
    machine.step(P1, STORE, NOP);
    assert_eq!(machine.step(P0, Fetch, NOP), FORBIDDEN);
    let store = machine.0.memory().last_change(Phys(CODE), 4);
    machine.apply(&Event::Commit { stores: vec![store] });
    assert_eq!(machine.step(P0, Fetch, NOP), Some(Kind::Stale));
}

/// Two words of one line: what is not maintained concerns the word that was stored alone.
#[test]
fn a_neighbour_in_the_line_is_none_of_its_business() {
    let mut machine = Machine::new(profile("arm64-base"), MOVZ_1);
    let neighbour = |vcpu| Event::Fetch { vcpu: Vcpu(vcpu), linear: Linear(CODE + 4), len: 4 };
    machine.apply(&Event::Contents { phys: Phys(CODE + 4), bytes: NOP.to_le_bytes().to_vec() });
    machine.apply(&neighbour(P0));
    machine.step(P1, STORE, MOVZ_2);
    assert_eq!(machine.apply(&neighbour(P0)), FORBIDDEN);
    assert_eq!(machine.step(P0, Fetch, MOVZ_2), UNCLEAN);
}

/// A page that is mapped to other contents: its line never held them under that address, but the executor's buffers
/// may.
#[test]
fn a_remapped_page_is_a_modification_and_needs_no_maintenance() {
    for name in ["arm64-base", "arm64-idc-dic"] {
        for synchronized in [false, true] {
            let mut machine = Machine::new(profile(name), MOVZ_1);
            machine.step(P0, Fetch, 0);
            let phys = Phys(0x5000_0000);
            machine.apply(&Event::Contents { phys: phys.offset(0x40), bytes: MOVZ_2.to_le_bytes().to_vec() });
            machine.apply(&Event::Remap { vcpu: Vcpu(P0), linear: Linear(CODE & !0xfff), phys: Some(phys) });
            if synchronized {
                machine.step(P0, ISB, 0);
            }
            let allows = if synchronized { FORBIDDEN } else { UNSYNCHRONIZED };
            assert_eq!(machine.step(P0, Fetch, 0), allows, "{name}, synchronized: {synchronized}");
        }
    }
}

/// The same machine with its three settings. A CPU runs a word; another one stores it; the first does what its
/// architecture asks of it.
#[test]
fn three_settings_of_one_machine() {
    let arm = profile("arm64-base");
    // RISC-V: nothing to clean, and FENCE.I, which is maintenance and synchronization at once, on each hart for itself.
    let fence = events::ISB;
    let riscv = Profile { caches: Caches::Maintained(CacheType::of(Needs::Invalidate)), ..arm };
    // x86: no cache under the buffers.
    let x86 = Profile { caches: Caches::Coherent, ..arm };
    let fence_i = |cpu: u16| {
        let vcpu = Vcpu(cpu);
        [
            Event::Maintain { vcpu, operation: Maintenance::FetchFence },
            Event::Sync { vcpu, event: fence, pc: Linear(0x9000) },
        ]
    };
    let run = |profile: Profile, between: &[Event]| {
        let mut machine = Machine::new(profile, MOVZ_1);
        machine.step(P0, Fetch, 0);
        machine.step(P1, STORE, MOVZ_2);
        for event in between {
            machine.apply(event);
        }
        machine.step(P0, Fetch, 0)
    };
    let serialize = [Event::Sync { vcpu: Vcpu(P0), event: fence, pc: Linear(0x9000) }];
    assert_eq!((run(x86, &[]), run(x86, &serialize)), (Some(Kind::Unserialized), FORBIDDEN));
    assert_eq!((run(arm, &serialize), run(arm, &fence_i(P0)[..1])), (UNCLEAN, UNSYNCHRONIZED));
    assert_eq!(run(riscv, &serialize), INCOMPLETE, "no return from an exception is enough");
    assert_eq!(run(riscv, &fence_i(P1)), INCOMPLETE, "the writer's FENCE.I is the writer's");
    assert_eq!(run(riscv, &fence_i(P0)), FORBIDDEN);
}
