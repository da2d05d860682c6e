//! The lock-free half under loom: executors and a storing vCPU meet in every order that memory allows.
//!
//! loom has no `membarrier(2)`: both halves of the fence are sequentially consistent ones here. So this shows that a
//! fence between the write and the look on *both* sides is enough, and that without either it is not. It does not show
//! that the kernel's fence on behalf of the executor is one: `fence.rs` of the plugin tries that on real threads. loom
//! takes sequentially consistent accesses for acquire and release only, so nothing here rests on more than that.

mod board;

use board::{Code, Fences, Own, Shared};
use icsan_model::addr::{Seq, Vcpu};
use icsan_model::detector::flags::{Flag, Flags, OwnBoard, Rules, Segment, Word};
use loom::sync::atomic::{AtomicU64, fence};
use loom::sync::{Arc, Mutex};
use loom::thread;
use std::sync::atomic::Ordering;

#[derive(Debug)]
struct LoomWord(AtomicU64);

impl Word for LoomWord {
    fn new(value: u64) -> Self {
        Self(AtomicU64::new(value))
    }

    fn load(&self, order: Ordering) -> u64 {
        self.0.load(order)
    }

    fn store(&self, value: u64, order: Ordering) {
        // A plain store of loom's may come between the two halves of an exchange, which no memory allows.
        self.0.swap(value, order);
    }

    fn replace(&self, from: u64, to: u64) {
        let _ = self.0.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst);
    }

    fn raise(&self, to: u64) {
        self.0.fetch_max(to, Ordering::SeqCst);
    }

    fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }
}

/// Which fences are there.
#[derive(Clone, Copy, Debug)]
struct Which {
    light: bool,
    full: bool,
    heavy: bool,
}

/// As it is while all vCPUs run.
const BOTH: Which = Which { light: true, full: false, heavy: true };

impl Fences for Which {
    fn light(&self) {
        if self.light {
            fence(Ordering::SeqCst);
        }
    }

    fn full(&self) {
        if self.full {
            fence(Ordering::SeqCst);
        }
    }

    fn heavy(&self) {
        if self.heavy {
            fence(Ordering::SeqCst);
        }
    }
}

type Board = Shared<LoomWord, Which>;
type Slots = Own<LoomWord, Which>;

/// A guest of a few vCPUs with one segment.
struct Guest {
    flags: Flags<Board>,
    code: Arc<Code<LoomWord>>,
    /// The lock of all changes.
    lock: Mutex<()>,
}

impl Guest {
    fn new(vcpus: u16, fences: Which) -> Arc<Self> {
        let flags =
            board::flags(Board::new(vcpus, 1, fences), vcpus, Rules { writers: true, snoop: false, maintained: false });
        Arc::new(Self { flags, code: Arc::new(Code::numbered(0)), lock: Mutex::new(()) })
    }

    fn own(&self, vcpu: u16) -> Slots {
        self.flags.board().own(Vcpu(vcpu))
    }

    /// A store changes the segment.
    fn changes(&self) {
        let _lock = self.lock.lock().unwrap();
        let seq = self.flags.next();
        self.flags.invalidate(&[&*self.code], Some(seq));
    }

    fn settles(&self, own: &Slots) -> bool {
        self.flags.fast_path(own, &*self.code, || true)
    }

    /// As generated code and both paths do. The last change that was known when it was decided, if it was by the slow
    /// path.
    fn executes(&self, own: &Slots) -> Option<Seq> {
        if own.flag(self.code.slot()) as u64 >= icsan_model::detector::flags::DONE || self.settles(own) {
            return None;
        }
        let _lock = self.lock.lock().unwrap();
        let slot = own.slot(self.code.slot()).unwrap();
        own.set(&slot, Flag::Executed, self.flags.now());
        Some(self.code.last_change().get())
    }
}

/// Runs it in every order. `preemptions`: no more than so many times is a thread interrupted that could go on.
fn explore(preemptions: Option<usize>, body: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.check(body);
}

/// An executor says that there is nothing to judge; then the change finds it.
fn one_executor(fences: Which) {
    explore(None, move || {
        let guest = Guest::new(2, fences);
        let storing = thread::spawn({
            let guest = Arc::clone(&guest);
            move || guest.changes()
        });
        let own = guest.own(0);
        let settled = guest.settles(&own);
        storing.join().unwrap();
        assert!(!settled || own.flag(guest.code.slot()) == Flag::Recheck, "neither found the other");
    });
}

