//! `widen=TBS`: after a store to code the writer waits a little, so that a window of nanoseconds is met in every run (as KCSAN delays to catch races).
//!
//! **Who waits for whom.** The writer's vCPU waits inside the callback of its store until those other vCPUs that executed anything at the changed bytes a short while ago
//! ([`RECENT`]) ran `TBS` more blocks. If there are none, nobody comes by often enough to meet the window, and the store does not wait: a boot patches itself 60,000 times before its
//! second CPU starts, and stores 30,000 times more to pages that held code once and are used for something else now. A vCPU that is halted, or that waits for a lock of QEMU's, runs
//! no blocks, so each wait ends after [`BOUND`] at the latest.
//!
//! **Which stores wait.** With `widen=TBS` every one of them. With `widen=TBS:SEED` every other one, by chance ([`Widen::chooses`]): a wait in one window of a patch
//! can also hide the next one (who met an INT3 has serialized), so runs with several seeds see more than one run.
//!
//! **The guest's timeouts** survive by a budget of each vCPU ([`Budget`]): in any span of time `t` it waits for no longer than `t / 10` and a tenth of a second.
//!
//! The callback runs after the store was made. QEMU holds neither the big lock nor a page's lock then (both are let go of inside the store's slow path); the vCPU is inside its RCU
//! read section, and counts as running: whoever wants all vCPUs to stop, or a grace period, waits for the bound at most. Nor may the plugin hold a lock of its own.

use crate::qemu::blocks::BlockCounts;
use crate::qemu::cpu::CurrentVcpu;
use crate::qemu::locks::Mutex;
use icsan_model::addr::{Seq, Vcpu};
use std::time::{Duration, Instant};

/// The longest wait for one store, in time of the host.
pub const BOUND: Duration = Duration::from_millis(1);

/// The other vCPUs get as far as most patches need within this time; a wait that is over then costs no switch of threads.
const SPIN: Duration = Duration::from_micros(20);

/// After that the writer's thread sleeps in steps, so that the others have its CPU if there are fewer CPUs than vCPUs.
const STEP: Duration = Duration::from_micros(50);

/// What a vCPU executed in its current epoch is recent; and what it executed in an earlier one, if no more stores to code and serializing events, of all vCPUs, came since.
const RECENT: u64 = 1024;

/// A vCPU may wait one part in so many of the time that passes.
const SHARE: u32 = 10;

/// What a vCPU may save up.
const SAVINGS: Duration = Duration::from_millis(100);

/// What the user chose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Widen {
    /// How many blocks each of the others shall run.
    pub blocks: u64,
    /// Choose stores by this seed; without it all wait.
    pub seed: Option<u64>,
}

impl Widen {
    /// Reads `TBS` or `TBS:SEED`. `None`: it is neither.
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        let (blocks, seed) = match value.split_once(':') {
            Some((blocks, seed)) => (blocks, Some(number(seed)?)),
            None => (value, None),
        };
        let blocks = number(blocks).filter(|blocks| (1..=u64::from(u32::MAX)).contains(blocks))?;
        Some(Self { blocks, seed })
    }

    /// Is the `count`-th store to code of this vCPU one that waits? With a seed every other one is, in an order that depends on nothing but the three.
    #[must_use]
    pub fn chooses(&self, vcpu: Vcpu, count: u64) -> bool {
        self.seed.is_none_or(|seed| mix(mix(seed ^ u64::from(vcpu.0).rotate_left(48)).wrapping_add(count)) & 1 == 0)
    }
}

fn number(text: &str) -> Option<u64> {
    // Without the sign that `parse` would take.
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// SplitMix64's step: what all choices by a seed are drawn with.
#[must_use]
pub fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

/// Whom a store may concern.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Concern {
    /// The other vCPUs that executed something at its bytes a short while ago.
    others: Vec<Vcpu>,
    /// Did it change anything?
    changed: bool,
}

impl Concern {
    /// The store changed code.
    pub fn changed(&mut self) {
        self.changed = true;
    }

    /// Another vCPU executed something there at `then` (0: never); `now` is the present.
    pub fn ran(&mut self, vcpu: Vcpu, then: Seq, now: Seq) {
        if then != Seq(0) && now.0.saturating_sub(then.0) <= RECENT && !self.others.contains(&vcpu) {
            self.others.push(vcpu);
        }
    }
}

/// How long a vCPU may still wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Budget {
    left: Duration,
    as_of: Instant,
}

impl Budget {
    fn new(now: Instant) -> Self {
        Self { left: SAVINGS, as_of: now }
    }

    /// Is there enough for another wait?
    fn allows(&mut self, now: Instant) -> bool {
        self.left = (self.left + now.saturating_duration_since(self.as_of) / SHARE).min(SAVINGS);
        self.as_of = now;
        self.left >= BOUND
    }

