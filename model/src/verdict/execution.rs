//! One execution and what it is judged from: the part that the model, and whatever is faster than the model, have in
//! common.

use crate::addr::{Epoch, Linear, Phys, Seq, Vcpu};
use crate::arch::decode::Decode;
use crate::arch::profile::Profile;
use crate::error::ModelError;
use crate::fetch::held::Held;
use crate::fetch::instruction_cache::InstructionCache;
use crate::fetch::window::View;
use crate::memory::mapping::Mapping;
use crate::memory::{Memory, PAGE};
use crate::verdict::candidates::{self, Candidates, Tracer};
use crate::verdict::hazard::{Hazard, Verdict, Write};
use crate::verdict::judge::{self, Judge};
use crate::verdict::last_sync::LastSync;
use std::collections::BTreeSet;
use std::fmt;

/// A vCPU is about to execute `len` bytes at `linear`.
#[derive(Clone, Copy)]
pub struct Execution<'a> {
    /// The rules.
    pub profile: &'a Profile,
    /// How long instructions are.
    pub decoder: &'a dyn Decode,
    /// Memory and its past.
    pub memory: &'a Memory,
    /// What is fetched through.
    pub cache: &'a InstructionCache,
    /// The vCPU's translations.
    pub mapping: &'a Mapping,
    /// What the vCPU holds.
    pub held: &'a dyn Held,
    /// What began the vCPU's epoch.
    pub last_sync: Option<LastSync>,
    /// The epoch.
    pub epoch: Epoch,
    /// Who executes.
    pub vcpu: Vcpu,
    /// The address of the instruction.
    pub linear: Linear,
    /// Its length as decoded from memory, in bytes.
    pub len: u8,
    /// This moment.
    pub now: Seq,
}

impl fmt::Debug for Execution<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { vcpu, linear, len, now, .. } = self;
        f.debug_struct("Execution")
            .field("vcpu", vcpu)
            .field("linear", linear)
            .field("len", len)
            .field("now", now)
            .finish_non_exhaustive()
    }
}

