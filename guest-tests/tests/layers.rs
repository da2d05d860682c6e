//! Dependencies point one way: no file of a crate imports one that imports it, directly or by others.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The crates that have layers worth keeping.
const CRATES: [&str; 6] = ["model", "plugin", "cli/symbols", "cli/recording", "cli/replay", "guest-tests"];

/// A module's path, by its words.
type Module = Vec<String>;

/// The modules below a folder, each with its source. Tests are not part of the structure.
fn modules(folder: &Path, path: &[String], found: &mut BTreeMap<Module, String>) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        let stem = name.trim_end_matches(".rs").to_owned();
        let module = |last: &str| path.iter().cloned().chain([last.to_owned()]).collect::<Module>();
        if entry.file_type().unwrap().is_dir() {
            if name != "bin" {
                modules(&entry.path(), &module(&name), found);
            }
        } else if name.ends_with(".rs") && !["tests", "fixture", "golden"].contains(&stem.as_str()) {
            let source = std::fs::read_to_string(entry.path()).unwrap();
            let source = source.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned();
            found.insert(if stem == "mod" { path.to_vec() } else { module(&stem) }, source);
        }
    }
}

/// The words of a path that begins here.
fn words(text: &str) -> Module {
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(text.len());
    text[..end].split("::").map(str::to_owned).filter(|word| !word.is_empty()).collect()
}

/// What a module imports, of the same crate.
fn imports(module: &[String], source: &str, all: &BTreeMap<Module, String>) -> BTreeSet<Module> {
    let code: String =
        source.lines().map(|line| line.split("//").next().unwrap_or_default().to_owned() + "\n").collect();
    let mut paths: Vec<Module> =
        code.match_indices("crate::").map(|(at, word)| words(&code[at + word.len()..])).collect();
    let parent = &module[..module.len().saturating_sub(1)];
    for (at, word) in code.match_indices("super::") {
        let rest = &code[at + word.len()..];
        let names: Vec<Module> = match rest.strip_prefix('{') {
            Some(list) => {
                list.split('}').next().unwrap_or_default().split(',').map(|name| words(name.trim())).collect()
            }
            None => vec![words(rest)],
        };
        paths.extend(names.into_iter().map(|name| [parent, &name].concat()));
    }
    let of = |path: &Module| (1..=path.len()).rev().map(|len| path[..len].to_vec()).find(|path| all.contains_key(path));
    paths.iter().filter_map(of).filter(|found| found != module).collect()
}

/// Each module with what it imports.
fn edges(all: &BTreeMap<Module, String>) -> BTreeMap<Module, BTreeSet<Module>> {
    all.iter().map(|(module, source)| (module.clone(), imports(module, source, all))).collect()
}

/// A way from a module back to itself, backwards.
fn circle(from: &Module, edges: &BTreeMap<Module, BTreeSet<Module>>) -> Option<Vec<String>> {
    let mut before: BTreeMap<&Module, &Module> = BTreeMap::new();
    let mut next: Vec<&Module> = vec![from];
    while let Some(at) = next.pop() {
        for to in &edges[at] {
            if to == from {
                let way = std::iter::successors(Some(at), |here| before.get(*here).copied());
                return Some(std::iter::once(from).chain(way).map(|module| module.join("::")).collect());
            }
            if !before.contains_key(to) {
                before.insert(to, at);
                next.push(to);
            }
        }
    }
    None
}

#[test]
fn no_file_imports_itself_by_way_of_others() {
    for name in CRATES {
        let mut all = BTreeMap::new();
        modules(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name).join("src"), &[], &mut all);
        assert!(all.len() > 2, "{name}: {} files", all.len());
        let edges = edges(&all);
        let circles: Vec<_> = all.keys().filter_map(|module| circle(module, &edges)).collect();
        assert!(circles.is_empty(), "{name}: {circles:#?}");
    }
}

#[test]
fn a_circle_is_found() {
    let module = |name: &str, source: &str| (vec![name.to_owned()], source.to_owned());
    let all = BTreeMap::from([
        module("a", "use super::{b, c::X};"),
        module("b", "crate::c::f();"),
        module("c", "// crate::d\nuse crate::a::Y;"),
        module("d", "use crate::a;"),
    ]);
    let edges = edges(&all);
    let found = ["a", "b", "c", "d"].map(|name| circle(&vec![name.to_owned()], &edges).is_some());
    assert_eq!(found, [true, true, true, false]);
}
