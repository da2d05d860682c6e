//! A fence in two halves, one of which costs nothing: [`light`] for what happens millions of times, [`heavy`] for what
//! happens rarely.
//!
//! Two threads that each first write and then look at what the other one wrote need a full fence in between on both
//! sides, or each may miss the other. The kernel can run that fence on behalf of all threads of the process
//! (`membarrier(2)`, PRIVATE_EXPEDITED, Linux 4.14): then the frequent side needs only to keep the compiler from
//! reordering. Where the kernel does not have it, or a sandbox forbids it, both sides are ordinary fences; and from
//! then on, too, where the rare side turned out not to be rare (a guest that compiles just in time on several vCPUs):
//! each system call interrupts every thread that runs.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering, compiler_fence, fence};

/// Commands of `membarrier(2)` (include/uapi/linux/membarrier.h).
const PRIVATE_EXPEDITED: libc::c_int = 1 << 3;
const REGISTER_PRIVATE_EXPEDITED: libc::c_int = 1 << 4;

/// How often the kernel is asked before both sides become ordinary fences. A kernel's boot asks some 3000 times; one
/// answer takes some 10 µs.
const ASKED_AT_MOST: u32 = 1 << 14;

/// Does the frequent side rely on the rare one to ask the kernel?
static RELIES: AtomicBool = AtomicBool::new(false);
/// Does the rare side ask it? It does so for as long as a thread may rely on it.
static ASKS: AtomicBool = AtomicBool::new(false);
static ASKED: AtomicU32 = AtomicU32::new(0);

fn membarrier(command: libc::c_int) -> bool {
    // SAFETY: the system call takes no pointers and changes nothing but the order of memory accesses, and whether the
    // process may ask for that.
    unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
}

/// Chooses how fences work. To be called before any thread uses one: it changes both halves.
pub fn prepare() {
    let possible = membarrier(REGISTER_PRIVATE_EXPEDITED);
    ASKED.store(0, Ordering::SeqCst);
    ASKS.store(possible, Ordering::SeqCst);
    RELIES.store(possible, Ordering::SeqCst);
}

/// The frequent side: between a write, and a look at what threads wrote before their [`heavy`].
#[inline(always)]
pub fn light() {
    if RELIES.load(Ordering::Relaxed) {
        compiler_fence(Ordering::SeqCst);
    } else {
        fence(Ordering::SeqCst);
    }
}

/// The rare side: between a write, and a look at what threads wrote before their [`light`].
pub fn heavy() {
    fence(Ordering::SeqCst);
    if ASKS.load(Ordering::SeqCst) {
        let last = ASKED.fetch_add(1, Ordering::Relaxed) == ASKED_AT_MOST;
        if last {
            RELIES.store(false, Ordering::SeqCst);
        }
        // A process that was made by fork() after `prepare` may have to register again.
        if !membarrier(PRIVATE_EXPEDITED) && membarrier(REGISTER_PRIVATE_EXPEDITED) {
            membarrier(PRIVATE_EXPEDITED);
        }
        // A thread that still relied on it has been served by now, and all others have seen that they may not.
        if last {
            ASKS.store(false, Ordering::SeqCst);
        }
    }
    fence(Ordering::SeqCst);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    /// One of the two sees what the other one wrote; while the kernel is asked, and when it is asked no longer.
    #[test]
    fn no_two_miss_each_other() {
        const ROUNDS: u32 = 100_000;
        prepare();
        let written: Vec<[AtomicU32; 2]> = (0..ROUNDS).map(|_| Default::default()).collect();
        let ready = [AtomicU32::new(0), AtomicU32::new(0)];
        let side = |me: usize, fence: fn()| {
            let round = |round: u32| {
                // Both begin at about the same time, sometimes one a little later, sometimes the other.
                ready[me].store(round + 1, Ordering::Release);
                let mut spins = 0;
                while ready[1 - me].load(Ordering::Acquire) <= round {
                    spins += 1;
                    // On a host with one CPU it would wait for the end of its time slice.
                    if spins > 1000 { std::thread::yield_now() } else { std::hint::spin_loop() }
                }
                (0..(round >> (4 * me)) % 16).for_each(|_| std::hint::spin_loop());
                let both = &written[round as usize];
                both[me].store(1, Ordering::Relaxed);
                fence();
                both[1 - me].load(Ordering::Relaxed)
            };
            (0..ROUNDS).map(round).collect::<Vec<_>>()
        };
        let (frequent, rare) = std::thread::scope(|scope| {
            let frequent = scope.spawn(|| side(0, light));
            (side(1, heavy), frequent.join().unwrap())
        });
        assert!(frequent.iter().zip(&rare).all(|seen| seen != (&0, &0)));
        assert!(!RELIES.load(Ordering::SeqCst) && !ASKS.load(Ordering::SeqCst), "it was asked too often");
    }
}
