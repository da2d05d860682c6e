//! Blocks: a payload with its kind, its number, its length, and checksums.

use crate::error::RecordingError;
use crate::version::VERSION;
use std::io::{self, ErrorKind, Read};

/// The longest payload of a block, in bytes. No reader allocates more for one.
pub const MAX_BLOCK: usize = 2 << 20;

pub(crate) const MAGIC: [u8; 8] = *b"ICSANREC";

/// Bytes before a payload.
const HEAD: usize = 1 + 4 * 4;

/// What a payload is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum BlockKind {
    Header = 1,
    Records = 2,
    End = 3,
}

/// What precedes the first block.
pub(crate) fn preamble() -> Vec<u8> {
    [&MAGIC[..], &VERSION.to_le_bytes()].concat()
}

/// A whole block, as one piece: it is written with one call.
pub(crate) fn seal(kind: BlockKind, number: u32, payload: &[u8]) -> Result<Vec<u8>, RecordingError> {
    let too_large = || RecordingError::TooLarge { len: payload.len(), max: MAX_BLOCK };
    let length =
        u32::try_from(payload.len()).ok().filter(|length| *length as usize <= MAX_BLOCK).ok_or_else(too_large)?;
    let mut block = Vec::with_capacity(HEAD + payload.len());
    block.push(kind as u8);
    for field in [number, length, crc32fast::hash(payload)] {
        block.extend_from_slice(&field.to_le_bytes());
    }
    block.extend_from_slice(&crc32fast::hash(&block).to_le_bytes());
    block.extend_from_slice(payload);
    Ok(block)
}

/// What a look for the next block found.
pub(crate) enum Found {
    Block(BlockKind, Vec<u8>),
    /// The file ends, between blocks or in one.
    CutOff,
}

/// Reads the block of that number.
pub(crate) fn read(input: &mut impl Read, number: u32) -> Result<Found, RecordingError> {
    let corrupt = |what: &str| RecordingError::Corrupt { block: number, what: what.to_owned() };
    let mut head = [0; HEAD];
    if fill(input, &mut head)? < HEAD {
        return Ok(Found::CutOff);
    }
    let field = |at: usize| head[at..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
    if field(13) != crc32fast::hash(&head[..13]) {
        return Err(corrupt("its head does not have its checksum"));
    }
    let kind = [BlockKind::Header, BlockKind::Records, BlockKind::End].into_iter().find(|kind| *kind as u8 == head[0]);
    let kind = kind.ok_or_else(|| corrupt("it is of no known kind"))?;
    if field(1) != number {
        return Err(corrupt(&format!("it calls itself block {}", field(1))));
    }
    let length = field(5) as usize;
    if length > MAX_BLOCK {
        return Err(corrupt("it is longer than any block"));
    }
    let mut payload = vec![0; length];
    if fill(input, &mut payload)? < length {
        return Ok(Found::CutOff);
    }
    if field(9) != crc32fast::hash(&payload) {
        return Err(corrupt("its contents do not have their checksum"));
    }
    Ok(Found::Block(kind, payload))
}

/// Reads as much as there is. Answers how much that was.
pub(crate) fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled = (filled + count).min(buffer.len()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
