//! What tasks that sleep, migrate, fork and nest commit, and what their functions are asked.

use super::*;
use crate::arch::x86::LINUX;

/// Where the kernel's addresses begin.
const KERNEL: u64 = 1 << 63;

fn of_vcpus(vcpus: usize) -> Patching {
    Patching::new(vcpus, &LINUX, Arc::new(Origins::new(vcpus)))
}

fn entry(vcpu: u16, entry: u64, returns_to: u64, stack: u64, commits: bool) -> Entry {
    meaning(vcpu, entry, returns_to, stack, Meaning { commits, ..Meaning::default() })
}

fn meaning(vcpu: u16, entry: u64, returns_to: u64, stack: u64, meaning: Meaning) -> Entry {
    Entry { vcpu: Vcpu(vcpu), entry: Linear(entry), returns_to: Linear(returns_to), stack, meaning, chain: Vec::new() }
}

fn store(patching: &mut Patching, seq: u64, vcpu: u16) {
    patching.store(Seq(seq), Vcpu(vcpu), false, Context::default(), |_| true);
}

#[test]
fn a_task_that_sleeps_and_migrates_commits_its_own_stores() {
    let mut patching = of_vcpus(2);
    patching.switch(Vcpu(0), None, 100);
    patching.switch(Vcpu(1), None, 200);
    patching.enter(entry(0, 1, 10, 0x8000, true));
    store(&mut patching, 1, 0);
    // It sleeps; another task runs there, then it comes back on the other vCPU.
    patching.switch(Vcpu(0), None, 300);
    store(&mut patching, 2, 0);
    store(&mut patching, 3, 1);
    patching.switch(Vcpu(1), None, 100);
    store(&mut patching, 4, 1);
    assert!(patching.leave(Vcpu(1), Linear(10), 0x9000, false).committed.is_empty(), "another stack");
    assert!(patching.awaits(Linear(10)));
    assert_eq!(patching.leave(Vcpu(1), Linear(10), 0x8000, false).committed, [Seq(1), Seq(4)]);
    assert!(!patching.awaits(Linear(10)));
    assert_eq!(patching.writer(Seq(4)).unwrap().function, Some(Linear(1)));
    assert_eq!(patching.writer(Seq(2)).unwrap().function, None);
}

#[test]
fn what_interrupts_a_function_stores_nothing_for_it() {
    let origins = Arc::new(Origins::new(1));
    let numbers = origins.learn(&[Linear(KERNEL | 0x500)]);
    let mut patching = Patching::new(1, &LINUX, Arc::clone(&origins));
    let stack = KERNEL | 0x7_3f00;
    patching.enter(entry(0, KERNEL | 1, KERNEL | 10, stack, true));
    store(&mut patching, 1, 0);
    origins.enters_from_kernel(stack - 0x40, numbers[0].1);
    store(&mut patching, 2, 0);
    let _ = origins.returns_to_kernel(stack - 0x40);
    store(&mut patching, 3, 0);
    assert_eq!(patching.writer(Seq(2)).unwrap().function, None);
    assert_eq!(patching.leave(Vcpu(0), Linear(KERNEL | 10), stack, false).committed, [Seq(1), Seq(3)]);
    // An interrupt that was never returned from, and a function that was entered since.
    origins.enters_from_kernel(stack - 0x40, numbers[0].1);
    patching.enter(entry(0, KERNEL | 1, KERNEL | 10, stack, true));
    store(&mut patching, 4, 0);
    assert_eq!(patching.leave(Vcpu(0), Linear(KERNEL | 10), stack, false).committed, [Seq(4)]);
}