    fn spend(&mut self, waited: Duration) {
        self.left = self.left.saturating_sub(waited);
    }
}

/// The numbers of the summary.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct WidenCounts {
    /// Stores that waited.
    pub waits: u64,
    /// How long, all together.
    pub time: Duration,
    /// Waits that the bound ended.
    pub bound: u64,
    /// Stores that would have waited if the vCPU had not waited for so long before.
    pub spared: u64,
}

impl WidenCounts {
    /// Adds another vCPU's.
    fn add(&mut self, other: Self) {
        self.waits += other.waits;
        self.time += other.time;
        self.bound += other.bound;
        self.spared += other.spared;
    }
}

/// One writer. Touched from its thread only, but for the report at the end.
#[derive(Clone, Copy, Debug)]
struct Writer {
    /// Its stores to code so far.
    stores: u64,
    budget: Budget,
    counts: WidenCounts,
}

impl Writer {
    fn new(now: Instant) -> Self {
        Self { stores: 0, budget: Budget::new(now), counts: WidenCounts::default() }
    }

    /// Does this store wait?
    fn waits(&mut self, widen: &Widen, vcpu: Vcpu, concern: &Concern, now: Instant) -> bool {
        self.stores += u64::from(concern.changed);
        if concern.others.is_empty() || !widen.chooses(vcpu, self.stores) {
            return false;
        }
        let allowed = self.budget.allows(now);
        self.counts.spared += u64::from(!allowed);
        allowed
    }

    fn waited(&mut self, time: Duration, bound: bool) {
        self.budget.spend(time);
        self.counts.waits += 1;
        self.counts.time += time;
        self.counts.bound += u64::from(bound);
    }
}

/// All writers.
#[derive(Debug)]
pub struct Widening {
    widen: Widen,
    blocks: BlockCounts,
    writers: Box<[Mutex<Writer>]>,
}

impl Widening {
    /// For so many vCPUs. `None` outside of QEMU. To be called at installation only.
    #[must_use]
    pub fn new(widen: Widen, vcpus: usize) -> Option<Self> {
        let now = Instant::now();
        let writers = (0..vcpus).map(|_| Mutex::new(Writer::new(now))).collect();
        Some(Self { widen, blocks: BlockCounts::new()?, writers })
    }

    /// Counts the blocks that each vCPU runs.
    #[must_use]
    pub fn blocks(&self) -> &BlockCounts {
        &self.blocks
    }

    /// The vCPU has stored to code: waits if it is to. To be called in the callback of that store, holding no lock.
    pub fn after_store(&self, current: &CurrentVcpu, concern: &Concern) {
        let vcpu = current.id();
        let Some(writer) = self.writers.get(usize::from(vcpu.0)) else { return };
        let start = Instant::now();
        let waits = writer.lock().waits(&self.widen, vcpu, concern, start);
        if waits {
            let bound = wait(concern.others.iter().map(|other| || self.blocks.of(current, *other)).collect(), self.widen.blocks, start);
            writer.lock().waited(start.elapsed(), bound);
        }
    }

    /// The numbers, and whether all of them could be had.
    #[must_use]
    pub fn counts(&self, patience: Duration) -> (WidenCounts, bool) {
        let mut counts = WidenCounts::default();
        let whole = self.writers.iter().all(|writer| writer.try_lock_for(patience).map(|writer| counts.add(writer.counts)).is_some());
        (counts, whole)
    }
}

