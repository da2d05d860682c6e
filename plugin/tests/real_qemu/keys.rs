//! Each key does what spec section 5 says.

use crate::boot_sector::{BootSector, Ending, KIND, LIGHT_KIND, NEW, OLD, SITES};
use crate::lab::{Lab, Qemu};
use crate::machine::{BOOT, Guest, Machine, SOON};
use crate::report::Report;

/// Boots the boot sector with these keys to its end.
fn run(lab: &Lab, qemu: &Qemu, keys: &str) -> (Guest, Report) {
    let mut guest = Machine::pc(lab, qemu).sector(&BootSector::new(Ending::PowerOff)).report().keys(keys).launch();
    assert_eq!(guest.exit_code(SOON), 0, "QEMU {}, `{keys}`\n{}", qemu.version, guest.outputs());
    let report = guest.report();
    assert_eq!(report.summary()["complete"], true, "QEMU {}, `{keys}`\n{}", qemu.version, guest.outputs());
    (guest, report)
}

/// The names of the sites where a report has hazards.
fn sites(report: &Report) -> Vec<&'static str> {
    let sector = BootSector::new(Ending::PowerOff);
    let named = SITES.map(|site| (site.name, sector.address(site.name)));
    report
        .sites()
        .iter()
        .map(|pc| {
            named
                .iter()
                .find(|(_, address)| address == pc)
                .unwrap_or_else(|| panic!("a hazard at {pc}, where no site is"))
                .0
        })
        .collect()
}

#[test]
fn the_hazards_of_the_boot_sector_in_full() {
    let lab = Lab::open();
    for qemu in &lab.qemus {
        let (guest, report) = run(&lab, qemu, "");
        assert_eq!(sites(&report), ["whole", "straddle"], "{}", guest.outputs());
        let start = &report.start;
        assert_eq!((&start["arch"], &start["profile"]), (&"x86_64".into(), &"linux-x86".into()));
        assert_eq!((&start["api"], &start["vcpus"]), (&qemu.api.into(), &2.into()));
        assert!(start["qemu"].as_str().unwrap().contains(qemu.version), "{start}");

        let whole = &report.hazards[0];
        assert_eq!((&whole["kind"], &whole["vcpu"], &whole["count"]), (&KIND.into(), &0.into(), &1.into()));
        assert_eq!(whole["memory"], NEW);
        assert_eq!(whole["memory_text"], "mov $0x22222222,%eax");
        assert_eq!(whole["paddr"], whole["pc"]);
        assert!(whole["symbol"].as_str().unwrap().starts_with("whole+0x0/"), "{whole}");
        assert_eq!(whole["last_sync"]["event"], "iret", "the firmware's, on its way into the boot sector: {whole}");
        assert_eq!((&whole["writer"], &whole["suppressed"]), (&"seen".into(), &false.into()));
        let [write] = whole["writes"].as_array().unwrap().as_slice() else { panic!("one store: {whole}") };
        assert_eq!((&write["vcpu"], &write["old"], &write["new"]), (&0.into(), &"11111111".into(), &"22222222".into()));
        assert!(write["pc"].as_str().unwrap() < whole["pc"].as_str().unwrap(), "{whole}");
        assert!(whole["rule"].as_str().unwrap().starts_with("SDM vol. 3"), "{whole}");

        let summary = report.summary();
        assert_eq!(summary["hazards"], serde_json::json!({ KIND: 1, "torn": 1 }));
        assert_eq!((&summary["suppressed"], &summary["dropped"]), (&0.into(), &0.into()));
        assert!(summary["epochs"].as_u64().unwrap() > 0 && summary["blocks"].as_u64().unwrap() > 1000, "{summary}");
    }
}

/// Without the store side the same sites are found, the kind is not known, and the report says so.
#[test]
fn the_light_mode_finds_the_same_sites() {
    let lab = Lab::open();
    for qemu in &lab.qemus {
        let (guest, report) = run(&lab, qemu, "writers=off");
        assert_eq!(sites(&report), ["whole", "straddle"], "{}", guest.outputs());
        assert!(
            report.hazards.iter().all(|hazard| hazard["kind"] == LIGHT_KIND && hazard["writer"] == "unknown"),
            "{}",
            guest.outputs()
        );
        assert!(report.summary()["reliance"].is_null() && report.start["writers"] == false);
    }
}

/// The instruction as it was first executed has its length of then, in the mode of then: here six bytes of 16-bit code.
#[test]
fn candidates_in_16_bit_code() {
    let lab = Lab::open();
    for qemu in &lab.qemus {
        let (guest, report) = run(&lab, qemu, "");
        let candidates = &report.hazards[0]["candidates"];
        let bytes: Vec<_> =
            candidates.as_array().unwrap().iter().map(|candidate| candidate["bytes"].as_str().unwrap()).collect();
        assert_eq!(bytes, [NEW, OLD], "{}", guest.outputs());
        assert_eq!(candidates[1]["text"], "mov $0x11111111,%eax", "{}", guest.outputs());
    }
}

