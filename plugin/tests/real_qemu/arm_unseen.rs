//! Code that is overwritten by instructions of which QEMU tells no access: DC ZVA and its kind, CPY and SET. Each
//! change is noted with the instruction that made it, and judged as any other.

use crate::arm_code::{Means, ORIGIN, ROUNDS, Round, START, Step, write_image};
use crate::lab::{Lab, Qemu};
use crate::machine::{Guest, Machine, SOON};
use crate::recording::check;
use std::ops::Range;

/// A CPU that needs every step of maintenance, one that needs none, and what each can do.
const CPUS: [(&str, bool, &[Means]); 2] = [
    ("cortex-a72", true, &[Means::Store, Means::ZeroBlock]),
    (
        "max,pauth-impdef=on",
        false,
        &[Means::Store, Means::ZeroBlock, Means::ZeroTaggedBlock, Means::ZeroGranule, Means::Copy, Means::Set],
    ),
];

/// Without a step behind the store; with a barrier; with all but the invalidate; complete.
const STEPS: [&[Step]; 5] = [
    &[],
    &[Step::Barrier],
    &[Step::Barrier, Step::Sync],
    &[Step::Clean, Step::Barrier, Step::Sync],
    &[Step::Clean, Step::Barrier, Step::Invalidate, Step::Barrier, Step::Sync],
];

/// What each of [`STEPS`] is reported as, by a CPU that needs maintenance and by one that does not.
const KINDS: [[Option<&str>; 2]; 5] = [
    [Some("unclean"), Some("unsynchronized")],
    [Some("unclean"), Some("unsynchronized")],
    [Some("unclean"), None],
    [Some("uninvalidated"), None],
    [None, None],
];

fn rounds(means: &[Means]) -> Vec<Round> {
    let of = |means: &Means| STEPS.map(|steps| Round { means: *means, steps, ..ROUNDS[0] });
    means.iter().flat_map(of).collect()
}

fn boot(
    lab: &Lab,
    qemu: &Qemu,
    cpu: &str,
    keys: &str,
    (rounds, translated): (&[Round], bool),
) -> (Guest, Vec<Range<u64>>) {
    let tags: &[&str] = if cpu.starts_with("max") { &["-machine", "mte=on"] } else { &[] };
    let described = Machine::virt(lab, qemu, cpu).arguments(tags).report().keys(keys);
    let image = described.file("image");
    let stores = write_image(&image, rounds, translated);
    let load = format!("loader,file={},addr={ORIGIN:#x},force-raw=on", image.display());
    let begin = format!("loader,addr={START:#x},cpu-num=0");
    let mut guest = described.arguments(&["-device", &load, "-device", &begin]).launch();
    assert_eq!(guest.exit_code(SOON), 0, "{}", guest.outputs());
    (guest, stores)
}

/// The number behind `0x`.
fn address(value: &serde_json::Value) -> u64 {
    let text = value.as_str().unwrap_or_else(|| panic!("no address: {value}"));
    u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap()
}

/// What is reported is what is left out, at the site where it is, and written by that round's own store.
#[test]
fn what_is_stored_without_an_access_is_judged_and_has_its_writer() {
    let lab = Lab::open();
    for qemu in &lab.arm {
        for (cpu, needs, means) in CPUS {
            let rounds = rounds(means);
            for (keys, translated) in
                [("", false), ("", true), ("hooks=off", true), ("hooks=off,emulator=repair", true)]
            {
                let (guest, stores) = boot(&lab, qemu, cpu, keys, (&rounds, translated));
                let how = format!("`{keys}`, translated: {translated}");
                let context = format!("QEMU {}, {cpu}, {how}\n{}", qemu.version, guest.outputs());
                let report = guest.report();
                assert_eq!(report.summary()["complete"], true, "{context}");
                for (place, round) in rounds.iter().enumerate() {
                    let site = format!("{:#x}", Round::site(place));
                    let found: Vec<_> = report.hazards.iter().filter(|hazard| hazard["pc"] == *site).collect();
                    let kinds: Vec<_> = found.iter().map(|hazard| hazard["kind"].as_str().unwrap()).collect();
                    let expected = KINDS[place % STEPS.len()][usize::from(!needs)];
                    assert_eq!(kinds, Vec::from_iter(expected), "{round:?} at {site}; {context}");
                    let writes = found.iter().flat_map(|hazard| hazard["writes"].as_array().unwrap());
                    for write in writes {
                        let pc = &write["pc"];
                        assert!(!pc.is_null() && stores[place].contains(&address(pc)), "{round:?}: {write}; {context}");
                        assert_eq!(write["vcpu"], 0, "{context}");
                    }
                }
                let expected =
                    (0..rounds.len()).filter(|place| KINDS[place % STEPS.len()][usize::from(!needs)].is_some());
                assert_eq!(report.hazards.len(), expected.count(), "{context}");
            }
        }
    }
}

/// The plain model has the same verdicts.
#[test]
fn the_model_agrees_on_stores_without_an_access() {
    let lab = Lab::open();
    for qemu in &lab.arm {
        for (cpu, _, means) in CPUS {
            let (guest, _) = boot(&lab, qemu, cpu, "record=recording", (&rounds(means), true));
            let (agreement, totals) = check(&guest.file("recording"), &guest.outputs());
            let found = guest.report().hazards.len() as u64;
            assert!(found > 0, "{}", guest.outputs());
            assert_eq!((agreement.agreed, totals.hazards), (found, found), "{}", guest.outputs());
        }
    }
}