/// Waits until each of these counters went up by `more`. `true`: until the bound, rather.
fn wait(counters: Vec<impl Fn() -> u64>, more: u64, start: Instant) -> bool {
    let mut waiting: Vec<_> = counters.into_iter().map(|counter| (counter(), counter)).collect();
    loop {
        waiting.retain(|(before, counter)| counter().wrapping_sub(*before) < more);
        if waiting.is_empty() {
            return false;
        }
        let elapsed = start.elapsed();
        if elapsed >= BOUND {
            return true;
        }
        if elapsed < SPIN {
            std::hint::spin_loop();
        } else {
            std::thread::sleep(STEP.min(BOUND - elapsed));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    const WIDEN: Widen = Widen { blocks: 100, seed: None };

    const NOW: Seq = Seq(1_000_000);

    fn concern() -> Concern {
        let mut concern = Concern::default();
        concern.changed();
        concern.ran(Vcpu(1), NOW, NOW);
        concern
    }

    #[test]
    fn what_a_number_is() {
        assert_eq!(Widen::parse("100"), Some(WIDEN));
        assert_eq!(Widen::parse("1:0"), Some(Widen { blocks: 1, seed: Some(0) }));
        assert_eq!(Widen::parse("4294967295:18446744073709551615"), Some(Widen { blocks: 0xffff_ffff, seed: Some(u64::MAX) }));
        for bad in ["", "0", "-1", "+1", " 1", "0x10", "4294967296", "many", "1:", ":1", "1:2:3", "1:x", "1:18446744073709551616"] {
            assert_eq!(Widen::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_seed_chooses_half_of_the_stores_and_the_same_ones_again() {
        let chosen =
            |seed, vcpu| (1..=10_000).filter(|count| Widen { seed: Some(seed), ..WIDEN }.chooses(Vcpu(vcpu), *count)).collect::<Vec<_>>();
        for seed in [0, 1, 2, u64::MAX] {
            assert!((4_700..5_300).contains(&chosen(seed, 0).len()), "seed {seed}: {}", chosen(seed, 0).len());
            assert_eq!(chosen(seed, 0), chosen(seed, 0));
            // Another vCPU and another seed make other choices: half of them are the same by chance.
            for other in [chosen(seed, 1), chosen(seed.wrapping_add(1), 0)] {
                let same = chosen(seed, 0).iter().filter(|count| other.binary_search(count).is_ok()).count();
                assert!((2_200..2_800).contains(&same), "seed {seed}: {same}");
            }
        }
        assert!((1..=10_000).all(|count| WIDEN.chooses(Vcpu(3), count)));
    }

    #[test]
    fn only_what_somebody_else_ran_lately_is_worth_a_wait() {
        let now = Instant::now();
        let mut writer = Writer::new(now);
        for (then, expected) in [(0, false), (NOW.0 - RECENT - 1, false), (NOW.0 - RECENT, true), (NOW.0, true), (NOW.0 + 1, true)] {
            let mut concern = Concern::default();
            concern.changed();
            concern.ran(Vcpu(1), Seq(then), NOW);
            assert_eq!(writer.waits(&WIDEN, Vcpu(0), &concern, now), expected, "{then}");
        }
        assert_eq!((writer.stores, writer.counts.spared), (5, 0));
        // Soon after reset all executions are recent, but what never ran is not.
        let mut concern = Concern::default();
        (0..3).for_each(|then| concern.ran(Vcpu(then), Seq(u64::from(then)), Seq(5)));
        concern.ran(Vcpu(2), Seq(4), Seq(5));
        assert_eq!(concern.others, [Vcpu(1), Vcpu(2)]);
    }

    #[test]
    fn a_writer_never_waits_for_more_than_its_share() {
        for span in [1, 10, 20].map(Duration::from_secs) {
            let start = Instant::now();
            let (mut now, mut writer) = (start, Writer::new(start));
            // It does nothing but store.
            while now - start < span {
                let waits = writer.waits(&WIDEN, Vcpu(0), &concern(), now);
                if waits {
                    writer.waited(BOUND, true);
                }
                now += if waits { BOUND } else { Duration::from_micros(5) };
            }
            let WidenCounts { waits, time, bound, spared } = writer.counts;
            assert_eq!((bound, time), (waits, BOUND * waits as u32));
            assert!(time <= span / SHARE + SAVINGS + BOUND && time >= span / SHARE && spared > 0, "{span:?}: {time:?}");
        }
    }

    #[test]
    fn a_wait_that_took_long_is_paid_for() {
        let now = Instant::now();
        let mut writer = Writer::new(now);
        assert!(writer.waits(&WIDEN, Vcpu(0), &concern(), now));
        // The host had other things to do.
        writer.waited(2 * SAVINGS, true);
        assert!(!writer.waits(&WIDEN, Vcpu(0), &concern(), now + BOUND * SHARE / 2) && writer.counts.spared == 1);
        assert!(writer.waits(&WIDEN, Vcpu(0), &concern(), now + BOUND * SHARE));
    }

    #[test]
    fn a_wait_ends_when_all_others_got_there_or_at_the_bound() {
        let (fast, slow) = (AtomicU64::new(u64::MAX - 5), AtomicU64::new(7));
        let counter = |counter: &'static str| {
            let (fast, slow) = (&fast, &slow);
            move || if counter == "fast" { fast.fetch_add(20, Ordering::Relaxed) } else { slow.fetch_add(1, Ordering::Relaxed) }
        };
        assert!(!wait(vec![counter("fast"), counter("slow")], 3, Instant::now()));
        assert!(slow.load(Ordering::Relaxed) >= 10);
        let start = Instant::now();
        assert!(wait(vec![|| 42], 1, start) && start.elapsed() >= BOUND);
        assert!(!wait(Vec::<fn() -> u64>::new(), 1, start), "nobody to wait for");
    }
}
