//! Who executed and who stored, by function: for the rows of the module that patches itself, whose functions are known.
//!
//! A kernel image's symbols do not cover modules, so the guest says where it loaded the module, and the file that it
//! loaded says what is there.

use crate::arguments::Named;
use crate::report::{Hazard, Report};
use anyhow::{Context, Result};
use icsan_guest_tests::glob::matches_any;
use icsan_guest_tests::host::initramfs::GuestFile;
use icsan_guest_tests::patcher::NAME;
use icsan_guest_tests::table::MODULES_FOLDER;
use icsan_guest_tests::verdict::{Kind, Mode, Verdict};
use icsan_symbols::{SymbolTable, elf};
use std::fs;
use std::path::Path;

/// The kernel's own copying, on behalf of text_poke().
const TEXT_POKE: &str = "memcpy*,__memcpy*,text_poke_memcpy*,__text_poke*";
const QUAD: &str = "icsan_patcher:icsan_target_quad+*";
const CHUNK: &str = "icsan_patcher:icsan_target_chunk+*";
const OPERAND: &str = "icsan_patcher:icsan_write_operand+*";
const BYTES: &str = "icsan_patcher:icsan_write_bytes+*";

/// Scenario, executing function, storing function.
const EXPECTED: &[(&str, &str, &str)] = &[
    ("module/good-own", CHUNK, TEXT_POKE),
    ("module/no-ipi", QUAD, TEXT_POKE),
    ("module/ipi-no-sync", QUAD, OPERAND),
    ("module/no-int3", CHUNK, BYTES),
    ("module/wrong-order", CHUNK, BYTES),
    ("module/direct-map", QUAD, OPERAND),
    ("module/direct-map-cross", QUAD, OPERAND),
];

/// The module, for a guest.
///
/// # Errors
/// It cannot be read.
pub fn guest_file(module: &Named) -> Result<GuestFile> {
    let data = fs::read(&module.path).with_context(|| format!("cannot read {}", module.path.display()))?;
    Ok(GuestFile { path: format!("{MODULES_FOLDER}/{NAME}.ko"), data })
}

/// The functions of the module's text, by their distance from its start.
#[derive(Debug)]
pub struct Functions(SymbolTable);

impl Functions {
    /// Reads them from the module.
    ///
    /// # Errors
    /// It cannot be read, or is no module with symbols.
    pub fn read(path: &Path) -> Result<Self> {
        let data = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self(elf::parse_section(&data, ".text").with_context(|| path.display().to_string())?))
    }

    fn name(&self, pc: u64, text: u64) -> Option<String> {
        Some(format!("{NAME}:{}", self.0.resolve(pc.checked_sub(text)?)?))
    }
}

/// Names what has no name yet, given where the module's text is.
pub fn name_places(report: &mut Report, functions: &Functions, text: u64) {
    for hazard in &mut report.hazards {
        hazard.symbol = hazard.symbol.take().or_else(|| functions.name(hazard.pc, text));
        for store in &mut hazard.stores {
            store.symbol = store.symbol.take().or_else(|| functions.name(store.pc, text));
        }
    }
}

/// What is wrong with the functions that a report names. The light mode names no storing function.
pub fn fault(scenario: &str, verdict: Verdict, hazards: &[&Hazard], mode: Mode) -> Option<String> {
    let Verdict::Reported(kind) = verdict else { return None };
    let (_, executor, writer) = EXPECTED.iter().find(|(name, ..)| *name == scenario)?;
    let is = |glob: &str, symbol: &Option<String>| symbol.as_deref().is_some_and(|symbol| matches_any(glob, symbol));
    let name = |symbol: &Option<String>, pc: u64| symbol.clone().unwrap_or_else(|| format!("{pc:#x}"));
    if let Some(other) = hazards.iter().find(|hazard| !is(executor, &hazard.symbol)) {
        return Some(format!("should be executed in {executor}, but is in {}", name(&other.symbol, other.pc)));
    }
    let mut stores =
        hazards.iter().filter(|hazard| hazard.kind == kind && kind != Kind::Emulator).flat_map(|hazard| &hazard.stores);
    if let Some(other) = stores.clone().find(|store| !is(writer, &store.symbol)) {
        return Some(format!("should be stored in {writer}, but is in {}", name(&other.symbol, other.pc)));
    }
    (mode == Mode::Full && stores.next().is_none())
        .then(|| format!("should be stored in {writer}, but no store is named"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Place;
    use icsan_guest_tests::marker::Marker;

    fn hazard(symbol: &str, stores: &[&str]) -> Hazard {
        let stores = stores.iter().map(|symbol| Place { pc: 0x1234, symbol: Some((*symbol).into()) }).collect();
        Hazard {
            kind: Kind::Unserialized,
            vcpu: 1,
            pc: 0xffff_ffff_c000_0010,
            symbol: Some(symbol.into()),
            marker: Marker::OUTSIDE,
            count: 1,
            writers: Vec::new(),
            stores,
            known: None,
            breakpoint: false,
            protocol: None,
        }
    }

    #[test]
    fn functions_are_checked() {
        const ROW: &str = "module/no-ipi";
        const TARGET: &str = "icsan_patcher:icsan_target_quad+0x14/0x1e";
        let reported = Verdict::Reported(Kind::Unserialized);
        let said = |hazard: &Hazard, mode| fault(ROW, reported, &[hazard], mode);
        assert_eq!(said(&hazard(TARGET, &[]), Mode::Light), None);
        assert!(said(&hazard(TARGET, &[]), Mode::Full).unwrap().contains("no store"));
        assert_eq!(said(&hazard(TARGET, &["memcpy_orig+0x9/0x100"]), Mode::Full), None);
        assert!(
            said(&hazard(TARGET, &["memcpy_orig+0x9/0x100", "icsan_patcher:executor+0x1/0x2"]), Mode::Full)
                .unwrap()
                .contains("executor")
        );
        assert!(
            said(&hazard("schedule+0x1/0x2", &["memcpy_orig+0x9/0x100"]), Mode::Light).unwrap().contains("schedule")
        );
        assert_eq!(fault(ROW, Verdict::Silent, &[], Mode::Full), None);
        assert_eq!(fault("cross/imm8", reported, &[&hazard("main+0x1/0x2", &[])], Mode::Full), None);
    }

    #[test]
    fn every_reported_row_of_the_module_is_expected() {
        use icsan_guest_tests::table::x86::TABLE;
        use icsan_guest_tests::verdict::x86::PROFILES;
        for row in TABLE.iter().filter(|row| row.name.starts_with("module/")) {
            let reported =
                PROFILES.iter().any(|profile| matches!(row.verdict(Mode::Full, *profile), Verdict::Reported(_)));
            assert_eq!(reported, EXPECTED.iter().any(|(name, ..)| *name == row.name), "{}", row.name);
        }
    }
}
