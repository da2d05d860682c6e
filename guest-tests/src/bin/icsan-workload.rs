//! `icsan-workload`: a guest's /init that does one piece of ordinary work and switches the machine off. What `icsan-bench` boots.
//!
//! The kernel's command line says which: `icsan.workload=NAME` (`toggle:SECONDS` is for scripts/memory). The amount of work is the same for any number of CPUs: they share it.
//! Nothing here changes code; what is measured is what ICSAN costs those who do nothing that it looks for.

use icsan_guest_tests::console::PREFIX;
use icsan_guest_tests::numbers::Numbers;
use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{BuildHasherDefault, Hasher};
use std::thread;

/// A piece of work: its name, how many rounds of it there are in all, and what does some of them. The result of a round depends on nothing
/// but its number, and those of all rounds are joined by exclusive or.
struct Workload {
    name: &'static str,
    rounds: u64,
    run: fn(rounds: &mut dyn Iterator<Item = u64>) -> u64,
}

const WORKLOADS: [Workload; 4] = [
    Workload { name: "boot", rounds: 0, run: |_| 0 },
    Workload { name: "sort", rounds: 96, run: sort },
    Workload { name: "hash", rounds: 192, run: hash },
    Workload { name: "fault", rounds: 64, run: fault },
];

/// Numbers that one round of `sort` sorts.
const NUMBERS: usize = 1 << 20;

/// Keys that one round of `hash` inserts and finds again.
const KEYS: usize = 1 << 16;

/// Bytes that one round of `hash` digests.
const DIGESTED: usize = 4 << 20;

/// Bytes that one round of `fault` touches, once a page.
const TOUCHED: usize = 16 << 20;
const PAGE: usize = 4096;

/// CPU bound, with a working set beyond the caches. Memory is taken once: page faults are the kernel's work, and `fault`'s.
fn sort(rounds: &mut dyn Iterator<Item = u64>) -> u64 {
    let mut numbers = vec![0; NUMBERS];
    rounds.fold(0, |sum, round| {
        let mut source = Numbers(round);
        numbers.iter_mut().for_each(|number| *number = source.next());
        numbers.sort_unstable();
        assert!(numbers.is_sorted(), "sorting went wrong");
        sum ^ numbers[NUMBERS / 2]
    })
}

/// CPU bound, in short loops and calls: a hash table, and a digest of a few megabytes. Memory is taken once.
fn hash(rounds: &mut dyn Iterator<Item = u64>) -> u64 {
    let mut table: HashMap<u64, u64, BuildHasherDefault<DefaultHasher>> =
        HashMap::with_capacity_and_hasher(KEYS, BuildHasherDefault::default());
    let mut bytes = vec![0_u8; DIGESTED];
    rounds.fold(0, |sum, round| {
        table.clear();
        let mut source = Numbers(round);
        for _ in 0..KEYS {
            let key = source.next();
            table.insert(key, key >> 7);
        }
        let mut again = Numbers(round);
        let found = (0..KEYS).filter_map(|_| table.get(&again.next())).fold(0_u64, |sum, value| sum.wrapping_add(*value));
        bytes.iter_mut().enumerate().for_each(|(index, byte)| *byte = (index as u64 ^ found) as u8);
        let mut hasher = DefaultHasher::new();
        bytes.chunks(64).for_each(|chunk| hasher.write(chunk));
        // FNV-1a, byte by byte.
        let fnv = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
        sum ^ hasher.finish() ^ fnv
    })
}

