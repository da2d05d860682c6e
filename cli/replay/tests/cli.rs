//! The program: exit codes and what it prints.

mod common;

use common::{file, header, record};
use icsan_model::addr::{Linear, Phys, Vcpu};
use icsan_model::arch::x86::X86_64;
use icsan_model::event::{Event, Store};
use icsan_recording::Record;
use std::path::PathBuf;
use std::process::{Command, Output};

/// vCPU 0 executes an instruction five times; another vCPU patches it after the first, and vCPU 0 gets an IRET after
/// the third.
fn records() -> Vec<Record> {
    let (vcpu, linear, phys) = (Vcpu(0), Linear(0xffff_ffff_8100_0000), Phys(0x10_0000));
    let fetch = Event::Fetch { vcpu, linear, len: 5 };
    let store = |vcpu, bytes: &[u8]| {
        Event::Store(Store {
            vcpu,
            pc: vcpu.map(|_| Linear(0x111)),
            linear: vcpu.map(|_| Linear(0x222)),
            phys,
            bytes: bytes.to_vec(),
        })
    };
    let iret = Event::Sync { vcpu, event: X86_64.event_by_name("iret").unwrap(), pc: Linear(0x333) };
    let events = [
        store(None, &[0x0f, 0x1f, 0x44, 0, 0, 0x90, 0x90]),
        Event::Remap { vcpu, linear, phys: Some(phys) },
        fetch.clone(),
        store(Some(Vcpu(1)), &[0xe9, 1, 2, 3, 4]),
        fetch.clone(),
        fetch.clone(),
        iret,
        fetch.clone(),
        fetch,
    ];
    record(&header(), &events)
}

struct Run {
    code: i32,
    out: String,
    err: String,
}

fn replay(bytes: &[u8], arguments: &[&str]) -> Run {
    let dir = tempfile::tempdir().unwrap();
    let path: PathBuf = dir.path().join("recording");
    std::fs::write(&path, bytes).unwrap();
    let Output { status, stdout, stderr } =
        Command::new(env!("CARGO_BIN_EXE_icsan-replay")).arg(path).args(arguments).output().unwrap();
    Run {
        code: status.code().unwrap(),
        out: String::from_utf8(stdout).unwrap(),
        err: String::from_utf8(stderr).unwrap(),
    }
}

#[test]
fn hazards_are_counted_by_site() {
    let run = replay(&file(&header(), &records()), &[]);
    assert_eq!(run.code, 0, "{}", run.err);
    for expected in [
        "BUG: ICSAN: unserialized in 0xffffffff81000000 / 0x111\n",
        "vCPU 0 executed 5 bytes at 0xffffffff81000000 (phys 0x100000):\n",
        "  in memory   e9 01 02 03 04  jmp",
        "  may execute 0f 1f 44 00 00  nopl (%rax,%rax)",
        "written by vCPU 1 at 0x111 through 0x222:\n  seq 4  0f 1f 44 00 00 -> e9 01 02 03 04 (5 bytes at phys 0x100000)\n",
        "vCPU 0 has not serialized since it started\n",
        "first at seq 5; 2 times\n",
        "icsan-replay: hazards (distinct sites): unserialized 1; 2 executions; exempt executions 0\n",
        "5 executions, 2 stores, 1 epochs: iret 1\n",
    ] {
        assert!(run.out.contains(expected), "{expected:?} in\n{}", run.out);
    }
    assert_eq!(run.out.matches("BUG: ICSAN").count(), 1);
    assert!(run.err.contains("9 events in"), "{}", run.err);
}

#[test]
fn other_rules_give_other_verdicts() {
    let bytes = file(&header(), &records());
    for (arguments, expected) in [
        (&["--without", "iret"][..], "unserialized 1; 4 executions"),
        (&["--profile", "fred"], "unserialized 1; 4 executions"),
        (&["--profile", "coherent"], "none; 0 executions"),
        (&["--prefetch", "0", "--trace", "0"], "none; 0 executions"),
        (&["--speculation"], "unserialized 1; 2 executions"),
        (
            &["--limit", "0", "--with", "lfence+mfence", "--chunk", "64", "--lookahead", "32", "--trace", "unbounded"],
            "unserialized 1; 2 executions",
        ),
    ] {
        let run = replay(&bytes, arguments);
        assert_eq!(run.code, 0, "{arguments:?}: {}", run.err);
        assert!(run.out.contains(expected), "{arguments:?}: {expected} in\n{}", run.out);
    }
}

