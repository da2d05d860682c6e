//! Code bytes where QEMU keeps guest memory in its own address space.
//!
//! At translation QEMU gives a host pointer for each instruction. Through it the plugin can see later whether memory
//! still holds what was translated, without asking QEMU, at the price of a few loads.

use super::host_address;
use icsan_model::addr::Phys;
use icsan_model::detector::flags::Holds;
use icsan_model::memory::PAGE;

/// Bytes that are kept beside the pointer, so that most comparisons touch one cache line of ours: as many as leave room
/// in it for what a segment is asked at the same time.
const INLINE: usize = 31;

/// The bytes of a translated run, and where memory holds them: one piece for each guest page that an instruction starts
/// in. Bytes of an instruction that cross into a page where none starts have no known place and are not compared.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[repr(C)]
pub struct HostCode {
    /// The first bytes; no bytes if their place is not known.
    head: usize,
    rest: Option<Box<Rest>>,
    head_len: u8,
    head_bytes: [u8; INLINE],
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Rest(Box<[Piece]>);

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Piece {
    /// Host address of the first byte.
    address: usize,
    /// Offset of that byte in the run.
    offset: usize,
    bytes: Box<[u8]>,
}

impl Rest {
    #[inline(never)]
    fn holds(&self) -> bool {
        self.0.iter().all(|piece| same(piece.address, &piece.bytes))
    }
}

impl HostCode {
    /// From a run's bytes and its pieces in order: host address, offset in the run, length. A piece with the address 0
    /// has no known place.
    pub(super) fn new(run: &[u8], pieces: impl Iterator<Item = (usize, usize, usize)>) -> Self {
        let mut code = Self { head: 0, rest: None, head_len: 0, head_bytes: [0; INLINE] };
        let mut rest = Vec::new();
        let mut add = |(address, offset, len): (usize, usize, usize)| {
            let bytes = run.get(offset..offset + len).unwrap_or_default();
            let mut inline = 0;
            if offset == 0 {
                inline = bytes.len().min(INLINE);
                code.head = address;
                code.head_len = inline as u8;
                code.head_bytes[..inline].copy_from_slice(&bytes[..inline]);
            }
            if inline < bytes.len() {
                // What goes on begins in what is kept beside the pointer already, so that it is whole words.
                let start = inline.saturating_sub(size_of::<u64>() - 1);
                rest.push(Piece { address: address + start, offset: offset + start, bytes: bytes[start..].into() });
            }
        };
        let mut joined: Option<(usize, usize, usize)> = None;
        for (address, offset, len) in pieces.filter(|(address, ..)| *address != 0) {
            match &mut joined {
                Some((start, first, known)) if *start + *known == address && *first + *known == offset => *known += len,
                _ => joined.replace((address, offset, len)).into_iter().for_each(&mut add),
            }
        }
        joined.into_iter().for_each(add);
        code.rest = (!rest.is_empty()).then(|| Box::new(Rest(rest.into())));
        code
    }

    /// Host address of the first byte, as a stand-in for the physical address: equal exactly if the guest memory is the
    /// same. `None` if it is not known.
    #[must_use]
    pub fn identity(&self) -> Option<usize> {
        (self.head_len != 0).then_some(self.head)
    }

    fn rest(&self) -> &[Piece] {
        self.rest.as_ref().map_or(&[], |rest| &rest.0)
    }

    /// The question [`HostCode::surely_holds`], to be asked later.
    #[inline(always)]
    #[must_use]
    pub fn surely(&self) -> Surely<'_> {
        Surely(self)
    }

    /// [`HostCode::holds`] for most code, without a call: this is asked at nearly every first execution in an epoch.
    /// `false`: ask that.
    #[inline(always)]
    #[must_use]
    pub fn surely_holds(&self) -> bool {
        let rest = || match self.rest.as_deref() {
            None => true,
            Some(Rest(pieces)) => matches!(&**pieces, [piece] if same_words(piece.address, &piece.bytes)),
        };
        self.head_holds() && rest()
    }

