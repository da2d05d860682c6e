//! Reports as a program reads them: JSON Lines, schema 1. Everything that must hold for every report is checked here.

use serde_json::Value;
use std::collections::BTreeMap;

/// What each object must have.
const START: &[&str] = &["schema", "profile", "arch", "qemu", "api", "vcpus"];
const HAZARD: &[&str] = &[
    "kind",
    "rule",
    "vcpu",
    "pc",
    "symbol",
    "paddr",
    "len",
    "memory",
    "memory_text",
    "candidates",
    "writes",
    "last_sync",
    "count",
    "suppressed",
    "injected",
    "group",
];
const CANDIDATE: &[&str] = &["bytes", "text", "versions"];
const INJECTION: &[&str] = &["injected", "vcpu", "pc", "symbol", "memory", "bytes", "text", "kind", "count", "trail"];
const LAST_SYNC: &[&str] = &["event", "pc", "symbol", "seq"];
const SUMMARY: &[&str] = &[
    "hazards",
    "suppressed",
    "known",
    "groups",
    "exempt",
    "reliance",
    "blocks",
    "serializing",
    "stores",
    "epochs",
    "dropped",
    "complete",
];

/// A report that was read.
#[derive(Clone, PartialEq, Debug)]
pub struct Report {
    /// The first object.
    pub start: Value,
    /// The hazards that the guest is to blame for.
    pub hazards: Vec<Value>,
    /// What was executed instead of what is in memory.
    pub injections: Vec<Value>,
    /// The last object, if the report is whole.
    pub summary: Option<Value>,
}

impl Report {
    /// Reads a report that must be whole.
    pub fn whole(text: &str) -> Self {
        let report = Self::read(text);
        let summary = report.summary.as_ref().unwrap_or_else(|| panic!("the last line is no summary:\n{text}"));
        has(summary, SUMMARY);
        let mut kinds: BTreeMap<&str, u64> = BTreeMap::new();
        let all: Vec<_> = objects(text).into_iter().filter(|object| object["type"] == "hazard").collect();
        // What is suppressed, and what is known and was not asked for, does not count, and so is in no group.
        let counts = |hazard: &&Value| {
            hazard["suppressed"] == false && (hazard["known"].is_null() || !hazard["group"].is_null())
        };
        for hazard in all.iter().filter(counts) {
            *kinds.entry(hazard["kind"].as_str().unwrap()).or_default() += 1;
        }
        assert_eq!(
            summary["hazards"],
            serde_json::to_value(kinds).unwrap(),
            "the summary counts other hazards than it lists:\n{text}"
        );
        let suppressed = all.iter().filter(|hazard| hazard["suppressed"] == true).count();
        assert_eq!(summary["suppressed"], suppressed, "{text}");
        let known = all.iter().filter(|hazard| !hazard["known"].is_null()).count();
        assert_eq!(summary["known"], known, "{text}");
        let of_groups: u64 =
            summary["groups"].as_array().unwrap().iter().map(|group| group["sites"].as_u64().unwrap()).sum();
        let grouped = all.iter().filter(|hazard| !hazard["group"].is_null()).count();
        assert_eq!(of_groups, grouped as u64, "{text}");
        report
    }

    /// Reads a report that may have been cut off between two lines.
    pub fn read(text: &str) -> Self {
        assert!(text.ends_with('\n'), "the last line is not whole:\n{text}");
        let mut objects = objects(text);
        let summary = objects.pop_if(|object| object["type"] == "summary");
        assert!(!objects.is_empty(), "no start:\n{text}");
        let start = objects.remove(0);
        assert_eq!(start["type"], "start", "{text}");
        assert_eq!(start["schema"], 1, "{text}");
        has(&start, START);
        for object in &objects {
            assert!(
                ["hazard", "marker", "injection"].iter().any(|known| object["type"] == *known),
                "what is that? {object}"
            );
        }
        let injections: Vec<_> = objects.iter().filter(|object| object["type"] == "injection").cloned().collect();
        injections.iter().for_each(|injection| has(injection, INJECTION));
        let hazards: Vec<_> =
            objects.into_iter().filter(|object| object["type"] == "hazard" && object["kind"] != "emulator").collect();
        hazards.iter().for_each(check_hazard);
        Self { start, hazards, injections, summary }
    }

    /// The last object.
    pub fn summary(&self) -> &Value {
        self.summary.as_ref().unwrap()
    }

    /// The addresses of the hazards, in their order.
    pub fn sites(&self) -> Vec<&str> {
        self.hazards.iter().map(|hazard| hazard["pc"].as_str().unwrap()).collect()
    }

    /// How often an event was met.
    pub fn events(&self, name: &str) -> u64 {
        self.summary()["serializing"][name].as_u64().unwrap_or(0)
    }
}

fn objects(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| {
            assert!(line.starts_with("{\"type\":\""), "the type comes first: {line}");
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
        })
        .collect()
}

fn check_hazard(hazard: &Value) {
    has(hazard, HAZARD);
    assert!(is_address(&hazard["pc"]), "{hazard}");
    assert!(hazard["paddr"].is_null() || is_address(&hazard["paddr"]), "{hazard}");
    assert!(hazard["vcpu"].is_u64() && hazard["writes"].is_array() && hazard["suppressed"].is_boolean(), "{hazard}");
    assert!(hazard["count"].as_u64().unwrap() >= 1, "{hazard}");
    let memory = hazard["memory"].as_str().unwrap();
    assert_eq!(memory.len() as u64, 2 * hazard["len"].as_u64().unwrap(), "{hazard}");
    assert!(is_hex(memory), "{hazard}");
    let candidates = hazard["candidates"].as_array().unwrap();
    // A protocol that went on without a vCPU is one whether or not that executed anything.
    let executed = hazard["kind"] != "unsynced";
    assert!(candidates.len() > 1 || !executed, "a hazard is an execution with more than one candidate: {hazard}");
    for candidate in candidates {
        has(candidate, CANDIDATE);
        assert!(is_hex(candidate["bytes"].as_str().unwrap()), "{hazard}");
        assert!(candidate["versions"].is_array(), "{hazard}");
    }
    if !hazard["last_sync"].is_null() {
        has(&hazard["last_sync"], LAST_SYNC);
        let no_instruction = hazard["last_sync"]["pc"].is_null()
            && ["reset", "restored"].iter().any(|event| hazard["last_sync"]["event"] == *event);
        assert!(no_instruction || is_address(&hazard["last_sync"]["pc"]), "{hazard}");
    }
}

fn has(object: &Value, fields: &[&str]) {
    for field in fields {
        assert!(object.get(field).is_some(), "no `{field}` in {object}");
    }
}

fn is_address(value: &Value) -> bool {
    value
        .as_str()
        .and_then(|text| text.strip_prefix("0x"))
        .is_some_and(|digits| u64::from_str_radix(digits, 16).is_ok())
}

fn is_hex(text: &str) -> bool {
    text.len().is_multiple_of(2) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
