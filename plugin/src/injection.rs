//! `inject=`: a vCPU that may execute an older instruction, by the model, does execute it.
//!
//! Here is what is chosen, and what is remembered of it. How it is carried out is in [`crate::qemu::divert`] and
//! [`Platform::carry_out`](crate::arch::platform::Platform::carry_out); when, in [`crate::sanitizer`].

use icsan_model::addr::{Epoch, Linear, Vcpu};
use icsan_model::detector::sync_log::SyncAt;
use icsan_model::verdict::candidates::Candidate;
use icsan_model::verdict::kind::Kind;
use std::collections::{BTreeMap, HashMap};

/// Distinct injections that are kept. More are only counted.
const MAX_RECORDS: usize = 1000;

/// Distinct instructions that could not be carried out, of which more are only counted.
const MAX_REFUSALS: usize = 256;

/// Steps of a trail that are kept.
const MAX_TRAIL: usize = 64;

/// What the user chose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Inject {
    /// Always the oldest candidate.
    Stale,
    /// A torn one, if there is one.
    Torn,
    /// Any of them, at so many of a hundred executions. Depends on the seed, the vCPU, the site, and how often the vCPU
    /// was there with a choice; on nothing else.
    Random {
        /// What the choice begins with.
        seed: u64,
        /// Of a hundred executions.
        percent: u8,
    },
}

/// SplitMix64's step: what all choices by a seed are drawn with.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

impl Inject {
    /// Reads `stale`, `torn` or `random:SEED:PERCENT`. `None`: it is none of them.
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        match value {
            "stale" => return Some(Self::Stale),
            "torn" => return Some(Self::Torn),
            _ => {}
        }
        let (seed, percent) = value.strip_prefix("random:")?.split_once(':')?;
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(seed) || !digits(percent) {
            return None;
        }
        let percent = percent.parse().ok().filter(|percent| (1..=100).contains(percent))?;
        Some(Self::Random { seed: seed.parse().ok()?, percent })
    }

    /// What `vcpu` executes at its `visit`-th execution of `site` with a choice. `others` are the candidates that are
    /// not in memory, the oldest first.
    #[must_use]
    pub fn choose<'a>(&self, others: &'a [Candidate], vcpu: Vcpu, site: Linear, visit: u64) -> Option<&'a Candidate> {
        match *self {
            Self::Stale => others.first(),
            Self::Torn => others.iter().find(|candidate| candidate.kind == Some(Kind::Torn)),
            Self::Random { seed, percent } => {
                let drawn =
                    [u64::from(vcpu.0), site.0, visit].into_iter().fold(mix(seed), |drawn, value| mix(drawn ^ value));
                let which = mix(drawn) % others.len().max(1) as u64;
                (drawn % 100 < u64::from(percent)).then(|| others.get(which as usize))?
            }
        }
    }
}

/// An execution of something else than what is in memory.
#[derive(Clone, Debug)]
pub struct Injected {
    /// Who.
    pub vcpu: Vcpu,
    /// Where.
    pub linear: Linear,
    /// What is in memory.
    pub memory: Vec<u8>,
    /// What was executed.
    pub chosen: Vec<u8>,
    /// What kind of hazard that is. `None`: an exemption covers it.
    pub kind: Option<Kind>,
    /// The vCPU's epoch.
    pub epoch: Epoch,
    /// In which boot: each has its own place for the kernel.
    pub boot: usize,
    /// Value of the last marker that any vCPU executed before.
    pub marker: u64,
}

/// What a vCPU did after an injected execution.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Trail {
    /// First addresses of the blocks that it ran, in order; a block that runs several times in a row is there once.
    pub blocks: Vec<Linear>,
    /// How many more.
    pub more: u64,
    last: Option<Linear>,
    /// What ended it. `None`: it had not ended when QEMU did.
    pub end: Option<SyncAt>,
}

impl Trail {
    /// The vCPU runs a block.
    pub fn push(&mut self, block: Linear) {
        if self.last.replace(block) == Some(block) {
            return;
        }
        if self.blocks.len() < MAX_TRAIL {
            self.blocks.push(block);
        } else {
            self.more += 1;
        }
    }
}

/// One distinct injection: the first time that this was executed in place of that.
#[derive(Clone, Debug)]
pub struct Record {
    /// The first time.
    pub first: Injected,
    /// What it led to.
    pub trail: Trail,
    /// How often.
    pub count: u64,
}

/// An instruction that was chosen and not carried out.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Refusal {
    /// The instruction.
    pub bytes: Vec<u8>,
    /// Why not.
    pub why: String,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Key {
    linear: Linear,
    memory: Vec<u8>,
    chosen: Vec<u8>,
    marker: u64,
    boot: usize,
}

/// All injections.
#[derive(Debug, Default)]
pub struct Injections {
    records: Vec<Record>,
    index: HashMap<Key, usize>,
    refused: BTreeMap<Refusal, u64>,
    /// Executions of something else than what is in memory.
    pub total: u64,
    /// Those of them that are in no record, since there were too many kinds.
    pub unlisted: u64,
    /// Executions of memory's instruction, although something else had been chosen.
    pub not_carried_out: u64,
    /// Sites are beginnings of segments, so there are no more of them than of those, for each vCPU.
    visits: HashMap<(Vcpu, Linear), u64>,
}

