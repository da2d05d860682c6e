//! `emulator=repair`: QEMU's own outdated blocks are found before they run, dropped, and translated again
//! (docs/emulator.md has the argument why none is missed).
//!
//! Every store to a page with code takes the next **number**, after it was made, and leaves it at each 16-byte **line**
//! that it touches. A block's **version** is the largest number at its lines. It is told when the block is translated,
//! and asked again at the block's first execution in an epoch: if it is another one, or if a store came since the
//! translating vCPU's previous callback (the block is **suspect**), the block may be older than memory.
//!
//! How a block is dropped and left is in [`crate::qemu::repair`].

mod numbers;
mod ram;
mod sites;

use crate::arch::platform::Facts;
use crate::gaps::Gap;
use crate::qemu::api::Generation;
use crate::qemu::cpu::CurrentVcpu;
use crate::qemu::host_address;
use crate::qemu::host_code::{mapping_holds, mapping_of};
use crate::qemu::repair::{self as ways, Checked, Leave, MayLeave, REWRITTEN};
use crate::qemu::translation::{Instruction, Translation};
use icsan_model::addr::{Linear, Phys, Vcpu};
use icsan_model::detector::history::Place;
use icsan_model::memory::PAGE;
use numbers::{MAX_PAGES, Numbers, Part, SUSPECT, lines, newest, version};
use ram::Ram;
use sites::{Site, Sites, Word};
use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Places of blocks that have a slot (12 bytes for each of 16 vCPUs at least). Blocks beyond them are looked at on
/// every execution: slow, and right.
const MAX_SLOTS: u32 = 1 << 18;

/// Repairs of one block in a row, on one vCPU, after which it is executed as it is.
const PATIENCE: u64 = 64;

/// Of a thread that had no callback yet.
const NEVER: u64 = u64::MAX;