    #[inline(always)]
    fn head_holds(&self) -> bool {
        same_few(self.head, &self.head_bytes, usize::from(self.head_len))
    }

    /// Does memory hold the run's bytes now? Bytes of unknown place count as held.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.head_holds() && self.rest.as_deref().is_none_or(Rest::holds)
    }

    /// [`HostCode::holds`] where the memory may have been unplugged since, and is not the host's any more: then it does
    /// not hold them.
    #[must_use]
    pub fn is_there_still(&self) -> bool {
        let head = (self.head, &self.head_bytes[..usize::from(self.head_len)]);
        std::iter::once(head).chain(self.rest().iter().map(|piece| (piece.address, &*piece.bytes))).all(
            |(address, bytes)| {
                // Read by the host's kernel, which says no where there is nothing.
                let mut now = vec![0_u8; bytes.len()];
                let to = libc::iovec { iov_base: now.as_mut_ptr().cast(), iov_len: now.len() };
                let from = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: bytes.len() };
                // SAFETY: the call reads any address of this process, or fails; it writes to `now`, which is as long as
                // it is told.
                let read = unsafe { libc::process_vm_readv(libc::getpid(), &raw const to, 1, &raw const from, 1, 0) };
                match usize::try_from(read) {
                    Ok(read) => read == bytes.len() && now == bytes,
                    Err(_) if std::io::Error::last_os_error().raw_os_error() == Some(libc::EFAULT) => false,
                    // A host that forbids the call: as if nothing were ever unplugged.
                    Err(_) => same(address, bytes),
                }
            },
        )
    }

    /// What memory holds now, where its place is known; `translated` (the run's bytes) elsewhere.
    #[must_use]
    pub fn read(&self, translated: &[u8]) -> Vec<u8> {
        let mut now = translated.to_vec();
        let head = (self.head, 0, usize::from(self.head_len));
        for (address, offset, len) in std::iter::once(head)
            .chain(self.rest().iter().map(|piece| (piece.address, piece.offset, piece.bytes.len())))
        {
            for (index, byte) in now.iter_mut().skip(offset).take(len).enumerate() {
                // SAFETY: as in `same`.
                *byte = unsafe { ((address + index) as *const u8).read_volatile() };
            }
        }
        now
    }
}

/// See [`HostCode::surely`].
#[derive(Clone, Copy, Debug)]
pub struct Surely<'a>(&'a HostCode);

impl Holds for Surely<'_> {
    #[inline(always)]
    fn holds(self) -> bool {
        self.0.surely_holds()
    }
}

/// Guest memory in the host's memory: one page that QEMU translated code from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct HostPage(usize);

impl HostPage {
    /// The page (of `page` bytes) that holds the byte at the linear address `linear`, which lies at `host`.
    pub(super) fn new(host: usize, linear: u64, page: u64) -> Self {
        Self(host.wrapping_sub((linear % page) as usize))
    }

    /// For tests of what tells pages apart: a page that must not be read.
    #[cfg(test)]
    pub(crate) const fn at(address: usize) -> Self {
        Self(address)
    }

    /// How far behind `other` it lies, in bytes, wrapping around.
    #[must_use]
    pub fn distance(self, other: Self) -> u64 {
        self.0.wrapping_sub(other.0) as u64
    }

    /// Has the machine this memory at that physical address now? `false`, too, where QEMU does not tell.
    #[must_use]
    pub fn is_at(self, phys: Phys) -> bool {
        let page = phys.align_down(PAGE);
        host_address::is(self.0, page, PAGE)
    }

    /// What memory holds now: `len` bytes from `offset` on, which must lie in the page (of at least 4096 bytes).
    #[must_use]
    pub fn read(self, offset: usize, len: usize) -> Vec<u8> {
        let end = (offset + len).min(4096);
        // SAFETY: QEMU gave an address in this page for guest memory that it translated from; guest pages are whole in
        // the host's memory, and stay mapped as long as the machine lives. Other threads may write at the same time;
        // single bytes have no invalid values.
        (offset..end).map(|offset| unsafe { ((self.0 + offset) as *const u8).read_volatile() }).collect()
    }
}

