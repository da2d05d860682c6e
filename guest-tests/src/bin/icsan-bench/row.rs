//! What was measured for one workload on one machine, and what follows from it.

use crate::process::Usage;
use icsan_guest_tests::verdict::Mode;
use serde_json::{Value, json};

/// What a boot with the plugin is compared with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Against {
    /// A boot without a plugin.
    None,
    /// A boot with another build of the plugin, in the same mode.
    Base,
}

impl Against {
    /// How the other boot is called in the tables.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::None => "without",
            Self::Base => "base",
        }
    }

    /// To how many digits a ratio is told: two builds differ by less than a plugin and none.
    #[must_use]
    pub fn digits(self) -> usize {
        match self {
            Self::None => 2,
            Self::Base => 3,
        }
    }
}

/// A boot without the plugin, or with another build of it, and one with it, close to each other.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    /// The boot that the one with the plugin is compared with.
    pub plain: Usage,
    /// With it.
    pub plugin: Usage,
}

impl Pair {
    /// How many times the user time.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        self.plugin.user / self.plain.user
    }
}

/// What the plugin's report says of the work that it did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Work {
    /// Blocks translated.
    pub blocks: u64,
    /// Epochs begun.
    pub epochs: u64,
    /// Bytes that ICSAN itself held at most.
    pub held: u64,
    /// How often a piece of code was not watched because there was no slot for it.
    pub dropped: u64,
}

impl Work {
    /// From the last line of a report.
    ///
    /// # Errors
    /// One line: no summary, or the plugin did not watch all of the run, and the figures would flatter it. That it ran
    /// out of slots is a figure of its own.
    pub fn parse(report: &str) -> Result<Self, String> {
        let last = report.lines().last().ok_or("the plugin's report is empty")?;
        let summary: Value = serde_json::from_str(last).map_err(|error| format!("the plugin's report: {error}"))?;
        let number = |key: &str| summary[key].as_u64().ok_or_else(|| format!("the plugin's report has no `{key}`"));
        let dropped = summary["dropped_by"]["segments"].as_u64().unwrap_or(0);
        if summary["complete"] != true && (dropped == 0 || summary["dropped"] != dropped) {
            return Err("the plugin says that its report is not complete".into());
        }
        let held = summary["memory"]["most"].as_u64().ok_or("the plugin's report has no `memory.most`")?;
        Ok(Self { blocks: number("blocks")?, epochs: number("epochs")?, held, dropped })
    }
}

/// One row of the table.
#[derive(Clone, Debug)]
pub struct Row {
    /// Which QEMU.
    pub qemu: String,
    /// Which guest: architecture and CPU.
    pub guest: String,
    /// How many vCPUs.
    pub smp: u8,
    /// Which workload.
    pub workload: String,
    /// In which of the plugin's modes.
    pub mode: Mode,
    /// What it is compared with.
    pub against: Against,
    /// All pairs, in order.
    pub pairs: Vec<Pair>,
    /// Of the last boot with the plugin.
    pub work: Work,
}

/// CPUs that others may keep busy while we measure; more is noise.
const NOISE: f64 = 0.05;

/// The middle value, or the mean of the two in the middle.
#[must_use]
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => values[count / 2],
        count => f64::midpoint(values[count / 2 - 1], values[count / 2]),
    }
}

impl Row {
    /// Median over the boots that those with the plugin are compared with.
    #[must_use]
    pub fn plain(&self, figure: impl Fn(&Usage) -> f64) -> f64 {
        median(self.pairs.iter().map(|pair| figure(&pair.plain)))
    }

    /// Median over the boots with the plugin.
    #[must_use]
    pub fn plugin(&self, figure: impl Fn(&Usage) -> f64) -> f64 {
        median(self.pairs.iter().map(|pair| figure(&pair.plugin)))
    }

    /// Median, least and greatest of the pairs' ratios.
    #[must_use]
    pub fn ratios(&self) -> (f64, f64, f64) {
        let ratios = || self.pairs.iter().map(Pair::ratio);
        (median(ratios()), ratios().fold(f64::INFINITY, f64::min), ratios().fold(0.0, f64::max))
    }