#[test]
fn the_check_has_an_exit_code() {
    let mut records = records();
    let run = replay(&file(&header(), &records), &["--check"]);
    assert_eq!(run.code, 0, "{}", run.out);
    assert!(run.out.contains("check passed: 2 verdicts agreed, 3 executions were silent in both"), "{}", run.out);
    let last = records.iter().rposition(|record| matches!(record, Record::Verdict { .. })).unwrap();
    records.remove(last);
    let run = replay(&file(&header(), &records), &["--check"]);
    assert_eq!(run.code, 1);
    assert!(
        run.out.contains("DIFFERENCE at record 7, seq 6: no verdict was recorded\n  model    unserialized: vCPU 0"),
        "{}",
        run.out
    );
    assert!(
        run.out
            .contains("check FAILED: 1 verdicts agreed, 3 executions were silent in both; 1 missing, 0 extra, 0 other"),
        "{}",
        run.out
    );
    let run = replay(&file(&header(), &records), &["--check", "--chunk", "32"]);
    assert_eq!(run.code, 2, "a check is of the recording's own rules");
}

#[test]
fn files_that_are_not_whole() {
    let good = file(&header(), &records());
    let cut = &good[..good.len() - 3];
    let run = replay(cut, &[]);
    assert_eq!(run.code, 0);
    assert!(
        run.out.contains("unserialized 1; 2 executions")
            && run.out.contains("cut off")
            && run.out.contains("not complete"),
        "{}",
        run.out
    );
    assert_eq!(replay(cut, &["--check"]).code, 1, "nothing is proven");
    let mut corrupt = good.clone();
    let len = corrupt.len();
    corrupt[len - 1] ^= 1;
    let run = replay(&corrupt, &["--check"]);
    assert_eq!(run.code, 2);
    assert!(run.out.contains("unserialized 1; 2 executions") && run.out.contains("corrupt"), "{}", run.out);
    for (bytes, arguments, expected) in [
        (&b"hello, world"[..], &[][..], "not a recording"),
        (&good[..20], &[], "cut off after 0 records"),
        (&good, &["--profile", "linux"], "unknown profile `linux`"),
        (&good, &["--with", "cpuit"], "did you mean `cpuid`"),
        (&good, &["--chunk", "12"], "power of two"),
        (&good, &["--prefetch", "many"], "a number or `unbounded`"),
    ] {
        let run = replay(bytes, arguments);
        assert!(run.code == 2 && run.err.contains(expected), "{arguments:?}: {} {}", run.code, run.err);
    }
}

#[test]
fn json_lines() {
    let mut records = records();
    let verdict = records.iter_mut().find(|record| matches!(record, Record::Verdict { .. })).unwrap();
    let Record::Verdict { writes, .. } = verdict else { unreachable!() };
    writes.clear();
    let run = replay(&file(&header(), &records), &["--json", "--check"]);
    assert_eq!(run.code, 1);
    let lines: Vec<serde_json::Value> = run.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(run.out.lines().all(|line| line.starts_with("{\"type\":\"")));
    let types: Vec<_> = lines.iter().map(|line| line["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["start", "hazard", "difference", "summary"]);
    let [start, hazard, difference, summary] = &lines[..] else { unreachable!() };
    assert_eq!((&start["profile"], &start["recorded"]["plugin"]), (&"linux-x86".into(), &"test".into()));
    assert_eq!(
        (&hazard["kind"], &hazard["pc"], &hazard["count"]),
        (&"unserialized".into(), &"0xffffffff81000000".into(), &2.into())
    );
    assert_eq!((&hazard["writes"][0]["vcpu"], &hazard["candidates"][0]["bytes"]), (&1.into(), &"0f1f440000".into()));
    assert_eq!((&difference["what"], &difference["model"]["writes"][0]), (&"other".into(), &4.into()));
    assert_eq!(summary["check"]["agreed"], 1);
    assert_eq!(
        (&summary["check"]["passed"], &summary["complete"], &summary["hazards"]["unserialized"]),
        (&false.into(), &true.into(), &1.into())
    );
}
