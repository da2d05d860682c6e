//! Real kernel images against what the kernels themselves say: `ICSAN_KERNELS` names the images, and beside each lies
//! `PATH.kallsyms`, a copy of that kernel's `/proc/kallsyms` taken as root with `nokaslr`. All names, types and
//! addresses are compared. Built with the feature `proc-kallsyms` only, since no script makes those copies.

mod common;

use std::fs;
use std::path::Path;

use common::real::kernels;
use icsan_symbols::SymbolTable;

#[test]
fn every_kernel_agrees_with_its_own_proc_kallsyms() {
    for path in kernels() {
        let truth = format!("{}.kallsyms", path.display());
        compare(&path, &fs::read_to_string(&truth).unwrap_or_else(|error| panic!("{truth}: {error}")));
    }
}

fn compare(path: &Path, truth: &str) {
    let table = SymbolTable::load(path).unwrap();
    let ours: Vec<(u64, char, String)> = table.symbols().map(|s| (s.addr, s.kind, s.name.to_owned())).collect();
    let theirs: Vec<(u64, char, String)> = truth
        .lines()
        .filter(|line| !line.contains('['))
        .map(|line| {
            let mut words = line.split_ascii_whitespace();
            let addr = u64::from_str_radix(words.next().unwrap(), 16).unwrap();
            let kind = words.next().unwrap().chars().next().unwrap();
            (addr, kind, words.next().unwrap().to_owned())
        })
        .collect();
    let differing = ours.iter().zip(&theirs).filter(|(a, b)| a != b).count();
    println!("{}: {} symbols here, {} in /proc/kallsyms, {differing} differ", path.display(), ours.len(), theirs.len());
    if let Some((a, b)) = ours.iter().zip(&theirs).find(|(a, b)| a != b) {
        panic!("{}: {a:x?} here, {b:x?} in /proc/kallsyms", path.display());
    }
    assert_eq!(ours.len(), theirs.len(), "{}", path.display());
}