#[test]
fn one_of_two_finds_the_other() {
    one_executor(BOTH);
}

#[test]
#[should_panic(expected = "neither found the other")]
fn without_the_executor_s_fence_they_miss_each_other() {
    one_executor(Which { light: false, ..BOTH });
}

#[test]
#[should_panic(expected = "neither found the other")]
fn without_the_storing_vcpu_s_fence_they_miss_each_other() {
    one_executor(Which { heavy: false, ..BOTH });
}

#[test]
fn each_of_two_executors_is_found() {
    explore(Some(2), || {
        let guest = Guest::new(3, BOTH);
        let executor = |vcpu| {
            let guest = Arc::clone(&guest);
            thread::spawn(move || {
                let own = guest.own(vcpu);
                (guest.settles(&own), own)
            })
        };
        let executors = [executor(0), executor(1)];
        guest.changes();
        for executor in executors {
            let (settled, own) = executor.join().unwrap();
            assert!(!settled || own.flag(guest.code.slot()) == Flag::Recheck);
        }
    });
}

/// Only those are looked for that may have executed since the change before: the others are looked at as they are. The
/// executor does so twice after the first change, in one epoch or in two.
fn a_second_change(two_epochs: bool) {
    explore(Some(2), move || {
        let guest = Guest::new(2, BOTH);
        let own = guest.own(0);
        guest.executes(&own);
        let storing = thread::spawn({
            let guest = Arc::clone(&guest);
            move || {
                guest.changes();
                guest.changes();
            }
        });
        if two_epochs {
            guest.flags.begin_epoch(&own);
        }
        guest.executes(&own);
        guest.flags.begin_epoch(&own);
        let judged = guest.executes(&own);
        storing.join().unwrap();
        let (last, slot) = (guest.code.last_change().get(), guest.code.slot());
        if own.flag(slot) == Flag::Executed {
            assert!(judged.unwrap_or(own.first_fetch(slot)) >= last, "a change after {judged:?} was not found");
        }
    });
}

#[test]
fn a_second_change_finds_the_vcpu_that_executed_after_the_first() {
    a_second_change(false);
}

#[test]
fn a_second_change_finds_the_vcpu_that_executed_without_a_lock() {
    a_second_change(true);
}

#[test]
fn an_epoch_s_end_leaves_nothing_behind() {
    explore(None, || {
        let guest = Guest::new(2, BOTH);
        let storing = thread::spawn({
            let guest = Arc::clone(&guest);
            move || guest.changes()
        });
        let own = guest.own(0);
        guest.executes(&own);
        guest.flags.begin_epoch(&own);
        let cleared = own.flag(guest.code.slot());
        storing.join().unwrap();
        assert_eq!((cleared, own.flag(guest.code.slot())), (Flag::Clear, Flag::Clear));
        assert_eq!(guest.flags.held_since(guest.code.slot()), None);
    });
}

/// A vCPU that sleeps is not asked for a fence: what it executed before is seen, and what it executes after it has
/// woken sees the change. (There is no light fence here: it would be one that nobody asked for.)
fn a_sleeper(full: bool) {
    explore(None, move || {
        let guest = Guest::new(2, Which { light: false, full, heavy: true });
        guest.flags.runs(Vcpu(0), false);
        let storing = thread::spawn({
            let guest = Arc::clone(&guest);
            move || {
                // Without the heavy fence: it is to see that the other one sleeps, or the test has nothing to say.
                guest.code.last_change().note(guest.flags.next());
                let asked = guest.flags.fence();
                let held = guest.flags.held_since(guest.code.slot());
                (asked, held)
            }
        });
        let own = guest.own(0);
        guest.flags.runs(Vcpu(0), true);
        let settled = guest.settles(&own);
        let (asked, held) = storing.join().unwrap();
        assert!(
            asked || !settled || held.is_some() || own.flag(guest.code.slot()) == Flag::Recheck,
            "the sleeper was missed"
        );
    });
}

#[test]
fn a_vcpu_that_wakes_sees_what_it_was_not_asked_about() {
    a_sleeper(true);
}

#[test]
#[should_panic(expected = "the sleeper was missed")]
fn a_vcpu_that_wakes_needs_a_fence_of_its_own() {
    a_sleeper(false);
}
