//! Candidates: every instruction that a vCPU may execute at an address at one moment.
//!
//! Each chunk of the fetch window may stem from any moment since the vCPU brought it in, independently of the other
//! chunks. So the candidates are the product of what the chunks were, each combination cut to the length of the
//! instruction that it begins with. A combination that begins with no instruction keeps as many bytes as memory's
//! instruction has, if it has so many.

use crate::addr::{Linear, Seq};
use crate::arch::decode::Decode;
use crate::fetch::window::{Part, Stretch, View};
use crate::verdict::kind::Kind;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// How many combinations one execution looks at. An instruction spans two chunks of 16 bytes at most, so this is
/// reached when both had 64 versions in one epoch; a JIT that gets there needs no further evidence. Hitting it makes
/// the answer incomplete, and the model says so.
pub const MAX_COMBINATIONS: usize = 4096;

/// One instruction that the vCPU may execute.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Candidate {
    /// The instruction.
    pub bytes: Vec<u8>,
    /// For each byte, the store that made its version. If several versions have the same value, the latest. `Seq(0)`:
    /// before all history.
    pub versions: Vec<Seq>,
    /// Did all bytes stand in memory together at one time since the vCPU brought the first of its chunks in?
    pub whole: bool,
    /// Is it a candidate only because the vCPU may have brought it in by speculation?
    pub speculative: bool,
    /// Does it lack the effect of a store that its author takes for done?
    pub lacks_commit: bool,
    /// What kind of hazard executing it would be, if it is not exempt. `None` for what is in memory.
    pub kind: Option<Kind>,
    /// Does an exemption of the profile cover its difference from memory?
    pub exempt: bool,
    /// The stores that separate it from memory: those to the differing bytes since its versions were in memory. Oldest
    /// first.
    pub separated_by: Vec<Seq>,
}

/// All candidates of one execution.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Candidates {
    /// Memory's instruction first, then the others, those whose newest byte is the oldest first.
    pub list: Vec<Candidate>,
    /// Is the list all of them? `false` if [`MAX_COMBINATIONS`] was hit, or the past of a byte was forgotten.
    pub complete: bool,
}

impl Candidates {
    /// The instruction that is in memory.
    #[must_use]
    pub fn memory(&self) -> &Candidate {
        &self.list[0]
    }

    /// The candidates that are not in memory.
    #[must_use]
    pub fn others(&self) -> &[Candidate] {
        &self.list[1..]
    }

    /// Sets the list in order. The first element stays the first.
    pub(crate) fn sort(&mut self) {
        self.list[1..].sort_by(|a, b| {
            let key = |candidate: &Candidate| {
                (candidate.speculative, candidate.versions.iter().max().copied(), candidate.versions.clone())
            };
            key(a).cmp(&key(b)).then_with(|| a.bytes.cmp(&b.bytes))
        });
    }
}

/// A candidate's bytes, and for each byte the last moment at which the vCPU may have brought it in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Found {
    pub bytes: Vec<u8>,
    pub until: Vec<Seq>,
    pub versions: Vec<Seq>,
    pub whole: bool,
}

/// The distinct instructions other than memory's that the parts may combine to, and whether that is all of them.
pub(crate) fn combine(parts: &[Part], memory: &[u8], decoder: &dyn Decode) -> (BTreeSet<Vec<u8>>, bool) {
    let mut search = Search { memory, decoder, left: MAX_COMBINATIONS, found: BTreeSet::new(), complete: true };
    // Nothing changed since it was brought in: by far the most frequent case.
    if parts.iter().any(|part| part.stretches.len() > 1) {
        search.grow(&mut Vec::new(), parts);
    }
    (search.found, search.complete)
}

struct Search<'a> {
    memory: &'a [u8],
    decoder: &'a dyn Decode,
    left: usize,
    found: BTreeSet<Vec<u8>>,
    complete: bool,
}

impl Search<'_> {
    fn grow(&mut self, prefix: &mut Vec<u8>, parts: &[Part]) {
        let Some((part, rest)) = parts.split_first() else { return self.take(prefix) };
        let mut seen = BTreeSet::new();
        // The present first: if the bound is hit, what differs from memory in one chunk only has been looked at.
        for stretch in part.stretches.iter().rev().take(1).chain(&part.stretches) {
            if !seen.insert(&stretch.bytes) {
                continue;
            }
            if self.left == 0 {
                self.complete = false;
                return;
            }
            let before = prefix.len();
            prefix.extend_from_slice(&stretch.bytes);
            if !part.is_whole(stretch)
                || prefix.starts_with(self.memory)
                || self.decoder.len_like(prefix, self.memory).is_some()
            {
                self.take(prefix);
            } else {
                self.grow(prefix, rest);
            }
            prefix.truncate(before);
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.left = self.left.saturating_sub(1);
        let len = self
            .decoder
            .len_like(bytes, self.memory)
            .filter(|len| (1..=bytes.len()).contains(len))
            .unwrap_or(self.memory.len());
        // Too few known bytes to be anything.
        let Some(candidate) = bytes.get(..len) else { return };
        if candidate.iter().zip(self.memory).any(|(candidate, memory)| candidate != memory) {
            self.found.insert(candidate.to_vec());
        }
    }
}

