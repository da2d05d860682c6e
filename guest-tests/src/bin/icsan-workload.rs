//! `icsan-workload`: a guest's /init that does one piece of ordinary work and switches the machine off. What
//! `icsan-bench` boots.
//!
//! The kernel's command line says which: `icsan.workload=NAME`, or `NAME:TIMES` for that many times the work
//! (`toggle:SECONDS` is for scripts/memory). The amount of work is the same for any number of CPUs: they share it.
//! Nothing here changes code, but for `flips` and `fresh`; what is measured is what ICSAN costs those who do nothing
//! that it looks for.

use icsan_guest_tests::code::{publish, return_value, serialize};
use icsan_guest_tests::console::PREFIX;
use icsan_guest_tests::numbers::Numbers;
use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// A piece of work: its name, how many rounds of it there are in all, and what does some of them. The result of a round
/// depends on nothing but its number, and those of all rounds are joined by exclusive or.
struct Workload {
    name: &'static str,
    rounds: u64,
    run: fn(rounds: &mut dyn Iterator<Item = u64>) -> u64,
}

const WORKLOADS: [Workload; 8] = [
    Workload { name: "boot", rounds: 0, run: |_| 0 },
    Workload { name: "sort", rounds: 80, run: sort },
    Workload { name: "hash", rounds: 160, run: hash },
    Workload { name: "compress", rounds: 40, run: compress },
    Workload { name: "storm", rounds: 64, run: storm },
    Workload { name: "copy", rounds: 256, run: copy },
    Workload { name: "fault", rounds: 64, run: fault },
    Workload { name: "fresh", rounds: 64, run: fresh },
];

/// Bytes that one round of `compress` packs and unpacks.
const PACKED: usize = 1 << 20;

/// System calls of each kind, and switches from thread to thread and back, that one round of `storm` makes.
const CALLS: usize = 4000;
const SWITCHES: usize = 500;

/// Bytes that one round of `copy` copies, a piece at a time; and how deep it calls itself for each piece.
const COPIED: usize = 16 << 20;
const PIECE: usize = 16 << 10;
const DEPTH: u64 = 200;

/// System calls of each CPU but the first in `flips`, in which nothing is shared: the first one flips until the others
/// have done theirs, which run through what is flipped.
const YIELDS: u64 = 400_000;

/// Numbers that one round of `sort` sorts.
const NUMBERS: usize = 1 << 20;

/// Keys that one round of `hash` inserts and finds again.
const KEYS: usize = 1 << 16;

/// Bytes that one round of `hash` digests.
const DIGESTED: usize = 4 << 20;

/// Bytes that one round of `fault` touches, once a page.
const TOUCHED: usize = 16 << 20;
const PAGE: usize = 4096;

/// CPU bound, with a working set beyond the caches. Memory is taken once: page faults are the kernel's work, and
/// `fault`'s.
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
        let found =
            (0..KEYS).filter_map(|_| table.get(&again.next())).fold(0_u64, |sum, value| sum.wrapping_add(*value));
        bytes.iter_mut().enumerate().for_each(|(index, byte)| *byte = (index as u64 ^ found) as u8);
        let mut hasher = DefaultHasher::new();
        bytes.chunks(64).for_each(|chunk| hasher.write(chunk));
        // FNV-1a, byte by byte.
        let fnv = bytes
            .iter()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
        sum ^ hasher.finish() ^ fnv
    })
}

/// CPU bound, with tables and bits: text of few words, deflated and inflated again.
fn compress(rounds: &mut dyn Iterator<Item = u64>) -> u64 {
    const WORDS: [&[u8]; 8] =
        [b"fetch ", b"stale ", b"serialize ", b"the ", b"trace ", b"buffer ", b"of ", b"instruction "];
    rounds.fold(0, |sum, round| {
        let mut source = Numbers(round);
        let mut text = Vec::with_capacity(PACKED + 16);
        while text.len() < PACKED {
            text.extend_from_slice(WORDS[source.next() as usize % WORDS.len()]);
        }
        let packed = miniz_oxide::deflate::compress_to_vec(&text, 6);
        let unpacked = miniz_oxide::inflate::decompress_to_vec(&packed).unwrap_or_default();
        assert!(unpacked == text, "packing went wrong");
        sum ^ packed.iter().fold(round, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)))
    })
}

