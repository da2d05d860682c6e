//! What the plugin notes of a store is what memory holds after it: for every form of a store that the decoder knows.
//!
//! One boot runs all of them on a page that holds code. The recording says what was noted of each, the guest shows what
//! it reads there afterwards. Forms that TCG does not have, or whose stores are not told of, are lists in [`expected`]:
//! a form that moves from one list to another fails.

mod expected;
mod forms;
mod guest;

use crate::lab::{Lab, Qemu};
use crate::machine::{Machine, SOON};
use expected::Outcome;
use forms::Form;
use guest::{DATA, ENDED, NONE, RECORD, SHOWN, pattern};
use iced_x86::Code;
use icsan_model::event::{Event, Store};
use icsan_recording::{Reader, Record};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::BufReader;

/// What was seen of one form.
#[derive(Debug, Default)]
struct Seen {
    /// The exception, or [`NONE`].
    vector: u8,
    /// The data as the guest read them.
    memory: Vec<u8>,
    /// The data as they were noted.
    noted: Vec<u8>,
    /// Were changes noted as stores of the form's own instruction, and of nobody?
    told: bool,
    unseen: bool,
}

impl Seen {
    fn outcome(&self) -> Outcome {
        match (self.vector, self.told, self.unseen) {
            (NONE, true, false) => Outcome::Told,
            (NONE, true, true) => Outcome::PartlyTold,
            (NONE, false, true) => Outcome::Untold,
            (NONE, false, false) => Outcome::Unchanged,
            (6, ..) => Outcome::Undefined,
            (vector, ..) => Outcome::Fault(vector),
        }
    }
}

fn all_forms() -> Vec<Form> {
    [32, 64].into_iter().flat_map(|bits| forms::forms(bits, DATA).0).collect()
}

/// Boots the guest, and says what was seen of each form.
fn boot(lab: &Lab, qemu: &Qemu, vcpus: &str, forms: &[Form]) -> Vec<Seen> {
    let guest = guest::assemble(forms);
    let machine =
        Machine::pc_with(lab, qemu, &["-accel", "tcg,thread=multi", "-smp", vcpus]).report().keys("check=stores");
    let (image, console, recording) = (machine.file("image"), machine.file("console"), machine.file("recording"));
    std::fs::write(&image, &guest.image).unwrap();
    let file = format!("file:{}", console.display());
    let machine = machine.path_key("record", &recording).arguments(&["-debugcon", &file]);
    let mut running = machine.arguments(&[std::ffi::OsStr::new("-kernel"), image.as_os_str()]).launch();
    assert_eq!(running.exit_code(SOON), 0, "{}", running.outputs());
    let shown = std::fs::read(&console).unwrap();
    let shown: Vec<_> = shown[shown.len().saturating_sub(forms.len() * RECORD)..].chunks(RECORD).collect();
    assert_eq!(shown.len(), forms.len(), "{}", running.outputs());
    let summary = running.report().summary.unwrap();
    assert_eq!(summary["checked"]["untrue"], 0, "{}", running.outputs());
    assert!(summary["checked"]["code"].as_u64().unwrap() > forms.len() as u64, "{summary}");
    let mut seen: Vec<Seen> = Vec::new();
    let mut known: Vec<u8> = vec![0; SHOWN];
    let (mut told, mut unseen) = (false, false);
    for record in Reader::new(BufReader::new(File::open(&recording).unwrap())).unwrap() {
        let (phys, bytes, by) = match record.unwrap() {
            Record::Event(Event::Store(Store { phys, bytes, pc, .. })) => (phys.0, bytes, Some(pc)),
            Record::Event(Event::Contents { phys, bytes }) => (phys.0, bytes, None),
            _ => continue,
        };
        let mut changes = false;
        for (at, byte) in (phys..).zip(bytes) {
            if let Some(known) = at.checked_sub(DATA).and_then(|at| known.get_mut(at as usize)) {
                changes |= *known != byte;
                *known = byte;
            }
        }
        let Some(pc) = by else { continue };
        let index = seen.len();
        if phys == ENDED && pc.is_some_and(|pc| guest.enders.contains(&pc.0)) {
            let [vector, memory @ ..] = shown[index] else { panic!("an empty record") };
            seen.push(Seen { vector: *vector, memory: memory.to_vec(), noted: known.clone(), told, unseen });
            (told, unseen) = (false, false);
        } else if pc.map(|pc| pc.0) == guest.addresses.get(index).copied() {
            told |= changes;
        } else if pc.is_none() {
            unseen |= changes;
        }
    }
    assert_eq!(seen.len(), forms.len(), "{}", running.outputs());
    seen
}

#[test]
fn what_is_noted_is_what_memory_holds() {
    let lab = Lab::open();
    let forms = all_forms();
    for qemu in &lab.qemus {
        for vcpus in ["1", "2"] {
            let seen = boot(&lab, qemu, vcpus, &forms);
            let mut wrong = Vec::new();
            let mut outcomes: BTreeMap<Outcome, usize> = BTreeMap::new();
            for (form, seen) in forms.iter().zip(&seen) {
                let outcome = seen.outcome();
                *outcomes.entry(outcome).or_default() += 1;
                let is_expected = outcome == expected::outcome(form, qemu.api);
                if seen.memory != seen.noted || !is_expected {
                    let differs = (0..SHOWN).find(|at| seen.memory[*at] != seen.noted[*at]);
                    wrong.push(format!(
                        "{} {}: {outcome:?}; memory differs from what is noted at {differs:?}",
                        form.bits, form.name
                    ));
                }
            }
            println!("QEMU {}, {vcpus} vCPUs: {} forms: {outcomes:?}", qemu.version, forms.len());
            assert!(
                wrong.is_empty(),
                "QEMU {}, {vcpus} vCPUs: {} are wrong:\n{}",
                qemu.version,
                wrong.len(),
                wrong.join("\n")
            );
            assert!(outcomes[&Outcome::Told] > 300, "{outcomes:?}");
        }
    }
}

/// The forms are all that there are: each instruction of the decoder that exists in 32-bit or 64-bit code was met while
/// they were looked for.
#[test]
fn every_instruction_of_the_decoder_is_met() {
    let seen: BTreeMap<u32, BTreeSet<Code>> = [32, 64].map(|bits| (bits, forms::forms(bits, DATA).1)).into();
    let mut missing = Vec::new();
    for code in Code::values() {
        let info = code.op_code();
        // Those with a WAIT before them are decoded as two.
        let ordinary =
            info.is_instruction() && info.decoder_option() == 0 && !info.fwait() && (info.mode32() || info.mode64());
        if ordinary && !seen.values().any(|seen| seen.contains(&code)) && !expected::NOT_MET.contains(&code) {
            missing.push(code);
        }
    }
    assert!(missing.is_empty(), "{missing:?}");
    assert!(seen.values().all(|seen| seen.len() > 3000), "{:?}", seen.values().map(BTreeSet::len).collect::<Vec<_>>());
    assert!((0..SHOWN).all(|at| pattern(at) != pattern(at + 1)), "a byte that moves shows");
}
