//! What is an architecture's own lies in a folder, or a file, of its name: elsewhere in the plugin and in the crate of
//! symbols no code says a word of it.
//!
//! *Code* is what is compiled outside of tests: comments explain by example, and tests need some architecture to be
//! about, so neither is looked at. Texts for the user are code, too. Words are, of each architecture, its names, its
//! registers, its instructions and events, the bytes of its instructions that are known by heart, and the crate that
//! decodes it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Where no architecture's word may stand.
const SOURCES: [&str; 2] = ["plugin/src", "cli/symbols/src"];

/// How files and folders of an architecture are called, from their beginning.
const NAMES: [&str; 2] = ["x86", "aarch64"];

#[rustfmt::skip]
const WORDS: &[&str] = &[
    "x86", "amd64", "i386", "iced",
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp", "rip", "eflags", "rflags", "gs", "cs",
    "cr0", "cr2", "cr3", "cr4", "efer", "msr", "lstar", "cpl", "pcid", "modrm", "rex",
    "iret", "sysret", "sysexit", "sysenter", "cpuid", "wrmsr", "rdmsr", "int3", "invlpg", "rsm", "syscall64",
    "0x0f", "0x90", "0xc3", "0xcc", "0xcd", "0xcf", "0xe8", "0xe9",
    "aarch64", "arm", "aarch32", "a64",
    "vbar", "ttbr", "sctlr", "tcr", "elr", "esr", "spsr", "cpsr", "pstate", "daif", "nzcv", "ctr", "clidr", "el0", "el1",
    "el2", "x29", "x30", "xzr",
    "isb", "eret", "eretaa", "svc", "hvc", "smc", "brk", "udf", "dsb", "dmb", "tlbi", "wfe", "wfi", "ivau", "ialluis",
    "iallu", "cvau", "civac", "zva", "stxr", "ldxr", "adrp", "movz", "cbz", "tbz", "mrs",
    "0xd503201f", "0xd5033fdf", "0xd65f03c0", "0xd69f03e0",
];

/// What is left: the file, the word, and why it stands there. Each must be needed.
const LEFT: &[(&str, &str, &str)] = &[
    ("plugin/src/arch/mod.rs", "x86", "the folder is a module of this one"),
    ("plugin/src/arch/mod.rs", "aarch64", "the folder is a module of this one"),
    ("plugin/src/arch/registry.rs", "x86", "the registry names what there is"),
    ("plugin/src/arch/registry.rs", "aarch64", "the registry names what there is"),
    ("plugin/src/qemu/mod.rs", "x86", "the folder is a module of this one"),
    ("plugin/src/qemu/mod.rs", "aarch64", "the folder is a module of this one"),
    ("plugin/src/qemu/host/mod.rs", "x86", "the compiler's name of the host, not of a guest, picks a file"),
    ("plugin/src/qemu/host/other.rs", "x86", "the same, and what the user of another host is told"),
    ("plugin/src/report/objects.rs", "cr3", "a name of the report's schema, which stays what it is"),
    ("plugin/src/report/objects.rs", "cpl", "a name of the report's schema, which stays what it is"),
    ("cli/symbols/src/linux/mod.rs", "x86", "the files are modules of this one"),
    ("cli/symbols/src/linux/mod.rs", "aarch64", "the files are modules of this one"),
    ("cli/symbols/src/image/mod.rs", "aarch64", "the file is a module of this one"),
];

/// The files below a folder that belong to no architecture, each with its source.
fn sources(root: &Path, folder: &str, found: &mut BTreeMap<String, String>) {
    for entry in std::fs::read_dir(root.join(folder)).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        let path = format!("{folder}/{name}");
        if NAMES.iter().any(|arch| name.starts_with(arch))
            || ["tests.rs", "fixture.rs", "golden.rs", "golden"].contains(&name.as_str())
        {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            sources(root, &path, found);
        } else if name.ends_with(".rs") {
            let source = std::fs::read_to_string(entry.path()).unwrap();
            found.insert(path, source.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned());
        }
    }
}

/// A line without its comment.
fn code(line: &str) -> &str {
    let (mut in_text, mut escaped, mut before) = (false, false, ' ');
    for (at, char) in line.char_indices() {
        match char {
            _ if escaped => escaped = false,
            '\\' if in_text => escaped = true,
            // A quotation mark within apostrophes is a character, not the beginning of a text.
            '"' if in_text || before != '\'' => in_text = !in_text,
            '/' if !in_text && before == '/' => return &line[..at - 1],
            _ => {}
        }
        before = char;
    }
    line
}

/// The words of a line: identifiers are taken apart at underscores, and where a capital begins a word.
fn words(line: &str) -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    let (mut word, mut before) = (String::new(), ' ');
    for char in line.chars().chain([' ']) {
        let begins = char.is_uppercase() && !before.is_uppercase();
        if (begins || !char.is_alphanumeric()) && !word.is_empty() {
            words.insert(std::mem::take(&mut word));
        }
        if char.is_alphanumeric() {
            word.extend(char.to_lowercase());
        }
        before = char;
    }
    words
}

/// Is it the word, or the word and a number?
fn is(word: &str, known: &str) -> bool {
    word.strip_prefix(known).is_some_and(|rest| rest.chars().all(|char| char.is_ascii_digit()))
}

/// What stands in a source.
fn found_in(source: &str) -> BTreeSet<&'static str> {
    let said: BTreeSet<String> = source.lines().flat_map(|line| words(code(line))).collect();
    WORDS.iter().copied().filter(|known| said.iter().any(|word| is(word, known))).collect()
}

#[test]
fn no_architecture_is_named_outside_of_its_folders() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut all = BTreeMap::new();
    SOURCES.iter().for_each(|folder| sources(&root, folder, &mut all));
    assert!(all.len() > 100, "{} files", all.len());
    let found: BTreeSet<(&str, &str)> = all
        .iter()
        .flat_map(|(path, source)| found_in(source).into_iter().map(move |word| (path.as_str(), word)))
        .collect();
    let left: BTreeSet<(&str, &str)> = LEFT.iter().map(|(path, word, _)| (*path, *word)).collect();
    let new: Vec<_> = found.difference(&left).collect();
    assert!(new.is_empty(), "not in a folder of its name, and not in the list: {new:#?}");
    let gone: Vec<_> = left.difference(&found).collect();
    assert!(gone.is_empty(), "in the list, and not needed any more: {gone:#?}");
    assert!(left.len() == LEFT.len() && LEFT.iter().all(|(_, _, why)| why.len() > 20), "each once, with its reason");
}

#[test]
fn words_are_found_in_code_and_not_in_comments() {
    for (line, expected) in [
        ("use icsan_model::arch::x86::X86_64; // iret", &["x86"][..]),
        ("let flags = handles.eflags(cpu)?;", &["eflags"]),
        ("Form::MovCr3 { register } | Form::Iret64 => X86Length,", &["cr3", "iret", "x86"]),
        ("const BREAKPOINT: u8 = 0xcc;", &["0xcc"]),
        ("say(\"give // CPUID\");", &["cpuid"]),
        ("    /// RIP, and `cpuid`", &[]),
        ("let ripe = args.first(); // gs", &[]),
        ("registers.ttbr0_el1, Arm64Linux", &["arm", "el1", "ttbr"]),
        ("charm(alarm, 0xd503201f); // ISB", &["0xd503201f"]),
    ] {
        let found: Vec<&str> = found_in(line).into_iter().collect();
        assert_eq!(found, expected, "{line}");
    }
}
