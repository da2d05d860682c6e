//! What can go wrong with a recording, each in one line.

use crate::version::VERSION;
use std::io;
use thiserror::Error;

/// Why a recording cannot be written, or not be read any further.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RecordingError {
    /// The operating system said no.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The file does not begin as a recording does.
    #[error("not a recording: it does not begin with ICSANREC")]
    BadMagic,
    /// The file is of a later version of the format.
    #[error("a recording of format version {found}; this program knows versions up to {VERSION}: use a newer one")]
    NewerVersion {
        /// The version that the file says it has.
        found: u32,
    },
    /// The file ends before its end block. What was read until here is good.
    #[error("the recording was cut off after {records} records")]
    CutOff {
        /// How many records were read.
        records: u64,
    },
    /// The file holds something that no writer wrote.
    #[error("block {block} of the recording is corrupt: {what}")]
    Corrupt {
        /// The block's number; the header is block 0.
        block: u32,
        /// What is wrong with it.
        what: String,
    },
    /// The writer was given a record, or a header, that no reader would take. The recording is as it was before.
    #[error("a record of {len} bytes; {max} at most")]
    TooLarge {
        /// Its length in the file, in bytes.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// The codec refused what the writer was given. The recording is as it was before.
    #[error("a record cannot be written: {0}")]
    Encode(String),
    /// Writing failed before, and nothing can follow a block that may be half written.
    #[error("writing the recording failed before; nothing was written since")]
    Broken,
}
