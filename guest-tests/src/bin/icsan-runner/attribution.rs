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
use icsan_guest_tests::table::{Functions, MODULES_FOLDER, Protocol, Scenario};
use icsan_guest_tests::verdict::{Kind, Mode, Verdict};
use icsan_symbols::{SymbolTable, elf};
use std::fs;
use std::path::Path;

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
pub struct ModuleText(SymbolTable);

impl ModuleText {
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
pub fn name_places(report: &mut Report, module: &ModuleText, text: u64) {
    for hazard in &mut report.hazards {
        hazard.symbol = hazard.symbol.take().or_else(|| module.name(hazard.pc, text));
        for store in &mut hazard.stores {
            store.symbol = store.symbol.take().or_else(|| module.name(store.pc, text));
        }
    }
}

/// What is wrong with the functions that a report names. The light mode names no storing function, and no protocol.
pub fn fault(row: &Scenario, verdict: Verdict, hazards: &[&Hazard], mode: Mode) -> Option<String> {
    let Verdict::Reported(kind) = verdict else { return None };
    let functions = row.functions.and_then(|functions| fault_of_functions(functions, kind, hazards, mode));
    functions.or_else(|| fault_of_protocol(row.protocol?, hazards, mode))
}

fn fault_of_functions(functions: Functions, kind: Kind, hazards: &[&Hazard], mode: Mode) -> Option<String> {
    let Functions { executes, stores } = functions;
    let is = |glob: &str, symbol: &Option<String>| symbol.as_deref().is_some_and(|symbol| matches_any(glob, symbol));
    let name = |symbol: &Option<String>, pc: u64| symbol.clone().unwrap_or_else(|| format!("{pc:#x}"));
    if let Some(other) = hazards.iter().find(|hazard| !is(executes, &hazard.symbol)) {
        return Some(format!("should be executed in {executes}, but is in {}", name(&other.symbol, other.pc)));
    }
    let mut named =
        hazards.iter().filter(|hazard| hazard.kind == kind && kind != Kind::Emulator).flat_map(|hazard| &hazard.stores);
    if let Some(other) = named.clone().find(|store| !is(stores, &store.symbol)) {
        return Some(format!("should be stored in {stores}, but is in {}", name(&other.symbol, other.pc)));
    }
    (mode == Mode::Full && named.next().is_none())
        .then(|| format!("should be stored in {stores}, but no store is named"))
}

fn fault_of_protocol(protocol: Protocol, hazards: &[&Hazard], mode: Mode) -> Option<String> {
    let Protocol { function, least } = protocol;
    let named = |hazard: &&&Hazard| hazard.protocol.as_deref().is_some_and(|name| matches_any(function, name));
    let count: u64 = hazards.iter().filter(named).map(|hazard| hazard.count).sum();
    (mode == Mode::Full && count < least)
        .then(|| format!("{function} should be unsynced {least} times at least, but is {count} times"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Place;
    use icsan_guest_tests::arch::registry::{DEFAULT, KNOWN};
    use icsan_guest_tests::marker::Marker;
    use icsan_guest_tests::table::by_name;

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

    fn row(name: &str) -> &'static Scenario {
        by_name(DEFAULT.table, name).unwrap()
    }

    #[test]
    fn functions_are_checked() {
        const TARGET: &str = "icsan_patcher:icsan_target_quad+0x14/0x1e";
        let reported = Verdict::Reported(Kind::Unserialized);
        let said = |hazard: &Hazard, mode| fault(row("module/no-ipi"), reported, &[hazard], mode);
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
        assert_eq!(fault(row("module/no-ipi"), Verdict::Silent, &[], Mode::Full), None);
        assert_eq!(fault(row("cross/imm8"), reported, &[&hazard("main+0x1/0x2", &[])], Mode::Full), None);
    }

    #[test]
    fn every_commit_of_a_broken_protocol_must_be_told_of() {
        let unsynced = Verdict::Reported(Kind::Unsynced);
        let said = |protocol: &str, count, mode| {
            let mut told = hazard("schedule+0x1/0x2", &[]);
            (told.protocol, told.count) = (Some(protocol.into()), count);
            fault(row("coverage/empty-ipi"), unsynced, &[&told, &told], mode)
        };
        assert_eq!(said("text_poke_bp_batch", 20, Mode::Full), None);
        assert!(said("text_poke_bp_batch", 19, Mode::Full).unwrap().ends_with("is 38 times"));
        assert!(said("arch_arm_kprobe", 100, Mode::Full).unwrap().ends_with("is 0 times"));
        assert_eq!(said("arch_arm_kprobe", 100, Mode::Light), None);
    }

    #[test]
    fn every_reported_row_of_the_module_names_its_functions() {
        for known in KNOWN {
            let rows = known.table.iter().filter(|row| row.name.starts_with("module/"));
            for row in rows {
                let reported = |profile| matches!(row.verdict(Mode::Full, profile), Verdict::Reported(_));
                assert_eq!(
                    known.profiles.iter().any(|profile| reported(*profile)),
                    row.functions.is_some(),
                    "{}",
                    row.name
                );
            }
        }
    }
}
