//! `emulator=repair`: QEMU's own outdated blocks are found before they run, dropped, and translated again (docs/emulator.md has the argument why none is missed).
//!
//! Every store to a page with code takes the next **number**, after it was made, and leaves it at each 16-byte **line** that it touches. A block's **version** is
//! the largest number at its lines. It is told when the block is translated, and asked again at the block's first execution in an epoch: if it is another one, or if
//! a store came since the translating vCPU's previous callback (the block is **suspect**), the block may be older than memory.
//!
//! How a block is dropped and left is in [`crate::qemu::repair`].

use crate::places::{LINEAR_UP_TO, SMALLEST_RAM};
use crate::qemu::api::Generation;
use crate::qemu::host_code::{mapping_holds, mapping_of};
use crate::qemu::locks::{Mutex, RwLock};
use crate::qemu::repair::{self as ways, CPUID, Checked, Leave, MayLeave, REWRITTEN};
use crate::qemu::stores::Access;
use crate::qemu::translation::{Instruction, Translation};
use icsan_model::addr::{Linear, Phys, Vcpu};
use icsan_model::history::Place;
use icsan_model::memory::PAGE;
use rustc_hash::FxHashMap;
use std::cell::Cell;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// Bytes with one number.
const LINE: u64 = 16;
const LINES: usize = (PAGE / LINE) as usize;

/// Places of blocks that have a slot (12 bytes for each of 16 vCPUs at least). Blocks beyond them are looked at on every execution: slow, and right.
const MAX_SITES: u32 = 1 << 18;

/// Repairs of one block in a row, on one vCPU, after which it is executed as it is.
const PATIENCE: u64 = 64;

/// Version of a suspect block: no block has it when it is asked.
const SUSPECT: u64 = u64::MAX;

/// Of a thread that had no callback yet.
const NEVER: u64 = u64::MAX;

/// Display and system management memory. (From there to 1 MiB a PC shows RAM at its place, or firmware, which is elsewhere in the host's memory.)
const HOLE: Range<u64> = 0xa_0000..0xc_0000;

/// Stores of at least 4 bytes that have to prove where RAM is, and that may contradict it (another vCPU can store to the same place in between).
const PROOFS: u32 = 32;
const CONTRADICTIONS: u32 = 8;

thread_local! {
    /// The newest number at this vCPU's previous callback: whatever it decodes next is at least as new as the stores up to that one.
    static BOUND: Cell<u64> = const { Cell::new(NEVER) };
}

/// A page that holds code.
#[derive(Debug)]
struct Lines {
    /// The numbers of its lines; 0: none.
    numbers: [AtomicU64; LINES],
    /// It does not hold code any more, and stores to it are not told of.
    retired: AtomicBool,
}

impl Lines {
    fn raise(&self, lines: impl Iterator<Item = usize>, number: u64) {
        for line in lines.filter_map(|line| self.numbers.get(line)) {
            line.fetch_max(number, Ordering::SeqCst);
        }
    }
}

/// The lines that `len` bytes at an offset in a page touch.
fn lines(offset: u64, len: u64) -> Range<usize> {
    (offset / LINE) as usize..(offset + len).min(PAGE).div_ceil(LINE) as usize
}

/// Numbers of stores.
#[derive(Debug, Default)]
struct Numbers {
    last: AtomicU64,
    pages: RwLock<FxHashMap<u64, &'static Lines>>,
}

impl Numbers {
    fn now(&self) -> u64 {
        self.last.load(Ordering::SeqCst)
    }

