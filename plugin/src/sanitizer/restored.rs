//! Restored states: memory and all vCPUs become what a snapshot says (`loadvm`), and no vCPU holds anything.
//!
//! QEMU tells no plugin of it, but drops all translations, and tells of that:
//! - in 10.0 a vCPU's thread does it, once memory is loaded: woken up for that, before it executes anything, while all
//!   others sleep (`cpu_common_post_load`). When the room for translations is full a vCPU does the same in the middle
//!   of what it executes;
//! - in 11.1 a thread does it that is no vCPU's, before memory is loaded (`RUN_STATE_RESTORE_VM`).
//!
//! - in 11.1 nothing is dropped if the machine was stopped before `loadvm`. Then it is found when the machine goes on,
//!   by memory that differs from what is known of it ([`crate::qemu`]'s `run_state`).
//!
//! Whatever executes next is translated anew (or may be outdated by QEMU's own fault). So what was restored is dealt
//! with when the first block is, and each vCPU begins a new epoch before the first thing that it does.

use super::Sanitizer;
use crate::patching::Awaited;
use crate::points::await_returns;
use crate::qemu::cpu::CurrentVcpu;
use crate::qemu::current;
use crate::qemu::locks::Mutex;
use crate::qemu::process::say;
use crate::stores::store_side::Differing;
use icsan_model::addr::{Linear, Vcpu};
use icsan_model::arch::sync_event::SyncEventId;
use icsan_model::detector::flags::SlotId;
use icsan_model::detector::sync_log::SyncAt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

/// What a vCPU did last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Doing {
    /// It sleeps.
    Sleeps,
    /// It was woken up, and has not been seen to do anything since.
    Woke,
    /// It executes.
    Executes,
}

/// In cache lines of its own: its vCPU writes it often.
#[derive(Debug)]
#[repr(align(128))]
struct VcpuPart {
    /// A [`Doing`].
    doing: AtomicU8,
    /// It has not begun the epoch after a restored state.
    pending: AtomicBool,
}

/// What is known of restored states.
#[derive(Debug)]
pub struct Restores {
    vcpus: Box<[VcpuPart]>,
    /// Has memory to be compared?
    memory: AtomicBool,
    /// Is anything pending?
    any: AtomicBool,
    count: AtomicU64,
    /// While the machine is stopped: what memory held other than what was known of it, when it was stopped.
    differing: Mutex<Option<Differing>>,
}

impl Restores {
    /// None so far.
    #[must_use]
    pub fn new(vcpus: usize) -> Self {
        let part = || VcpuPart { doing: AtomicU8::new(Doing::Executes as u8), pending: AtomicBool::new(false) };
        Self {
            vcpus: (0..vcpus).map(|_| part()).collect(),
            memory: AtomicBool::new(false),
            any: AtomicBool::new(false),
            count: AtomicU64::new(0),
            differing: Mutex::default(),
        }
    }

    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    fn does(&self, vcpu: Vcpu, doing: Doing) {
        if let Some(part) = self.vcpus.get(usize::from(vcpu.0)) {
            part.doing.store(doing as u8, Ordering::Relaxed);
        }
    }

    /// A vCPU was woken up, or is about to sleep.
    pub fn runs(&self, vcpu: Vcpu, runs: bool) {
        self.does(vcpu, if runs { Doing::Woke } else { Doing::Sleeps });
    }

    /// A vCPU executes something.
    #[inline]
    pub fn executes(&self, vcpu: Vcpu) {
        self.does(vcpu, Doing::Executes);
    }

    /// All translations were dropped, on the thread of `by`: because a state is being restored, or was?
    fn is_one(&self, by: Option<Vcpu>, started: impl IntoIterator<Item = Vcpu>) -> bool {
        let executes = |vcpu: Vcpu| {
            self.vcpus
                .get(usize::from(vcpu.0))
                .is_some_and(|part| part.doing.load(Ordering::Relaxed) == Doing::Executes as u8)
        };
        let sleeps = |vcpu: Vcpu| {
            self.vcpus
                .get(usize::from(vcpu.0))
                .is_some_and(|part| part.doing.load(Ordering::Relaxed) == Doing::Sleeps as u8)
        };
        // A vCPU that drops them was woken up for it.
        by.is_none_or(|by| !sleeps(by) && started.into_iter().chain([by]).all(|vcpu| !executes(vcpu)))
    }

    /// Each vCPU may drop translations for the same state: that is one.
    fn begins(&self) {
        if !self.memory.swap(true, Ordering::SeqCst) {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
        self.vcpus.iter().for_each(|part| part.pending.store(true, Ordering::Relaxed));
        self.any.store(true, Ordering::Release);
    }

    fn takes(&self, vcpu: Vcpu) -> bool {
        self.vcpus.get(usize::from(vcpu.0)).is_some_and(|part| part.pending.swap(false, Ordering::Relaxed))
    }

    /// Has any vCPU still to begin anew: one that is awake, and any at all?
    fn pending(&self, started: impl IntoIterator<Item = Vcpu>) -> (bool, bool) {
        let (mut awake, mut any) = (false, false);
        for part in started.into_iter().filter_map(|vcpu| self.vcpus.get(usize::from(vcpu.0))) {
            let pending = part.pending.load(Ordering::Relaxed);
            any |= pending;
            awake |= pending && part.doing.load(Ordering::Relaxed) != Doing::Sleeps as u8;
        }
        (awake, any)
    }
}

impl Sanitizer {
    /// QEMU dropped all translations.
    pub(super) fn flushed(&self) {
        if self.flags.started().next().is_none() || self.blocks.load(Ordering::Relaxed) == 0 {
            return;
        }
        if !self.restores.is_one(current::vcpu(), self.flags.started()) {
            return;
        }
        self.state_is_restored("all translations were dropped");
    }

