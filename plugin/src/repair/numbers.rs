//! Numbers of stores: what tells whether a block is older than the last store to its bytes.

use crate::qemu::locks::RwLock;
use icsan_model::addr::Phys;
use icsan_model::memory::PAGE;
use rustc_hash::FxHashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bits of a word that are the version; the others number the site.
pub(super) const VERSION_BITS: u32 = 44;

/// Version of a suspect block: no block has it when it is asked.
pub const SUSPECT: u64 = (1 << VERSION_BITS) - 1;

/// Bytes with one number.
const LINE: u64 = 16;
const LINES: usize = (PAGE / LINE) as usize;

/// Pages that have numbers at a time: 2 KiB each. Blocks in further ones are executed as they are.
pub const MAX_PAGES: usize = 1 << 16;

/// The lines of a page that holds code. When the page does not any more they are another page's: their numbers only
/// grow, so that to a block of the old one each is another version.
#[derive(Debug)]
pub struct Lines {
    /// Which they are, of all.
    id: usize,
    /// Their numbers; 0: none.
    numbers: [AtomicU64; LINES],
}

impl Lines {
    /// What tells them from those of other pages.
    pub fn id(&self) -> usize {
        self.id
    }

    fn raise(&self, lines: impl Iterator<Item = usize>, number: u64) {
        for line in lines.filter_map(|line| self.numbers.get(line)) {
            line.fetch_max(number, Ordering::SeqCst);
        }
    }
}

/// The lines that `len` bytes at an offset in a page touch.
pub fn lines(offset: u64, len: u64) -> Range<usize> {
    (offset / LINE) as usize..(offset + len).min(PAGE).div_ceil(LINE) as usize
}

/// Numbers of stores.
#[derive(Debug)]
pub struct Numbers {
    last: AtomicU64,
    pages: RwLock<Pages>,
    limit: usize,
}

#[derive(Debug, Default)]
struct Pages {
    lines: FxHashMap<u64, &'static Lines>,
    /// Of pages that hold no code any more.
    free: Vec<&'static Lines>,
    /// How many lines of pages were made.
    made: usize,
}

impl Numbers {
    /// Room for so many pages.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { last: AtomicU64::new(0), pages: RwLock::default(), limit }
    }

    /// The newest number.
    pub fn now(&self) -> u64 {
        self.last.load(Ordering::SeqCst)
    }

    fn next(&self) -> u64 {
        self.last.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// A store to bytes of one page was made. Told before the vCPU goes on.
    pub fn stored(&self, phys: Phys, len: u64) {
        let Some(page) = self.pages.read().lines.get(&(phys.0 / PAGE)).copied() else { return };
        let number = self.next();
        page.raise(lines(phys.0 % PAGE, len), number);
    }

    /// The page does not hold code any more: stores to it get no numbers from now on. Every block that was translated
    /// from it is outdated.
    pub fn retire(&self, phys: Phys) {
        let mut pages = self.pages.write();
        if let Some(lines) = pages.lines.remove(&(phys.0 / PAGE)) {
            lines.raise(0..LINES, self.next());
            pages.free.push(lines);
        }
    }

    /// The lines of a page that holds code. If it is new, or holds code again, stores are told of already, but one may
    /// have been made and not been seen yet: after `barrier`, which all threads pass, it is visible, and the page
    /// counts as stored to. What was decoded in it before is suspect. `None`: there is no room.
    pub fn page(&self, phys: Phys, barrier: impl FnOnce()) -> Option<&'static Lines> {
        let page = phys.0 / PAGE;
        if let Some(lines) = self.pages.read().lines.get(&page).copied() {
            return Some(lines);
        }
        let lines = {
            let mut pages = self.pages.write();
            if let Some(lines) = pages.lines.get(&page) {
                return Some(lines);
            }
            let lines = pages.free.pop().or_else(|| {
                let id = pages.made;
                (id < self.limit).then(|| -> &'static Lines {
                    pages.made += 1;
                    Box::leak(Box::new(Lines { id, numbers: [const { AtomicU64::new(0) }; LINES] }))
                })
            })?;
            pages.lines.insert(page, lines);
            lines
        };
        barrier();
        lines.raise(0..LINES, self.next());
        Some(lines)
    }
}

