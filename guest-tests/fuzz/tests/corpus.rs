//! Each target, over its corpus, over cuts and changes of it, and over random bytes: what a fuzzer does for longer.

use icsan_fuzz::{TARGETS, by_name};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long each target is tried.
const TIME: Duration = Duration::from_secs(1);

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let mut paths: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let files: Vec<Vec<u8>> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
    assert!(!files.is_empty(), "{}: no corpus", folder.display());
    assert!(files.iter().all(|file| file.len() <= 16 << 10), "{}: a corpus is small", folder.display());
    files
}

/// A file of the corpus with some bytes changed, cut or doubled; or no file at all.
fn changed(files: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8);
    let range = (any::<prop::sample::Index>(), any::<prop::sample::Index>());
    let change =
        (prop::sample::select(files), changes, range, 0..4u8).prop_map(|(mut file, changes, (from, to), how)| {
            for (place, value) in changes {
                let place = place.index(file.len().max(1));
                if let Some(byte) = file.get_mut(place) {
                    *byte = value;
                }
            }
            let (from, to) = (from.index(file.len() + 1), to.index(file.len() + 1));
            let range = from.min(to)..from.max(to);
            match how {
                0 => file.truncate(range.end),
                1 => drop(file.drain(range)),
                2 => file = [&file[..range.end], &file[range.start..]].concat(),
                _ => {}
            }
            file
        });
    prop_oneof![4 => change, 1 => prop::collection::vec(any::<u8>(), 0..400)]
}

fn run(name: &str) {
    let target = by_name(name).unwrap();
    let files = corpus(name);
    files.iter().for_each(|file| (target.check)(file));
    // A new seed each time; a failure prints the bytes.
    let (mut runner, strategy, start) = (TestRunner::default(), changed(files), Instant::now());
    while start.elapsed() < TIME {
        let bytes = strategy.new_tree(&mut runner).unwrap().current();
        let survived = std::panic::catch_unwind(|| (target.check)(&bytes));
        assert!(survived.is_ok(), "{name}: {}", bytes.escape_ascii());
    }
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test] fn $name() { run(stringify!($name)); })*

        #[test]
        fn every_target_is_tried() {
            assert_eq!(TARGETS.iter().map(|target| target.name).collect::<Vec<_>>(), [$(stringify!($name)),*]);
        }
    };
}

targets! { symbols payload image zboot btf recording records suppressions arguments events }