#[test]
fn what_ends_in_a_jump_is_left_with_what_it_jumped_to() {
    let mut patching = of_vcpus(1);
    patching.enter(entry(0, 1, 10, 0x8000, false));
    patching.enter(entry(0, 2, 10, 0x8000, true));
    patching.enter(entry(0, 3, 30, 0x7f00, false));
    store(&mut patching, 5, 0);
    assert_eq!(patching.writer(Seq(5)).unwrap().function, Some(Linear(1)), "the outermost is named");
    assert!(patching.leave(Vcpu(0), Linear(30), 0x7f00, false).committed.is_empty(), "it does not commit");
    assert_eq!(patching.leave(Vcpu(0), Linear(10), 0x8000, false).committed, [Seq(5)]);
    assert!(patching.leave(Vcpu(0), Linear(10), 0x8000, false).committed.is_empty());
}

#[test]
fn what_was_jumped_to_is_innermost() {
    let mut patching = of_vcpus(1);
    let kernel = |number: u64, stack: u64| entry(0, KERNEL | number, KERNEL | 10, stack, false);
    [kernel(1, 0x8100), kernel(2, 0x8000), kernel(3, 0x8000)].into_iter().for_each(|entry| drop(patching.enter(entry)));
    assert_eq!(patching.innermost(Vcpu(0)), Some(Linear(KERNEL | 3)));
    patching.leave(Vcpu(0), Linear(KERNEL | 10), 0x8000, false);
    assert_eq!(patching.innermost(Vcpu(0)), Some(Linear(KERNEL | 1)));
}

#[test]
fn a_loop_whose_returns_are_not_seen_leaves_one_entry() {
    let mut patching = of_vcpus(1);
    for _ in 0..3 {
        patching.enter(entry(0, 1, 10, 0x8000, false));
        patching.enter(entry(0, 2, 10, 0x8000, true));
    }
    assert_eq!((patching.frames.len(), patching.dropped()), (2, 0));
}

#[test]
fn tasks_that_stored_long_ago_make_room() {
    let mut patching = of_vcpus(1);
    let looked = std::cell::Cell::new(0);
    let mut store = |seq: u64, task: u64, forgotten: u64| {
        patching.switch(Vcpu(0), None, task);
        patching.store(Seq(seq), Vcpu(0), true, Context::default(), |store| {
            looked.set(looked.get() + 1);
            store.0 > forgotten
        });
        (patching.uncommitted.tasks(), patching.dropped())
    };
    for task in 0..MAX_TASKS as u64 {
        store(1 + task, 100 + task, 0);
    }
    assert_eq!(store(1000, 1, 7), (MAX_TASKS - 6, 0), "what was forgotten needs no commit");
    for task in 2..8 {
        store(1000 + task, task, 7);
    }
    assert_eq!(looked.get(), MAX_TASKS, "only who needs room looks");
    assert_eq!(store(2000, 10, 7), (MAX_TASKS, 1), "and then the one that has been idle for the longest time goes");
    assert_eq!(store(2001, 11, 9), (MAX_TASKS, 1), "which is no loss if its stores were forgotten");
    // A task after the other, each of which stores once: all are looked through once in as many stores as are left.
    looked.set(0);
    for task in 0..10 * MAX_TASKS as u64 {
        store(3000 + task, 1000 + task, 0);
    }
    assert!(looked.get() <= 25 * MAX_TASKS, "{} for {} stores", looked.get(), 10 * MAX_TASKS);
}

#[test]
fn membarrier_commits_what_the_task_stored_before_it() {
    let mut patching = of_vcpus(2);
    patching.enter_space(Vcpu(0), None, 0x1000);
    patching.enter_space(Vcpu(1), None, 0x2000);
    patching.store(Seq(1), Vcpu(0), true, Context::default(), |_| true);
    patching.store(Seq(2), Vcpu(1), true, Context::default(), |_| true);
    patching.enter_membarrier(Vcpu(0), Linear(50), 0x100);
    assert_eq!(patching.leave(Vcpu(0), Linear(50), 0x100, false).committed, [Seq(1)]);
    patching.store(Seq(3), Vcpu(0), true, Context::default(), |_| true);
    patching.enter_membarrier(Vcpu(0), Linear(50), 0x100);
    assert!(patching.leave(Vcpu(0), Linear(50), 0x100, true).committed.is_empty(), "it failed");
    patching.store(Seq(4), Vcpu(0), true, Context::default(), |_| true);
    patching.enter_membarrier(Vcpu(0), Linear(0x7000_0050), 0x100);
    assert!(
        patching.leave(Vcpu(0), Linear(0x5000_0051), 0x100, false).committed.is_empty()
            && patching.leave(Vcpu(0), Linear(0x5000_0050), 0x108, false).committed.is_empty()
    );
    assert_eq!(
        patching.leave(Vcpu(0), Linear(0x5000_0050), 0x100, false).committed,
        [Seq(4)],
        "translated in another process"
    );
}

