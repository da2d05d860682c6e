//! What code held at each place of the host's memory, so that bytes which were seen with two values are known to
//! change.

use icsan_model::addr::Linear;
use icsan_model::memory::PAGE;

/// Memory is remembered by aligned pieces of that many bytes.
pub(super) const PIECE: u64 = 64;

/// What segments have held in one piece of the host's memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    bytes: [u8; PIECE as usize],
    /// Bit n: byte n has been seen.
    known: u64,
    /// Bit n: byte n has been seen with different values.
    changed: u64,
}

impl Default for Seen {
    fn default() -> Self {
        Self { bytes: [0; PIECE as usize], known: 0, changed: 0 }
    }
}

impl Seen {
    /// Has any of these bytes, the first of which is byte `first`, been seen with another value, or several?
    pub(super) fn any_changed(&self, first: usize, bytes: &[u8]) -> bool {
        (first..)
            .zip(bytes)
            .any(|(bit, byte)| self.changed >> bit & 1 != 0 || (self.known >> bit & 1 != 0 && self.bytes[bit] != *byte))
    }

    /// Notes these bytes. Had any of them another value?
    pub(super) fn note(&mut self, first: usize, bytes: &[u8]) -> bool {
        let mut changed = false;
        for (bit, byte) in (first..).zip(bytes) {
            if self.known >> bit & 1 != 0 && self.bytes[bit] != *byte {
                self.changed |= 1 << bit;
                changed = true;
            }
            self.known |= 1 << bit;
            self.bytes[bit] = *byte;
        }
        changed
    }
}

/// The bytes of code at `host` in the host's memory, and `linear` in the guest's, by the pieces that they lie in:
/// number of the piece, the first byte's place in it, bytes. What crosses into the next page lies elsewhere, and is
/// left out.
pub(super) fn by_piece(host: u64, linear: Linear, bytes: &[u8]) -> impl Iterator<Item = (u64, usize, &[u8])> {
    let room = (PAGE - linear.0 % PAGE) as usize;
    let mut rest = &bytes[..bytes.len().min(room)];
    let mut at = host;
    std::iter::from_fn(move || {
        let first = (at % PIECE) as usize;
        let (here, behind) = rest.split_at(rest.len().min(PIECE as usize - first));
        let piece = at / PIECE;
        rest = behind;
        at += here.len() as u64;
        (!here.is_empty()).then_some((piece, first, here))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_lies_in_pieces_up_to_the_end_of_its_page() {
        let bytes: Vec<u8> = (0..200).collect();
        let pieces: Vec<_> = by_piece(0x1_0000 + 60, Linear(0x7f60), &bytes).collect();
        assert_eq!(
            pieces,
            [
                (0x400, 60, &bytes[..4]),
                (0x401, 0, &bytes[4..68]),
                (0x402, 0, &bytes[68..132]),
                (0x403, 0, &bytes[132..160])
            ]
        );
        assert_eq!(by_piece(0x1_0000, Linear(0x7000), &[]).count(), 0);
    }

    #[test]
    fn what_was_seen_with_two_values_has_changed() {
        let last = PIECE as usize - 1;
        for at in [0, 5, last] {
            let mut seen = Seen::default();
            assert!(!seen.any_changed(0, &[0; PIECE as usize]) && !seen.note(at, &[1]) && !seen.note(at, &[1]));
            assert!(!seen.any_changed(at, &[1]) && seen.any_changed(at, &[2]), "it would be the second value");
            assert!(seen.note(at, &[2]) && !seen.note(at, &[2]));
            assert!(seen.any_changed(at, &[2]) && seen.any_changed(at, &[1]), "whatever it is now");
            assert!(
                !seen.any_changed(0, &vec![0; at]) && !seen.any_changed(at + 1, &vec![0; last - at]),
                "the others have not"
            );
        }
    }
}
