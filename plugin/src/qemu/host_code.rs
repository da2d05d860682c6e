//! Code bytes where QEMU keeps guest memory in its own address space.
//!
//! At translation QEMU gives a host pointer for each instruction. Through it the plugin can see later whether memory still holds what was translated, without
//! asking QEMU, at the price of a few loads.

/// Where the bytes of a translated run lie in the host's memory: one piece for each guest page that an instruction starts in. Bytes of an
/// instruction that cross into a page where none starts have no known place and are not compared.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct HostCode {
    pieces: Vec<Piece>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Piece {
    /// Host address of the first byte.
    address: usize,
    /// Offset of that byte in the run.
    offset: usize,
    len: usize,
}

impl HostCode {
    /// Adds `len` bytes at `offset` of the run. Pieces that follow each other in host memory become one.
    pub(super) fn push(&mut self, address: usize, offset: usize, len: usize) {
        match self.pieces.last_mut() {
            Some(last) if last.address + last.len == address && last.offset + last.len == offset => last.len += len,
            _ => self.pieces.push(Piece { address, offset, len }),
        }
    }

    /// Host address of the first byte, as a stand-in for the physical address: equal exactly if the guest memory is the same.
    #[must_use]
    pub fn identity(&self) -> Option<usize> {
        self.pieces.first().map(|piece| piece.address)
    }

    /// Does memory hold `bytes` (the run's bytes) now? Bytes of unknown place count as held.
    #[must_use]
    pub fn holds(&self, bytes: &[u8]) -> bool {
        self.pieces.iter().all(|piece| match bytes.get(piece.offset..piece.offset + piece.len) {
            Some(bytes) => same(piece.address as *const u8, bytes),
            None => true,
        })
    }

    /// What memory holds now, where its place is known; `bytes` elsewhere.
    #[must_use]
    pub fn read(&self, bytes: &[u8]) -> Vec<u8> {
        let mut now = bytes.to_vec();
        for piece in &self.pieces {
            if let Some(part) = now.get_mut(piece.offset..piece.offset + piece.len) {
                for (index, byte) in part.iter_mut().enumerate() {
                    // SAFETY: as in `same`.
                    *byte = unsafe { ((piece.address + index) as *const u8).read_volatile() };
                }
            }
        }
        now
    }
}

fn same(memory: *const u8, bytes: &[u8]) -> bool {
    // SAFETY: QEMU gave this address for guest RAM (or ROM) that it translated from, and RAM blocks stay mapped as long as the machine lives (memory that is
    // unplugged from a running guest is not supported). Other host threads may write at the same time (guest stores): the comparison is left to C, which reads
    // plain bytes that have no invalid values, and an answer from a moment of change only means "changing right now", which the caller must expect anyway.
    unsafe { libc::memcmp(memory.cast(), bytes.as_ptr().cast(), bytes.len()) == 0 }
}

#[cfg(test)]
mod tests {
    use super::HostCode;

    #[test]
    fn sees_memory_change_in_every_byte() {
        let mut memory = *b"nineteen bytes here";
        let translated = memory;
        let mut code = HostCode::default();
        code.push(memory.as_ptr() as usize, 0, 10);
        code.push(memory.as_ptr() as usize + 10, 10, 9);
        assert_eq!(code.pieces.len(), 1);
        assert!(code.holds(&translated));
        for index in 0..memory.len() {
            memory[index] ^= 1;
            assert!(!code.holds(&translated), "byte {index}");
            assert_eq!(code.read(&translated), std::hint::black_box(&memory).to_vec());
            memory[index] ^= 1;
        }
    }
}