/// Two processes that were made by fork(): the same code, the same addresses on the stack. Each vCPU has another of
/// them.
fn forked() -> Patching {
    let mut patching = of_vcpus(2);
    patching.switch(Vcpu(0), None, 0xffff_8880_0000_1000);
    patching.switch(Vcpu(1), None, 0xffff_8880_0000_2000);
    patching
}

/// They are known by their page tables only, which lie side by side.
fn forked_without_symbols() -> Patching {
    let mut patching = of_vcpus(2);
    patching.enter_space(Vcpu(0), None, 0x8c_8000);
    patching.enter_space(Vcpu(1), None, 0x8c_9000);
    patching
}

const WRAPPER: Linear = Linear(0x7f00_0000_0050);
const STACK: u64 = 0x7ffe_0000_0100;

fn user_store(patching: &mut Patching, seq: u64, vcpu: u16) {
    patching.store(Seq(seq), Vcpu(vcpu), true, Context::default(), |_| true);
}

#[test]
fn a_forked_child_does_not_commit_for_its_parent() {
    for mut patching in [forked(), forked_without_symbols()] {
        user_store(&mut patching, 1, 0);
        user_store(&mut patching, 2, 1);
        patching.enter_membarrier(Vcpu(0), WRAPPER, STACK);
        patching.enter_membarrier(Vcpu(1), WRAPPER, STACK);
        assert_eq!(patching.leave(Vcpu(1), WRAPPER, STACK, false).committed, [Seq(2)], "the child comes back first");
        assert_eq!(patching.leave(Vcpu(0), WRAPPER, STACK, false).committed, [Seq(1)]);
    }
}

#[test]
fn a_forked_child_does_not_take_its_parents_commit_away() {
    for mut patching in [forked(), forked_without_symbols()] {
        user_store(&mut patching, 1, 0);
        patching.enter_membarrier(Vcpu(0), WRAPPER, STACK);
        assert!(
            patching.leave(Vcpu(1), WRAPPER, STACK, true).committed.is_empty(),
            "another system call of the child's, which failed"
        );
        assert_eq!(patching.leave(Vcpu(0), WRAPPER, STACK, false).committed, [Seq(1)]);
    }
}

#[test]
fn a_function_of_a_program_commits_for_its_own_process() {
    for mut patching in [forked(), forked_without_symbols()] {
        for vcpu in [0, 1] {
            patching.enter(entry(vcpu, 0x40_1000, 0x40_2000, STACK, true));
            user_store(&mut patching, 10 + u64::from(vcpu), vcpu);
            // The kernel stores for it.
            patching.store(Seq(20 + u64::from(vcpu)), Vcpu(vcpu), false, Context::default(), |_| true);
        }
        assert_eq!(patching.writer(Seq(21)).unwrap().function, Some(Linear(0x40_1000)));
        assert_eq!(patching.leave(Vcpu(1), Linear(0x40_2000), STACK, false).committed, [Seq(11), Seq(21)]);
        assert_eq!(patching.leave(Vcpu(0), Linear(0x40_2000), STACK, false).committed, [Seq(10), Seq(20)]);
    }
}