/// What a page of guest memory holds.
pub trait Contents {
    /// Does it hold these bytes, from `offset` on? They must lie in the page (of at least 4096 bytes); what lies beyond
    /// is not compared.
    fn holds(&self, offset: usize, bytes: &[u8]) -> bool;

    /// All that it holds: 4096 bytes.
    fn whole(&self) -> Vec<u8>;
}

impl Contents for HostPage {
    fn holds(&self, offset: usize, bytes: &[u8]) -> bool {
        same(self.0 + offset, &bytes[..bytes.len().min(4096_usize.saturating_sub(offset))])
    }

    fn whole(&self) -> Vec<u8> {
        self.read(0, 4096)
    }
}

/// A page that was read, where there is no pointer to it.
impl Contents for [u8; 4096] {
    fn holds(&self, offset: usize, bytes: &[u8]) -> bool {
        self[offset..].iter().zip(bytes).all(|(held, byte)| held == byte)
    }

    fn whole(&self) -> Vec<u8> {
        self.to_vec()
    }
}

/// The mapping of this process that holds an address: its first address, and the one behind its last.
#[must_use]
pub fn mapping_of(address: usize) -> Option<std::ops::Range<usize>> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    maps.lines().find_map(|line| {
        let (start, end) = line.split_once(' ')?.0.split_once('-')?;
        let range = usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?;
        range.contains(&address).then_some(range)
    })
}

/// Does this part of a mapping hold these bytes now?
///
/// The range is one that [`mapping_of`] gave for guest memory; bytes beyond it are never held.
#[must_use]
pub fn mapping_holds(range: &std::ops::Range<usize>, offset: u64, bytes: &[u8]) -> bool {
    let Some(start) = usize::try_from(offset).ok().and_then(|offset| range.start.checked_add(offset)) else {
        return false;
    };
    start.checked_add(bytes.len()).is_some_and(|end| end <= range.end) && same(start, bytes)
}

/// A number at any address.
#[derive(Clone, Copy)]
#[repr(C, packed)]
struct Unaligned<T>(T);

/// Does memory hold the first `len` of these bytes?
#[inline(always)]
fn same_few(address: usize, bytes: &[u8; INLINE], len: usize) -> bool {
    // Bits in which memory differs from the number at a place.
    let word = |at: usize| match bytes.get(at..at + 8).map(<[u8; 8]>::try_from) {
        Some(Ok(held)) => {
            // SAFETY: as in `same`: all 8 bytes are among the `len` that lie there. A number has no invalid values.
            unsafe { ((address + at) as *const Unaligned<u64>).read_volatile() }.0 ^ u64::from_ne_bytes(held)
        }
        _ => 0,
    };
    let half = |at: usize| match bytes.get(at..at + 4).map(<[u8; 4]>::try_from) {
        Some(Ok(held)) => {
            // SAFETY: as above, with 4.
            unsafe { ((address + at) as *const Unaligned<u32>).read_volatile() }.0 ^ u32::from_ne_bytes(held)
        }
        _ => 0,
    };
    // Pieces that overlap, always four of them: which length comes next is hard to predict, and a branch on it costs
    // more than a load.
    match len {
        8..=INLINE => word(0) | word((len - 8).min(8)) | word((len - 8).min(16)) | word(len - 8) == 0,
        4..8 => half(0) | half(len - 4) == 0,
        // SAFETY: as above, with 1.
        _ => (0..)
            .zip(bytes)
            .take(len)
            .all(|(at, byte)| unsafe { ((address + at) as *const u8).read_volatile() } == *byte),
    }
}