    fn next(&self) -> u64 {
        self.last.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// A store to bytes of one page was made. Told before the vCPU goes on.
    fn stored(&self, phys: Phys, len: u64) {
        let Some(page) = self.pages.read().get(&(phys.0 / PAGE)).copied() else { return };
        let number = self.next();
        page.raise(lines(phys.0 % PAGE, len), number);
    }

    /// The page does not hold code any more: stores to it get no numbers from now on. Every block that was translated from it is outdated.
    fn retire(&self, phys: Phys) {
        if let Some(lines) = self.pages.read().get(&(phys.0 / PAGE)) {
            lines.retired.store(true, Ordering::SeqCst);
            lines.raise(0..LINES, self.next());
        }
    }

    /// The lines of a page that holds code. If it is new, or holds code again, stores are told of already, but one may have been made and not been seen yet: after `barrier`, which all
    /// threads pass, it is visible, and the page counts as stored to. What was decoded in it before is suspect.
    fn page(&self, phys: Phys, barrier: impl FnOnce()) -> &'static Lines {
        let page = phys.0 / PAGE;
        let known = self.pages.read().get(&page).copied();
        let mut new = false;
        let lines: &'static Lines = known.unwrap_or_else(|| {
            self.pages.write().entry(page).or_insert_with(|| {
                new = true;
                Box::leak(Box::new(Lines { numbers: [const { AtomicU64::new(0) }; LINES], retired: AtomicBool::new(false) }))
            })
        });
        if new || lines.retired.swap(false, Ordering::SeqCst) {
            barrier();
            lines.raise(0..LINES, self.next());
        }
        lines
    }
}

/// The part of a block that lies in one page.
#[derive(Clone, Copy, Debug)]
struct Part {
    page: &'static Lines,
    first: u16,
    end: u16,
}

impl Part {
    fn newest(&self) -> u64 {
        let lines = self.page.numbers.get(usize::from(self.first)..usize::from(self.end)).unwrap_or_default();
        lines.iter().map(|line| line.load(Ordering::SeqCst)).max().unwrap_or(0)
    }
}

fn newest(parts: &[Option<Part>; 2]) -> u64 {
    parts.iter().flatten().map(Part::newest).max().unwrap_or(0)
}

/// The version that a block gets: it was decoded at some time after the number `bound` was given.
fn version(newest: u64, bound: u64) -> u64 {
    if newest > bound { SUSPECT } else { newest }
}

/// What a vCPU did last.
#[derive(Debug)]
#[repr(align(64))]
struct Turn {
    /// The block that it had translated again, and how often in a row. 0 times: none.
    block: AtomicU64,
    times: AtomicU64,
    /// The block that it executes although it may be outdated; an empty range: none.
    doubted: [AtomicU64; 2],
}

impl Turn {
    const fn new() -> Self {
        Self { block: AtomicU64::new(0), times: AtomicU64::new(0), doubted: [const { AtomicU64::new(0) }; 2] }
    }

    /// The vCPU is at `block`, which is outdated. May it be translated again, once more?
    fn again(&self, block: Linear) -> bool {
        let times = if self.block.load(Ordering::Relaxed) == block.0 { self.times.load(Ordering::Relaxed) } else { 0 };
        self.block.store(block.0, Ordering::Relaxed);
        let patient = times < PATIENCE;
        self.times.store(if patient { times + 1 } else { 0 }, Ordering::Relaxed);
        patient
    }

    /// It executes a block that is up to date.
    fn fresh(&self) {
        self.times.store(0, Ordering::Relaxed);
        self.doubted[1].store(0, Ordering::Relaxed);
    }

    fn doubt(&self, block: Linear, len: u64) {
        self.doubted[0].store(block.0, Ordering::Relaxed);
        self.doubted[1].store(len, Ordering::Relaxed);
    }

    fn doubts(&self, at: Linear) -> bool {
        at.0.wrapping_sub(self.doubted[0].load(Ordering::Relaxed)) < self.doubted[1].load(Ordering::Relaxed)
    }
}

/// Where the guest's RAM is in the host's memory. A block is only dropped where it is certain: QEMU is told to write one over the other.
#[derive(Debug, Default)]
struct Ram {
    trial: Mutex<Option<Trial>>,
    on_trial: AtomicBool,
}

#[derive(Debug)]
struct Trial {
    /// The mapping of this process; its first byte is at physical address 0.
    range: Range<usize>,
    proofs: u32,
    contradictions: u32,
}

impl Ram {
    /// Code was seen here.
    fn offer(&self, host: usize, mapping: impl FnOnce(usize) -> Option<Range<usize>>) {
        let mut trial = self.trial.lock();
        if trial.is_none() {
            *trial = mapping(host).filter(|range| range.len() >= SMALLEST_RAM).map(|range| Trial { range, proofs: 0, contradictions: 0 });
            self.on_trial.store(trial.is_some(), Ordering::Relaxed);
        }
    }

