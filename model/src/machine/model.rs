//! The model: the state of memory and of every vCPU, and what each event does to it.

use crate::addr::{Linear, Seq, Vcpu};
use crate::arch::decode::Decode;
use crate::arch::profile::Profile;
use crate::error::ModelError;
use crate::event::{Event, Store};
use crate::fetch::instruction_cache::InstructionCache;
use crate::fetch::prefetch_buffer::MAX_LOOKAHEAD;
use crate::machine::stats::Stats;
use crate::machine::vcpu::VcpuState;
use crate::memory::{CELL, Memory, PAGE, TOO_MANY_VERSIONS};
use crate::verdict::candidates::Candidates;
use crate::verdict::execution::Execution;
use crate::verdict::hazard::Verdict;
use crate::verdict::last_sync::LastSync;
use std::sync::Arc;

/// Memory, the vCPUs, and the profile that says what they may do.
///
/// A clone is an independent model in the same state, for a search of what could happen next.
#[derive(Clone, Debug)]
pub struct Model {
    profile: Profile,
    decoder: Arc<dyn Decode>,
    memory: Memory,
    cache: InstructionCache,
    vcpus: Vec<VcpuState>,
    last: Seq,
    stats: Stats,
}

impl Model {
    /// A guest of `vcpus` vCPUs that has not begun to run.
    ///
    /// # Errors
    /// A chunk or a cache line that is no power of two up to a page, or a look-ahead above [`MAX_LOOKAHEAD`].
    pub fn new(profile: Profile, decoder: impl Decode + 'static, vcpus: usize) -> Result<Self, ModelError> {
        let buffers = profile.buffers;
        if !buffers.chunk.is_power_of_two() || u64::from(buffers.chunk) > PAGE {
            return Err(ModelError::BadChunk { chunk: buffers.chunk });
        }
        if buffers.lookahead > MAX_LOOKAHEAD {
            return Err(ModelError::BadLookahead { lookahead: buffers.lookahead, max: MAX_LOOKAHEAD });
        }
        let caches = profile.incoherent_caches();
        let lines = caches.into_iter().flat_map(|caches| [caches.data_line, caches.instruction_line]);
        if let Some(line) = lines.into_iter().find(|line| !line.is_power_of_two() || *line > PAGE) {
            return Err(ModelError::BadLine { line });
        }
        Ok(Self {
            profile,
            decoder: Arc::new(decoder),
            memory: Memory::default(),
            cache: InstructionCache::new(caches, vcpus),
            vcpus: vec![VcpuState::new(buffers); vcpus],
            last: Seq(0),
            stats: Stats::default(),
        })
    }

    /// Applies an event and gives it the next place in the order. A refused event changes nothing.
    ///
    /// # Errors
    /// Whatever makes the event impossible: see [`ModelError`].
    pub fn apply(&mut self, event: &Event) -> Result<Verdict, ModelError> {
        let now = self.last.next();
        self.check(event)?;
        let mut verdict = Verdict::silent(now);
        match event {
            Event::Remap { vcpu, linear, phys } => {
                let snoop = self.profile.snoop;
                let vcpu = self.vcpu_mut(*vcpu)?;
                if vcpu.mapping.remap(now, *linear, *phys) && snoop {
                    vcpu.snoop_remap(*linear);
                }
            }
            Event::Contents { phys, bytes } => self.memory.contents(*phys, bytes),
            Event::Store(store) => self.store(store, now),
            Event::Attribute { store, vcpu, pc, linear } => self.attribute(*store, *vcpu, *pc, *linear),
            Event::Fetch { vcpu, linear, len } => {
                verdict = self.execution(*vcpu, *linear, *len, now)?.verdict()?;
                self.vcpu_mut(*vcpu)?.execute(*linear, *len, now);
                self.stats.fetch(&verdict);
            }
            Event::Branch { vcpu } => self.vcpu_mut(*vcpu)?.branch(),
            Event::Sync { vcpu, event, pc } => {
                if self.profile.serializes(*event) {
                    self.vcpu_mut(*vcpu)?.serialize(LastSync { event: Some(*event), pc: Some(*pc), seq: now });
                    *self.stats.serializing.entry(*event).or_default() += 1;
                    self.stats.epochs += 1;
                }
            }
            Event::Commit { stores } => stores.iter().for_each(|store| self.memory.commit(*store)),
            Event::Maintain { vcpu, operation } => {
                self.cache.maintain(now, *vcpu, *operation, &self.memory);
            }
            Event::Barrier { vcpu, domain, accesses } => {
                self.cache.barrier(now, *vcpu, *domain, *accesses);
            }
            Event::Caches { vcpu, on } => self.cache.caches(*vcpu, *on),
            Event::Reset { vcpu } => {
                self.vcpu_mut(*vcpu)?.serialize(LastSync { event: None, pc: None, seq: now });
                self.stats.epochs += 1;
            }
        }
        self.last = now;
        Ok(verdict)
    }

    /// What the vCPU may execute if it executed `len` bytes at `linear` next.
    ///
    /// # Errors
    /// As for the execution itself.
    pub fn candidates(&self, vcpu: Vcpu, linear: Linear, len: u8) -> Result<Candidates, ModelError> {
        self.check(&Event::Fetch { vcpu, linear, len })?;
        self.execution(vcpu, linear, len, self.last.next())?.candidates()
    }

