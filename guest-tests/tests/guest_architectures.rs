//! An architecture is known in folders and files of its name only. What is left elsewhere is listed, with its reason.

use std::collections::BTreeSet;
use std::path::Path;

/// The words of the architectures, as a token of the source begins: names, their instructions, and the board, the
/// console and the system calls of their guests.
const WORDS: [&str; 20] = [
    "x86", "amd64", "x64", "cpuid", "iret", "int3", "rax", "q35", "ttys0", "rdmsr", "sysret", "aarch64", "arm64",
    "isb", "dsb", "movz", "ivau", "cvau", "cortex", "ttyama0",
];

/// The folders and files of an architecture's name.
const OWN: [&str; 4] = ["aarch64", "aarch64.rs", "x86", "x86.rs"];

/// What is an architecture's whichever it is: inline assembly.
const ASSEMBLY: &str = "asm";

/// Opcode bytes that code is made of in the tests.
const OPCODES: [&str; 6] = ["0x0f", "0x90", "0xb8", "0xc3", "0xcc", "0xe9"];

/// What is left: file, words, reason.
const LEFT: &[(&str, &[&str], &str)] = &[
    ("arch/registry.rs", &["aarch64", "x86"], "the list of what there is"),
    ("code/mod.rs", &["aarch64", "x86"], "picks by what the program is built for"),
    ("bin/icsan-guest/main.rs", &["aarch64", "x86"], "picks by what the program is built for"),
    ("bin/icsan-hostile/main.rs", &["x86"], "its guest makes random code, and there is one architecture's so far"),
    ("bin/icsan-interpret/main.rs", &["x86"], "its guest tests an interpreter, and there is one architecture's so far"),
    ("litmus.rs", &["x86"], "picks the tests, of which there are one architecture's so far"),
    ("litmus/explore.rs", &["x86", "cpuid", "iret"], "goes to the model, which has the interpreter that it steps with"),
    ("bin/icsan-bench/machine.rs", &["x86"], "names the kernel's page on the header that it reads the release from"),
    (
        "bin/icsan-runner/explained.rs",
        &["x86", "iret", "int3"],
        "findings of kernels and firmware, each under profiles of its own architecture",
    ),
];

/// The tokens of a source, without its tests: identifiers are cut at underscores.
fn tokens(source: &str) -> BTreeSet<String> {
    let code = source.split("#[cfg(test)]\n").next().unwrap_or_default();
    // To say that there is a folder is not to know what is in it.
    let is_folder = |line: &&str| {
        let named = line.trim_start_matches("pub ").strip_prefix("mod ").and_then(|name| name.strip_suffix(';'));
        named.is_some_and(|name| OWN.contains(&name))
    };
    let lines = code.lines().filter(|line| !is_folder(line));
    let words = |line: &str| -> Vec<String> {
        line.split(|c: char| !c.is_ascii_alphanumeric()).map(str::to_ascii_lowercase).collect()
    };
    lines.flat_map(words).collect()
}

/// Which of an architecture's words a source has.
fn found(source: &str) -> BTreeSet<&'static str> {
    let tokens = tokens(source);
    let begins = |word: &&str| tokens.iter().any(|token| token.starts_with(*word));
    let is = |word: &&str| tokens.contains(*word);
    let words = WORDS.into_iter().filter(begins);
    words.chain(OPCODES.into_iter().filter(is)).chain([ASSEMBLY].into_iter().filter(is)).collect()
}

/// Each file below a folder, but for what is in a folder or a file of an architecture's name, and tests.
fn files(root: &Path, folder: &Path, all: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let (name, path) = (entry.file_name().into_string().unwrap(), entry.path());
        match name.as_str() {
            "tests.rs" => {}
            own if OWN.contains(&own) => {}
            _ if path.is_dir() => files(root, &path, all),
            _ if name.ends_with(".rs") => {
                let shown = path.strip_prefix(root).unwrap().display().to_string();
                all.push((shown, std::fs::read_to_string(&path).unwrap()));
            }
            _ => {}
        }
    }
}

#[test]
fn only_folders_of_its_name_know_an_architecture() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut all = Vec::new();
    files(&root, &root, &mut all);
    assert!(all.len() > 80, "{} files", all.len());
    let mut wrong = Vec::new();
    for (name, source) in &all {
        let left: BTreeSet<&str> =
            LEFT.iter().filter(|(file, ..)| file == name).flat_map(|(_, words, _)| words.iter().copied()).collect();
        let found = found(source);
        wrong.extend(found.difference(&left).map(|word| format!("{name}: {word} is not listed")));
        wrong.extend(left.difference(&found).map(|word| format!("{name}: {word} is not there any more")));
    }
    let stray = |file: &str| !all.iter().any(|(name, _)| name == file);
    wrong.extend(LEFT.iter().filter(|(file, ..)| stray(file)).map(|(file, ..)| format!("{file}: no such file")));
    wrong.sort();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_exception_has_a_reason() {
    let files: BTreeSet<&str> = LEFT.iter().map(|(file, ..)| *file).collect();
    assert_eq!(files.len(), LEFT.len(), "a file stands there twice");
    assert!(LEFT.iter().all(|(_, words, reason)| !words.is_empty() && reason.split(' ').count() > 3));
}

#[test]
fn words_are_found_in_identifiers_and_strings_and_not_in_other_words() {
    assert_eq!(found("use verdict::x86::LINUX_X86;"), BTreeSet::from(["x86"]));
    assert_eq!(
        found("X86Length; iretq; died_of_int3; \"console=ttyS0\""),
        BTreeSet::from(["x86", "iret", "int3", "ttys0"])
    );
    assert_eq!(found("KEEPS_ISB; \"__arm64_sys_\""), BTreeSet::from(["isb", "arm64"]));
    assert_eq!(found("global_asm!(\".byte 0x0F\")"), BTreeSet::from(["asm", "0x0f"]));
    assert_eq!(found("mod aarch64;\npub mod x86;\nlet retired = required;"), BTreeSet::new());
    assert_eq!(found("a\n#[cfg(test)]\npub mod tests {\n cpuid"), BTreeSet::new());
}
