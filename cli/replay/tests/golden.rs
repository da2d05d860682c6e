//! Three recordings of QEMU 11.1, cut to size by `examples/cut.rs`, and what a replay says of them under each profile,
//! byte for byte. `UPDATE_EXPECT=1` writes that.
//!
//! - `sector`: a boot sector that changes its own next instruction, there and back.
//! - `scenarios`: the rows torn/line, int3/no-third-sync and mapping/map-fixed on Debian's 6.12.
//! - `triggers`: kernel/static-keys on the same kernel, which is healthy.

use expect_test::expect_file;
use icsan_recording::Reader;
use icsan_replay::report;
use icsan_replay::session;
use icsan_replay::settings::Settings;
use std::fs::File;
use std::path::Path;

/// So many hazards are shown of each; all are counted.
const SHOWN: usize = 12;

fn replay(recording: &str, settings: &Settings, check: bool) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{recording}.rec.zst"));
    let input = zstd::Decoder::new(File::open(path).unwrap()).unwrap();
    let outcome = session::run(Reader::new(input).unwrap(), settings, check, SHOWN).unwrap();
    let mut text = Vec::new();
    report::print(&mut text, &outcome, SHOWN, false).unwrap();
    String::from_utf8(text).unwrap()
}

fn same(recording: &str) {
    let profile = |name: &str| Settings { profile: Some(name.to_owned()), ..Settings::default() };
    let without = |events: &[&str]| Settings {
        without: events.iter().map(|name| (*name).to_owned()).collect(),
        ..Settings::default()
    };
    let rules = [
        ("own", Settings::default()),
        ("sdm-strict", profile("sdm-strict")),
        ("fred", profile("fred")),
        ("amd-apm", profile("amd-apm")),
        ("coherent", profile("coherent")),
        ("without-iret", without(&["iret", "iret-to-self"])),
    ];
    for (name, settings) in rules {
        let text = replay(recording, &settings, name == "own");
        expect_file![format!("golden/{recording}.{name}.txt")].assert_eq(&text);
    }
}

#[test]
fn a_boot_sector() {
    same("sector");
}

#[test]
fn a_boot_with_scenarios() {
    same("scenarios");
}

#[test]
fn a_boot_with_triggers() {
    same("triggers");
}
