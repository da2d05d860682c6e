//! One vCPU: its epoch, its two buffers, and the rules of what its own stores do to them.

use crate::addr::{Epoch, Linear, Seq};
use crate::arch::profile::Buffers;
use crate::event::Store;
use crate::fetch::held::Held;
use crate::fetch::own_stores::{OwnStores, chunks};
use crate::fetch::prefetch_buffer::PrefetchBuffer;
use crate::fetch::trace_buffer::TraceBuffer;
use crate::memory::mapping::Mapping;
use crate::verdict::last_sync::LastSync;

/// What the model knows of one vCPU.
#[derive(Clone, Debug)]
pub struct VcpuState {
    /// The translations that it walks.
    pub mapping: Mapping,
    /// The epoch that it is in.
    pub epoch: Epoch,
    /// What began the epoch; `None` before the first serializing event.
    pub last_sync: Option<LastSync>,
    parameters: Buffers,
    prefetch: PrefetchBuffer,
    trace: TraceBuffer,
    own: OwnStores,
}

impl VcpuState {
    /// A vCPU that has executed nothing.
    #[must_use]
    pub fn new(parameters: Buffers) -> Self {
        Self {
            mapping: Mapping::default(),
            epoch: Epoch::default(),
            last_sync: None,
            parameters,
            prefetch: PrefetchBuffer::new(parameters.chunk, parameters.prefetch),
            trace: TraceBuffer::new(parameters.trace),
            own: OwnStores::default(),
        }
    }

    /// The chunk that holds an address.
    #[must_use]
    pub fn chunk_of(&self, linear: Linear) -> Linear {
        linear.align_down(u64::from(self.parameters.chunk))
    }

    /// When the epoch began.
    #[must_use]
    pub fn epoch_start(&self) -> Seq {
        self.last_sync.map_or(Seq(0), |sync| sync.seq)
    }

    /// The earliest moment that this vCPU can still execute bytes of.
    #[must_use]
    pub fn oldest(&self, now: Seq) -> Seq {
        if self.parameters.speculation {
            return self.epoch_start();
        }
        self.prefetch
            .iter()
            .chain(self.trace.iter())
            .map(|(chunk, since)| self.own.clip(chunk, since))
            .min()
            .unwrap_or(now)
    }

    /// It executed an instruction: both buffers bring in what it touches, the prefetch buffer reads ahead.
    pub fn execute(&mut self, linear: Linear, len: u8, now: Seq) {
        let touched = self.chunks(linear, u64::from(len));
        // What was held was perhaps what was executed, so a new run is as old as that. The prefetch buffer reads from
        // memory instead.
        let held: Vec<_> = touched.iter().map(|chunk| (*chunk, self.held_since(*chunk).unwrap_or(now))).collect();
        self.trace.execute(linear, len, &held);
        for chunk in self.chunks(linear, u64::from(len) + u64::from(self.parameters.lookahead)) {
            if self.mapping.translate(chunk).is_some() {
                self.prefetch.fill(chunk, now);
            }
        }
    }

    /// The chunks that `len` bytes touch, by address.
    fn chunks(&self, linear: Linear, len: u64) -> Vec<Linear> {
        chunks(linear, len, u64::from(self.parameters.chunk)).collect()
    }

    /// It stored through a linear address: that is what the check against prefetched instructions looks at.
    pub fn own_store(&mut self, store: &Store, now: Seq) {
        if let Some(linear) = store.linear.filter(|_| self.parameters.own_store_at_branch) {
            for chunk in self.chunks(linear, store.bytes.len() as u64) {
                self.own.store(chunk, now);
            }
        }
    }

    /// It took a branch.
    pub fn branch(&mut self) {
        self.own.branch();
        self.prefetch.empty();
        self.trace.branch();
    }

    /// A store was snooped: whatever holds its bytes, by physical address, drops them.
    pub fn snoop(&mut self, store: &Store) {
        let page = store.phys.align_down(crate::memory::PAGE);
        let pages: Vec<_> = self.mapping.pages_of(page).collect();
        for linear in pages {
            for chunk in self.chunks(linear.offset(store.phys.0 - page.0), store.bytes.len() as u64) {
                self.drop_chunk(chunk);
            }
        }
    }

    /// A buffer that snoops is tagged by physical address: a page that moves is not found in it any more.
    pub fn snoop_remap(&mut self, page: Linear) {
        let held: Vec<_> = self.prefetch.iter().chain(self.trace.iter()).map(|(chunk, _)| chunk).collect();
        for chunk in held.into_iter().filter(|chunk| chunk.align_down(crate::memory::PAGE) == page) {
            self.drop_chunk(chunk);
        }
    }

    fn drop_chunk(&mut self, chunk: Linear) {
        self.prefetch.drop_chunk(chunk);
        self.trace.drop_chunk(chunk);
    }

    /// The next epoch: both buffers are empty.
    pub fn serialize(&mut self, sync: LastSync) {
        let Self { mapping: _, epoch, last_sync, parameters: _, prefetch, trace, own } = self;
        *epoch = epoch.next();
        *last_sync = Some(sync);
        prefetch.empty();
        trace.empty();
        own.clear();
    }
}

impl Held for VcpuState {
    fn held_since(&self, chunk: Linear) -> Option<Seq> {
        let since = [self.prefetch.since(chunk), self.trace.since(chunk)].into_iter().flatten().min()?;
        Some(self.own.clip(chunk, since))
    }

    fn speculated_since(&self, chunk: Linear) -> Seq {
        self.own.clip(chunk, self.epoch_start())
    }
}
