//! Reads ICSAN's report: JSON Lines, from `start` to `summary`.

use icsan_guest_tests::marker::Marker;
use icsan_guest_tests::verdict::Kind;
use serde_json::Value;
use std::collections::BTreeMap;

/// A place in code.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// Where.
    pub pc: u64,
    /// Where, in words.
    pub symbol: Option<String>,
}

/// One hazard, as far as it is judged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hazard {
    /// Its kind.
    pub kind: Kind,
    /// Who executed.
    pub vcpu: u64,
    /// Where.
    pub pc: u64,
    /// Where, in words.
    pub symbol: Option<String>,
    /// What the guest was at when it first occurred.
    pub marker: Marker,
    /// How often it occurred.
    pub count: u64,
    /// Where ICSAN itself says that it is explained.
    pub known: Option<String>,
    /// Is a breakpoint in memory or among the candidates?
    pub breakpoint: bool,
    /// The vCPUs that are named as writers; none: a store that no vCPU was seen to make.
    pub writers: Vec<Option<u64>>,
    /// Where the stores were made, as far as they were seen.
    pub stores: Vec<Place>,
    /// Of what is unsynced: the protocol function.
    pub protocol: Option<String>,
}

/// The name of `membarrier(PRIVATE_EXPEDITED_SYNC_CORE)` as a protocol.
pub const MEMBARRIER: &str = "membarrier(SYNC_CORE)";

/// A whole report.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// Every marker that the plugin saw, in order.
    pub markers: Vec<Marker>,
    /// Every hazard that no suppression covers.
    pub hazards: Vec<Hazard>,
    /// Blocks translated.
    pub blocks: u64,
    /// Does the plugin say that it hit no bound?
    pub complete: bool,
    /// If not, why, in its own words.
    pub lost: String,
    /// How often each protocol function committed something and was asked for it.
    pub commits: BTreeMap<String, u64>,
    /// How many kernels ran, one after the other, and how many of them were found in memory.
    pub kernels: (usize, usize),
    /// How often a protocol left a CPU out that serialized in time, as it was meant to.
    pub deferred: u64,
}

/// Reads a report.
///
/// # Errors
/// One line that says what is wrong: truncated, not JSON, no summary, fields missing, kinds unknown.
pub fn parse(text: &str) -> Result<Report, String> {
    let mut report = Report::default();
    let mut lines = 0;
    let mut ended = false;
    if !text.is_empty() && !text.ends_with('\n') {
        return Err("the last line is truncated".into());
    }
    for line in text.lines() {
        lines += 1;
        let at = |what: String| format!("line {lines}: {what}");
        let object: Value = serde_json::from_str(line).map_err(|error| at(error.to_string()))?;
        let kind = object["type"].as_str().unwrap_or_default();
        if (lines == 1) != (kind == "start") {
            return Err(at("`start` must be the first line, and only that".into()));
        }
        if ended {
            return Err(at("something follows the summary".into()));
        }
        match kind {
            "start" if object["schema"] == 1 => {}
            "start" => return Err(at(format!("schema {}, not 1", object["schema"]))),
            "marker" => report.markers.push(marker(&object["value"]).map_err(at)?),
            "hazard" if object["suppressed"] == true => {}
            "hazard" => report.hazards.push(hazard(&object).map_err(at)?),
            "summary" => {
                ended = true;
                report.blocks = number(&object, "blocks").map_err(at)?;
                report.complete = object["complete"].as_bool().ok_or_else(|| at("no `complete`".into()))?;
                report.kernels = kernels(&object);
                let coverage = object["coverage"].as_array().map_or(&[][..], Vec::as_slice);
                for row in coverage {
                    let function = row["function"].as_str().unwrap_or_default().to_owned();
                    *report.commits.entry(function).or_default() += row["commits"].as_u64().unwrap_or(0);
                }
                report.deferred = coverage.iter().filter_map(|row| row["deferred"].as_u64()).sum();
                let words = ["dropped_by", "fault", "note"].into_iter().filter(|key| !object[*key].is_null());
                report.lost = words.map(|key| format!("{key} {}", object[key])).collect::<Vec<_>>().join(", ");
            }
            // Later schemas of the same number may add objects.
            _ => {}
        }
    }
    if lines == 0 {
        return Err("empty".into());
    }
    if !ended {
        return Err(format!("no summary after {lines} lines"));
    }
    Ok(report)
}

fn kernels(summary: &Value) -> (usize, usize) {
    let only = std::slice::from_ref(&summary["kaslr"]);
    let places = summary["boots"].as_array().map_or(only, Vec::as_slice);
    (places.len(), places.iter().filter(|place| place.is_string()).count())
}