    /// A store has just been made.
    fn prove(&self, phys: Phys, bytes: &[u8], holds: impl FnOnce(&Range<usize>) -> bool) {
        let mut guard = self.trial.lock();
        let Some(trial) = guard.as_mut() else { return };
        let trivial = bytes.len() < 4 || bytes.iter().all(|byte| *byte == 0);
        if trivial || HOLE.contains(&phys.0) || phys.0 >= LINEAR_UP_TO.min(trial.range.len() as u64) {
            return;
        }
        if holds(&trial.range) {
            trial.proofs += 1;
        } else {
            trial.contradictions += 1;
        }
        if trial.contradictions > CONTRADICTIONS {
            // Another mapping, then.
            *guard = None;
        } else if trial.proofs < PROOFS {
            return;
        }
        self.on_trial.store(false, Ordering::Relaxed);
    }

    /// Is it certain that so many bytes at a host address are those at that physical address?
    fn same(&self, host: usize, phys: Phys, len: u64) -> bool {
        let trial = self.trial.lock();
        let Some(trial) = trial.as_ref().filter(|trial| trial.proofs >= PROOFS) else { return false };
        let end = phys.0.saturating_add(len);
        let in_hole = phys.0 < HOLE.end && HOLE.start < end;
        !in_hole && end <= LINEAR_UP_TO.min(trial.range.len() as u64) && trial.range.start as u64 + phys.0 == host as u64
    }
}

/// The numbers of the summary.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct RepairCounts {
    /// Blocks about to be executed that may have been older than memory.
    pub suspect: u64,
    /// Of these, dropped and translated again.
    pub repaired: u64,
    /// Of these, executed, and no evidence.
    pub gave_up: u64,
}

/// A block's place, by which its slot is found: where it begins, and the lines of its parts.
type Site = (Linear, [Option<(Phys, u64)>; 2]);

#[derive(Debug, Default)]
struct Sites {
    slots: FxHashMap<Site, u32>,
    checks: FxHashMap<(Site, u64), &'static Check>,
    after_cpuid: FxHashMap<Linear, &'static AfterCpuid>,
}

/// See the module.
#[derive(Debug)]
pub struct Repair {
    numbers: Numbers,
    ram: Ram,
    checked: Checked,
    sites: Mutex<Sites>,
    turns: Box<[Turn]>,
    /// Threads that translated anything.
    running: AtomicU32,
    suspect: AtomicU64,
    repaired: AtomicU64,
    gave_up: AtomicU64,
}

/// A version of a block.
#[derive(Debug)]
pub struct Check {
    repair: &'static Repair,
    block: Linear,
    len: u64,
    parts: [Option<Part>; 2],
    version: u64,
    slot: Option<u32>,
    phys: Phys,
    host: usize,
}

/// The instruction after a CPUID.
#[derive(Debug)]
struct AfterCpuid {
    repair: &'static Repair,
    linear: Linear,
}

impl MayLeave for AfterCpuid {
    fn decide(&'static self, _vcpu: Vcpu) -> Option<Leave> {
        self.repair.several().then_some(Leave::Next(self.linear))
    }
}