thread_local! {
    /// The newest number at this vCPU's previous callback: whatever it decodes next is at least as new as the stores up
    /// to that one.
    static BOUND: Cell<u64> = const { Cell::new(NEVER) };
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

/// See the module.
#[derive(Debug)]
pub struct Repair {
    /// See [`Facts::exact_after`].
    exact_after: &'static [u8],
    numbers: Numbers,
    ram: Ram,
    checked: Checked,
    sites: Sites,
    turns: Box<[Turn]>,
    /// Threads that translated anything.
    running: AtomicU32,
    suspect: AtomicU64,
    repaired: AtomicU64,
    gave_up: AtomicU64,
}

static THE_ONE: OnceLock<&'static Repair> = OnceLock::new();

/// The first instruction of a block; the word is the block's [`Word`].
#[derive(Debug)]
struct Block;

/// An instruction in the middle of a block at which QEMU's own state is exact; the word is its linear address.
#[derive(Debug)]
struct Exact;

impl MayLeave for Exact {
    fn decide(word: u64, _vcpu: &CurrentVcpu) -> Option<Leave> {
        let repair = THE_ONE.get()?;
        let behind = repair.exact_after.len() as u8;
        repair.several().then_some(Leave::Next { at: Linear(word), behind })
    }
}

impl MayLeave for Block {
    fn decide(word: u64, vcpu: &CurrentVcpu) -> Option<Leave> {
        let (repair, word) = (THE_ONE.get()?, Word::from_bits(word));
        let site = repair.sites.get(word.site())?;
        BOUND.set(repair.numbers.now());
        let turn = repair.turns.get(usize::from(vcpu.id().0))?;
        // A vCPU that is alone has made every store itself, in order with its own decoding.
        if word.version() == newest(&site.parts) || !repair.several() {
            turn.fresh();
            repair.checked.set(vcpu, word.site().0, word.version());
            return None;
        }
        repair.suspect.fetch_add(1, Ordering::Relaxed);
        let (phys, host) = site.at;
        let inside = phys.0 % REWRITTEN as u64;
        let (phys, host) = (Phys(phys.0 - inside), host.wrapping_sub(inside as usize));
        let source =
            (!ways::needs_source() || repair.is_same_memory(host, phys, REWRITTEN as u64)).then_some((phys, host));
        if source.is_none() || !turn.again(site.block) {
            turn.doubt(site.block, site.len);
            repair.gives_up();
            return None;
        }
        repair.repaired.fetch_add(1, Ordering::Relaxed);
        Some(Leave::Again(source))
    }
}

impl Repair {
    /// To be made at installation.
    ///
    /// # Errors
    /// Why QEMU's blocks cannot be repaired here, as the rest of a line.
    pub fn new(generation: Generation, vcpus: usize, facts: &'static Facts) -> Result<&'static Self, String> {
        ways::prepare(generation, facts.counter)?;
        host_address::prepare();
        let checked = Checked::new(MAX_SLOTS).ok_or("QEMU gave no scoreboard")?;
        let repair: &'static Self = Box::leak(Box::new(Self {
            exact_after: facts.exact_after,
            numbers: Numbers::new(MAX_PAGES),
            ram: Ram::new(facts.ram_hidden.clone(), facts.ram_unproven.clone()),
            checked,
            sites: Sites::new(sites::MAX_SITES),
            turns: (0..vcpus).map(|_| Turn::new()).collect(),
            running: AtomicU32::new(0),
            suspect: AtomicU64::new(0),
            repaired: AtomicU64::new(0),
            gave_up: AtomicU64::new(0),
        }));
        let _ = THE_ONE.set(repair);
        Ok(repair)
    }

    /// The numbers.
    #[must_use]
    pub fn counts(&self) -> RepairCounts {
        let [suspect, repaired, gave_up] =
            [&self.suspect, &self.repaired, &self.gave_up].map(|count| count.load(Ordering::Relaxed));
        RepairCounts { suspect, repaired, gave_up }
    }

    /// Is it certain?
    fn is_same_memory(&self, host: usize, phys: Phys, len: u64) -> bool {
        if host_address::is_known() { host_address::is(host, phys, len) } else { self.ram.same(host, phys, len) }
    }

    /// A block is executed as it is, and not judged.
    fn gives_up(&self) {
        self.gave_up.fetch_add(1, Ordering::Relaxed);
        Gap::Unrepaired.note();
    }

    fn several(&self) -> bool {
        self.running.load(Ordering::SeqCst) > 1
    }

    /// The vCPU whose thread this is translated a block, which lies at `place`. Its pages are known as pages of code to
    /// the vCPUs that store.
    pub fn watch(&'static self, block: &Translation<'_>, instructions: &[Instruction<'_>], place: Option<Place>) {
        let mut bound = BOUND.get();
        if bound == NEVER {
            bound = 0;
            self.running.fetch_add(1, Ordering::SeqCst);
        }
        for pair in instructions.windows(2) {
            if pair[0].bytes() == self.exact_after {
                pair[1].may_leave::<Exact>(pair[1].linear.0);
            }
        }
        if let (Some(place), Some(first)) = (place, instructions.first())
            && let (Some(phys), Some(host)) = (place.phys(first.linear), first.host())
        {
            match self.version_of(first.linear, instructions, place, (phys, host), bound) {
                Some(word) => {
                    let slot = Some(word.site().0).filter(|_| word.version() != SUSPECT);
                    block.may_leave::<Block>(&self.checked, slot, word.version(), word.bits());
                }
                // There is no room for it: it is executed as it is.
                None => self.gives_up(),
            }
        }
        BOUND.set(self.numbers.now());
    }

    /// The site of a block that was just translated, and its version.
    fn version_of(
        &self,
        block: Linear,
        instructions: &[Instruction<'_>],
        place: Place,
        (phys, host): (Phys, usize),
        bound: u64,
    ) -> Option<Word> {
        if ways::needs_source() && !host_address::is_known() {
            self.ram.offer(host, phys, mapping_of);
        }
        let len: u64 = instructions.iter().map(|instruction| instruction.bytes().len() as u64).sum();
        let here = len.min(PAGE - block.0 % PAGE);
        let spans = [Some((phys, here)), place.second.filter(|_| len > here).map(|second| (second, len - here))];
        let part = |(phys, len): (Phys, u64)| {
            let page = self.numbers.page(phys, ways::barrier_of_all_threads)?;
            let lines = lines(phys.0 % PAGE, len);
            Some(Part { page, first: lines.start as u16, end: lines.end as u16 })
        };
        let parts = spans.map(|span| span.and_then(part));
        if parts.iter().flatten().count() != spans.iter().flatten().count() {
            return None;
        }
        let newest = newest(&parts);
        // Asked after the numbers were read: a vCPU that starts later stores later, and its store makes the version
        // another one.
        let version = if self.several() { version(newest, bound) } else { newest };
        let site = self.sites.number((block, spans, parts.map(|part| part.map(|part| part.page.id()))), || Site {
            block,
            len,
            parts,
            at: (phys, host),
        })?;
        Some(Word::new(site, version))
    }

    /// A vCPU has stored to `len` bytes of a page that may hold code. Told before it goes on.
    pub fn stored(&self, phys: Phys, len: u64) {
        self.numbers.stored(phys, len);
    }

    /// The page holds no code any more, and stores to it are not told of until some is translated there again.
    pub fn retires(&self, phys: Phys) {
        self.numbers.retire(phys);
    }

    /// Is it not known of all code yet where the guest's memory is in the host's?
    #[inline]
    #[must_use]
    pub fn asks_for_proof(&self) -> bool {
        self.ram.is_on_trial()
    }

    /// A vCPU has stored these bytes to a page without code.
    pub fn proves_ram(&self, phys: Phys, bytes: &[u8]) {
        self.ram.prove(phys, bytes, |mapping, offset| mapping_holds(mapping, offset, bytes));
    }

    /// The vCPU begins an epoch.
    pub fn next_epoch(&self, vcpu: &CurrentVcpu) {
        BOUND.set(self.numbers.now());
        if let Some(turn) = self.turns.get(usize::from(vcpu.id().0)) {
            turn.fresh();
        }
        self.checked.clear(vcpu);
    }

    /// The vCPU, in the middle of an epoch, was seen to execute what memory does not hold. This execution cannot be
    /// helped; but its blocks are asked about once more, so that the next one is of what memory holds.
    pub fn asks_again(&self, vcpu: &CurrentVcpu) {
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
        assert!(
            turn.doubts(Linear(0x1000))
                && turn.doubts(Linear(0x1007))
                && !turn.doubts(Linear(0x1008))
                && !turn.doubts(Linear(0xfff))
        );
        turn.fresh();
        assert!(!turn.doubts(Linear(0x1000)));
    }
}
