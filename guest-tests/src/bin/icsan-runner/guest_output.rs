//! Reads what the guest printed: our KTAP lines among the kernel's.

use icsan_guest_tests::console::{DONE, PREFIX, parse_description};
use icsan_guest_tests::observed::Observed;
use icsan_guest_tests::patcher;

/// How one round of one scenario ended, by the guest's word.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ending {
    /// Carried out.
    Ok,
    /// Not carried out, for want of something.
    Skipped(String),
    /// Failed, or spoiled in every attempt.
    Failed(String),
}

/// One round of one scenario.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Round {
    /// The scenario.
    pub name: String,
    /// Which round, from 1.
    pub round: u16,
    /// The attempt that counts, from 1.
    pub attempt: u32,
    /// How it ended.
    pub ending: Ending,
    /// What it saw of its changes, if it said so.
    pub observed: Option<Observed>,
}

/// All that the guest said.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct GuestOutput {
    /// How many results it announced.
    pub plan: Option<usize>,
    /// The results, in order.
    pub rounds: Vec<Round>,
    /// Where the text of its patcher is, if it loaded that.
    pub patcher: Option<u64>,
    /// Did it get to its end?
    pub done: bool,
    /// Lines that could not be understood.
    pub garbled: Vec<String>,
}

/// Reads a console log.
#[must_use]
pub fn parse(console: &str) -> GuestOutput {
    let mut output = GuestOutput::default();
    let mut comment = String::new();
    // The line feeds of a serial console come with carriage returns.
    for line in console.lines().filter_map(|line| line.split_once(PREFIX)).map(|(_, line)| line.trim_end()) {
        if line == DONE {
            output.done = true;
        } else if let Some(text) = line.strip_prefix("# ") {
            match patcher::parse_text(text) {
                Some(address) => output.patcher = Some(address),
                None => comment = text.to_owned(),
            }
        } else if line.starts_with("KTAP version") {
        } else if let Some(plan) = line.strip_prefix("1..") {
            output.plan = plan.parse().ok();
        } else if let Some(round) = parse_result(line, output.rounds.len() + 1, &std::mem::take(&mut comment)) {
            output.rounds.push(round);
        } else {
            output.garbled.push(line.to_owned());
        }
    }
    output
}

fn parse_result(line: &str, number: usize, comment: &str) -> Option<Round> {
    let (good, rest) = match line.strip_prefix("not ok ") {
        Some(rest) => (false, rest),
        None => (true, line.strip_prefix("ok ")?),
    };
    let (found, rest) = rest.split_once(" - ")?;
    (found.parse() == Ok(number)).then_some(())?;
    let (description, skip) = match rest.split_once(" # SKIP") {
        Some((description, why)) => (description, Some(why.trim().to_owned())),
        None => (rest, None),
    };
    let (name, round, attempt) = parse_description(description)?;
    let ending = match (good, skip) {
        (true, Some(why)) => Ending::Skipped(why),
        (true, None) => Ending::Ok,
        (false, _) => Ending::Failed(comment.to_owned()),
    };
    Some(Round { name: name.to_owned(), round, attempt, ending, observed: Observed::parse(name, comment) })
}

impl GuestOutput {
    /// What is wrong with the output as a whole, if anything: a guest that stopped in the middle, or printed nothing.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        let Some(plan) = self.plan else { return Some("the guest printed no KTAP plan".into()) };
        if let Some(line) = self.garbled.first() {
            return Some(format!("garbled line: {line}"));
        }
        if self.rounds.len() != plan {
            return Some(format!("the guest printed {} results of {plan}", self.rounds.len()));
        }
        (!self.done).then(|| "the guest did not get to its end".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "[    0.1] Linux\r\n\
        ICSAN| KTAP version 1\r\n\r\nICSAN| 1..3\r\n\
        [    3.1] a message ICSAN| # own/jump: 40 of 40 changes seen, 16 tight, 9 ms, emulator: 1\r\n\
        ICSAN| ok 1 - own/jump round 1 attempt 2\r\n\
        ICSAN| ok 2 - kernel/ftrace round 1 attempt 1 # SKIP this kernel has no tracefs\r\n\
        ICSAN| # own/alias: it broke\r\n\
        ICSAN| not ok 3 - own/alias round 1 attempt 1\r\n\
        ICSAN| # done\r\n[    4.0] reboot: Power down\r\n";

    #[test]
    fn a_whole_run() {
        let output = parse(WHOLE);
        assert_eq!(output.fault(), None);
        let endings: Vec<_> =
            output.rounds.iter().map(|round| (round.name.as_str(), round.attempt, round.ending.clone())).collect();
        assert_eq!(
            endings,
            [
                ("own/jump", 2, Ending::Ok),
                ("kernel/ftrace", 1, Ending::Skipped("this kernel has no tracefs".into())),
                ("own/alias", 1, Ending::Failed("own/alias: it broke".into())),
            ]
        );
    }

    #[test]
    fn what_was_seen_belongs_to_the_result_behind_it() {
        let observed = |text: &str| parse(text).rounds.into_iter().map(|round| round.observed).collect::<Vec<_>>();
        assert_eq!(observed(WHOLE), [Some(Observed::Changes { seen: 40, of: 40, tight: 16 }), None, None]);
        let died = WHOLE.replace("40 of 40 changes seen, 16 tight, 9 ms, emulator: 1", "died: killed by signal 5");
        assert_eq!(observed(&died)[0], Some(Observed::Died("killed by signal 5".into())));
    }

    #[test]
    fn a_guest_that_prints_no_ktap_is_at_fault() {
        assert_eq!(parse("[    0.1] Linux\nKernel panic").fault().unwrap(), "the guest printed no KTAP plan");
        assert_eq!(parse("").fault().unwrap(), "the guest printed no KTAP plan");
    }

    #[test]
    fn a_guest_that_stops_in_the_middle_is_at_fault() {
        let cut = WHOLE.find("ICSAN| ok 2").unwrap();
        assert_eq!(parse(&WHOLE[..cut]).fault().unwrap(), "the guest printed 1 results of 3");
        let cut = WHOLE.find("ICSAN| # done").unwrap();
        assert_eq!(parse(&WHOLE[..cut]).fault().unwrap(), "the guest did not get to its end");
    }

    #[test]
    fn garbled_and_misnumbered_lines_are_faults() {
        assert!(parse(&WHOLE.replace("ok 2 -", "ok 7 -")).fault().unwrap().starts_with("garbled"));
        assert!(parse(&WHOLE.replace("own/jump round", "own/jump[  3.2] rou")).fault().unwrap().starts_with("garbled"));
    }
}
