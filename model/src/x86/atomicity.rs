//! Which stores of x86 are single-copy atomic.
//!
//! Intel SDM vol. 3, "Guaranteed Atomic Operations": up to 8 bytes that do not cross a cache line (since P6; aligned
//! ones on everything since the Pentium), and 16 aligned bytes on processors with AVX. AMD APM vol. 2, "Access
//! Atomicity", promises aligned ones, and on later processors those within 16 bytes; what Intel promises is taken for
//! both. A locked access is atomic wherever it lies; it is not known which are, and those that cross a line are taken
//! apart all the same.

use std::ops::Range;

/// Bytes of a cache line.
const LINE: u64 = 64;

/// The largest access that is atomic without being aligned, in bytes.
const WORD: u64 = 8;

/// The parts of a store of `len` bytes at a linear address that each change at once, as offsets into it; lowest address
/// first.
pub fn parts(linear: u64, len: u64) -> impl Iterator<Item = Range<usize>> {
    let whole = len == 16 && linear.is_multiple_of(16);
    let mut start = 0;
    std::iter::from_fn(move || {
        if start >= len {
            return None;
        }
        let to_line = LINE - linear.wrapping_add(start) % LINE;
        let count = (len - start).min(to_line).min(if whole { 16 } else { WORD });
        let part = start as usize..(start + count) as usize;
        start += count;
        Some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::parts;

    #[test]
    fn only_lines_and_words_divide() {
        let parts = |linear, len| parts(linear, len).collect::<Vec<_>>();
        assert_eq!(parts(3, 8), vec![0..8; 1]);
        assert_eq!(parts(61, 8), [0..3, 3..8]);
        assert_eq!(parts(4094, 4), [0..2, 2..4]);
        assert_eq!(parts(32, 16), vec![0..16; 1]);
        assert_eq!(parts(36, 16), [0..8, 8..16]);
        assert_eq!(parts(58, 16), [0..6, 6..14, 14..16]);
        assert_eq!(parts(u64::MAX, 2), [0..1, 1..2]);
    }
}