/// Many epochs: system calls, and two threads that hand a byte to each other through pipes.
fn storm(rounds: &mut dyn Iterator<Item = u64>) -> u64 {
    let pipe = || {
        let mut ends = [0; 2];
        // SAFETY: room for two descriptors.
        assert!(unsafe { libc::pipe(ends.as_mut_ptr()) } == 0, "no pipe");
        ends
    };
    let pass = |from: libc::c_int, to: libc::c_int| {
        let mut byte = 0u8;
        // SAFETY: one byte of a local, and descriptors that are open.
        unsafe { libc::read(from, (&raw mut byte).cast(), 1) == 1 && libc::write(to, (&raw const byte).cast(), 1) == 1 }
    };
    let (there, back) = (pipe(), pipe());
    let rounds: Vec<u64> = rounds.collect();
    let total = rounds.len() * SWITCHES;
    thread::scope(|scope| {
        scope.spawn(|| (0..total).all(|_| pass(there[0], back[1])));
        rounds.iter().fold(0, |sum, round| {
            // SAFETY: no arguments; a descriptor that does not exist.
            (0..CALLS).for_each(|_| unsafe {
                libc::syscall(libc::SYS_getppid);
                libc::syscall(libc::SYS_lseek, -1, 0, 0);
            });
            for _ in 0..SWITCHES {
                let byte = 1u8;
                // SAFETY: as above.
                let sent = unsafe { libc::write(there[1], (&raw const byte).cast(), 1) == 1 };
                let mut answer = 0u8;
                // SAFETY: as above.
                assert!(sent && unsafe { libc::read(back[0], (&raw mut answer).cast(), 1) } == 1, "no answer");
            }
            sum ^ round.wrapping_mul(SWITCHES as u64)
        })
    })
}

/// Many stores: memory copied piece by piece, and a function that calls itself and keeps everything on the stack.
fn copy(rounds: &mut dyn Iterator<Item = u64>) -> u64 {
    fn deep(depth: u64, seed: u64) -> u64 {
        let kept = std::hint::black_box([seed, depth, seed ^ depth, seed.wrapping_add(depth)]);
        if depth == 0 { kept[0] } else { deep(depth - 1, seed.wrapping_mul(31)).wrapping_add(kept[2]) }
    }
    let from: Vec<u8> = (0..PIECE).map(|index| index as u8).collect();
    let mut to = vec![0u8; PIECE];
    rounds.fold(0, |sum, round| {
        (0..(COPIED / PIECE) as u64).fold(sum, |sum, piece| {
            to.copy_from_slice(std::hint::black_box(&from));
            sum ^ deep(DEPTH, round ^ piece) ^ u64::from(std::hint::black_box(&to)[piece as usize % PIECE])
        })
    })
}

