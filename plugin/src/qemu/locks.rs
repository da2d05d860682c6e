//! The plugin's locks.
//!
//! A callback that leaves its block does so by a `longjmp` over its frames ([`super::divert`], [`super::repair`]): a
//! lock that it held then would be held for ever. That none is held is so by construction, since everything that locks
//! happens inside of [`guard`](super::guard::guard). With the feature `lock-check` it is checked as well: the locks
//! count how many of them the thread holds, and who leaves with one ends QEMU; and it is told at the end how often
//! a thread waited for one. (Without it they are `parking_lot`'s, and the check is nothing.)

#[cfg(not(feature = "lock-check"))]
pub use parking_lot::{Mutex, MutexGuard, RwLock};

/// To be called right before leaving.
#[cfg(not(feature = "lock-check"))]
#[inline]
pub(super) fn none_is_held() {}

/// How often locks were taken, and how long threads waited for one, as a line for the end; with the feature only.
#[cfg(not(feature = "lock-check"))]
#[must_use]
pub fn waits() -> Option<String> {
    None
}

#[cfg(feature = "lock-check")]
pub use checked::{Mutex, MutexGuard, RwLock, none_is_held, waits};

#[cfg(feature = "lock-check")]
mod checked {
    use parking_lot::lock_api::{self, GuardNoSend};
    use std::cell::Cell;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::{Duration, Instant};

    /// Of mutexes: how often they were taken, how often a thread had to wait, and how many nanoseconds in all.
    static TAKEN: AtomicU64 = AtomicU64::new(0);
    static WAITS: AtomicU64 = AtomicU64::new(0);
    static WAITED: AtomicU64 = AtomicU64::new(0);

    /// See the module.
    #[must_use]
    pub fn waits() -> Option<String> {
        let [taken, waits, waited] = [&TAKEN, &WAITS, &WAITED].map(|count| count.load(Ordering::Relaxed));
        Some(format!("mutexes: taken {taken} times; waited for {waits} times, {} ms in all", waited / 1_000_000))
    }

    thread_local! {
        /// How many locks this thread holds.
        static HELD: Cell<usize> = const { Cell::new(0) };
    }

    fn took(taken: bool) -> bool {
        HELD.set(HELD.get() + usize::from(taken));
        taken
    }

    fn left() {
        HELD.set(HELD.get() - 1);
    }

    /// Ends the process if this thread holds any of the plugin's locks.
    pub fn none_is_held() {
        if HELD.get() != 0 {
            crate::qemu::process::say("a callback leaves its block and holds a lock");
            std::process::abort();
        }
    }

    /// `parking_lot`'s, counted.
    #[allow(missing_debug_implementations)]
    pub struct CountedMutex(parking_lot::RawMutex);

    // SAFETY: `parking_lot`'s own lock does the locking.
    unsafe impl lock_api::RawMutex for CountedMutex {
        #[allow(clippy::declare_interior_mutable_const)]
        const INIT: Self = Self(<parking_lot::RawMutex as lock_api::RawMutex>::INIT);
        type GuardMarker = GuardNoSend;

        fn lock(&self) {
            TAKEN.fetch_add(1, Ordering::Relaxed);
            if !self.0.try_lock() {
                let start = Instant::now();
                self.0.lock();
                WAITS.fetch_add(1, Ordering::Relaxed);
                WAITED.fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
            }
            took(true);
        }

        fn try_lock(&self) -> bool {
            took(self.0.try_lock())
        }

        unsafe fn unlock(&self) {
            left();
            // SAFETY: the caller's promise: this thread holds it.
            unsafe { self.0.unlock() }
        }
    }

    // SAFETY: as above.
    unsafe impl lock_api::RawMutexTimed for CountedMutex {
        type Duration = Duration;
        type Instant = Instant;

        fn try_lock_for(&self, timeout: Duration) -> bool {
            took(self.0.try_lock_for(timeout))
        }

        fn try_lock_until(&self, timeout: Instant) -> bool {
            took(self.0.try_lock_until(timeout))
        }
    }

    /// `parking_lot`'s, counted.
    #[allow(missing_debug_implementations)]
    pub struct CountedRwLock(parking_lot::RawRwLock);

    // SAFETY: as above.
    unsafe impl lock_api::RawRwLock for CountedRwLock {
        #[allow(clippy::declare_interior_mutable_const)]
        const INIT: Self = Self(<parking_lot::RawRwLock as lock_api::RawRwLock>::INIT);
        type GuardMarker = GuardNoSend;

        fn lock_shared(&self) {
            self.0.lock_shared();
            took(true);
        }

        fn try_lock_shared(&self) -> bool {
            took(self.0.try_lock_shared())
        }

        unsafe fn unlock_shared(&self) {
            left();
            // SAFETY: the caller's promise: this thread holds it.
            unsafe { self.0.unlock_shared() }
        }

        fn lock_exclusive(&self) {
            self.0.lock_exclusive();
            took(true);
        }

        fn try_lock_exclusive(&self) -> bool {
            took(self.0.try_lock_exclusive())
        }

        unsafe fn unlock_exclusive(&self) {
            left();
            // SAFETY: the caller's promise: this thread holds it.
            unsafe { self.0.unlock_exclusive() }
        }
    }

    /// See the module.
    pub type Mutex<T> = lock_api::Mutex<CountedMutex, T>;
    /// See the module.
    pub type MutexGuard<'a, T> = lock_api::MutexGuard<'a, CountedMutex, T>;
    /// See the module.
    pub type RwLock<T> = lock_api::RwLock<CountedRwLock, T>;

    #[cfg(test)]
    mod tests {
        use super::{HELD, Mutex, RwLock, none_is_held};
        use std::time::Duration;

        #[test]
        fn what_is_held_is_counted() {
            let (mutex, shared) = (Mutex::new(0), RwLock::new(0));
            none_is_held();
            let first = mutex.lock();
            assert_eq!(HELD.get(), 1);
            assert!(mutex.try_lock().is_none() && mutex.try_lock_for(Duration::from_millis(1)).is_none());
            assert_eq!(HELD.get(), 1, "what could not be taken is not held");
            let readers = (shared.read(), shared.read());
            assert_eq!(HELD.get(), 3);
            drop(readers);
            let writer = shared.write();
            assert_eq!(HELD.get(), 2);
            drop((first, writer));
            none_is_held();
        }
    }
}
