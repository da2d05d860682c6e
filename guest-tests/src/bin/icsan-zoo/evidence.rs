//! A report with what the zoo wants to know beyond the runner's verdicts: whose stores a hazard is put down to.

use crate::report::{self, Hazard, Report};
use serde_json::Value;

/// A hazard and the stores of what it met.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Evidence {
    /// The hazard.
    pub hazard: Hazard,
    /// The stores, as far as they were seen.
    pub writes: Vec<Write>,
}

/// One store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Write {
    /// Who stored.
    pub vcpu: Option<u64>,
    /// Where the storing instruction stands.
    pub symbol: Option<String>,
    /// The outermost of the known patching functions that it was called by.
    pub function: Option<String>,
}

/// Reads a report.
///
/// # Errors
/// One line that says what is wrong with it.
pub fn read(text: &str) -> Result<(Report, Vec<Evidence>), String> {
    let report = report::parse(text)?;
    if let Some(fault) = report.fault() {
        return Err(fault);
    }
    // The same lines in the same order as the report's hazards.
    let objects = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let writes = objects
        .filter(|object| object["type"] == "hazard" && object["suppressed"] != true)
        .map(|object| writes(&object));
    let evidence = report.hazards.iter().cloned().zip(writes);
    let evidence = evidence.map(|(hazard, writes)| Evidence { hazard, writes }).collect();
    Ok((report, evidence))
}

fn writes(object: &Value) -> Vec<Write> {
    let writes = object["writes"].as_array().map_or(&[][..], Vec::as_slice);
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let write = |write: &Value| Write {
        vcpu: write["vcpu"].as_u64(),
        symbol: text(&write["symbol"]),
        function: text(&write["function"]),
    };
    let mut writes: Vec<Write> = writes.iter().map(write).collect();
    writes.dedup();
    writes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::WHOLE;

    #[test]
    fn writes_go_with_their_hazard() {
        let known = r#"{"vcpu":0,"symbol":"memcpy+0x1/0x2","function":"text_poke_finish+0x0/0x1"}"#;
        let writes = format!(r#""writes":[{known},{known},{{"symbol":null}}],"count":12"#);
        let (_, evidence) = read(&WHOLE.replace("\"count\":12", &writes)).unwrap();
        assert_eq!(evidence.len(), 1);
        let known = Write {
            vcpu: Some(0),
            symbol: Some("memcpy+0x1/0x2".into()),
            function: Some("text_poke_finish+0x0/0x1".into()),
        };
        assert_eq!(evidence[0].writes, [known, Write { vcpu: None, symbol: None, function: None }]);
        assert!(read(&WHOLE.replace("12345", "0")).is_err());
    }
}