impl MayLeave for Check {
    fn decide(&'static self, vcpu: Vcpu) -> Option<Leave> {
        let Repair { numbers, ram, checked, turns, .. } = self.repair;
        BOUND.set(numbers.now());
        let turn = turns.get(usize::from(vcpu.0))?;
        // A vCPU that is alone has made every store itself, in order with its own decoding.
        if self.version == newest(&self.parts) || !self.repair.several() {
            turn.fresh();
            if let Some(slot) = self.slot {
                checked.set(vcpu, slot, self.version);
            }
            return None;
        }
        self.repair.suspect.fetch_add(1, Ordering::Relaxed);
        let inside = self.phys.0 % REWRITTEN as u64;
        let (phys, host) = (Phys(self.phys.0 - inside), self.host.wrapping_sub(inside as usize));
        let source = (!ways::needs_source() || ram.same(host, phys, REWRITTEN as u64)).then_some((phys, host));
        if source.is_none() || !turn.again(self.block) {
            turn.doubt(self.block, self.len);
            self.repair.gave_up.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        self.repair.repaired.fetch_add(1, Ordering::Relaxed);
        Some(Leave::Again(source))
    }
}

impl Repair {
    /// To be made at installation.
    ///
    /// # Errors
    /// Why QEMU's blocks cannot be repaired here, as the rest of a line.
    pub fn new(generation: Generation, vcpus: usize) -> Result<&'static Self, String> {
        ways::prepare(generation)?;
        let checked = Checked::new(MAX_SITES).ok_or("QEMU gave no scoreboard")?;
        Ok(Box::leak(Box::new(Self {
            numbers: Numbers::default(),
            ram: Ram::default(),
            checked,
            sites: Mutex::default(),
            turns: (0..vcpus).map(|_| Turn::new()).collect(),
            running: AtomicU32::new(0),
            suspect: AtomicU64::new(0),
            repaired: AtomicU64::new(0),
            gave_up: AtomicU64::new(0),
        })))
    }

    /// The numbers.
    #[must_use]
    pub fn counts(&self) -> RepairCounts {
        let [suspect, repaired, gave_up] = [&self.suspect, &self.repaired, &self.gave_up].map(|count| count.load(Ordering::Relaxed));
        RepairCounts { suspect, repaired, gave_up }
    }

    fn several(&self) -> bool {
        self.running.load(Ordering::SeqCst) > 1
    }

