//! Event recordings: the file that a run of ICSAN leaves for offline replay.
//!
//! A recording holds everything that the plugin told its model, in order, and what it made of it: the events
//! ([`Record::Event`], [`Record::Run`]) and the verdicts ([`Record::Verdict`]). [`icsan_model::model::Model::apply`],
//! fed with the events, must come to the same verdicts.
//!
//! # The file
//! ```text
//! file   = "ICSANREC" version:u32 block*
//! block  = kind:u8 number:u32 length:u32 payload's crc:u32 head's crc:u32 payload
//!          (numbers are little-endian, checksums CRC-32)
//! blocks = header, then records (some 64 KiB a block), then end
//! ```
//! Payloads are the codec's: a [`Header`], a list of [`Record`]s, [`Totals`]. The one file that knows the codec
//! (bincode) is `codec.rs`. Another codec, another layout of a block, or a change of [`Record`] or of
//! [`icsan_model::event::Event`] that old readers cannot read raises [`VERSION`]; a test pins the bytes of each
//! variant.
//!
//! *Cut off is not corrupt.* The end block is written last. A file that ends without one was cut off
//! ([`RecordingError::CutOff`]): QEMU was killed, the disk is full; everything in the whole blocks before is good. A
//! block's head has its own checksum, so a damaged length cannot look like a cut; blocks are numbered, so none can be
//! missing. A record and the verdicts that follow it are in one block (unless [`Writer::flush`] comes between them), so
//! a cut never makes a verdict seem to be missing.
//!
//! # Places in the order
//! The model gives each event that it applies the next [`icsan_model::addr::Seq`], counted from 1, and events name
//! earlier stores by it ([`icsan_model::event::Event::Commit`]). So [`Writer::push`] counts along: an event takes one
//! place, a run one for each of its instructions, a verdict none. That only fits if the model takes every event of the
//! file: it refuses impossible ones, such as a fetch from a page that it was never told of.
//!
//! # Bounds
//! The plugin writes inside QEMU, and a reader's input may be anything, so nothing here panics, and every allocation
//! has a bound ([`MAX_RECORD`], [`MAX_BLOCK`]).
#![forbid(unsafe_code)]

mod block;
mod codec;
mod error;
mod header;
mod reader;
mod record;
mod writer;

pub use block::{MAX_BLOCK, VERSION};
pub use error::RecordingError;
pub use header::{BufferKeys, Header, Totals};
pub use reader::Reader;
pub use record::Record;
pub use writer::{BLOCK, MAX_RECORD, Writer};
