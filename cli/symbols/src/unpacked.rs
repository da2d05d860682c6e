//! An unpacked kernel: what is loaded where.

use crate::table::KERNEL_HALF;

/// A part of the file that is loaded at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where it starts in the file.
    pub file_offset: u64,
    /// How long it is in the file.
    pub file_size: u64,
    /// The address that it is linked for.
    pub addr: u64,
}

/// An unpacked kernel.
#[derive(Clone, Debug)]
pub struct Image<'a> {
    /// The whole file.
    pub bytes: &'a [u8],
    /// Its loaded segments.
    pub segments: Vec<Segment>,
    /// If the kernel relocates itself when it starts: what says so of a relocation that adds to the address where it is
    /// loaded (ELF's `r_info`).
    pub relative: Option<u64>,
    /// How far from the start `_stext` may be.
    pub head: u64,
}

impl Image<'_> {
    /// Is a segment linked for the kernel's half of the address space?
    #[must_use]
    pub fn is_kernel(&self) -> bool {
        self.kernel_start().is_some()
    }

    /// Where the lowest segment in the kernel's half of the address space starts.
    pub(crate) fn kernel_start(&self) -> Option<u64> {
        self.segments.iter().map(|s| s.addr).filter(|&addr| addr >= KERNEL_HALF).min()
    }

    /// The link-time address of a place in the file.
    pub(crate) fn addr_of(&self, file_offset: usize) -> Option<u64> {
        let offset = file_offset as u64;
        self.segments.iter().find_map(|segment| {
            let inside = offset.checked_sub(segment.file_offset)?;
            (inside < segment.file_size).then(|| segment.addr.checked_add(inside))?
        })
    }

    /// The value of a pointer at a place in the file. It may be in its relocation alone, with nothing in its place.
    #[must_use]
    pub fn pointer_at(&self, file_offset: usize) -> Option<u64> {
        let value = u64::from_le_bytes(*self.bytes.get(file_offset..)?.first_chunk()?);
        let (0, Some(relative)) = (value, self.relative) else { return Some(value) };
        let relocation = [self.addr_of(file_offset)?.to_le_bytes(), relative.to_le_bytes()];
        let found = self.bytes.as_chunks::<8>().0.windows(3).find(|words| words.starts_with(&relocation));
        Some(found.and_then(|words| words.last()).map_or(value, |addend| u64::from_le_bytes(*addend)))
    }

    /// Is this address in a segment of the kernel's half, or right at its end?
    pub(crate) fn is_loaded(&self, addr: u64) -> bool {
        addr >= KERNEL_HALF
            && self
                .segments
                .iter()
                .any(|segment| addr.checked_sub(segment.addr).is_some_and(|inside| inside <= segment.file_size))
    }
}
