//! Where instruction sets are named: in folders of their names, and in the registry.

use icsan_model::arch::registry;
use std::fs;
use std::path::{Path, PathBuf};

/// All source files below a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the sources are there");
    let mut files = Vec::new();
    for path in entries.map(|entry| entry.expect("readable").path()) {
        if path.is_dir() { files.extend(sources(&path)) } else { files.push(path) }
    }
    files
}

/// Lines that name an architecture, with their file's path in the crate's sources.
fn named(words: &[&str]) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    for file in sources(&root) {
        let name = file.strip_prefix(&root).expect("it is below").to_string_lossy().into_owned();
        let text = fs::read_to_string(&file).expect("text");
        let lines = text.lines().filter(|line| words.iter().any(|word| line.to_lowercase().contains(word)));
        found.extend(lines.map(|line| (name.clone(), line.to_owned())));
    }
    found
}

#[test]
fn only_the_registry_and_their_own_folders_name_architectures() {
    let names = [("x86", &["x86", "iret", "cpuid", "0xcc"][..]), ("aarch64", &["aarch64", "arm64", "ctr_el0", "cvau"])];
    for (folder, words) in names {
        let own = format!("arch/{folder}/");
        let found = named(words);
        assert!(found.iter().any(|(file, _)| file.starts_with(&own)), "nothing was looked at");
        let elsewhere = found.iter().filter(|(file, line)| {
            let declares = file == "arch/mod.rs" && *line == format!("pub mod {folder};");
            !file.starts_with(&own) && file != "arch/registry.rs" && !declares
        });
        assert_eq!(elsewhere.collect::<Vec<_>>(), Vec::<&(String, String)>::new());
    }
}

#[test]
fn architectures_are_found_by_their_names() {
    for arch in registry::ALL {
        assert!(registry::by_name(arch.name).is_some_and(|found| std::ptr::eq(found, *arch)));
        assert!(arch.decoder.is_none_or(|decoder| decoder.max_len() == arch.max_instruction));
        for row in arch.rules {
            assert_eq!(arch.source(row.kind), row.sources.first());
            assert_eq!(arch.rules.iter().filter(|other| other.kind == row.kind).count(), 1, "{}", row.kind);
        }
    }
    assert!(registry::by_name("x86-64").is_none());
}
