//! One execution: all byte strings that it may have fetched, and what each would be.

use super::{Naive, Times};
use crate::addr::{Linear, Phys, Seq, Vcpu};
use crate::arch::exemption::Exemption;
use crate::arch::maintenance::Caches;
use crate::verdict::candidates::Candidate;
use crate::verdict::kind::Kind;
use std::collections::{BTreeMap, BTreeSet};

/// One execution that the oracle is asked about.
pub(super) struct Question<'a> {
    pub(super) naive: &'a Naive,
    pub(super) vcpu: Vcpu,
    pub(super) linear: Linear,
    pub(super) len: usize,
    pub(super) now: usize,
}

impl Question<'_> {
    fn at(&self, i: usize) -> Linear {
        self.linear.offset(i as u64)
    }

    fn byte(&self, i: usize, at: usize) -> Option<u8> {
        self.naive.byte(self.vcpu, self.at(i), at)
    }

    /// The byte of a chunk that was first fetched, where its page is, at `first`, with what memory held at `moment`.
    fn fetched(&self, i: usize, first: usize, moment: usize) -> Option<u8> {
        let phys = self.naive.phys(self.vcpu, self.at(i), first)?;
        self.naive.snapshots[self.stems(i, first, moment)].memory.get(&phys).copied()
    }

    /// The moment that it stems from.
    fn stems(&self, i: usize, first: usize, moment: usize) -> usize {
        let phys = self.naive.phys(self.vcpu, self.at(i), first);
        phys.map_or(first, |phys| moment.max(self.naive.floor(self.vcpu, phys, first)))
    }

    /// Since when, but not before `earliest`, the page of a byte was where it was at that moment.
    fn placed(&self, i: usize, earliest: usize, at: usize) -> usize {
        let place = |at| self.naive.phys(self.vcpu, self.at(i), at);
        (earliest..=at).rev().take_while(|earlier| place(*earlier) == place(at)).last().unwrap_or(at)
    }

    /// When a chunk may have been fetched first where its page was, and what memory held then: at each moment of
    /// fetching, of now or of any time before.
    fn moments(&self, chunk: Linear, times: &Times) -> BTreeSet<(usize, usize)> {
        let i = (0..self.naive.decoder.max_len()).find(|i| self.naive.chunk(self.at(*i)) == chunk).unwrap_or(0);
        let moments = times.iter().flat_map(|time| {
            let first = self.placed(i, times.first().copied().unwrap_or(*time), *time);
            let oldest = if self.naive.caches().is_some() { 0 } else { *time };
            let first = if self.naive.caches().is_some() { first } else { *time };
            (oldest..=*time).map(move |moment| (first, moment))
        });
        moments.collect()
    }

    /// The first moment that makes a difference to these bytes, down to `oldest`, if they were first fetched at
    /// `first`.
    fn earliest(&self, positions: &[usize], first: usize, oldest: usize) -> usize {
        let string = |moment| positions.iter().map(|i| self.fetched(*i, first, moment)).collect::<Vec<_>>();
        if (oldest..=first).all(|moment| string(moment) == string(first)) { first } else { oldest.min(first) }
    }

    /// Did all these bytes stand in memory together at one time, and may they have been fetched together after it?
    fn is_whole(&self, bytes: &[u8], times: &dyn Fn(Linear) -> Times) -> bool {
        let window = self.naive.decoder.max_len();
        let in_chunk = |chunk: Linear, len: usize| -> Vec<usize> {
            (0..len).filter(|i| self.naive.chunk(self.at(*i)) == chunk).collect()
        };
        let chunks = self.in_order(bytes.len());
        let first = chunks.iter().flat_map(|chunk| times(*chunk)).min().unwrap_or(self.now);
        if self.naive.caches().is_none() {
            let all: Vec<usize> = (0..bytes.len()).collect();
            return (first..=self.now).any(|time| self.stood(bytes, &all, time, time));
        }
        let oldest = chunks.iter().flat_map(|chunk| {
            let positions = in_chunk(*chunk, window);
            let firsts: BTreeSet<_> =
                self.moments(*chunk, &times(*chunk)).into_iter().map(|(first, _)| first).collect();
            firsts.into_iter().map(move |first| {
                let floors = positions.iter().map(|i| self.stems(*i, first, 0)).min().unwrap_or(first);
                self.earliest(&positions, first, floors)
            })
        });
        let oldest = oldest.min().unwrap_or(first);
        (first..=self.now).any(|time| {
            (oldest..=time).any(|moment| {
                chunks.iter().all(|chunk| {
                    let positions = in_chunk(*chunk, bytes.len());
                    let placed = self.placed(positions[0], first, time);
                    self.stood(bytes, &positions, placed, moment)
                })
            })
        })
    }

    pub(super) fn others(&self, times: &dyn Fn(Linear) -> Times, speculative: bool) -> BTreeMap<Vec<u8>, Candidate> {
        let window = self.naive.decoder.max_len();
        // Every byte string that the window may read: chunk for chunk, at every moment of it.
        let mut strings = BTreeSet::from([Vec::new()]);
        for chunk in self.in_order(window) {
            let mut longer = BTreeSet::new();
            for (first, moment) in self.moments(chunk, &times(chunk)) {
                let piece: Vec<_> = (0..window)
                    .filter(|i| self.naive.chunk(self.at(*i)) == chunk)
                    .map(|i| self.fetched(i, first, moment))
                    .collect();
                longer.extend(strings.iter().map(|string: &Vec<Option<u8>>| [&string[..], &piece].concat()));
            }
            strings = longer;
        }
        let memory: Vec<u8> = (0..self.len).filter_map(|i| self.byte(i, self.now)).collect();
        let mut others = BTreeMap::new();
        for string in strings {
            let known: Vec<u8> = string.iter().map_while(|byte| *byte).collect();
            let len = self.naive.decoder.len(&known).unwrap_or(self.len);
            let Some(bytes) = known.get(..len) else { continue };
            let common = len.min(memory.len());
            if bytes[..common] != memory[..common] && !others.contains_key(bytes) {
                others.insert(bytes.to_vec(), self.candidate(bytes, &memory, times, speculative));
            }
        }
        others
    }

    /// The chunks of the first bytes of the window, in the order in which they come.
    fn in_order(&self, len: usize) -> Vec<Linear> {
        let mut chunks: Vec<_> = (0..len).map(|i| self.naive.chunk(self.at(i))).collect();
        chunks.dedup();
        chunks
    }

    fn stood(&self, bytes: &[u8], positions: &[usize], first: usize, moment: usize) -> bool {
        positions.iter().all(|i| self.fetched(*i, first, moment) == Some(bytes[*i]))
    }

    fn candidate(&self, bytes: &[u8], memory: &[u8], times: &dyn Fn(Linear) -> Times, speculative: bool) -> Candidate {
        let all: Vec<usize> = (0..bytes.len()).collect();
        let whole = self.is_whole(bytes, times);

        let mut versions = Vec::new();
        let mut separated_by = BTreeSet::new();
        let mut worst = Kind::Unserialized;
        let mut blamed: BTreeMap<usize, Kind> = BTreeMap::new();
        let mut one_each = true;
        for i in 0..bytes.len() {
            let chunk = self.naive.chunk(self.at(i));
            let mates: Vec<_> = all.iter().copied().filter(|j| self.naive.chunk(self.at(*j)) == chunk).collect();
            let moments = self.moments(chunk, &times(chunk));
            let last = moments.into_iter().filter(|(first, moment)| self.stood(bytes, &mates, *first, *moment)).max();
            let (first, last) = last.map_or((0, 0), |(first, last)| (first, self.stems(i, first, last)));
            let then = self.naive.phys(self.vcpu, self.at(i), first);
            versions
                .push(Seq(
                    (1..=last).rev().find(|seq| then.is_some_and(|phys| self.changed(phys, *seq))).unwrap_or(0) as u64
                ));
            if self.byte(i, self.now) == Some(bytes[i]) {
                continue;
            }
            let here = self.naive.phys(self.vcpu, self.at(i), self.now);
            let culprits: Vec<_> =
                (last + 1..=self.now).filter(|seq| here.is_some_and(|phys| self.changed(phys, *seq))).collect();
            one_each &= culprits.len() == 1;
            for (seq, phys) in culprits.into_iter().zip(here.into_iter().cycle()) {
                worst = worst.min(self.kind_of(seq, phys, self.at(i)));
                let missing = self.naive.missing(self.vcpu, phys, seq, self.now);
                blamed.entry(seq).and_modify(|kind| *kind = missing.min(*kind)).or_insert(missing);
                separated_by.insert(seq);
            }
        }
        let lacks_commit = separated_by.iter().any(|seq| self.naive.committed.contains(seq));
        let exempt = !lacks_commit
            && whole
            && self.naive.profile.exemptions.iter().any(|exemption| match *exemption {
                Exemption::Breakpoint(breakpoint) => memory.starts_with(breakpoint) != bytes.starts_with(breakpoint),
                Exemption::Listed(list) => [memory, bytes].into_iter().all(|side| {
                    side.len() >= 4
                        && list.iter().any(|row| {
                            (0..4).all(|i| row.value.to_le_bytes()[i] == side[i] & row.mask.to_le_bytes()[i])
                        })
                }),
                Exemption::AlignedStore(block) => {
                    one_each
                        && separated_by.len() == 1
                        && separated_by.iter().all(|seq| self.in_one_block(*seq, u64::from(block)))
                }
            });
        let kind = match (speculative, whole, lacks_commit) {
            (true, _, _) => Kind::Speculative,
            (_, false, _) => Kind::Torn,
            (_, _, true) => Kind::Stale,
            _ if self.naive.profile.caches != Caches::Coherent => {
                blamed.into_values().next().unwrap_or(Kind::Unsynchronized)
            }
            _ => worst,
        };
        let separated_by = separated_by.into_iter().map(|seq| Seq(seq as u64)).collect();
        Candidate {
            bytes: bytes.to_vec(),
            versions,
            whole,
            speculative,
            lacks_commit,
            kind: Some(kind),
            exempt,
            separated_by,
        }
    }

    fn changed(&self, phys: Phys, seq: usize) -> bool {
        self.naive.snapshots[seq].memory.get(&phys) != self.naive.snapshots[seq - 1].memory.get(&phys)
    }

    fn kind_of(&self, seq: usize, phys: Phys, linear: Linear) -> Kind {
        match self.naive.store_at(seq) {
            Some(store) if store.vcpu == Some(self.vcpu) => {
                let through = store.linear.map(|through| through.offset(phys.0 - store.phys.0));
                if through == Some(linear) { Kind::Smc } else { Kind::Alias }
            }
            _ => Kind::Unserialized,
        }
    }

    fn in_one_block(&self, seq: usize, block: u64) -> bool {
        self.naive.store_at(seq).is_some_and(|store| {
            let blocks: BTreeSet<_> = (0..store.bytes.len() as u64).map(|i| (store.phys.0 + i) / block).collect();
            store.vcpu.is_some() && blocks.len() == 1
        })
    }
}
