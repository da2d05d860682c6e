//! What a protocol is asked when it goes on: has every CPU serialized since the last store?
//!
//! It is asked at the return of the innermost function that commits a store, since that is where the author relies on
//! it, and in protocols of several steps at the first store of the next one. A store is asked about once: at outer
//! functions, which return later, chance has had its time.

use super::context::Context;
use crate::arch::caller::Caller;
use icsan_model::addr::{Linear, Seq, Vcpu};
use icsan_model::arch::sync_event::SyncEventSet;
use std::sync::Arc;

/// A step of a protocol that keeps executors out by a breakpoint.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Step {
    /// The breakpoint is put over the first byte.
    Breakpoint,
    /// The bytes behind it are changed.
    Tail,
    /// The first byte replaces the breakpoint.
    FirstByte,
}

/// Who is asked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Asker {
    /// A function, by its entry.
    Function(Linear),
    /// The system call by which a program makes the CPUs of its threads serialize.
    Membarrier,
}

impl Asker {
    /// The function's entry, if it is one.
    #[must_use]
    pub fn function(self) -> Option<Linear> {
        if let Self::Function(entry) = self { Some(entry) } else { None }
    }
}

/// How a function makes every CPU serialize before it returns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Covering {
    /// As Linux's membarrier(2) does: no CPU goes on in user mode on this page table, of which this is the physical
    /// address, before it has serialized.
    Membarrier {
        /// The table that user mode runs on.
        space: u64,
    },
    /// As Linux's text poking does ([`crate::coverage::IntendedSyncs`]).
    TextPoke,
    /// By any of these events, wherever it happens.
    By(SyncEventSet),
}

/// Where a protocol should have made every CPU serialize.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Missing {
    /// After its last store.
    AtTheEnd,
    /// After one step, before the next.
    Between(Step, Step),
}

/// One store of a protocol, as its arguments say (`text_poke()`). What is stored would not do: bytes that stay the same
/// make no change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Poke {
    /// The linear address that is patched.
    pub at: Linear,
    /// Is it one byte, that of a breakpoint?
    pub breakpoint: bool,
}

/// The steps of one call of a protocol function.
#[derive(Clone, Default, Debug)]
pub struct Steps {
    current: Option<Step>,
    /// Where breakpoints were put, in the order of that.
    breakpoints: Vec<Linear>,
}

impl Steps {
    /// The next store. Answers with the step that it ends, and the one that it begins, if it does.
    pub fn next(&mut self, poke: Poke) -> Option<(Step, Step)> {
        let step = self.step_of(poke);
        if step == Step::Breakpoint {
            self.breakpoints.push(poke.at);
        }
        let ended = self.current.replace(step).filter(|current| *current != step)?;
        Some((ended, step))
    }

    /// Which step a store belongs to. A tail may be one byte long, and that byte may be a breakpoint's: then it lies
    /// behind a breakpoint. So does the breakpoint of a site that follows a site of one byte; but sites come in order,
    /// so that breakpoint is the last one, and that of a tail is not, unless there is only one site. (Taken for a
    /// breakpoint, the tail of an only site hides no serialization and makes up none.)
    fn step_of(&self, Poke { at, breakpoint }: Poke) -> Step {
        let put = |at: Linear| self.breakpoints.contains(&at);
        if put(at) {
            return Step::FirstByte;
        }
        let before = Linear(at.0.wrapping_sub(1));
        let is_tail = put(before) && self.breakpoints.last() != Some(&before);
        let begins = self.current.is_none_or(|current| current == Step::Breakpoint);
        if breakpoint && begins && !is_tail { Step::Breakpoint } else { Step::Tail }
    }
}

/// The stores that a protocol takes for done.
#[derive(Clone, Debug)]
pub struct Asked {
    /// On which vCPU the protocol goes on.
    pub vcpu: Vcpu,
    /// Which vCPU patches: the one that made the last store. Under Linux's `stop_machine()` that is whichever comes
    /// last, while the task that waits for it goes on wherever it was.
    pub patcher: Vcpu,
    /// Who is asked.
    pub asker: Asker,
    /// How it makes every CPU serialize.
    pub covering: Covering,
    /// Where every CPU should have serialized.
    pub missing: Missing,
    /// The stores, in their order; never none.
    pub stores: Vec<Seq>,
    /// The first address that was patched, where that is known.
    pub site: Option<Linear>,
    /// Who called the function.
    pub chain: Arc<[Caller]>,
    /// Who patches.
    pub context: Context,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The steps that a call goes through, by the stores that it makes: address, and whether it is a breakpoint.
    fn steps(pokes: &[(u64, bool)]) -> Vec<(Step, Step)> {
        let mut steps = Steps::default();
        pokes
            .iter()
            .filter_map(|(at, breakpoint)| steps.next(Poke { at: Linear(*at), breakpoint: *breakpoint }))
            .collect()
    }

    const ALL: [(Step, Step); 2] = [(Step::Breakpoint, Step::Tail), (Step::Tail, Step::FirstByte)];

    #[test]
    fn three_steps_of_a_batch() {
        let batch = [
            (10, true),
            (20, true),
            (30, true),
            (11, false),
            (21, false),
            (31, false),
            (10, false),
            (20, false),
            (30, false),
        ];
        assert_eq!(steps(&batch), ALL);
        assert_eq!(steps(&batch[..3]), []);
    }

    #[test]
    fn a_tail_of_one_byte_that_looks_like_a_breakpoint() {
        assert_eq!(steps(&[(10, true), (20, true), (11, true), (21, false), (10, false), (20, false)]), ALL);
        assert_eq!(steps(&[(10, true), (20, true), (11, false), (21, true), (10, false), (20, false)]), ALL);
        // Of an only site: no step is made up, and the last one is asked about after the tail, too.
        assert_eq!(steps(&[(10, true), (11, true), (10, false)]), [(Step::Breakpoint, Step::FirstByte)]);
    }

    #[test]
    fn a_site_behind_one_of_a_single_byte() {
        assert_eq!(steps(&[(10, true), (11, true), (12, false), (10, false), (11, false)]), ALL);
    }
}
