//! What a vCPU executed in its epoch, kept as plainly as can be.

use icsan_model::arch::exemption::Exemption;
use icsan_model::detector::light::{CodeRun, Findings, judge};

/// The length of the longest instruction of any architecture.
const LONGEST: usize = 15;

/// The runs that one vCPU executed in its current epoch, latest last.
pub struct Trace {
    exemptions: &'static [Exemption],
    runs: Vec<CodeRun>,
}

impl Trace {
    pub fn new(exemptions: &'static [Exemption]) -> Self {
        Self { exemptions, runs: Vec::new() }
    }

    pub fn serialize(&mut self) {
        self.runs.clear();
    }

    pub fn execute(&mut self, run: &CodeRun) -> Findings {
        let findings = judge(run, self.runs.iter().rev(), self.exemptions, LONGEST);
        if !self.runs.contains(run) {
            self.runs.push(run.clone());
        }
        findings
    }
}
