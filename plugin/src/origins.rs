//! Which interrupt or exception an IRET returns from.
//!
//! What is known at the entry is kept until the return:
//! - Returns to the kernel are known again by the address of the saved RIP, which IRET takes from where the CPU put it.
//!   Kernel stacks belong to tasks, so it is the same one wherever the task goes on.
//! - Returns to user mode are known again by the task: the kernel builds the frame that it leaves by anew. Each vCPU
//!   has the entry from user mode that its task made last, and takes it along when tasks are switched. A task without
//!   one made a system call, or has just been made.
//!
//! The frames of interrupts also tell whether a function is interrupted: one that was pushed deeper in its task's stack
//! has not been returned from.
//!
//! All vCPUs share it without a lock. It is of fixed size: what finds no room is lost, and is said to be not known.

use icsan_model::addr::{Linear, Vcpu};
use icsan_model::detector::sync_origin::SyncOrigin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

/// Slots of a table: a power of two. Debian's kernels have some hundred tasks, and seldom more than one frame for each.
const SLOTS: usize = 1 << 12;

/// Slots that one key may be in.
const WAYS: usize = 8;

/// Bits of the distance from the beginning of a kernel stack, which is as large as that and aligned to it: Linux's
/// THREAD_SIZE, without sanitizers of its own. In a kernel with larger stacks an interrupt far below a function is not
/// known to interrupt it.
const STACK_BITS: u32 = 14;

/// Bits of an address that do not count: stack pointers and tasks are aligned to eight bytes.
const ALIGNED_BITS: u32 = 3;

/// Bits of a slot's word that are the entry's.
const ENTRY_BITS: u32 = 8;

/// An entry from user mode that is none.
const NONE: u8 = 0;

/// Kernel entries that are told apart; 0 is none.
const ENTRIES: usize = 256;

/// By address: which entry. Keys are aligned to eight bytes, and no address has more than 57 bits, so both fit into one
/// word, which is never torn.
#[derive(Debug)]
struct Table {
    slots: Box<[AtomicU64]>,
    lost: AtomicU64,
    /// Keys that differ in so many low bits only are in the same slots.
    together: u32,
}

impl Table {
    fn new(together: u32) -> Self {
        Self { slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(), lost: AtomicU64::new(0), together }
    }

    /// A key as it stands in a slot, above the entry.
    fn tag(key: u64) -> u64 {
        key << (ENTRY_BITS - ALIGNED_BITS) & !((1 << ENTRY_BITS) - 1)
    }