    /// Forgets what no vCPU can hold any more. It changes no verdict: calling it is a matter of memory only. (Where an
    /// instruction cache does not see stores, lines that nobody maintains may be fetched from however far back. Of
    /// cells with too many versions only the latest are kept then, and who executes them is not judged in full.)
    pub fn forget(&mut self) {
        let horizon = self.vcpus.iter().map(|vcpu| vcpu.oldest(self.last)).min().unwrap_or(self.last);
        if self.cache.is_incoherent() {
            let Self { memory, cache, .. } = self;
            memory.forget_before_each(horizon, |cell| cache.oldest(cell, CELL as u64, horizon));
            let long: Vec<_> = memory.cells_with_more_than(TOO_MANY_VERSIONS).collect();
            long.into_iter().for_each(|cell| memory.keep_latest(cell, TOO_MANY_VERSIONS / 2));
            cache.forget_before(horizon, memory);
        } else {
            self.memory.forget_before(horizon);
        }
        for vcpu in &mut self.vcpus {
            vcpu.mapping.forget_before(horizon);
        }
    }

    /// The profile.
    #[must_use]
    pub const fn profile(&self) -> &Profile {
        &self.profile
    }

    /// The counters.
    #[must_use]
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Memory and its past.
    #[must_use]
    pub const fn memory(&self) -> &Memory {
        &self.memory
    }

    /// One vCPU, if the guest has it.
    #[must_use]
    pub fn vcpu(&self, vcpu: Vcpu) -> Option<&VcpuState> {
        self.vcpus.get(usize::from(vcpu.0))
    }

    /// The place of the last event that was applied.
    #[must_use]
    pub const fn last(&self) -> Seq {
        self.last
    }

    fn vcpu_mut(&mut self, vcpu: Vcpu) -> Result<&mut VcpuState, ModelError> {
        let vcpus = self.vcpus.len();
        self.vcpus.get_mut(usize::from(vcpu.0)).ok_or(ModelError::UnknownVcpu { vcpu, vcpus })
    }

    /// Refuses what cannot be, before anything changes.
    fn check(&self, event: &Event) -> Result<(), ModelError> {
        let vcpu = match event {
            Event::Store(store) => store.vcpu,
            Event::Commit { .. } | Event::Contents { .. } => None,
            Event::Attribute { vcpu, .. }
            | Event::Remap { vcpu, .. }
            | Event::Fetch { vcpu, .. }
            | Event::Branch { vcpu }
            | Event::Sync { vcpu, .. }
            | Event::Maintain { vcpu, .. }
            | Event::Barrier { vcpu, .. }
            | Event::Caches { vcpu, .. }
            | Event::Reset { vcpu } => Some(*vcpu),
        };
        if let Some(vcpu) = vcpu.filter(|vcpu| self.vcpu(*vcpu).is_none()) {
            return Err(ModelError::UnknownVcpu { vcpu, vcpus: self.vcpus.len() });
        }
        match event {
            Event::Remap { linear, phys, .. } => {
                let aligned =
                    linear.align_down(PAGE) == *linear && phys.is_none_or(|phys| phys.align_down(PAGE) == phys);
                aligned.then_some(()).ok_or(ModelError::MisalignedPage { linear: *linear })
            }
            Event::Store(Store { bytes, .. }) | Event::Contents { bytes, .. } if bytes.is_empty() => {
                Err(ModelError::ZeroLength)
            }
            Event::Store(Store { phys, bytes, .. }) | Event::Contents { phys, bytes }
                if phys.0 % PAGE + bytes.len() as u64 > PAGE =>
            {
                Err(ModelError::StoreCrossesPage { phys: *phys, len: bytes.len() })
            }
            Event::Attribute { store, .. } if !self.memory.is_store(*store) => {
                Err(ModelError::NotAStore { seq: *store })
            }
            Event::Fetch { len: 0, .. } => Err(ModelError::ZeroLength),
            Event::Fetch { len, .. } if usize::from(*len) > self.decoder.max_len() => {
                Err(ModelError::TooLong { len: *len, max: self.decoder.max_len() })
            }
            Event::Commit { stores } => match stores.iter().find(|seq| !self.memory.is_store(**seq)) {
                Some(seq) => Err(ModelError::NotAStore { seq: *seq }),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn store(&mut self, store: &Store, now: Seq) {
        self.memory.store(now, store.clone());
        self.cache.store(now, store);
        if let Some(owner) = store.vcpu.and_then(|vcpu| self.vcpus.get_mut(usize::from(vcpu.0))) {
            owner.own_store(store, now);
        }
        if self.profile.snoop {
            self.vcpus.iter_mut().for_each(|vcpu| vcpu.snoop(store));
        }
        self.stats.stores += 1;
    }

    fn attribute(&mut self, store: Seq, vcpu: Vcpu, pc: Option<Linear>, linear: Option<Linear>) {
        if self.memory.attribute(store, vcpu, pc, linear)
            && let Some(record) = self.memory.record(store)
            && let Some(owner) = self.vcpus.get_mut(usize::from(vcpu.0))
        {
            owner.own_store(&record.store, store);
        }
    }

    fn execution(&self, vcpu: Vcpu, linear: Linear, len: u8, now: Seq) -> Result<Execution<'_>, ModelError> {
        let state = self.vcpu(vcpu).ok_or(ModelError::UnknownVcpu { vcpu, vcpus: self.vcpus.len() })?;
        Ok(Execution {
            profile: &self.profile,
            decoder: &*self.decoder,
            memory: &self.memory,
            cache: &self.cache,
            mapping: &state.mapping,
            held: state,
            last_sync: state.last_sync,
            epoch: state.epoch,
            vcpu,
            linear,
            len,
            now,
        })
    }
}
