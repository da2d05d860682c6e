//! What tasks of programs stored to code and did not commit.

use super::tasks::Task;
use icsan_model::addr::Seq;
use rustc_hash::FxHashMap;
use std::collections::VecDeque;

/// Stores of one task, or of one address space, that are remembered for a commit to come.
pub const MAX_STORES: usize = 1 << 16;

/// Tasks whose stores are remembered.
pub const MAX_TASKS: usize = 256;

/// See the module.
#[derive(Default, Debug)]
pub struct Uncommitted {
    by_task: FxHashMap<Task, VecDeque<Seq>>,
    /// Stores since all were looked through the last time, and how many were left then.
    since_sweep: usize,
    left_by_sweep: usize,
}

impl Uncommitted {
    /// Nothing is known of any task any more.
    pub fn clear(&mut self) {
        self.by_task.clear();
    }

    /// Tasks whose stores are remembered.
    #[cfg(test)]
    pub fn tasks(&self) -> usize {
        self.by_task.len()
    }

    /// A task made a store. Answers whether that of another one, which is `remembered` still, had to be given up for
    /// it.
    #[must_use]
    pub fn add(&mut self, task: Task, store: Seq, remembered: impl Fn(Seq) -> bool) -> bool {
        self.since_sweep += 1;
        let is_new = self.by_task.len() >= MAX_TASKS && !self.by_task.contains_key(&task);
        let lost = is_new && self.make_room(&remembered);
        let stores = self.by_task.entry(task).or_default();
        if stores.len() >= MAX_STORES {
            stores.pop_front();
        }
        stores.push_back(store);
        lost
    }

    /// What a task stored.
    pub fn take(&mut self, task: Task) -> VecDeque<Seq> {
        self.by_task.remove(&task).unwrap_or_default()
    }

    /// What was stored by `from` is found to have been stored by `to`.
    pub fn rename(&mut self, from: Task, to: Task) {
        if let Some(stores) = self.by_task.remove(&from) {
            self.by_task.entry(to).or_default().extend(stores);
        }
    }

    /// Forgets the stores that are not `remembered` by the history any more.
    pub fn forget(&mut self, remembered: impl Fn(Seq) -> bool) {
        self.by_task.values_mut().for_each(|stores| stores.retain(|store| remembered(*store)));
        self.by_task.retain(|_, stores| !stores.is_empty());
    }

    /// Makes room for the stores of one more task. To look through all stores is put off until as many more have been
    /// made as were left the last time, so that a store pays the same share whatever is remembered.
    fn make_room(&mut self, remembered: &impl Fn(Seq) -> bool) -> bool {
        if self.since_sweep >= self.left_by_sweep {
            self.forget(remembered);
            self.since_sweep = 0;
            self.left_by_sweep = self.by_task.values().map(VecDeque::len).sum();
        }
        if self.by_task.len() < MAX_TASKS {
            return false;
        }
        // The one that stored nothing for the longest time.
        let idle = self.by_task.iter().min_by_key(|(_, stores)| stores.back().copied()).map(|(idle, _)| *idle);
        let stores = idle.and_then(|idle| self.by_task.remove(&idle));
        stores.is_some_and(|stores| stores.into_iter().any(remembered))
    }
}