/// Not CPU bound at all: page faults. Each ends with an IRET, which serializes, and so begins an epoch: what costs ICSAN most.
fn fault(rounds: &mut dyn Iterator<Item = u64>) -> u64 {
    rounds.fold(0, |sum, round| {
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a fresh mapping, which nobody else knows of, written within its bounds and unmapped.
        unsafe {
            let memory = libc::mmap(std::ptr::null_mut(), TOUCHED, protection, flags, -1, 0);
            assert!(memory != libc::MAP_FAILED, "no memory");
            libc::madvise(memory, TOUCHED, libc::MADV_NOHUGEPAGE);
            (0..TOUCHED).step_by(PAGE).for_each(|offset| memory.cast::<u8>().add(offset).write_volatile(round as u8));
            libc::munmap(memory, TOUCHED);
        }
        sum ^ round
    })
}

/// Does the work with a thread for each CPU, and gives a checksum that does not depend on how many there are.
fn perform(workload: &Workload) -> u64 {
    let threads = thread::available_parallelism().map_or(1, |cpus| cpus.get() as u64);
    thread::scope(|scope| {
        let part = |first: u64| (workload.run)(&mut (first..workload.rounds).step_by(threads as usize));
        let workers: Vec<_> = (0..threads).map(|first| scope.spawn(move || part(first))).collect();
        workers.into_iter().fold(0, |sum, worker| sum ^ worker.join().unwrap_or(u64::MAX))
    })
}

/// The kernel's switch of a static key that sits in the scheduler's hot paths.
const SCHEDSTATS: &str = "/proc/sys/kernel/sched_schedstats";

/// Not ordinary work, and not measured in time: flips a static key of the scheduler as fast as it goes while all other CPUs run through it, for so many seconds.
/// Tells every 10 seconds how often it has. What it is good for is memory: whether that of the host's process grows.
fn toggle(seconds: u64) {
    let stop = std::sync::atomic::AtomicBool::new(false);
    let others = thread::available_parallelism().map_or(1, |cpus| cpus.get()) - 1;
    thread::scope(|scope| {
        for _ in 0..others {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    thread::yield_now();
                }
            });
        }
        let start = std::time::Instant::now();
        let (mut flips, mut told) = (0_u64, 0);
        while start.elapsed().as_secs() < seconds {
            if let Err(error) = fs::write(SCHEDSTATS, if flips.is_multiple_of(2) { "1" } else { "0" }) {
                println!("{PREFIX}toggle: {SCHEDSTATS}: {error}");
                break;
            }
            flips += 1;
            let now = start.elapsed().as_secs() / 10;
            if now > told {
                told = now;
                println!("{PREFIX}toggle: {} s, {flips} flips", now * 10);
            }
        }
        println!("{PREFIX}done toggle {flips} flips in {} s", start.elapsed().as_secs());
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

/// The value of `icsan.workload=` on the kernel's command line.
fn wanted() -> Option<String> {
    let _ = fs::create_dir_all("/proc");
    // SAFETY: three C strings and no data.
    unsafe { libc::mount(c"proc".as_ptr(), c"/proc".as_ptr(), c"proc".as_ptr(), 0, std::ptr::null()) };
    let line = fs::read_to_string("/proc/cmdline").ok()?;
    line.split_whitespace().find_map(|word| word.strip_prefix("icsan.workload=").map(str::to_owned))
}

fn main() {
    if std::process::id() != 1 {
        eprintln!("icsan-workload: not process 1: this is the /init of a guest, and switches the machine off; use scripts/bench");
        std::process::exit(2);
    }
    let name = wanted().unwrap_or_default();
    if let Some(seconds) = name.strip_prefix("toggle:").and_then(|seconds| seconds.parse().ok()) {
        toggle(seconds);
    } else {
        match WORKLOADS.iter().find(|workload| workload.name == name) {
            Some(workload) => println!("{PREFIX}done {name} {:016x}", perform(workload)),
            None => println!("{PREFIX}no workload is called '{name}'"),
        }
    }
    // SAFETY: writes caches back, and ends the machine: nothing runs after it.
    unsafe {
        libc::sync();
        libc::reboot(libc::RB_POWER_OFF);
    }
    // Without ACPI the kernel comes back; the last process of a machine must not end.
    loop {
        thread::park();
    }
}
