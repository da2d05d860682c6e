//! Writing a recording.

use crate::block::{self, BlockKind, MAX_BLOCK};
use crate::codec;
use crate::error::RecordingError;
use crate::header::{Header, Totals};
use crate::record::Record;
use icsan_model::addr::Seq;
use std::io::Write;

/// A block of records is written as soon as its records have so many bytes.
pub const BLOCK: usize = 64 << 10;

/// The longest record, in bytes of the file.
pub const MAX_RECORD: usize = 1 << 20;

/// Writes a recording, a block at a time.
///
/// Every block is given to `W` in one call and flushed, so a file needs no buffer of its own, and a process that dies
/// leaves every block that it finished; at most [`BLOCK`] bytes of records, or one record and its verdicts, are lost
/// with it. After an error of `W` nothing more is written and every call fails ([`RecordingError::Broken`]): drop the
/// writer, and the file is readable up to there. Dropping one that was not finished writes what is pending, but no end
/// block.
#[derive(Debug)]
pub struct Writer<W: Write> {
    /// `None` after it failed or was finished.
    output: Option<W>,
    /// The number of the next block.
    number: u32,
    /// Encoded records that are not written yet, and how many.
    pending: Vec<u8>,
    count: u64,
    totals: Totals,
    last: Seq,
}

impl<W: Write> Writer<W> {
    /// Begins a recording: writes the header.
    ///
    /// # Errors
    /// The header is too large for a block, or `output` fails.
    pub fn new(output: W, header: &Header) -> Result<Self, RecordingError> {
        let mut payload = Vec::new();
        codec::encode(header, &mut payload).map_err(RecordingError::Encode)?;
        let block = block::seal(BlockKind::Header, 0, &payload)?;
        let mut writer = Self {
            output: Some(output),
            number: 1,
            pending: Vec::new(),
            count: 0,
            totals: Totals::default(),
            last: Seq(0),
        };
        writer.write(&[block::preamble(), block].concat())?;
        Ok(writer)
    }

    /// Adds a record and answers the place that the model gives to its event; to its last one, if it is a run of
    /// several (the `i`th of `n` has that place `- (n - i)`, `i` counted from 1); to the one before, if it has none (a
    /// verdict, an empty run). This is the [`Seq`] by which later events refer to a store.
    ///
    /// Verdicts must directly follow the record that they judge: threads that share a writer must hold its
    /// lock over both.
    ///
    /// # Errors
    /// `TooLarge` and `Encode`: this record is left out and takes no place; the caller should count it as
    /// [`Writer::dropped`]. Any other: the writer is of no more use.
    pub fn push(&mut self, record: Record) -> Result<Seq, RecordingError> {
        // A record and its verdicts stay together, unless there is no end of them (16: the number of records, and
        // room).
        let is_verdict = matches!(record, Record::Verdict { .. });
        if self.pending.len() >= if is_verdict { MAX_BLOCK - MAX_RECORD - 16 } else { BLOCK } {
            self.flush()?;
        }
        if self.output.is_none() {
            return Err(RecordingError::Broken);
        }
        let before = self.pending.len();
        codec::encode(&record, &mut self.pending).map_err(RecordingError::Encode)?;
        let len = self.pending.len() - before;
        if len > MAX_RECORD {
            self.pending.truncate(before);
            return Err(RecordingError::TooLarge { len, max: MAX_RECORD });
        }
        self.count += 1;
        self.totals.records += 1;
        self.totals.hazards += u64::from(is_verdict);
        self.last = Seq(self.last.0.saturating_add(record.places()));
        Ok(self.last)
    }

    /// The place of the last event: what [`Writer::push`] answered last.
    #[must_use]
    pub const fn last(&self) -> Seq {
        self.last
    }

    /// What was written so far, pending records included.
    #[must_use]
    pub const fn totals(&self) -> Totals {
        self.totals
    }

    /// So many things happened that are not in the recording. The end block will say so.
    pub const fn dropped(&mut self, count: u64) {
        self.totals.dropped = self.totals.dropped.saturating_add(count);
    }

    /// Writes what is pending, as a block of its own. There is no need to call it other than before the process may
    /// die; not between a record and its verdicts.
    ///
    /// # Errors
    /// Those of the output.
    pub fn flush(&mut self) -> Result<(), RecordingError> {
        if self.count == 0 {
            return if self.output.is_some() { Ok(()) } else { Err(RecordingError::Broken) };
        }
        let payload = codec::list(self.count, &self.pending).map_err(RecordingError::Encode)?;
        self.pending.clear();
        self.count = 0;
        self.block(BlockKind::Records, &payload)
    }

    /// Writes what is pending and the end block, and gives the output back.
    ///
    /// # Errors
    /// Those of the output.
    pub fn finish(mut self) -> Result<W, RecordingError> {
        self.flush()?;
        let mut payload = Vec::new();
        codec::encode(&self.totals, &mut payload).map_err(RecordingError::Encode)?;
        self.block(BlockKind::End, &payload)?;
        self.output.take().ok_or(RecordingError::Broken)
    }

    fn block(&mut self, kind: BlockKind, payload: &[u8]) -> Result<(), RecordingError> {
        let block = block::seal(kind, self.number, payload)?;
        self.number = self.number.wrapping_add(1);
        self.write(&block)
    }

    /// After a failure the output is gone: a block may be half written, and nothing can follow it.
    fn write(&mut self, bytes: &[u8]) -> Result<(), RecordingError> {
        let mut output = self.output.take().ok_or(RecordingError::Broken)?;
        output.write_all(bytes)?;
        output.flush()?;
        self.output = Some(output);
        Ok(())
    }
}

impl<W: Write> Drop for Writer<W> {
    fn drop(&mut self) {
        // Nobody is left to hear of a failure. After `finish` there is nothing pending.
        let _ = self.flush();
    }
}