    /// The machine is stopped, or goes on.
    pub(super) fn stands_still(&self, stopped: bool) {
        let code = self.code.lock();
        let Some(side) = &code.side else { return };
        let (now, mut before) = (side.differing(), self.restores.differing.lock());
        if stopped {
            *before = Some(now);
        } else if before.take().is_some_and(|before| before != now) {
            self.state_is_restored("memory changed");
        }
    }

    fn state_is_restored(&self, sign: &str) {
        if self.restores.count() == 0 {
            say(&format!(
                "{sign} while the machine stood still: a state is taken to be restored (loadvm; a stop by gdb looks \
                 the same), and no vCPU to hold anything from before"
            ));
        }
        self.fast_path_is_open.store(false, Ordering::SeqCst);
        self.restores.begins();
    }

    /// Before a vCPU does anything: if a state was restored, it begins anew.
    #[inline]
    pub(super) fn begins_anew(&self, vcpu: &CurrentVcpu) {
        if self.restores.any.load(Ordering::Acquire) {
            self.deals_with_restored(vcpu);
        }
    }

    #[cold]
    fn deals_with_restored(&self, current: &CurrentVcpu) {
        if self.restores.memory.load(Ordering::SeqCst) {
            let mut code = self.code.lock();
            if self.restores.memory.swap(false, Ordering::SeqCst) {
                // No vCPU executes: there is no block but those that are translated from now on, and that waits for the
                // lock.
                let slots = u32::try_from(code.table.segments()).unwrap_or(u32::MAX);
                self.flags.recheck((0..slots).map(SlotId));
                self.flags.started().for_each(|vcpu| self.filter.forget(vcpu));
                self.origins.restored();
                if let Some(side) = &mut code.side {
                    let touched = side.restored(|| self.flags.next());
                    touched.iter().for_each(|touched| self.invalidate(touched));
                    await_returns(Awaited::default());
                    self.user_modes.forget();
                }
            }
        }
        if self.restores.takes(current.id()) {
            self.holds_nothing(current, self.facts.restored);
        }
        // One that sleeps begins anew when it wakes up.
        let (awake, any) = self.restores.pending(self.flags.started());
        if !awake {
            self.watch(self.watching.load(Ordering::Relaxed));
        }
        self.restores.any.store(any, Ordering::Release);
    }

    /// A vCPU was woken up. While memory has still to be compared it waits with that: what woke it up may be the
    /// restoring itself.
    pub(super) fn wakes(&self, vcpu: &CurrentVcpu) {
        if !self.restores.memory.load(Ordering::SeqCst) {
            self.begins_anew(vcpu);
        }
    }

    /// The vCPU, whose thread this is, begins a new epoch whatever the profile counts: nothing of what it executed so
    /// far is held.
    pub(super) fn holds_nothing(&self, current: &CurrentVcpu, event: SyncEventId) {
        let vcpu = current.id();
        let Some((state, slots)) = self.vcpus.get(usize::from(vcpu.0)).zip(self.flags.board().of(current)) else {
            return;
        };
        if let Some(side) = &mut self.code.lock().side {
            side.past().reset(vcpu);
        }
        let mut state = state.lock();
        let seq = self.flags.begin_epoch(&slots);
        state.reset(event, seq);
        self.ends_trail(&mut state, Some((current, SyncAt { event, pc: Linear(0), origin: None })));
        if let Some(repair) = self.repair {
            repair.next_epoch(current);
        }
        if let Some(own) = self.own_stores.get(usize::from(vcpu.0)) {
            own.store(false, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restored_state_is_told_from_room_that_ran_out() {
        let restores = Restores::new(3);
        let started = [Vcpu(0), Vcpu(1)];
        let one = |by| restores.is_one(by, started);
        assert!(one(None), "on a thread that is no vCPU's");
        assert!(!one(Some(Vcpu(0))));
        restores.runs(Vcpu(0), false);
        restores.runs(Vcpu(0), true);
        assert!(!one(Some(Vcpu(0))), "the other one executes");
        restores.runs(Vcpu(1), false);
        assert!(one(Some(Vcpu(0))));
        restores.runs(Vcpu(1), true);
        assert!(one(Some(Vcpu(0))), "it was woken up, too, and waits");
        restores.executes(Vcpu(1));
        assert!(!one(Some(Vcpu(0))));
        restores.runs(Vcpu(1), false);
        restores.executes(Vcpu(0));
        assert!(!one(Some(Vcpu(0))), "in the middle of what it executes");
    }

    #[test]
    fn every_vcpu_begins_anew_once() {
        let restores = Restores::new(2);
        assert!(!restores.takes(Vcpu(0)) && restores.count() == 0);
        restores.begins();
        assert!(
            restores.takes(Vcpu(0)) && !restores.takes(Vcpu(0)) && restores.takes(Vcpu(1)) && !restores.takes(Vcpu(7))
        );
        assert_eq!(restores.count(), 1);
    }
}