impl Injections {
    /// `vcpu` is at `site` and has a choice: for the how many-th time?
    pub fn visit(&mut self, vcpu: Vcpu, site: Linear) -> u64 {
        let visits = self.visits.entry((vcpu, site)).or_default();
        *visits += 1;
        *visits
    }

    /// Something else is executed. Answers with the number of the record if it is the first of its kind.
    pub fn add(&mut self, injected: Injected) -> Option<usize> {
        self.total += 1;
        let Injected { linear, marker, boot, .. } = injected;
        let key = Key { linear, memory: injected.memory.clone(), chosen: injected.chosen.clone(), marker, boot };
        if let Some(record) = self.index.get(&key).and_then(|index| self.records.get_mut(*index)) {
            record.count += 1;
            return None;
        }
        if self.records.len() >= MAX_RECORDS {
            self.unlisted += 1;
            return None;
        }
        self.index.insert(key, self.records.len());
        self.records.push(Record { first: injected, trail: Trail::default(), count: 1 });
        Some(self.records.len() - 1)
    }

    /// What a record's execution led to.
    pub fn trail(&mut self, record: usize, trail: Trail) -> Option<&Record> {
        let record = self.records.get_mut(record)?;
        record.trail = trail;
        Some(record)
    }

    /// An instruction could not be carried out.
    pub fn refuse(&mut self, bytes: &[u8], why: String) {
        self.not_carried_out += 1;
        let refusal = Refusal { bytes: bytes.to_vec(), why };
        if self.refused.len() < MAX_REFUSALS || self.refused.contains_key(&refusal) {
            *self.refused.entry(refusal).or_default() += 1;
        }
    }

    /// The distinct injections, in the order of their first times.
    #[must_use]
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// What could not be carried out, and how often.
    #[must_use]
    pub const fn refused(&self) -> &BTreeMap<Refusal, u64> {
        &self.refused
    }
}

#[cfg(test)]
mod tests {
    use super::{Inject, MAX_TRAIL, Trail};
    use icsan_model::addr::{Linear, Seq, Vcpu};
    use icsan_model::verdict::candidates::Candidate;
    use icsan_model::verdict::kind::Kind;

    fn candidate(byte: u8, kind: Kind) -> Candidate {
        Candidate {
            bytes: vec![byte],
            versions: vec![Seq(u64::from(byte))],
            whole: kind != Kind::Torn,
            speculative: false,
            lacks_commit: false,
            kind: Some(kind),
            exempt: false,
            separated_by: Vec::new(),
        }
    }

    #[test]
    fn values() {
        assert_eq!(Inject::parse("stale"), Some(Inject::Stale));
        assert_eq!(Inject::parse("torn"), Some(Inject::Torn));
        assert_eq!(Inject::parse("random:7:50"), Some(Inject::Random { seed: 7, percent: 50 }));
        for bad in [
            "",
            "random",
            "random:",
            "random:7",
            "random:7:0",
            "random:7:101",
            "random:-1:5",
            "random:1:+5",
            "random:1:2:3",
            "old",
        ] {
            assert_eq!(Inject::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn stale_takes_the_oldest_and_torn_a_torn_one() {
        let others = [candidate(1, Kind::Unserialized), candidate(2, Kind::Torn), candidate(3, Kind::Stale)];
        let choose = |inject: Inject, others: &[Candidate]| {
            inject.choose(others, Vcpu(0), Linear(1), 1).map(|chosen| chosen.bytes[0])
        };
        assert_eq!(choose(Inject::Stale, &others), Some(1));
        assert_eq!(choose(Inject::Torn, &others), Some(2));
        assert_eq!(choose(Inject::Torn, &others[..1]), None);
        assert_eq!(choose(Inject::Stale, &[]), None);
        assert_eq!(choose(Inject::Random { seed: 1, percent: 100 }, &[]), None);
    }

    #[test]
    fn random_depends_on_its_four_inputs_and_comes_as_often_as_it_is_told() {
        let others = [candidate(1, Kind::Unserialized), candidate(2, Kind::Torn)];
        let draw = |seed, vcpu, site, visit| {
            Inject::Random { seed, percent: 30 }
                .choose(&others, Vcpu(vcpu), Linear(site), visit)
                .map(|chosen| chosen.bytes[0])
        };
        let run = |seed, vcpu, site| (0..1000).map(|visit| draw(seed, vcpu, site, visit)).collect::<Vec<_>>();
        assert_eq!(run(1, 0, 5), run(1, 0, 5));
        assert!(run(1, 0, 5) != run(2, 0, 5) && run(1, 0, 5) != run(1, 1, 5) && run(1, 0, 5) != run(1, 0, 6));
        let injected = run(1, 0, 5).iter().flatten().count();
        assert!((250..350).contains(&injected), "{injected}");
        assert!(run(1, 0, 5).contains(&Some(1)) && run(1, 0, 5).contains(&Some(2)));
    }

    #[test]
    fn a_trail_is_bounded() {
        let mut trail = Trail::default();
        (0..100).for_each(|at| {
            trail.push(Linear(at));
            trail.push(Linear(at));
        });
        assert_eq!((trail.blocks.len(), trail.more), (MAX_TRAIL, 100 - MAX_TRAIL as u64));
    }
}
