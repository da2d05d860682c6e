//! Who made the latest stores to code.

use super::context::Context;
use crate::arch::caller::Caller;
use icsan_model::addr::{Linear, Seq};
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::sync::Arc;

/// Writers of stores that are remembered.
const MAX_WRITERS: usize = 1 << 16;

/// Who made a store.
#[derive(Clone, Debug)]
pub struct Writer {
    /// Entry of the outermost protocol function that the task was in.
    pub function: Option<Linear>,
    /// Who had called it.
    pub chain: Arc<[Caller]>,
    /// Where it ran.
    pub context: Context,
}

/// The latest ones, by store.
#[derive(Default, Debug)]
pub struct Writers {
    by_store: FxHashMap<Seq, Writer>,
    order: VecDeque<Seq>,
}

impl Writers {
    /// A store was made.
    pub fn add(&mut self, store: Seq, writer: Writer) {
        if self.order.len() >= MAX_WRITERS
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_store.remove(&oldest);
        }
        self.order.push_back(store);
        self.by_store.insert(store, writer);
    }

    /// Who made it.
    #[must_use]
    pub fn of(&self, store: Seq) -> Option<&Writer> {
        self.by_store.get(&store)
    }
}
