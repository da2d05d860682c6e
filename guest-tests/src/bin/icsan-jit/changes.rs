//! What a report says of code in user mode: by kind of hazard, and by what the instruction was and is.

use icsan_guest_tests::arch::registry;
use icsan_guest_tests::verdict::{Kind, Profile};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;

/// Sites of one kind of change.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Sites {
    /// How many.
    sites: usize,
    /// How often they were executed so.
    executions: u64,
    /// One of them: what is in memory, and what may be executed.
    example: (String, String),
}

/// All of a report.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Changes {
    /// By kind, by the instruction in memory, and by that which may be executed.
    by_kind: BTreeMap<(Kind, String, String), Sites>,
    /// Does the plugin say that it hit no bound? If not, why.
    lost: Option<String>,
    /// Was there a summary?
    whole: bool,
}

impl Changes {
    /// Reads a report.
    ///
    /// # Errors
    /// It is cut off, or no report.
    pub fn read(text: &str) -> Result<Self, String> {
        let mut changes = Self::default();
        for line in text.lines() {
            let object: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
            match object["type"].as_str() {
                Some("hazard") if object["context"]["cpl"] == 3 && object["suppressed"] == false => {
                    changes.add(&object)?
                }
                Some("summary") => {
                    changes.whole = true;
                    changes.lost = (object["complete"] != true).then(|| object["dropped_by"].to_string());
                }
                _ => {}
            }
        }
        if changes.whole { Ok(changes) } else { Err("it has no summary".into()) }
    }

    fn add(&mut self, hazard: &Value) -> Result<(), String> {
        let word = hazard["kind"].as_str().unwrap_or_default();
        let kind = Kind::ALL
            .into_iter()
            .find(|kind| kind.to_string() == word)
            .ok_or_else(|| format!("unknown kind {word}"))?;
        // QEMU's own fault.
        if kind == Kind::Emulator {
            return Ok(());
        }
        let text = |value: &Value| value["text"].as_str().unwrap_or("?").to_owned();
        let memory = hazard["memory_text"].as_str().unwrap_or("?").to_owned();
        let others = hazard["candidates"].as_array().into_iter().flatten();
        let other = others.filter(|other| other["kind"] == word).map(text).next().unwrap_or_else(|| "?".into());
        let mnemonic = |text: &str| text.split_whitespace().next().unwrap_or("?").to_owned();
        let sites = self.by_kind.entry((kind, mnemonic(&memory), mnemonic(&other))).or_default();
        sites.sites += 1;
        sites.executions += hazard["count"].as_u64().unwrap_or(0);
        if sites.sites == 1 {
            sites.example = (memory, other);
        }
        Ok(())
    }

    /// What is wrong with them under a profile: what every compiler relies on today serializes by chance or by design,
    /// so all must be silent there. With `reported` there must be some.
    pub fn fault(&self, profile: Profile, reported: bool) -> Option<String> {
        match &self.lost {
            Some(why) => Some(format!("the report says of itself that it is not complete: {why}")),
            None if profile == registry::DEFAULT.linux() && !self.by_kind.is_empty() => {
                Some("should be silent in user mode".into())
            }
            None if reported && self.by_kind.is_empty() => Some("should be reported in user mode".into()),
            None => None,
        }
    }
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.by_kind.is_empty() {
            writeln!(f, "  silent in user mode")?;
        }
        for ((kind, memory, other), Sites { sites, executions, example }) in &self.by_kind {
            writeln!(
                f,
                "  {kind:12} {other} -> {memory}: {sites} sites, {executions} times; {} -> {}",
                example.1, example.0
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use icsan_guest_tests::verdict::x86::{FRED, LINUX_X86};

    fn hazard(kind: &str, cpl: u8) -> String {
        format!(
            r#"{{"type":"hazard","kind":"{kind}","memory_text":"call 0x20","candidates":[{{"text":"call 0x20"}},{{"text":"call 0x10","kind":"{kind}"}}],"context":{{"cpl":{cpl}}},"count":3,"suppressed":false}}"#
        )
    }

    const SUMMARY: &str = r#"{"type":"summary","complete":true}"#;

    #[test]
    fn hazards_of_user_mode_are_grouped() {
        let report = [
            hazard("unserialized", 3),
            hazard("unserialized", 3),
            hazard("torn", 0),
            hazard("emulator", 3),
            SUMMARY.into(),
        ]
        .join("\n");
        let changes = Changes::read(&report).unwrap();
        assert_eq!(changes.to_string(), "  unserialized call -> call: 2 sites, 6 times; call 0x10 -> call 0x20\n");
        assert!(changes.fault(LINUX_X86, false).is_some() && changes.fault(FRED, true).is_none());
    }

    #[test]
    fn a_report_that_is_cut_off_or_incomplete_is_no_verdict() {
        assert!(Changes::read(&hazard("torn", 3)).is_err());
        let lost = Changes::read(r#"{"type":"summary","complete":false,"dropped_by":{"versions":1}}"#).unwrap();
        assert!(lost.fault(FRED, false).unwrap().contains("versions"));
        let silent = Changes::read(SUMMARY).unwrap();
        assert_eq!(silent.fault(LINUX_X86, false), None);
        assert!(silent.fault(FRED, true).is_some());
    }
}