fn hazard(object: &Value) -> Result<Hazard, String> {
    let name = object["kind"].as_str().ok_or("a hazard without `kind`")?;
    Ok(Hazard {
        kind: Kind::by_name(name).ok_or_else(|| format!("unknown kind {name}"))?,
        vcpu: number(object, "vcpu")?,
        pc: hex(&object["pc"]).ok_or("a hazard without `pc`")?,
        symbol: object["symbol"].as_str().map(str::to_owned),
        marker: marker(&object["marker"])?,
        count: number(object, "count")?,
        known: object["known"].as_str().map(str::to_owned),
        breakpoint: object["candidates"]
            .as_array()
            .is_some_and(|list| list.iter().any(|candidate| candidate["bytes"] == "cc")),
        writers: object["writes"]
            .as_array()
            .map_or_else(Vec::new, |writes| writes.iter().map(|write| write["vcpu"].as_u64()).collect()),
        stores: object["writes"].as_array().map_or_else(Vec::new, |writes| writes.iter().filter_map(place).collect()),
        protocol: object["unsynced"]["function"].as_str().map(str::to_owned),
    })
}

fn place(write: &Value) -> Option<Place> {
    Some(Place { pc: hex(&write["pc"])?, symbol: write["symbol"].as_str().map(str::to_owned) })
}

fn number(object: &Value, key: &str) -> Result<u64, String> {
    object[key].as_u64().ok_or_else(|| format!("no number `{key}`"))
}

fn hex(value: &Value) -> Option<u64> {
    u64::from_str_radix(value.as_str()?.strip_prefix("0x")?, 16).ok()
}

fn marker(value: &Value) -> Result<Marker, String> {
    hex(value).map(Marker::from_value).ok_or_else(|| format!("{value} is no marker value"))
}

impl Report {
    /// The hazards of one attempt at a scenario, or outside of all.
    pub fn hazards_at(&self, marker: Marker) -> impl Iterator<Item = &Hazard> {
        self.hazards.iter().filter(move |hazard| hazard.marker == marker)
    }

    /// What is wrong with a report that could be read, if anything.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        if self.blocks == 0 {
            Some("no block was translated: nothing was watched".into())
        } else if !self.complete {
            Some(format!("the report says of itself that it is not complete: {}", self.lost))
        } else {
            None
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A report with one hazard in scenario 1, round 1, attempt 1.
    pub const WHOLE: &str = concat!(
        r#"{"type":"start","profile":"linux-x86","arch":"x86_64","qemu":"10.0.2","api":4,"vcpus":2,"schema":1}"#,
        "\n",
        r#"{"type":"marker","value":"0x100010001","vcpu":0}"#,
        "\n",
        r#"{"type":"hazard","kind":"unserialized","vcpu":1,"pc":"0x7f0000000004","symbol":null,"marker":"0x100010001","writes":[{"vcpu":0}],"count":12,"suppressed":false}"#,
        "\n",
        r#"{"type":"marker","value":"0x0","vcpu":0}"#,
        "\n",
        r#"{"type":"summary","hazards":{"unserialized":1},"blocks":12345,"complete":true}"#,
        "\n",
    );

    #[test]
    fn a_whole_report() {
        let report = parse(WHOLE).unwrap();
        assert_eq!(report.fault(), None);
        let first = Marker { scenario: 1, round: 1, attempt: 1 };
        assert_eq!(report.markers, [first, Marker::OUTSIDE]);
        let hazards: Vec<_> = report.hazards_at(first).collect();
        assert_eq!(hazards.len(), 1);
        assert_eq!((hazards[0].kind, hazards[0].vcpu, hazards[0].count), (Kind::Unserialized, 1, 12));
        assert_eq!(hazards[0].writers, [Some(0)]);
    }

    #[test]
    fn a_truncated_report_is_refused() {
        assert_eq!(parse("").unwrap_err(), "empty");
        for end in 1..WHOLE.len() {
            assert!(parse(&WHOLE[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn strange_reports_are_refused() {
        for (old, new) in [
            ("unserialized\",\"vcpu", "strange\",\"vcpu"),
            ("\"schema\":1", "\"schema\":2"),
            ("\"marker\":\"0x100010001\"", "\"marker\":7"),
            ("\"blocks\":12345,", ""),
            ("\"type\":\"start\"", "\"type\":\"begin\""),
        ] {
            assert!(parse(&WHOLE.replace(old, new)).is_err(), "{old} -> {new}");
        }
        assert!(parse(&format!("{WHOLE}{WHOLE}")).is_err());
    }

    #[test]
    fn suppressed_hazards_do_not_count_and_bounds_do() {
        assert!(parse(&WHOLE.replace("\"suppressed\":false", "\"suppressed\":true")).unwrap().hazards.is_empty());
        let incomplete = WHOLE.replace("\"complete\":true", "\"dropped_by\":{\"versions\":3},\"complete\":false");
        assert!(
            parse(&incomplete).unwrap().fault().is_some_and(|fault| fault.ends_with("dropped_by {\"versions\":3}"))
        );
        assert!(parse(&WHOLE.replace("12345", "0")).unwrap().fault().is_some());
    }
}