#[test]
fn with_page_table_isolation_the_kernel_stores_for_the_process_whose_other_half_it_runs_on() {
    let store_in_kernel = |program: u64, kernel: u64| {
        let mut patching = of_vcpus(1);
        patching.enter_space(Vcpu(0), None, program);
        patching.enter(entry(0, 0x40_1000, 0x40_2000, STACK, true));
        patching.enter_space(Vcpu(0), None, kernel);
        store(&mut patching, 1, 0);
        patching.enter_space(Vcpu(0), None, program);
        patching.leave(Vcpu(0), Linear(0x40_2000), STACK, false).committed
    };
    assert_eq!(store_in_kernel(0x8c_9000, 0x8c_8000), [Seq(1)]);
    assert_eq!(store_in_kernel(0x8c_9000, 0x8c_a000), []);
    assert_eq!(store_in_kernel(0x8c_8000, 0x8c_9000), [], "two processes: user mode runs on no kernel's half");
}

#[test]
fn a_thread_whose_task_becomes_known_inside_of_a_call_commits() {
    // In a program: the address space stays the same.
    let mut patching = of_vcpus(2);
    patching.enter_space(Vcpu(0), None, 0x1000);
    user_store(&mut patching, 1, 0);
    patching.switch(Vcpu(0), None, 0xa000);
    user_store(&mut patching, 2, 0);
    patching.enter_membarrier(Vcpu(0), WRAPPER, STACK);
    patching.switch(Vcpu(1), None, 0xa000);
    assert_eq!(patching.leave(Vcpu(1), WRAPPER, STACK, false).committed, [Seq(1), Seq(2)]);
    // In the kernel: the first switch tells who ran there so far, and it comes back elsewhere.
    let mut patching = of_vcpus(2);
    patching.enter(entry(0, KERNEL + 1, KERNEL + 10, KERNEL + 0x8000, true));
    store(&mut patching, 1, 0);
    patching.switch(Vcpu(0), Some(0xa000), 0xb000);
    store(&mut patching, 2, 0);
    patching.switch(Vcpu(1), Some(0xc000), 0xa000);
    store(&mut patching, 3, 1);
    assert_eq!(patching.leave(Vcpu(1), Linear(KERNEL + 10), KERNEL + 0x8000, false).committed, [Seq(1), Seq(3)]);
    // Its address space, too, may become known by the register that is about to change.
    let mut patching = of_vcpus(1);
    user_store(&mut patching, 1, 0);
    patching.enter_space(Vcpu(0), Some(0x1000), 0x2000);
    patching.enter_membarrier(Vcpu(0), WRAPPER, STACK);
    assert!(patching.leave(Vcpu(0), WRAPPER, STACK, false).committed.is_empty(), "another process");
    patching.enter_space(Vcpu(0), None, 0x1000);
    patching.enter_membarrier(Vcpu(0), WRAPPER, STACK);
    assert_eq!(patching.leave(Vcpu(0), WRAPPER, STACK, false).committed, [Seq(1)]);
}

#[test]
fn a_kernel_stack_belongs_to_one_task() {
    let mut patching = of_vcpus(2);
    patching.switch(Vcpu(0), None, 100);
    patching.enter(entry(0, KERNEL + 1, KERNEL + 10, KERNEL + 0x8000, true));
    store(&mut patching, 1, 0);
    // That task dies inside; its stack becomes another one's, which calls the same function.
    patching.switch(Vcpu(0), None, 200);
    patching.enter(entry(0, KERNEL + 1, KERNEL + 10, KERNEL + 0x8000, true));
    store(&mut patching, 2, 0);
    assert_eq!(patching.leave(Vcpu(0), Linear(KERNEL + 10), KERNEL + 0x8000, false).committed, [Seq(2)]);
    assert!(patching.leave(Vcpu(0), Linear(KERNEL + 10), KERNEL + 0x8000, false).committed.is_empty());
    // Who runs where it returns is not known: the stack tells.
    patching.enter(entry(0, KERNEL + 1, KERNEL + 10, KERNEL + 0x9000, true));
    store(&mut patching, 3, 0);
    assert_eq!(patching.leave(Vcpu(1), Linear(KERNEL + 10), KERNEL + 0x9000, false).committed, [Seq(3)]);
}