impl<'a> Execution<'a> {
    fn view(&self) -> View<'a> {
        let Self { memory, mapping, cache, vcpu, now, .. } = *self;
        View { memory, mapping, cache, vcpu, now }
    }

    fn chunk(&self) -> u64 {
        u64::from(self.profile.buffers.chunk)
    }

    /// Everything that may be executed.
    ///
    /// # Errors
    /// Nothing is mapped there, or its contents are not known.
    pub fn candidates(&self) -> Result<Candidates, ModelError> {
        let Self { profile, decoder, linear, now, .. } = *self;
        let view = self.view();
        let memory = self.present_bytes()?;
        let judge = Judge { view, linear, memory: &memory, exemptions: profile.exemptions, caches: profile.caches };

        let held =
            view.parts(linear, decoder.max_len(), self.chunk(), |chunk| self.held.held_since(chunk).unwrap_or(now));
        let (found, mut complete) = candidates::combine(&held, &memory, decoder);
        let mut list = vec![candidates::present(view, linear, memory.clone())];
        let mut tracer = Tracer::new(view, &held);
        list.extend(found.iter().map(|bytes| judge.candidate(tracer.trace_back(bytes.clone()), false)));

        // A snooping buffer drops what was brought in by speculation just as it drops the rest, so nothing is left to
        // add.
        if profile.buffers.speculation && !profile.snoop {
            let parts = view.parts(linear, decoder.max_len(), self.chunk(), |chunk| self.held.speculated_since(chunk));
            let (more, whole) = candidates::combine(&parts, &memory, decoder);
            complete &= whole;
            let only = more.into_iter().filter(|bytes| !found.contains(bytes));
            let mut tracer = Tracer::new(view, &parts);
            list.extend(only.map(|bytes| judge.candidate(tracer.trace_back(bytes), true)));
        }
        complete &= self.is_remembered(list.iter().map(|candidate| candidate.bytes.len() as u64).max().unwrap_or(0));
        let mut candidates = Candidates { list, complete };
        candidates.sort();
        Ok(candidates)
    }

    /// The moment from which on the bytes of that chunk may stem, with speculation or without.
    fn may_stem_from(&self, chunk: Linear) -> Seq {
        let held = self.held.held_since(chunk).unwrap_or(self.now);
        if self.profile.buffers.speculation { held.min(self.held.speculated_since(chunk)) } else { held }
    }

    /// `end` bytes from the instruction's first on, cut where chunks meet: where each piece is, its length, and from
    /// when on it may stem.
    fn pieces(&self, end: u64) -> impl Iterator<Item = (Linear, u64, Seq)> {
        let chunk = self.chunk();
        let mut at = 0;
        std::iter::from_fn(move || {
            let first = self.linear.offset(at);
            let block = first.align_down(chunk);
            let count = (end - at).min(chunk - (first.0 - block.0));
            at += count;
            (count > 0).then(|| (first, count, self.may_stem_from(block)))
        })
    }

    /// Has no byte of memory's instruction changed or moved since the vCPU may have brought it in? Then it is the only
    /// candidate: whatever follows it, what begins with its bytes is the same instruction.
    fn is_quiet(&self) -> bool {
        self.pieces(self.len.into()).all(|(first, count, since)| {
            let phys = self.mapping.translate(first);
            // What is executed must be known; else the long way says what is wrong.
            self.mapping.moved_after(first.align_down(PAGE), since).is_none()
                && phys.is_some_and(|phys| {
                    self.memory.knows(phys, count)
                        && !self.memory.changed_after(phys, count, since)
                        && (!self.cache.is_incoherent() || self.finds_the_present(phys, count, since))
                })
        })
    }

    /// Does a fetch at that moment find the last version of all of these bytes in any case?
    fn finds_the_present(&self, phys: Phys, len: u64, moment: Seq) -> bool {
        self.cache.knows(phys, len)
            && self
                .memory
                .changed_bytes(phys, len)
                .all(|(byte, last)| self.cache.floor(self.vcpu, byte, moment) >= last)
    }

    /// Is everything still known that `len` bytes have been since the vCPU may have brought them in?
    fn is_remembered(&self, len: u64) -> bool {
        self.pieces(len).all(|(first, count, since)| {
            self.mapping.translate(first).is_none_or(|phys| {
                let oldest = self.cache.lowest(self.vcpu, phys, count, since);
                !self.memory.forgot_after(phys, count, oldest) && self.cache.knows(phys, count)
            })
        })
    }

    /// The verdict.
    ///
    /// # Errors
    /// As for the candidates.
    pub fn verdict(&self) -> Result<Verdict, ModelError> {
        if self.is_quiet() {
            return Ok(Verdict::silent(self.now));
        }
        let candidates = self.candidates()?;
        let exempt = candidates.others().iter().filter(|candidate| candidate.exempt).count();
        let complete = candidates.complete;
        Ok(Verdict { seq: self.now, hazard: self.hazard(candidates).map(Box::new), exempt, complete })
    }

    fn hazard(&self, candidates: Candidates) -> Option<Hazard> {
        let kind = judge::kind(candidates.others())?;
        let view = self.view();
        let separating = candidates
            .others()
            .iter()
            .filter(|candidate| !candidate.exempt)
            .flat_map(|candidate| &candidate.separated_by);
        let separating: BTreeSet<Seq> = separating.copied().collect();
        let memory = candidates.memory().bytes.clone();
        let reach = candidates.list.iter().map(|candidate| candidate.bytes.len() as u64).max()?;
        let mut list = candidates.list;
        list.remove(0);
        Some(Hazard {
            kind,
            vcpu: self.vcpu,
            linear: self.linear,
            phys: self.mapping.translate(self.linear)?,
            memory,
            candidates: list,
            writes: separating.into_iter().filter_map(|seq| Write::of(view.memory, seq)).collect(),
            remapped: (0..reach).filter_map(|i| self.moved(self.linear.offset(i))).max(),
            last_sync: self.last_sync,
            epoch: self.epoch,
        })
    }

    /// The last time that the page of a byte moved while a buffer may have held the byte.
    fn moved(&self, linear: Linear) -> Option<Seq> {
        let chunk = linear.align_down(self.chunk());
        let since = if self.profile.buffers.speculation {
            self.last_sync.map_or(Seq(0), |sync| sync.seq)
        } else {
            self.held.held_since(chunk).unwrap_or(self.now)
        };
        self.mapping.moved_after(linear.align_down(PAGE), since)
    }

    /// The instruction that is in memory.
    fn present_bytes(&self) -> Result<Vec<u8>, ModelError> {
        let Self { vcpu, linear, len, .. } = *self;
        let view = self.view();
        let byte = |i: u8| {
            let linear = linear.offset(u64::from(i));
            match view.byte_now(linear) {
                (_, Some(byte)) => Ok(byte),
                (Some(phys), None) => Err(ModelError::UnknownContents { vcpu, linear, phys }),
                (None, None) => Err(ModelError::Unmapped { vcpu, linear }),
            }
        };
        (0..len).map(byte).collect()
    }
}