/// The part of a block that lies in one page.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// The page.
    pub page: &'static Lines,
    /// Its first line.
    pub first: u16,
    /// The line behind its last.
    pub end: u16,
}

impl Part {
    fn newest(&self) -> u64 {
        let lines = self.page.numbers.get(usize::from(self.first)..usize::from(self.end)).unwrap_or_default();
        lines.iter().map(|line| line.load(Ordering::SeqCst)).max().unwrap_or(0)
    }
}

/// The newest number at the lines of a block's parts: its version.
pub fn newest(parts: &[Option<Part>; 2]) -> u64 {
    parts.iter().flatten().map(Part::newest).max().unwrap_or(0)
}

/// The version that a block gets: it was decoded at some time after the number `bound` was given.
pub fn version(newest: u64, bound: u64) -> u64 {
    if newest > bound { SUSPECT } else { newest }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    const CODE: Phys = Phys(0x20_0000);

    fn part(numbers: &Numbers, phys: Phys, len: u64) -> [Option<Part>; 2] {
        let lines = lines(phys.0 % PAGE, len);
        [
            Some(Part { page: numbers.page(phys, || ()).unwrap(), first: lines.start as u16, end: lines.end as u16 }),
            None,
        ]
    }

    #[test]
    fn lines_that_bytes_touch() {
        assert_eq!((lines(0, 1), lines(15, 1), lines(15, 2), lines(16, 16)), (0..1, 0..1, 0..2, 1..2));
        assert_eq!((lines(4090, 100), lines(4095, 1)), (255..256, 255..256));
    }

    #[test]
    fn a_store_changes_the_version_of_the_blocks_whose_lines_it_touches() {
        let numbers = Numbers::new(MAX_PAGES);
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
        let numbers = Numbers::new(MAX_PAGES);
        let block = part(&numbers, CODE, 4);
        numbers.page(CODE, || ()).unwrap().raise(0..1, 7);
        numbers.page(CODE, || ()).unwrap().raise(0..1, 5);
        assert_eq!(newest(&block), 7);
    }

    #[test]
    fn a_page_begins_to_hold_code_once_and_after_all_threads_passed_a_barrier() {
        let numbers = Numbers::new(MAX_PAGES);
        let seen = Cell::new(0);
        numbers.page(CODE, || seen.set(numbers.now() + 1));
        numbers.page(CODE.offset(8), || seen.set(100));
        assert_eq!((seen.get(), numbers.now()), (1, 1), "the number is taken after the barrier");
    }

    #[test]
    fn a_page_that_held_no_code_for_a_while_begins_anew() {
        let numbers = Numbers::new(MAX_PAGES);
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
    fn what_a_page_had_is_given_to_another_one_and_there_is_so_much() {
        let numbers = Numbers::new(2);
        let pages = [0, 1, 2].map(|page| CODE.offset(page * PAGE));
        let block = part(&numbers, pages[0], 4);
        let known = newest(&block);
        assert!(numbers.page(pages[1], || ()).is_some() && numbers.page(pages[2], || ()).is_none(), "full");
        numbers.retire(pages[0]);
        let taken = numbers.page(pages[2], || ()).unwrap();
        assert!(newest(&block) > known, "to a block of the old page each number is another version");
        assert_eq!(taken.id(), 0);
        assert!(numbers.page(pages[0], || ()).is_none());
        numbers.retire(pages[1]);
        assert_eq!(
            numbers.page(pages[0], || ()).map(Lines::id),
            Some(1),
            "the first page has others now, so that its blocks are others, too"
        );
        let made: usize = (0..1000)
            .map(|page| CODE.offset(page * PAGE))
            .map(|page| {
                numbers.retire(pages[0]);
                let given = numbers.page(page, || ()).is_some();
                numbers.retire(page);
                usize::from(given)
            })
            .sum();
        assert_eq!((made, numbers.pages.read().made), (1000, 2));
    }

    #[test]
    fn suspect_if_a_store_came_since_the_previous_callback() {
        assert_eq!((version(5, 5), version(5, 9), version(0, 0)), (5, 5, 0));
        assert_eq!((version(6, 5), version(1, 0)), (SUSPECT, SUSPECT));
    }
}
