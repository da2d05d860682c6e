//! A report with what the zoo wants to know beyond the runner's verdicts: whose stores a hazard is put down to.

use crate::report::{self, Hazard, Report};
use serde_json::Value;

/// A hazard and the functions that stored what it met.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Evidence {
    /// The hazard.
    pub hazard: Hazard,
    /// The writers' symbols, as far as they are known.
    pub writers: Vec<String>,
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
    let writers = objects.filter(|object| object["type"] == "hazard" && object["suppressed"] != true).map(|object| writers(&object));
    let evidence = report.hazards.iter().cloned().zip(writers).map(|(hazard, writers)| Evidence { hazard, writers }).collect();
    Ok((report, evidence))
}

fn writers(object: &Value) -> Vec<String> {
    let writes = object["writes"].as_array().map_or(&[][..], Vec::as_slice);
    let mut symbols: Vec<String> = writes.iter().filter_map(|write| Some(write["symbol"].as_str()?.to_owned())).collect();
    symbols.dedup();
    symbols
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::WHOLE;

    #[test]
    fn writers_go_with_their_hazard() {
        let writes = r#""writes":[{"symbol":"memcpy+0x1/0x2"},{"symbol":null},{"symbol":"memcpy+0x1/0x2"}],"count":12"#;
        let (_, evidence) = read(&WHOLE.replace("\"count\":12", writes)).unwrap();
        assert_eq!(evidence.len(), 1);
        assert_eq!(evidence[0].writers, ["memcpy+0x1/0x2"]);
        assert_eq!(read(WHOLE).unwrap().1[0].writers, Vec::<String>::new());
        assert!(read(&WHOLE.replace("12345", "0")).is_err());
    }
}