/// Torn candidates come from instructions that lie in several chunks, and from no others.
#[test]
fn chunk() {
    let lab = Lab::open();
    // For each chunk: candidates at `whole`, 6 bytes from a 16-byte boundary on, and at `straddle`, which has one at
    // its fourth byte (and so none at 4 bytes). That is a boundary of cache lines, too: the store across it is not one,
    // and what stood between its two halves is a version of its own.
    for (chunk, whole, straddle) in
        [("4", 4, 4), ("8", 2, 4), ("16", 2, 4), ("32", 2, 4), ("64", 2, 4), ("128", 2, 3), ("4096", 2, 3)]
    {
        for qemu in &lab.qemus {
            let (guest, report) = run(&lab, qemu, &format!("chunk={chunk}"));
            assert_eq!(report.start["chunk"], chunk.parse::<u64>().unwrap());
            let counts: Vec<_> =
                report.hazards.iter().map(|hazard| hazard["candidates"].as_array().unwrap().len()).collect();
            assert_eq!(counts, [whole, straddle], "QEMU {}, chunk={chunk}\n{}", qemu.version, guest.outputs());
        }
    }
}

#[test]
fn profiles() {
    let lab = Lab::open();
    let cases: [(&str, &[&str]); 6] = [
        ("sdm-strict", &["whole", "straddle"]),
        ("linux-x86", &["whole", "straddle"]),
        // An IRET that does not serialize is a branch all the same, and makes the boot sector's own store visible.
        ("fred", &["whole", "straddle"]),
        // AMD allows one store inside an aligned quadword: that of `whole`, and each half of that of `straddle`, but
        // not both halves.
        ("amd-apm", &["straddle"]),
        ("pti-blind", &["whole", "straddle"]),
        // Every store is snooped at once, and the boot sector's are whole.
        ("coherent", &[]),
    ];
    let mut faults = Vec::new();
    for qemu in &lab.qemus {
        for (profile, expected) in cases {
            let (_, report) = run(&lab, qemu, &format!("profile={profile}"));
            assert_eq!(report.start["profile"], profile);
            let found = sites(&report);
            let exempt = report.summary()["exempt"] == if profile == "amd-apm" { 2 } else { 0 };
            if found != expected || !exempt {
                faults.push(format!(
                    "QEMU {}, profile={profile}: hazards at {found:?}, expected {expected:?}; {}",
                    qemu.version,
                    report.summary()
                ));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// What the boot sector serializes by, taken from the profile and put back.
#[test]
fn with_and_without() {
    let lab = Lab::open();
    // The IRET in the boot sector returns to the next instruction, but in 16-bit code, where the two are not told
    // apart.
    let cases: [(&str, &[&str], &[&str]); 5] = [
        ("without=cpuid", &["whole", "straddle", "synced"], &["cpuid"]),
        ("without=iret", &["whole", "straddle"], &["iret"]),
        ("without=iret+cpuid", &["whole", "straddle", "synced"], &["iret", "cpuid"]),
        ("profile=fred,with=iret", &["whole", "straddle"], &[]),
        // `without` comes after `with`.
        ("with=cpuid,without=cpuid", &["whole", "straddle", "synced"], &["cpuid"]),
    ];
    for qemu in &lab.qemus {
        let (_, usual) = run(&lab, qemu, "");
        assert!(usual.events("cpuid") > 0 && usual.events("iret") > 0, "{}", usual.summary());
        for (keys, expected, gone) in cases {
            let (guest, report) = run(&lab, qemu, keys);
            assert_eq!(sites(&report), expected, "QEMU {}, `{keys}`\n{}", qemu.version, guest.outputs());
            for event in ["cpuid", "iret"] {
                let counted = report.events(event) > 0;
                assert_eq!(
                    counted,
                    !gone.contains(&event),
                    "QEMU {}, `{keys}`, {event}\n{}",
                    qemu.version,
                    guest.outputs()
                );
            }
            for key in ["with", "without"] {
                let given = keys.split(',').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
                let given: Vec<_> = given.map(|list| list.split('+').collect()).unwrap_or_default();
                assert_eq!(report.start[key], serde_json::json!(given), "`{keys}`");
            }
        }
    }
}

/// A suppression file, the kinds and sites that stay, how many are suppressed, and QEMU's exit code with `exitcode=7`.
#[test]
fn suppress_and_exitcode() {
    let lab = Lab::open();
    let by_kind = format!("kind:{KIND} all of that kind\n");
    let cases: [(&str, &[&str], i32); 8] = [
        ("", &["whole", "straddle"], 7),
        ("symbol:whole the first one\n", &["straddle"], 7),
        ("# known\nsymbol:whole the first one\nsymbol:strad* the second one\n", &[], 0),
        (&by_kind, &["straddle"], 7),
        ("kind:* everything\n", &[], 0),
        ("kind:torn all of that kind\n", &["whole"], 7),
        ("kind:alias no such hazard\nsymbol:whol no such symbol\n", &["whole", "straddle"], 7),
        ("symbol:who?e with\ttabs and spaces \n", &["straddle"], 7),
    ];
    for qemu in &lab.qemus {
        for (text, expected, code) in cases {
            let machine =
                Machine::pc(&lab, qemu).sector(&BootSector::new(Ending::PowerOff)).report().keys("exitcode=7");
            let path = machine.file("suppressions");
            std::fs::write(&path, text).unwrap();
            let mut guest = machine.path_key("suppress", &path).launch();
            assert_eq!(guest.exit_code(SOON), code, "QEMU {}, {text:?}\n{}", qemu.version, guest.outputs());
            let report = guest.report();
            let (quiet, loud): (Vec<_>, Vec<_>) =
                report.hazards.iter().partition(|hazard| hazard["suppressed"] == true);
            let loud = Report { hazards: loud.into_iter().cloned().collect(), ..report.clone() };
            assert_eq!(sites(&loud), expected, "QEMU {}, {text:?}\n{}", qemu.version, guest.outputs());
            assert_eq!(quiet.len() + expected.len(), 2, "{}", guest.outputs());
            assert!(
                quiet.iter().all(|hazard| hazard["reason"].as_str().is_some_and(|reason| !reason.is_empty())),
                "{}",
                guest.outputs()
            );
            assert_eq!(
                guest.stderr().matches("BUG: ICSAN: ").count(),
                expected.len(),
                "what is suppressed is not said\n{}",
                guest.outputs()
            );
        }
    }
}

/// `exitcode` replaces QEMU's code however QEMU ends, and only if there was a hazard.
#[test]
fn exitcode() {
    let lab = Lab::open();
    for qemu in &lab.qemus {
        for (keys, code) in [("exitcode=1", 1), ("exitcode=255", 255), ("exitcode=0", 0), ("exitcode=9,stop=first", 0)]
        {
            let mut guest =
                Machine::pc(&lab, qemu).sector(&BootSector::new(Ending::Reset)).report().keys(keys).launch();
            assert_eq!(guest.exit_code(SOON), code, "QEMU {}, `{keys}`\n{}", qemu.version, guest.outputs());
            guest.report();
        }
        let mut guest =
            Machine::pc(&lab, qemu).sector(&BootSector::new(Ending::Spin)).report().keys("exitcode=7").launch();
        guest.wait_for_hazards(2, SOON);
        guest.monitor("quit");
        assert_eq!(guest.exit_code(SOON), 7, "{}", guest.outputs());
        guest.report();
    }
}

#[test]
fn start_and_stop_at_a_programs_symbols() {
    let lab = Lab::open();
    let cases: [(&str, &[&str]); 5] = [
        ("start=first", &["whole", "straddle"]),
        ("start=second", &["straddle"]),
        ("stop=second", &["whole"]),
        ("start=second,stop=third", &["straddle"]),
        ("start=third,without=cpuid", &["synced"]),
    ];
    for qemu in &lab.qemus {
        for (keys, expected) in cases {
            let (guest, report) = run(&lab, qemu, keys);
            assert_eq!(sites(&report), expected, "QEMU {}, `{keys}`\n{}", qemu.version, guest.outputs());
        }
    }
}

/// The kernel patches `memcpy_orig` in `alternative_instructions`, long before `kernel_init`; KASLR moves all three.
#[test]
fn start_and_stop_at_a_kernels_symbols() {
    let lab = Lab::open();
    for qemu in &lab.qemus {
        let machine = |keys| {
            Machine::pc(&lab, qemu).kernel(&lab.kernel_6_1, "").path_key("symbols", &lab.kernel_6_1).report().keys(keys)
        };
        let mut between = machine("start=alternative_instructions,stop=kernel_init").launch();
        between.wait_for_hazards(1, BOOT);
        between.monitor("quit");
        assert_eq!(between.exit_code(BOOT), 0, "{}", between.outputs());
        crate::symbols::assert_boot_hazard(&between, &between.report());

        for (keys, passed) in [
            ("stop=alternative_instructions", "Freeing SMP alternatives memory"),
            ("start=kernel_init", "Kernel panic"),
        ] {
            let mut guest = machine(keys).launch();
            guest.wait_until(passed, BOOT, |guest| guest.serial().contains(passed));
            guest.signal(rustix::process::Signal::TERM);
            assert_eq!(guest.exit_code(BOOT), 0, "{}", guest.outputs());
            let report = guest.report();
            assert_eq!(report.sites(), [""; 0], "QEMU {}, `{keys}`\n{}", qemu.version, guest.outputs());
            assert_eq!(report.summary()["complete"], true, "QEMU {}, `{keys}`\n{}", qemu.version, guest.outputs());
        }
    }
}