#[test]
fn threads_of_one_process_do_not_leave_each_others_calls() {
    let mut patching = of_vcpus(2);
    patching.enter_space(Vcpu(0), None, 0x1000);
    patching.enter_space(Vcpu(1), None, 0x1000);
    user_store(&mut patching, 1, 0);
    patching.enter_membarrier(Vcpu(0), WRAPPER, STACK);
    user_store(&mut patching, 2, 1);
    patching.enter_membarrier(Vcpu(1), WRAPPER, STACK + 0x10_0000);
    assert_eq!(patching.leave(Vcpu(1), WRAPPER, STACK + 0x10_0000, false).committed, [Seq(2)]);
    assert_eq!(
        patching.leave(Vcpu(0), WRAPPER, STACK, false).committed,
        [Seq(1)],
        "what another thread stores while one is in the kernel is its own"
    );
}

/// A kernel's function.
const F: u64 = KERNEL + 0x100;
const COVERS: Meaning =
    Meaning { commits: true, covers: Some(Covering::TextPoke), steps: false, queues: false, serves: None, poke: None };

fn pokes(at: u64, breakpoint: bool) -> Meaning {
    Meaning { poke: Some(Poke { at: Linear(at), breakpoint }), ..Meaning::default() }
}

/// What was asked: of which function, where, about which stores, and where they are.
fn asked(asked: Option<Asked>) -> Option<(u64, Missing, Vec<u64>, Option<u64>)> {
    asked.map(|asked| {
        let stores = asked.stores.iter().map(|store| store.0).collect();
        (asked.asker.function().unwrap().0 - F, asked.missing, stores, asked.site.map(|site| site.0))
    })
}

#[test]
fn the_innermost_function_that_commits_a_store_is_asked_once() {
    let mut patching = of_vcpus(2);
    let stack = |depth: u64| KERNEL + 0x8000 - depth * 0x100;
    patching.switch(Vcpu(0), None, 100);
    patching.enter(meaning(0, F, F + 0x10, stack(0), COVERS));
    patching.enter(meaning(0, F + 1, F + 0x11, stack(1), COVERS));
    patching.enter(meaning(0, F + 2, F + 0x12, stack(2), pokes(0x70, false)));
    store(&mut patching, 1, 0);
    assert_eq!(asked(patching.leave(Vcpu(0), Linear(F + 0x12), stack(2), false).asked), None, "it only stores");
    // A store of another task on the other vCPU is nobody's here.
    patching.switch(Vcpu(1), None, 200);
    store(&mut patching, 2, 1);
    let left = patching.leave(Vcpu(0), Linear(F + 0x11), stack(1), false);
    assert_eq!(asked(left.asked), Some((1, Missing::AtTheEnd, vec![1], Some(0x70))));
    store(&mut patching, 3, 0);
    let left = patching.leave(Vcpu(0), Linear(F + 0x10), stack(0), false);
    assert_eq!(left.committed, [Seq(1), Seq(3)]);
    assert_eq!(
        asked(left.asked),
        Some((0, Missing::AtTheEnd, vec![3], None)),
        "of the outer one only what it stored itself"
    );
    patching.enter(meaning(0, F, F + 0x10, stack(0), COVERS));
    assert_eq!(asked(patching.leave(Vcpu(0), Linear(F + 0x10), stack(0), false).asked), None, "nothing was stored");
}

#[test]
fn what_another_task_stores_for_one_that_waits_is_committed_by_that() {
    let mut patching = of_vcpus(2);
    patching.switch(Vcpu(0), None, 100);
    patching.switch(Vcpu(1), None, 200);
    let stack = KERNEL + 0x8000;
    patching.enter(meaning(0, F, F + 0x10, stack, COVERS));
    let serves = Meaning { serves: Some(Linear(F)), ..Meaning::default() };
    store(&mut patching, 1, 1);
    patching.enter(meaning(1, F + 1, F + 0x11, stack + 0x4000, serves));
    store(&mut patching, 2, 1);
    assert!(patching.leave(Vcpu(1), Linear(F + 0x11), stack + 0x4000, false).committed.is_empty());
    store(&mut patching, 3, 1);
    let left = patching.leave(Vcpu(0), Linear(F + 0x10), stack, false);
    assert_eq!(left.committed, [Seq(2)], "what it stored before and after is its own");
    assert_eq!(asked(left.asked), Some((0, Missing::AtTheEnd, vec![2], None)));
}

