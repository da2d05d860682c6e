//! The kernel's text, as it stands: the proof that something was patched.
//!
//! /proc/kcore is an ELF core dump of the kernel's memory, and /proc/iomem says how long the kernel's code is.

use crate::architecture::text_start;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;

/// The kernel's memory.
pub const KCORE: &str = "/proc/kcore";
const IOMEM: &str = "/proc/iomem";

/// Differing bytes that are closer than this are one place: no patched instruction is longer.
const PLACE: usize = 8;

/// One stretch of the kernel's memory in the file.
#[derive(Clone, Copy, Debug)]
struct Segment {
    offset: u64,
    start: u64,
    size: u64,
}

/// The kernel's memory, and where its own text is.
#[derive(Debug)]
pub struct Text {
    kcore: File,
    segments: Vec<Segment>,
    start: u64,
    len: usize,
}

impl Text {
    /// Finds it.
    pub fn open() -> io::Result<Self> {
        let kcore = File::open(KCORE).map_err(|error| io::Error::other(format!("{KCORE}: {error}")))?;
        let segments = segments(&kcore)?;
        let iomem = fs::read_to_string(IOMEM)?;
        let len =
            code_size(&iomem).ok_or_else(|| io::Error::other(format!("{IOMEM} names no code of the kernel's")))?;
        let start = text_start(segments.iter().map(|segment| segment.start))?;
        let start = start.ok_or_else(|| io::Error::other(format!("{KCORE} has no kernel image")))?;
        Ok(Self { kcore, segments, start, len })
    }

    /// All of it.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        let mut text = vec![0; self.len];
        self.read_at(&mut text, self.start)?;
        Ok(text)
    }

    /// In how many places it differs from what it was `before`.
    pub fn places(&self, before: &[u8]) -> io::Result<usize> {
        Ok(places(before, &self.read()?))
    }

    /// Some of the kernel's memory.
    pub fn read_at(&self, bytes: &mut [u8], address: u64) -> io::Result<()> {
        let inside =
            |segment: &&Segment| address.wrapping_sub(segment.start).saturating_add(bytes.len() as u64) <= segment.size;
        let segment = self
            .segments
            .iter()
            .find(inside)
            .ok_or_else(|| io::Error::other(format!("{KCORE} has no {address:#x}")))?;
        self.kcore.read_exact_at(bytes, segment.offset + (address - segment.start))
    }
}

fn segments(kcore: &File) -> io::Result<Vec<Segment>> {
    const MOST: u64 = 64;
    const ENTRY: usize = 56;
    let mut header = [0; 64];
    kcore.read_exact_at(&mut header, 0)?;
    let count = u64::from(u16::from_le_bytes([header[0x38], header[0x39]]));
    let segment = |index| {
        let mut entry = [0; ENTRY];
        kcore.read_exact_at(&mut entry, word(&header, 0x20) + index * ENTRY as u64)?;
        Ok(Segment { offset: word(&entry, 8), start: word(&entry, 16), size: word(&entry, 40) })
    };
    // Not the note, which is at no address.
    (0..count.min(MOST)).map(segment).filter(|segment| !matches!(segment, Ok(Segment { start: 0, .. }))).collect()
}

fn word(bytes: &[u8], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |word| u64::from_le_bytes(*word))
}

/// From a line like `  01000000-022031ff : Kernel code`.
fn code_size(iomem: &str) -> Option<usize> {
    let line = iomem.lines().find(|line| line.ends_with(": Kernel code"))?;
    let (from, to) = line.trim().split_once(' ')?.0.split_once('-')?;
    let number = |text| usize::from_str_radix(text, 16).ok();
    number(to)?.checked_sub(number(from)?).filter(|size| *size > 0).map(|size| size + 1)
}

fn places(before: &[u8], after: &[u8]) -> usize {
    let mut count = 0;
    let mut last = None;
    for (page, (old, new)) in before.chunks(4096).zip(after.chunks(4096)).enumerate() {
        if old == new {
            continue;
        }
        for (at, _) in old.iter().zip(new).enumerate().filter(|(_, (old, new))| old != new) {
            let at = page * 4096 + at;
            count += usize::from(last.is_none_or(|last| at - last >= PLACE));
            last = Some(at);
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_once() {
        let before = vec![0; 10_000];
        let mut after = before.clone();
        assert_eq!(places(&before, &after), 0);
        for at in [1, 2, 5, 40, 4095, 4096, 9_999] {
            after[at] = 1;
        }
        assert_eq!(places(&before, &after), 4);
    }

    #[test]
    fn the_size_of_the_code() {
        let iomem =
            "00100000-1ffdffff : System RAM\n  01000000-010000ff : Kernel code\n  01200000-012000ff : Kernel rodata\n";
        assert_eq!(code_size(iomem), Some(0x100));
        assert_eq!(code_size("00000000-00000000 : Kernel code"), None);
        assert_eq!(code_size("hidden"), None);
    }
}