/// Finds out where the bytes of candidates come from. What it finds out of the past serves all of them: a site that is
/// patched over and over has as many candidates as versions.
pub(crate) struct Tracer<'a> {
    view: View<'a>,
    parts: &'a [Part],
    /// By part, and how many bytes of it: the last stretch that began with these bytes.
    last: BTreeMap<(usize, usize), BTreeMap<&'a [u8], &'a Stretch>>,
    /// By part, how many bytes of it, since when they were fetched, and the moment from which on they stem: the times
    /// at which memory held these bytes.
    stood: BTreeMap<(usize, usize, (Seq, Seq)), TimesByBytes>,
}

type TimesByBytes = BTreeMap<Vec<u8>, Vec<Time>>;

/// When bytes stood in memory, and when they may have been fetched: first and last moments. Without an instruction
/// cache that is the same.
#[derive(Clone, Copy, Debug)]
struct Time {
    stems: (Seq, Seq),
    fetched: (Seq, Seq),
}

impl Time {
    /// What two times have in common: nothing is fetched before it stood in memory.
    fn common(&self, other: &Self) -> Option<Self> {
        let both = |a: (Seq, Seq), b: (Seq, Seq)| Some((a.0.max(b.0), a.1.min(b.1))).filter(|(from, to)| from <= to);
        let time = Self { stems: both(self.stems, other.stems)?, fetched: both(self.fetched, other.fetched)? };
        (time.stems.0 <= time.fetched.1).then_some(time)
    }
}

impl<'a> Tracer<'a> {
    pub fn new(view: View<'a>, parts: &'a [Part]) -> Self {
        Self { view, parts, last: BTreeMap::new(), stood: BTreeMap::new() }
    }

    /// A candidate with its past.
    pub fn trace_back(&mut self, bytes: Vec<u8>) -> Found {
        let (view, parts) = (self.view, self.parts);
        let touched = || parts.iter().enumerate().filter(|(_, part)| part.at < bytes.len());
        let mut until = Vec::with_capacity(bytes.len());
        let mut versions = Vec::with_capacity(bytes.len());
        for (index, part) in touched() {
            let slice = &bytes[part.at..part.end().min(bytes.len())];
            let Some(stretch) = self.last(index, slice) else { continue };
            for i in 0..slice.len() as u64 {
                let phys = stretch.phys.map(|phys| phys.offset(i));
                let stems = phys.map_or(stretch.to, |phys| view.stems(phys, stretch.to, stretch.fetched.0));
                until.push(stems);
                versions.push(phys.map_or(Seq(0), |phys| view.memory.version(phys, stems)));
            }
        }
        let first = touched().map(|(_, part)| (part.since, part.oldest)).reduce(|a, b| (a.0.min(b.0), a.1.min(b.1)));
        let whole = first.is_none_or(|(since, oldest)| {
            let mut common = vec![Time { stems: (oldest, view.now), fetched: (since, view.now) }];
            for (index, part) in touched() {
                let times = self.stood(index, &bytes[part.at..part.end().min(bytes.len())], (since, oldest));
                common = common.iter().flat_map(|a| times.iter().filter_map(|b| a.common(b))).collect();
            }
            !common.is_empty()
        });
        Found { bytes, until, versions, whole }
    }

    /// The last stretch of a part that begins with these bytes.
    fn last(&mut self, index: usize, bytes: &[u8]) -> Option<&'a Stretch> {
        let part = &self.parts[index];
        let known = self.last.entry((index, bytes.len())).or_insert_with(|| {
            let begins = |stretch: &'a Stretch| Some((stretch.bytes.get(..bytes.len())?, stretch));
            part.stretches.iter().filter_map(begins).collect()
        });
        known.get(bytes).copied()
    }

    /// When these bytes of a part were in memory.
    fn stood(&mut self, index: usize, bytes: &[u8], first: (Seq, Seq)) -> &[Time] {
        let (view, part) = (self.view, &self.parts[index]);
        let known = self.stood.entry((index, bytes.len(), first)).or_insert_with(|| {
            let mut known = TimesByBytes::new();
            for Stretch { from, to, fetched, bytes, .. } in
                view.stretches(part.linear, bytes.len(), first.0, Some(first.1))
            {
                known.entry(bytes).or_default().push(Time { stems: (from, to), fetched });
            }
            known
        });
        known.get(bytes).map_or(&[], Vec::as_slice)
    }
}

/// Memory's own instruction as a candidate.
pub(crate) fn present(view: View<'_>, linear: Linear, bytes: Vec<u8>) -> Candidate {
    let version = |i: usize| {
        view.mapping.translate(linear.offset(i as u64)).map_or(Seq(0), |phys| view.memory.version(phys, view.now))
    };
    Candidate {
        versions: (0..bytes.len()).map(version).collect(),
        bytes,
        whole: true,
        speculative: false,
        lacks_commit: false,
        kind: None,
        exempt: false,
        separated_by: Vec::new(),
    }
}