#[test]
fn what_stores_for_one_that_waits_stores_for_no_other_whose_return_was_not_seen() {
    let mut patching = of_vcpus(2);
    patching.switch(Vcpu(0), None, 100);
    patching.switch(Vcpu(1), None, 200);
    let stack = KERNEL + 0x8000;
    let serves = |function| Meaning { serves: Some(Linear(function)), ..Meaning::default() };
    // The stopper has served another function before: the same call through a pointer, with the same stack.
    patching.enter(meaning(0, F + 2, F + 0x12, stack, COVERS));
    patching.enter(meaning(1, F + 3, F + 0x11, stack + 0x4000, serves(F + 2)));
    store(&mut patching, 1, 1);
    assert_eq!(patching.leave(Vcpu(0), Linear(F + 0x12), stack, false).committed, [Seq(1)]);
    patching.enter(meaning(0, F, F + 0x10, stack, COVERS));
    patching.enter(meaning(1, F + 1, F + 0x11, stack + 0x4000, serves(F)));
    store(&mut patching, 2, 1);
    assert_eq!(patching.writer(Seq(2)).unwrap().function, Some(Linear(F + 1)), "on whose behalf");
    let left = patching.leave(Vcpu(0), Linear(F + 0x10), stack, false);
    assert_eq!(left.committed, [Seq(2)]);
    assert_eq!(asked(left.asked), Some((0, Missing::AtTheEnd, vec![2], None)));
}

#[test]
fn functions_that_end_in_each_other_are_one_return() {
    let mut patching = of_vcpus(1);
    let returns = (F + 0x10, KERNEL + 0x8000);
    patching.enter(meaning(0, F, returns.0, returns.1, COVERS));
    patching.enter(meaning(0, F + 1, returns.0, returns.1, COVERS));
    store(&mut patching, 1, 0);
    let left = patching.leave(Vcpu(0), Linear(returns.0), returns.1, false);
    assert_eq!(asked(left.asked), Some((1, Missing::AtTheEnd, vec![1], None)), "the innermost");
}

#[test]
fn each_step_is_asked_when_the_next_begins() {
    let mut patching = of_vcpus(1);
    let (outer, inner) = ((F + 0x10, KERNEL + 0x8000), (F + 0x12, KERNEL + 0x7f00));
    patching.enter(meaning(0, F, outer.0, outer.1, Meaning { steps: true, ..COVERS }));
    let mut seq = 0;
    let mut poke = |patching: &mut Patching, at, breakpoint| {
        let answer = asked(patching.enter(meaning(0, F + 2, inner.0, inner.1, pokes(at, breakpoint))));
        seq += 1;
        store(patching, seq, 0);
        patching.leave(Vcpu(0), Linear(inner.0), inner.1, false);
        answer
    };
    assert_eq!(poke(&mut patching, 0x70, true), None);
    assert_eq!(poke(&mut patching, 0x90, true), None);
    let first = Missing::Between(Step::Breakpoint, Step::Tail);
    assert_eq!(poke(&mut patching, 0x71, false), Some((0, first, vec![1, 2], Some(0x70))));
    assert_eq!(poke(&mut patching, 0x91, false), None);
    let second = Missing::Between(Step::Tail, Step::FirstByte);
    assert_eq!(poke(&mut patching, 0x70, false), Some((0, second, vec![3, 4], Some(0x71))));
    assert_eq!(poke(&mut patching, 0x90, false), None);
    let left = patching.leave(Vcpu(0), Linear(outer.0), outer.1, false);
    assert_eq!(asked(left.asked), Some((0, Missing::AtTheEnd, vec![5, 6], Some(0x70))));
    assert_eq!(left.committed.len(), 6);
}