    /// The vCPU whose thread this is translated a block, which lies at `place`. Its pages are known as pages of code to whoever stores.
    pub fn watch(&'static self, block: &Translation<'_>, instructions: &[Instruction<'_>], place: Option<Place>) {
        let mut bound = BOUND.get();
        if bound == NEVER {
            bound = 0;
            self.running.fetch_add(1, Ordering::SeqCst);
        }
        for pair in instructions.windows(2) {
            if pair[0].bytes() == CPUID {
                let linear = pair[1].linear;
                let mut sites = self.sites.lock();
                let after = sites.after_cpuid.entry(linear).or_insert_with(|| Box::leak(Box::new(AfterCpuid { repair: self, linear })));
                pair[1].may_leave::<AfterCpuid>(after);
            }
        }
        if let (Some(place), Some(first)) = (place, instructions.first())
            && let (Some(phys), Some(host)) = (place.phys(first.linear), first.host())
        {
            let check = self.check(first.linear, instructions, place, (phys, host), bound);
            block.may_leave(&self.checked, check.slot.filter(|_| check.version != SUSPECT), check.version, check);
        }
        BOUND.set(self.numbers.now());
    }

    fn check(
        &'static self,
        block: Linear,
        instructions: &[Instruction<'_>],
        place: Place,
        (phys, host): (Phys, usize),
        bound: u64,
    ) -> &'static Check {
        if ways::needs_source() {
            self.ram.offer(host, mapping_of);
        }
        let len: u64 = instructions.iter().map(|instruction| instruction.bytes().len() as u64).sum();
        let here = len.min(PAGE - block.0 % PAGE);
        let spans = [Some((phys, here)), place.second.filter(|_| len > here).map(|second| (second, len - here))];
        let parts = spans.map(|span| {
            let (phys, len) = span?;
            let page = self.numbers.page(phys, ways::barrier_of_all_threads);
            let lines = lines(phys.0 % PAGE, len);
            Some(Part { page, first: lines.start as u16, end: lines.end as u16 })
        });
        let newest = newest(&parts);
        // Asked after the numbers were read: a vCPU that starts later stores later, and its store makes the version another one.
        let version = if self.several() { version(newest, bound) } else { newest };
        let site = (block, spans);
        let mut sites = self.sites.lock();
        let Sites { slots, checks, .. } = &mut *sites;
        checks.entry((site, version)).or_insert_with(|| {
            let next = slots.len() as u32;
            let slot = match slots.get(&site) {
                Some(slot) => Some(*slot),
                None if next < MAX_SITES => Some(*slots.entry(site).or_insert(next)),
                None => None,
            };
            Box::leak(Box::new(Check { repair: self, block, len, parts, version, slot, phys, host }))
        })
    }

    /// A vCPU has stored to pages one of which may hold code. Told before it goes on.
    pub fn stored(&self, linear: Linear, phys: Phys, access: &Access<'_>) {
        let len = access.len();
        let here = len.min(PAGE - phys.0 % PAGE);
        self.numbers.stored(phys, here);
        if here < len
            && let Some(second) = access.physical_at(linear.offset(here))
        {
            self.numbers.stored(second, len - here);
        }
    }

    /// The page holds no code any more, and stores to it are not told of until some is translated there again.
    pub fn retires(&self, phys: Phys) {
        self.numbers.retire(phys);
    }

    /// A vCPU has stored to a page without code.
    #[inline]
    pub fn proves_ram(&self, phys: Phys, access: &Access<'_>) {
        if self.ram.on_trial.load(Ordering::Relaxed)
            && let Some(value) = access.value()
        {
            self.ram.prove(phys, value.bytes(), |range| mapping_holds(range, phys.0, value.bytes()));
        }
    }

    /// `vcpu` begins an epoch.
    pub fn next_epoch(&self, vcpu: Vcpu) {
        BOUND.set(self.numbers.now());
        if let Some(turn) = self.turns.get(usize::from(vcpu.0)) {
            turn.fresh();
        }
        self.checked.clear(vcpu);
    }

    /// Does `vcpu` execute a block that may be outdated, and is `at` in it?
    #[must_use]
    pub fn doubts(&self, vcpu: Vcpu, at: Linear) -> bool {
        self.turns.get(usize::from(vcpu.0)).is_some_and(|turn| turn.doubts(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODE: Phys = Phys(0x20_0000);

    fn part(numbers: &Numbers, phys: Phys, len: u64) -> [Option<Part>; 2] {
        let lines = lines(phys.0 % PAGE, len);
        [Some(Part { page: numbers.page(phys, || ()), first: lines.start as u16, end: lines.end as u16 }), None]
    }

    #[test]
    fn lines_that_bytes_touch() {
        assert_eq!((lines(0, 1), lines(15, 1), lines(15, 2), lines(16, 16)), (0..1, 0..1, 0..2, 1..2));
        assert_eq!((lines(4090, 100), lines(4095, 1)), (255..256, 255..256));
    }

    #[test]
    fn a_store_changes_the_version_of_the_blocks_whose_lines_it_touches() {
        let numbers = Numbers::default();
        let (before, behind) = (part(&numbers, CODE.offset(0x40), 16), part(&numbers, CODE.offset(0x50), 16));
        let known = newest(&before);
        assert_eq!((known, newest(&behind)), (1, 1), "the page began to hold code");
        numbers.stored(CODE.offset(0x4f), 1);
        assert_eq!((newest(&before), newest(&behind)), (2, 1));
        numbers.stored(CODE.offset(0x4f), 2);
        assert_eq!((newest(&before), newest(&behind)), (3, 3));
        numbers.stored(CODE.offset(PAGE), 8);
        assert_eq!(numbers.now(), 3, "no code there");
    }

    #[test]
    fn a_store_that_is_told_of_late_does_not_make_a_version_older() {
        let numbers = Numbers::default();
        let block = part(&numbers, CODE, 4);
        numbers.page(CODE, || ()).raise(0..1, 7);
        numbers.page(CODE, || ()).raise(0..1, 5);
        assert_eq!(newest(&block), 7);
    }

    #[test]
    fn a_page_begins_to_hold_code_once_and_after_all_threads_passed_a_barrier() {
        let numbers = Numbers::default();
        let seen = Cell::new(0);
        numbers.page(CODE, || seen.set(numbers.now() + 1));
        numbers.page(CODE.offset(8), || seen.set(100));
        assert_eq!((seen.get(), numbers.now()), (1, 1), "the number is taken after the barrier");
    }

    #[test]
    fn a_page_that_held_no_code_for_a_while_begins_anew() {
        let numbers = Numbers::default();
        let block = part(&numbers, CODE, 4);
        let known = newest(&block);
        numbers.retire(CODE.offset(8));
        assert!(newest(&block) > known, "what was translated from it is outdated");
        let (known, seen) = (newest(&block), Cell::new(0));
        numbers.page(CODE, || seen.set(numbers.now() + 1));
        assert_eq!((seen.get(), newest(&block)), (known + 1, known + 1), "as a new page");
        numbers.page(CODE, || seen.set(100));
        assert_eq!(seen.get(), known + 1);
    }

    #[test]
    fn suspect_if_a_store_came_since_the_previous_callback() {
        assert_eq!((version(5, 5), version(5, 9), version(0, 0)), (5, 5, 0));
        assert_eq!((version(6, 5), version(1, 0)), (SUSPECT, SUSPECT));
    }

    #[test]
    fn the_number_of_repairs_in_a_row_is_bounded() {
        let turn = Turn::new();
        let (a, b) = (Linear(0x1000), Linear(0x2000));
        for _ in 0..PATIENCE {
            assert!(turn.again(a));
        }
        assert!(!turn.again(a), "given up");
        assert!(turn.again(a), "and begun again");
        assert!(turn.again(b));
        turn.fresh();
        for _ in 0..PATIENCE {
            assert!(turn.again(b));
        }
        assert!(!turn.again(b));
    }

    #[test]
    fn what_is_executed_although_outdated_is_doubted_until_the_next_block_or_epoch() {
        let turn = Turn::new();
        assert!(!turn.doubts(Linear(0)));
        turn.doubt(Linear(0x1000), 8);
        assert!(turn.doubts(Linear(0x1000)) && turn.doubts(Linear(0x1007)) && !turn.doubts(Linear(0x1008)) && !turn.doubts(Linear(0xfff)));
        turn.fresh();
        assert!(!turn.doubts(Linear(0x1000)));
    }

    #[test]
    fn ram_is_certain_once_enough_stores_proved_it() {
        let base = 0x7000_0000_0000_usize;
        let range = base..base + (1 << 30);
        let ram = Ram::default();
        let same = |phys: u64| ram.same(base + phys as usize, Phys(phys), 1024);
        ram.offer(base, |_| None);
        assert!(!ram.on_trial.load(Ordering::Relaxed), "no such mapping");
        ram.offer(base, |_| Some(base..base + 4096));
        assert!(!ram.on_trial.load(Ordering::Relaxed), "too small");
        ram.offer(base, |_| Some(range.clone()));
        ram.prove(Phys(0x10_0000), &[0; 8], |_| true);
        ram.prove(Phys(0xb_8000), &[1; 8], |_| true);
        ram.prove(Phys(1 << 30), &[1; 8], |_| true);
        for _ in 1..PROOFS {
            ram.prove(Phys(0x10_0000), &[1; 8], |found| *found == range);
        }
        assert!(ram.on_trial.load(Ordering::Relaxed) && !same(0x10_0000));
        ram.prove(Phys(0x10_0000), &[1; 8], |_| true);
        assert!(!ram.on_trial.load(Ordering::Relaxed) && same(0x10_0000) && same(0));
        assert!(!same(0x9_fe00) && !same(0xb_fc00) && same(0x9_fc00) && same(0xc_0000), "the hole");
        assert!(!same(1 << 30) && same((1 << 30) - 1024), "the end");
        assert!(!ram.same(base + 4096, Phys(0x10_0000), 1024), "another page");
    }

    #[test]
    fn a_mapping_that_stores_contradict_is_not_ram() {
        let ram = Ram::default();
        ram.offer(0, |_| Some(0..1 << 30));
        for _ in 0..=CONTRADICTIONS {
            ram.prove(Phys(0x10_0000), &[1; 8], |_| false);
        }
        assert!(!ram.on_trial.load(Ordering::Relaxed) && !ram.same(0x10_0000, Phys(0x10_0000), 1024));
        ram.offer(0, |_| Some(0..1 << 30));
        assert!(ram.on_trial.load(Ordering::Relaxed), "another mapping has its chance");
    }
}