    /// How many times the user time the work alone takes, less the boot that comes with it.
    #[must_use]
    pub fn ratio_without(&self, boot: &Self) -> f64 {
        (self.plugin(|usage| usage.user) - boot.plugin(|usage| usage.user))
            / (self.plain(|usage| usage.user) - boot.plain(|usage| usage.user))
    }

    /// How many CPUs others kept busy meanwhile, if that is more than noise: the worst boot.
    #[must_use]
    pub fn disturbed(&self) -> Option<f64> {
        let share = |usage: &Usage| usage.others / usage.wall;
        let worst = self.pairs.iter().flat_map(|pair| [share(&pair.plain), share(&pair.plugin)]).fold(0.0, f64::max);
        (worst > NOISE).then_some(worst)
    }

    /// As it stands in the JSON file.
    #[must_use]
    pub fn json(&self) -> Value {
        let (ratio, least, greatest) = self.ratios();
        let pairs: Vec<Value> = self
            .pairs
            .iter()
            .map(|pair| json!({"plain": pair.plain.json(), "plugin": pair.plugin.json(), "ratio": pair.ratio()}))
            .collect();
        json!({
            "qemu": self.qemu, "guest": self.guest, "smp": self.smp, "workload": self.workload, "mode": self.mode.name(),
            "against": self.against.label(),
            "ratio": ratio, "ratio_min": least, "ratio_max": greatest,
            "blocks": self.work.blocks, "epochs": self.work.epochs, "held_bytes": self.work.held, "dropped_segments": self.work.dropped,
            "others_cpus_worst": self.disturbed(), "pairs": pairs,
        })
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A row of two pairs: ratios 1.5 and 1.1, or as the factor says.
    pub fn row(workload: &str, seconds: f64, factor: f64) -> Row {
        let usage = |user: f64| Usage { user, sys: 0.5, wall: user, rss: 100.0, others: 0.0 };
        let pair = |ratio: f64| Pair { plain: usage(seconds), plugin: usage(seconds * ratio) };
        Row {
            qemu: "10.0".into(),
            guest: "x86_64 max".into(),
            smp: 1,
            workload: workload.into(),
            mode: Mode::Full,
            against: Against::None,
            pairs: vec![pair(1.5 * factor), pair(1.1 * factor)],
            work: Work { blocks: 80_000, epochs: 150_000, held: 100 << 20, dropped: 0 },
        }
    }

    #[test]
    fn medians() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0]), 2.5);
        assert!(median([]).is_nan());
    }

    #[test]
    fn ratios_of_a_row() {
        let boot = row("boot", 4.0, 1.0);
        let (middle, least, greatest) = boot.ratios();
        assert!((middle - 1.3).abs() < 1e-9 && (least - 1.1).abs() < 1e-9 && (greatest - 1.5).abs() < 1e-9);
        let sort = row("sort", 14.0, 0.84);
        assert!((sort.ratio_without(&boot) - (14.0 * 1.3 * 0.84 - 4.0 * 1.3) / 10.0).abs() < 1e-9);
        assert_eq!(boot.disturbed(), None);
        let mut noisy = boot;
        noisy.pairs[0].plain.others = 1.0;
        assert_eq!(noisy.disturbed(), Some(0.25));
    }

    #[test]
    fn the_work_is_read_from_a_whole_report_only() {
        let report = r#"{"type":"start"}
{"type":"summary","blocks":7,"epochs":8,"memory":{"most":9},"dropped":4,"dropped_by":{"segments":4},"complete":true}
"#;
        assert_eq!(Work::parse(report), Ok(Work { blocks: 7, epochs: 8, held: 9, dropped: 4 }));
        let incomplete = report.replace("true", "false");
        assert!(
            Work::parse(&incomplete).is_ok()
                && Work::parse(&incomplete.replace(r#""dropped":4"#, r#""dropped":5"#)).is_err(),
            "only slots ran out"
        );
        assert!(Work::parse(&incomplete.replace("segments", "hazards")).is_err());
        assert!(Work::parse("").is_err() && Work::parse("{\"type\":\"start\"}\n").is_err());
    }
}