/// Not CPU bound at all: page faults. Each return from one serializes, and so begins an epoch: what costs ICSAN
/// most.
fn fault(rounds: &mut dyn Iterator<Item = u64>) -> u64 {
    rounds.fold(0, |sum, round| {
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a fresh mapping, which nothing else knows of, written within its bounds and unmapped.
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

/// Functions that one round of `fresh` makes, and bytes of each.
const MADE: usize = 1 << 12;
const FUNCTION: usize = 16;

/// What a just-in-time compiler does to ICSAN and to QEMU: functions are written, made visible (by maintenance where
/// there is any, and by serializing), and each called once. No two are the same, and new ones take the place of old
/// ones.
fn fresh(rounds: &mut dyn Iterator<Item = u64>) -> u64 {
    const PLACES: usize = 16 * MADE;
    let (protection, flags) =
        (libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a fresh mapping, which nothing else knows of.
    let memory = unsafe { libc::mmap(std::ptr::null_mut(), PLACES * FUNCTION, protection, flags, -1, 0) };
    assert!(memory != libc::MAP_FAILED, "no memory");
    rounds.enumerate().fold(0, |sum, (turn, round)| {
        let first = turn * MADE % PLACES;
        let number = |index: usize| (round as u32) << 12 | index as u32;
        for index in 0..MADE {
            let code = return_value(number(index));
            // SAFETY: a place within the mapping.
            unsafe {
                memory.cast::<u8>().add((first + index) * FUNCTION).copy_from_nonoverlapping(code.as_ptr(), code.len())
            };
        }
        let made = memory.cast::<u8>().wrapping_add(first * FUNCTION);
        publish(made, made, MADE * FUNCTION);
        serialize();
        (0..MADE).fold(sum, |sum, index| {
            // SAFETY: a function that was just written there, which takes nothing and returns a number.
            let function: extern "C" fn() -> u32 =
                unsafe { std::mem::transmute(memory.cast::<u8>().add((first + index) * FUNCTION)) };
            let answer = function();
            assert!(answer == number(index), "an old function was executed");
            sum ^ u64::from(answer).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        })
    })
}

/// Does the work so many times, with a thread for each CPU, and gives a checksum that does not depend on how many there
/// are.
fn perform(workload: &Workload, times: u64) -> u64 {
    let threads = thread::available_parallelism().map_or(1, |cpus| cpus.get() as u64);
    thread::scope(|scope| {
        let part = |first: u64| (workload.run)(&mut (first..times * workload.rounds).step_by(threads as usize));
        let workers: Vec<_> = (0..threads).map(|first| scope.spawn(move || part(first))).collect();
        workers.into_iter().fold(0, |sum, worker| sum ^ worker.join().unwrap_or(u64::MAX))
    })
}

/// The kernel's switch of a static key that sits in the scheduler's hot paths.
const SCHEDSTATS: &str = "/proc/sys/kernel/sched_schedstats";

/// Flips a static key of the scheduler as fast as it goes, while all other CPUs run through it, `yields` times each
/// (the greatest number: for ever); for as long as any of them does, and `more` says so of the time. Tells every 10
/// seconds how often it has. Answers with the number of flips.
fn toggle(yields: u64, more: impl Fn(Duration) -> bool) -> u64 {
    let stop = AtomicBool::new(false);
    let others = thread::available_parallelism().map_or(1, |cpus| cpus.get()) - 1;
    let running = AtomicUsize::new(others);
    thread::scope(|scope| {
        for _ in 0..others {
            scope.spawn(|| {
                (0..yields).take_while(|_| !stop.load(Ordering::Relaxed)).for_each(|_| thread::yield_now());
                running.fetch_sub(1, Ordering::Relaxed);
            });
        }
        let start = Instant::now();
        let (mut flips, mut told) = (0_u64, 0);
        while (yields == u64::MAX || running.load(Ordering::Relaxed) > 0) && more(start.elapsed()) {
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
        stop.store(true, Ordering::Relaxed);
        flips
    })
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
        eprintln!(
            "icsan-workload: not process 1: this is the /init of a guest, and switches the machine off; use \
             scripts/bench"
        );
        std::process::exit(2);
    }
    let name = wanted().unwrap_or_default();
    if let Some(seconds) = name.strip_prefix("toggle:").and_then(|seconds| seconds.parse().ok()) {
        let flips = toggle(u64::MAX, |time| time < Duration::from_secs(seconds));
        println!("{PREFIX}done toggle {flips} flips in {seconds} s");
    } else if name == "flips" {
        // How often it flips is up to the machine: no part of the result.
        let start = Instant::now();
        let flips = toggle(YIELDS, |_| true);
        println!("{PREFIX}flips: {flips} in {} ms", start.elapsed().as_millis());
        println!("{PREFIX}done flips 0");
    } else {
        let (kind, times) = name.split_once(':').map_or((&*name, Some(1)), |(kind, times)| (kind, times.parse().ok()));
        match WORKLOADS.iter().find(|workload| workload.name == kind).zip(times) {
            Some((workload, times)) => println!("{PREFIX}done {name} {:016x}", perform(workload, times)),
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