/// [`same`] for at least 8 bytes, without a call; of fewer bytes it says no.
#[inline(always)]
fn same_words(address: usize, bytes: &[u8]) -> bool {
    // SAFETY: as in `same`: all 8 bytes are among those that lie there. A number has no invalid values either.
    let word =
        |at: usize, held: &[u8; 8]| unsafe { ((address + at) as *const Unaligned<u64>).read_volatile() }.0 == u64::from_ne_bytes(*held);
    // The last word may overlap the one before.
    let last = bytes.last_chunk().is_some_and(|held| word(bytes.len() - held.len(), held));
    last && (0..).step_by(8).zip(bytes.as_chunks().0).all(|(at, held)| word(at, held))
}

fn same(address: usize, bytes: &[u8]) -> bool {
    // SAFETY: QEMU gave this address for guest RAM (or ROM) that it translated from (or there are no bytes to compare),
    // and RAM blocks stay mapped as long as the machine lives (code in memory that was unplugged does not run; what
    // asks of it apart from that uses [`HostCode::is_there_still`]). Other host threads may write at the same time
    // (guest stores): the comparison is left to C, which reads plain bytes that have no invalid values, and an answer
    // from a moment of change only means "changing right now", which the caller must expect anyway.
    bytes.is_empty() || unsafe { libc::memcmp(address as *const libc::c_void, bytes.as_ptr().cast(), bytes.len()) == 0 }
}

#[cfg(test)]
mod tests {
    use super::HostCode;

    #[test]
    fn sees_memory_change_in_every_byte() {
        let mut memory = *b"more than thirty-two bytes of code, so that some are kept apart";
        let translated = memory;
        let base = memory.as_ptr() as usize;
        let code = HostCode::new(&translated, [(base, 0, 10), (base + 10, 10, translated.len() - 10)].into_iter());
        assert_eq!(code.identity(), Some(base));
        assert_eq!(code.rest().len(), 1);
        assert!(code.holds());
        for index in 0..memory.len() {
            memory[index] ^= 1;
            assert!(!code.holds(), "byte {index}");
            assert_eq!(code.read(&translated), std::hint::black_box(&memory).to_vec());
            memory[index] ^= 1;
        }
    }

    #[test]
    fn code_is_compared_whole_at_every_length() {
        for len in 0..=3 * super::INLINE {
            let mut memory: Vec<u8> = (1..=len as u8 + 1).collect();
            let code = HostCode::new(&memory.clone()[..len], std::iter::once((memory.as_ptr() as usize, 0, len)));
            assert!(code.surely_holds() && code.holds(), "{len}");
            assert_eq!(code.read(&vec![0; len]), memory[..len]);
            (0..len).for_each(|index| {
                memory[index] ^= 0x80;
                let code = std::hint::black_box(&code);
                assert!(!code.surely_holds() && !code.holds(), "byte {index} of {len}");
                memory[index] ^= 0x80;
            });
            memory[len] ^= 0x80;
            assert!(code.surely_holds() && code.holds(), "what lies behind {len} bytes is not compared");
        }
    }

    #[test]
    fn memory_that_is_gone_holds_nothing() {
        let bytes = [7; 3 * super::INLINE];
        let page = Box::new(bytes);
        let code = |address: usize| HostCode::new(&bytes, std::iter::once((address, 0, bytes.len())));
        let there = code(page.as_ptr() as usize);
        assert!(there.is_there_still());
        let mut page = std::hint::black_box(page);
        page[2 * super::INLINE] = 8;
        assert!(!std::hint::black_box(&there).is_there_still());
        assert!(!code(8).is_there_still(), "nothing was ever mapped there");
        assert!(HostCode::new(&bytes, std::iter::empty()).is_there_still(), "of unknown place");
    }

    #[test]
    fn bytes_of_unknown_place_count_as_held() {
        let memory = *b"0123";
        let code = HostCode::new(b"xx0123", [(0, 0, 2), (memory.as_ptr() as usize, 2, 4)].into_iter());
        assert_eq!((code.identity(), code.holds()), (None, true));
        assert_eq!(code.read(b"xx????"), b"xx0123");
    }
}