    /// The slots that a key may be in.
    fn bucket(&self, key: u64) -> &[AtomicU64] {
        let hash = (key >> self.together).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - SLOTS.ilog2());
        let start = hash as usize / WAYS * WAYS;
        self.slots.get(start..start + WAYS).unwrap_or_default()
    }

    fn put(&self, key: u64, entry: u8) {
        let (bucket, word) = (self.bucket(key), Self::tag(key) | u64::from(entry));
        self.take(key);
        let free = |slot: &&AtomicU64| slot.compare_exchange(0, word, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if bucket.iter().find(free).is_none() {
            // The older one may be a frame that nobody returns to.
            let victim = (key >> 8) as usize % WAYS;
            bucket.get(victim).into_iter().for_each(|slot| slot.store(word, Ordering::Release));
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn take(&self, key: u64) -> Option<u8> {
        self.bucket(key).iter().find_map(|slot| {
            let word = slot.load(Ordering::Acquire);
            let found = word != 0 && word & !0xff == Self::tag(key);
            (found && slot.compare_exchange(word, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok()).then_some(word as u8)
        })
    }

    /// The slots, and what is in them, of the keys up to this one that are together with what is right below it.
    fn up_to(&self, key: u64) -> impl Iterator<Item = (&AtomicU64, u64)> {
        let below = key.wrapping_sub(1 << ALIGNED_BITS);
        let group = move |tag: u64| tag >> (self.together + ENTRY_BITS - ALIGNED_BITS);
        let of_group = move |word: u64| {
            let tag = word >> ENTRY_BITS << ENTRY_BITS;
            word != 0 && group(tag) == group(Self::tag(below)) && tag <= Self::tag(key)
        };
        self.bucket(below)
            .iter()
            .map(|slot| (slot, slot.load(Ordering::Acquire)))
            .filter(move |(_, word)| of_group(*word))
    }

    fn clear(&self) {
        self.slots.iter().for_each(|slot| slot.store(0, Ordering::Release));
    }
}

/// In a cache line of its own: its vCPU writes it at each interrupt.
#[derive(Debug)]
#[repr(align(128))]
struct FromUser(AtomicU8);

/// See the module.
#[derive(Debug)]
pub struct Origins {
    /// By address of the saved RIP.
    frames: Table,
    /// By `task_struct`: of tasks that do not run.
    tasks: Table,
    /// Of the task that runs on each vCPU.
    from_user: Box<[FromUser]>,
    /// The first instruction of each entry.
    entries: Box<[AtomicU64]>,
    /// Are the entries of the kernel that runs known?
    known: AtomicBool,
    /// Have all tasks that run been watched since they were last in user mode?
    all_seen: AtomicBool,
}

impl Origins {
    /// For so many vCPUs.
    #[must_use]
    pub fn new(vcpus: usize) -> Self {
        Self {
            frames: Table::new(STACK_BITS),
            tasks: Table::new(ALIGNED_BITS),
            from_user: (0..vcpus).map(|_| FromUser(AtomicU8::new(NONE))).collect(),
            entries: (0..ENTRIES).map(|_| AtomicU64::new(0)).collect(),
            known: AtomicBool::new(false),
            all_seen: AtomicBool::new(true),
        }
    }

    /// The entries of the kernel that runs are here. Answers with the number of each that is told apart.
    pub fn learn(&self, entries: &[Linear]) -> Vec<(Linear, u8)> {
        let numbered: Vec<_> = entries.iter().copied().zip(1..=u8::MAX).collect();
        for (at, number) in &numbered {
            self.entries.get(usize::from(*number)).into_iter().for_each(|entry| entry.store(at.0, Ordering::Relaxed));
        }
        self.known.store(!numbered.is_empty(), Ordering::Release);
        numbered
    }

    /// Are they known?
    #[must_use]
    pub fn known(&self) -> bool {
        self.known.load(Ordering::Acquire)
    }

    /// The kernel has ended; another one begins, whose tasks are all new.
    pub fn kernel_ended(&self) {
        self.known.store(false, Ordering::Release);
        self.forget(true);
    }

    /// The machine's state was restored: frames and tasks are those of another time, and none of them was seen to
    /// enter.
    pub fn restored(&self) {
        self.forget(false);
    }

    fn forget(&self, all_seen: bool) {
        self.all_seen.store(all_seen, Ordering::Release);
        self.frames.clear();
        self.tasks.clear();
        self.from_user.iter().for_each(|from| from.0.store(NONE, Ordering::Release));
    }

    fn entry_of_task_on(&self, vcpu: Vcpu) -> Option<&AtomicU8> {
        self.from_user.get(usize::from(vcpu.0)).map(|from| &from.0)
    }

    /// The vCPU enters the kernel from user mode.
    pub fn enters_from_user(&self, vcpu: Vcpu, entry: u8) {
        self.entry_of_task_on(vcpu).into_iter().for_each(|from| from.store(entry, Ordering::Relaxed));
    }

    /// The kernel is interrupted. IRET will find the saved RIP at `frame`.
    pub fn enters_from_kernel(&self, frame: u64, entry: u8) {
        self.frames.put(frame, entry);
    }

    /// A function of the kernel's is entered, and will return with that stack pointer. What was pushed deeper in its
    /// stack and not returned from is dead: its task died there, or the frame was left some other way.
    pub fn enters_function(&self, stack: u64) {
        for (slot, word) in self.frames.up_to(stack) {
            let _ = slot.compare_exchange(word, 0, Ordering::AcqRel, Ordering::Relaxed);
        }
    }

    /// Is a function interrupted that will return with that stack pointer? Whatever is executed on its task's behalf
    /// then is not its own. (The frame may be kept by the very stack pointer that was interrupted, which is that one in
    /// a function that pushes nothing; what the interrupt calls is deeper.)
    #[must_use]
    pub fn is_interrupted(&self, stack: u64) -> bool {
        self.frames.up_to(stack).next().is_some()
    }

    /// What the vCPU returns from to user mode.
    pub fn returns_to_user(&self, vcpu: Vcpu) -> Option<SyncOrigin> {
        if !self.known() {
            return None;
        }
        match self.entry_of_task_on(vcpu)?.swap(NONE, Ordering::Relaxed) {
            NONE => (self.all_seen.load(Ordering::Acquire) && self.tasks.lost.load(Ordering::Relaxed) == 0)
                .then_some(SyncOrigin::SystemCall),
            entry => self.function(entry),
        }
    }

    /// What is returned from to the kernel, by a frame whose saved RIP is at `frame`.
    pub fn returns_to_kernel(&self, frame: u64) -> Option<SyncOrigin> {
        if self.known() { self.function(self.frames.take(frame)?) } else { None }
    }

    fn function(&self, entry: u8) -> Option<SyncOrigin> {
        Some(SyncOrigin::Function(Linear(self.entries.get(usize::from(entry))?.load(Ordering::Relaxed))))
    }

    /// The vCPU runs the task `next` from now on, and ran `previous` so far.
    pub fn switches(&self, vcpu: Vcpu, previous: Option<u64>, next: u64) {
        let Some(from) = self.entry_of_task_on(vcpu) else { return };
        let entry = from.swap(self.tasks.take(next).unwrap_or(NONE), Ordering::Relaxed);
        if let Some(previous) = previous.filter(|_| entry != NONE) {
            self.tasks.put(previous, entry);
        }
    }

    /// The task that the vCPU runs will never return to user mode: the task that gets its `task_struct` is another one.
    pub fn dies(&self, vcpu: Vcpu) {
        self.enters_from_user(vcpu, NONE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMER: Linear = Linear(0xffff_ffff_8200_1000);
    const FAULT: Linear = Linear(0xffff_ffff_8200_1100);
    const A: Vcpu = Vcpu(0);
    const B: Vcpu = Vcpu(1);
    const FRAME: u64 = 0xffff_c900_0012_3f58;
    const TASK: u64 = 0xffff_8880_0412_0000;
    const OTHER: u64 = 0xffff_8880_0413_1980;

    /// With the numbers of the two entries.
    fn origins() -> (Origins, u8, u8) {
        let origins = Origins::new(2);
        let numbers = origins.learn(&[TIMER, FAULT]);
        let [(TIMER, timer), (FAULT, fault)] = numbers[..] else { panic!("{numbers:?}") };
        (origins, timer, fault)
    }

    fn function(at: Linear) -> Option<SyncOrigin> {
        Some(SyncOrigin::Function(at))
    }

    #[test]
    fn returns_to_the_kernel_are_known_by_their_frame_on_any_vcpu() {
        let (origins, timer, fault) = origins();
        origins.enters_from_kernel(FRAME, fault);
        origins.enters_from_kernel(FRAME - 0x200, timer);
        assert_eq!(origins.returns_to_kernel(FRAME - 0x200), function(TIMER), "the inner one");
        assert_eq!(origins.returns_to_kernel(FRAME - 8), None);
        assert_eq!(origins.returns_to_kernel(FRAME), function(FAULT));
        assert_eq!(origins.returns_to_kernel(FRAME), None, "a return is no other's");
        // The same stack, used again.
        origins.enters_from_kernel(FRAME, fault);
        origins.enters_from_kernel(FRAME, timer);
        assert_eq!(origins.returns_to_kernel(FRAME), function(TIMER));
    }

    #[test]
    fn a_function_is_interrupted_until_what_was_pushed_deeper_is_returned_from() {
        let (origins, timer, fault) = origins();
        let function = FRAME + 0x40;
        assert!(!origins.is_interrupted(function));
        origins.enters_from_kernel(FRAME, timer);
        assert!(origins.is_interrupted(function) && origins.is_interrupted(FRAME));
        assert!(!origins.is_interrupted(FRAME - 8), "the interrupt's own functions are not");
        let stack = 1 << STACK_BITS;
        assert!(!origins.is_interrupted(function + stack) && !origins.is_interrupted(function - stack), "other tasks'");
        origins.enters_from_kernel(FRAME - 0x100, fault);
        assert!(origins.is_interrupted(FRAME - 8));
        let _ = origins.returns_to_kernel(FRAME - 0x100);
        assert!(!origins.is_interrupted(FRAME - 8) && origins.is_interrupted(function));
        let _ = origins.returns_to_kernel(FRAME);
        assert!(!origins.is_interrupted(function));
        // The last word of a stack is its own, and not the next one's.
        let top = (FRAME | (stack - 1)) + 1;
        origins.enters_from_kernel(top - 8, timer);
        assert!(origins.is_interrupted(top) && !origins.is_interrupted(top + 8));
    }

    #[test]
    fn what_nobody_returns_from_interrupts_no_later_function() {
        let (origins, timer, _) = origins();
        for depth in 0..4 {
            origins.enters_from_kernel(FRAME - 0x100 * depth, timer);
        }
        let other = FRAME + (1 << STACK_BITS);
        origins.enters_from_kernel(other, timer);
        origins.enters_function(FRAME - 0x80);
        assert!(
            !origins.is_interrupted(FRAME - 0x80) && origins.is_interrupted(FRAME + 8),
            "it is deeper than that one"
        );
        origins.enters_function(FRAME + 8);
        assert!(!origins.is_interrupted(FRAME + 8) && origins.is_interrupted(other + 8));
    }

    #[test]
    fn returns_to_user_mode_are_known_by_the_task() {
        let (origins, timer, fault) = origins();
        assert_eq!(origins.returns_to_user(A), Some(SyncOrigin::SystemCall), "of a task that was just made");
        origins.enters_from_user(A, fault);
        // In the kernel it is interrupted, and another task runs; the first one goes on elsewhere.
        origins.enters_from_kernel(FRAME, timer);
        origins.switches(A, Some(TASK), OTHER);
        assert_eq!(origins.returns_to_user(A), Some(SyncOrigin::SystemCall), "the other one's");
        origins.enters_from_user(A, timer);
        origins.switches(B, Some(OTHER + 64), TASK);
        assert_eq!(origins.returns_to_kernel(FRAME), function(TIMER));
        assert_eq!(origins.returns_to_user(B), function(FAULT));
        assert_eq!(origins.returns_to_user(A), function(TIMER));
        // It comes back by a system call.
        origins.switches(B, Some(TASK), OTHER);
        origins.switches(A, Some(OTHER), TASK);
        assert_eq!(origins.returns_to_user(A), Some(SyncOrigin::SystemCall));
    }

    #[test]
    fn a_task_that_died_leaves_nothing_to_the_next_one_of_its_place() {
        let (origins, timer, _) = origins();
        origins.enters_from_user(A, timer);
        origins.dies(A);
        origins.switches(A, Some(TASK), OTHER);
        origins.switches(A, Some(OTHER), TASK);
        assert_eq!(origins.returns_to_user(A), Some(SyncOrigin::SystemCall));
    }

    #[test]
    fn nothing_is_told_of_another_kernel_or_time() {
        let (origins, timer, _) = origins();
        let enter = || {
            origins.enters_from_user(A, timer);
            origins.enters_from_kernel(FRAME, timer);
            origins.enters_from_user(B, timer);
            origins.switches(B, Some(TASK), OTHER);
        };
        enter();
        origins.restored();
        assert_eq!((origins.returns_to_user(A), origins.returns_to_kernel(FRAME)), (None, None));
        origins.switches(B, Some(OTHER), TASK);
        assert_eq!(origins.returns_to_user(B), None, "what it did before is not known");
        enter();
        assert_eq!((origins.returns_to_user(A), origins.returns_to_kernel(FRAME)), (function(TIMER), function(TIMER)));
        enter();
        origins.kernel_ended();
        assert_eq!((origins.returns_to_user(A), origins.returns_to_kernel(FRAME)), (None, None));
        origins.learn(&[FAULT]);
        assert_eq!(
            (origins.returns_to_user(A), origins.returns_to_kernel(FRAME)),
            (Some(SyncOrigin::SystemCall), None)
        );
    }

    #[test]
    fn what_finds_no_room_is_not_known_and_nothing_else_is_lost() {
        let table = Table::new(ALIGNED_BITS);
        let keys: Vec<u64> = (0..)
            .map(|number| FRAME + 8 * number)
            .filter(|key| table.bucket(*key).as_ptr() == table.bucket(FRAME).as_ptr())
            .take(WAYS + 1)
            .collect();
        for (number, key) in (1..).zip(&keys) {
            table.put(*key, number);
        }
        assert_eq!(table.lost.load(Ordering::Relaxed), 1);
        let found: Vec<(u8, Option<u8>)> = (1..).zip(&keys).map(|(number, key)| (number, table.take(*key))).collect();
        assert_eq!(found.iter().filter(|(number, taken)| *taken == Some(*number)).count(), WAYS);
        assert_eq!(found.iter().filter(|(_, taken)| taken.is_none()).count(), 1);
        assert_eq!(found.last().map(|(_, taken)| *taken), Some(Some(WAYS as u8 + 1)), "the latest is there");
    }

    #[test]
    fn after_a_loss_no_task_is_taken_for_one_that_made_a_system_call() {
        let (origins, timer, _) = origins();
        let tasks = (0..64 * SLOTS as u64).map(|number| TASK + 0x40 * number);
        for task in tasks.take(4 * SLOTS) {
            origins.enters_from_user(A, timer);
            origins.switches(A, Some(task), OTHER);
        }
        assert!(origins.tasks.lost.load(Ordering::Relaxed) > 0);
        assert_eq!(origins.returns_to_user(A), None);
    }

    #[test]
    fn addresses_differ_in_all_their_bits() {
        let table = Table::new(ALIGNED_BITS);
        for bit in 3..57 {
            assert_ne!(Table::tag(FRAME), Table::tag(FRAME ^ 1 << bit), "{bit}");
        }
        table.put(FRAME, 255);
        assert_eq!(table.take(FRAME), Some(255));
    }
}