#[test]
fn what_a_queue_function_stores_itself_is_asked_about_at_the_next_commit() {
    let mut patching = of_vcpus(1);
    let (outer, inner) = ((F + 0x10, KERNEL + 0x8000), (F + 0x12, KERNEL + 0x7f00));
    patching.switch(Vcpu(0), None, 100);
    patching.enter(meaning(0, F, outer.0, outer.1, Meaning { queues: true, ..Meaning::default() }));
    store(&mut patching, 1, 0);
    patching.enter(meaning(0, F + 2, inner.0, inner.1, pokes(0x70, false)));
    store(&mut patching, 2, 0);
    patching.leave(Vcpu(0), Linear(inner.0), inner.1, false);
    assert!(patching.leave(Vcpu(0), Linear(outer.0), outer.1, false).asked.is_none());
    patching.enter(meaning(0, F + 3, outer.0, outer.1, COVERS));
    let left = patching.leave(Vcpu(0), Linear(outer.0), outer.1, false);
    assert_eq!(left.committed, [Seq(2)], "what it stored by its own way is no code yet");
    assert_eq!(asked(left.asked), Some((3, Missing::AtTheEnd, vec![2], Some(0x70))));
    assert!(patching.pending.is_empty());
}

#[test]
fn a_membarrier_is_asked_about_what_its_caller_stored() {
    const SPACE: u64 = 0x8c_9000;
    let mut patching = of_vcpus(2);
    patching.enter_space(Vcpu(0), None, SPACE);
    patching.enter_space(Vcpu(1), None, SPACE ^ 0x1000);
    user_store(&mut patching, 1, 0);
    patching.enter_membarrier(Vcpu(0), WRAPPER, STACK);
    user_store(&mut patching, 2, 0);
    let left = patching.leave(Vcpu(0), WRAPPER, STACK, false);
    let asked = left.asked.unwrap();
    assert_eq!((asked.asker, asked.covering), (Asker::Membarrier, Covering::Membarrier { space: SPACE }));
    assert_eq!((left.committed, asked.stores), (vec![Seq(1)], vec![Seq(1)]), "what came later is not its business");
    assert!(patching.is_in_process(Vcpu(1), SPACE) && patching.is_isolated(SPACE), "the kernel's half of the pair");
    patching.enter_membarrier(Vcpu(0), WRAPPER, STACK);
    assert!(patching.leave(Vcpu(0), WRAPPER, STACK, true).asked.is_none(), "it failed");
    // The first sight of user mode on a table that is no user's half.
    patching.enter_space(Vcpu(0), None, SPACE ^ 0x3000);
    user_store(&mut patching, 3, 0);
    assert!(!patching.is_in_process(Vcpu(1), SPACE) && !patching.is_isolated(SPACE));
    // What the kernel queued for its task is no matter of a membarrier's.
    let mut patching = of_vcpus(1);
    patching.switch(Vcpu(0), None, 100);
    patching.enter_space(Vcpu(0), None, SPACE);
    patching.enter(meaning(0, F, F + 0x10, KERNEL + 0x8000, Meaning { queues: true, ..Meaning::default() }));
    patching.enter(meaning(0, F + 2, F + 0x12, KERNEL + 0x7f00, pokes(0x70, false)));
    store(&mut patching, 1, 0);
    patching.leave(Vcpu(0), Linear(F + 0x12), KERNEL + 0x7f00, false);
    patching.leave(Vcpu(0), Linear(F + 0x10), KERNEL + 0x8000, false);
    user_store(&mut patching, 2, 0);
    patching.enter_membarrier(Vcpu(0), WRAPPER, STACK);
    assert_eq!(patching.leave(Vcpu(0), WRAPPER, STACK, false).committed, [Seq(2)]);
    assert_eq!(patching.pending.len(), 1);
}
