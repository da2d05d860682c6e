//! `inject=` on AArch64: an older instruction does what QEMU does of it where it stands in memory.

use crate::arm_forms::{Case, NOTED, ORIGIN, START, cases, image};
use crate::lab::Lab;
use crate::machine::{Guest, Machine, SOON};

/// A CPU whose caches need no maintenance: a store is enough for an older instruction.
const CPU: &str = "max,pauth-impdef=on";

/// What the guest noted of each case: as it stood in memory, and as it did not.
fn run(lab: &Lab, keys: &str, cases: &[Case]) -> (Vec<[Vec<u64>; 2]>, Guest) {
    let qemu = lab.arm.iter().find(|qemu| qemu.api >= 6).unwrap();
    let machine = Machine::virt(lab, qemu, CPU).report().keys(keys);
    let mut guest = machine.words(&image(cases), ORIGIN, START).launch();
    assert_eq!(guest.exit_code(SOON), 0, "{}", guest.outputs());
    let numbers: Vec<u64> = guest.serial().lines().map(|line| u64::from_str_radix(line, 16).unwrap()).collect();
    let pairs = numbers.chunks_exact(2 * NOTED).map(|pair| [pair[..NOTED].to_vec(), pair[NOTED..].to_vec()]);
    let pairs: Vec<_> = pairs.collect();
    assert_eq!(pairs.len(), cases.len(), "{}", guest.outputs());
    (pairs, guest)
}

#[test]
fn what_is_carried_out_is_what_qemu_does() {
    let lab = Lab::open();
    let cases = cases();
    let (noted, guest) = run(&lab, "inject=stale", &cases);
    let wrong: Vec<String> = cases
        .iter()
        .zip(&noted)
        .filter(|(_, [memory, injected])| memory != injected)
        .map(|(case, noted)| format!("{:08x}: {case:x?}\n{noted:x?}\n", case.word))
        .collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    let report = guest.report();
    let injected = &report.summary()["injected"];
    assert_eq!(injected["executions"].as_u64(), Some(cases.len() as u64), "{injected}");
    assert_eq!(injected["not_carried_out"], 0, "{injected}");
    // Each of the three ways out was taken.
    let ways = |way: u64| noted.iter().filter(|[memory, _]| memory[33] == way).count();
    assert!([0, 1, 2].map(ways).iter().all(|count| *count >= 20), "{:?}", [0, 1, 2].map(ways));
}

/// Without it the second execution is that of the word in memory, an exception: the comparison can fail.
#[test]
fn without_it_memory_is_executed() {
    const EC_BRK: u64 = 0x3c;
    let lab = Lab::open();
    let cases = cases();
    let (noted, _) = run(&lab, "inject=off", &cases);
    for (case, [memory, second]) in cases.iter().zip(&noted) {
        assert_eq!((second[33], second[35]), (2, EC_BRK << 26 | 1 << 25 | 0xdead), "{case:x?}");
        assert_ne!(memory, second, "{case:x?}");
    }
}
